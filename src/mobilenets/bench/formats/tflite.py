"""A network as a float32 TensorFlow Lite file, by the schema's own classes: NHWC, its first output."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.infer.walk import windows
from mobilenets.spec.net import Node, needed, shapes
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Dense,
    Depthwise,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    Windowed,
    around,
    pads,
    sides,
)

FUSED: dict[Activation, int] = {"none": 0, "relu": 1, "relu6": 3}
"""What an operator does itself after it."""
ALONE: dict[Activation, str] = {
    "relu": "RELU",
    "relu6": "RELU6",
    "hswish": "HARD_SWISH",
    "sigmoid": "LOGISTIC",
}
"""The same as an operator."""
RELU6 = 3
LEAST = np.float32(-3.0e38)
SAME, VALID = 0, 1
VERSION = 3
SIGNATURE, INPUT = "serving_default", "image"
"""By which quantisers ask for the graph and its input."""
CODES = {
    "PAD": 34,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "MEAN": 40,
    "FULLY_CONNECTED": 9,
    "ADD": 0,
    "MAX_POOL_2D": 17,
    "AVERAGE_POOL_2D": 1,
    "PADV2": 60,
    "MUL": 18,
    "CONCATENATION": 2,
    "RESHAPE": 22,
    "TRANSPOSE": 39,
    "SLICE": 65,
    "RELU": 19,
    "RELU6": 21,
    "HARD_SWISH": 117,
    "LOGISTIC": 14,
}


def write(model: Artefact, path: Path) -> None:
    """Write `model` as a .tflite file."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    graph = _Graph(schema)
    net, weights = fold(model.net, model.weights)
    known = shapes(net)
    last = net.outputs[0].node
    values = {"image": graph.tensor("image", (1, *net.input))}
    graph.inputs = [values["image"]]
    nodes = needed(net, [last])
    vectors: set[str] = set()
    for node in nodes:
        own = {
            part: weights[f"{node.name}.{part}"]
            for part in ("weight", "bias")
            if f"{node.name}.{part}" in weights
        }
        readers = [one.op for one in nodes if node.name in one.inputs]
        pooled = isinstance(node.op, Pool) and all(isinstance(op, Dense | Add) for op in readers)
        if pooled or isinstance(node.op, Dense) or (isinstance(node.op, Add) and vectors >= set(node.inputs)):
            vectors.add(node.name)
        shape = (1, known[node.name].channels) if node.name in vectors else (1, *known[node.name])
        y = graph.tensor(node.name, shape)
        graph.add(node, [values[name] for name in node.inputs], y, [known[name] for name in node.inputs], own)
        values[node.name] = y
    graph.outputs = [values[last]]
    if last not in vectors and known[last][:2] == (1, 1):
        graph.outputs = [graph.reshaped(values[last], "vector", (1, known[last].channels))]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(graph.model().Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


class _Graph:
    """Tensors, buffers and operators as they come."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]
        self._operators: list[Any] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    def tensor(self, name: str, shape: tuple[int, ...], value: NDArray[Any] | None = None) -> int:
        """A tensor's number; one without a value is computed."""
        made = self._schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), 0
        made.type = self._schema.TensorType.FLOAT32
        if value is not None:
            if value.dtype == np.int32:
                made.type = self._schema.TensorType.INT32
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
            made.buffer = len(self._buffers)
            self._buffers.append(buffer)
        self._tensors.append(made)
        return len(self._tensors) - 1

    def constant(self, name: str, value: NDArray[Any]) -> int:
        return self.tensor(name, value.shape, value)

    def add(
        self, node: Node, given: list[int], y: int, seen: list[Shape], own: dict[str, NDArray[np.float32]]
    ) -> None:
        """The operators of one node, from the tensors `given` of shapes `seen` to tensor `y`."""
        op: Op = node.op
        x, of = given[0], seen[0]
        if "weight" in own and "bias" not in own:
            own["bias"] = np.zeros(own["weight"].shape[0], np.float32)
        match op:
            case Conv() | Depthwise() | Pointwise():
                self._convolution(node.name, op, x, y, of, own)
            case Pool():
                options = self._schema.ReducerOptionsT()
                options.keepDims = len(self._tensors[y].shape) > 2
                axes = self.constant(f"{node.name}.axes", np.array([1, 2], np.int32))
                self._operator("MEAN", [x, axes], y, options)
            case MaxPool() | MeanPool():
                self._window(node.name, op, x, y, of)
            case Dense():
                options = self._schema.FullyConnectedOptionsT()
                inputs = [x, self.constant(f"{node.name}.weight", own["weight"])]
                bias = self.constant(f"{node.name}.bias", own["bias"])
                self._operator("FULLY_CONNECTED", [*inputs, bias], y, options)
            case Add():
                for index, other in enumerate(given[1:], 2):
                    after = op.activation if index == len(given) else "none"
                    sum_ = y if index == len(given) else self._like(y, f"{node.name}.{index}")
                    self._activated("ADD", [x, other], sum_, self._schema.AddOptionsT(), after)
                    x = sum_
            case Mul():
                self._operator("MUL", given, y, self._schema.MulOptionsT())
            case Concat():
                options = self._schema.ConcatenationOptionsT()
                options.axis = 3
                self._operator("CONCATENATION", given, y, options)
            case Slice():
                begin = np.array([0, 0, 0, op.begin], np.int32)
                size = np.array([1, *of[:2], op.end - op.begin], np.int32)
                ends = [self.constant(f"{node.name}.begin", begin), self.constant(f"{node.name}.size", size)]
                self._operator("SLICE", [x, *ends], y, self._schema.SliceOptionsT())
            case Shuffle():
                pixels, each = of.height * of.width, of.channels // op.groups
                dealt = self.reshaped(x, f"{node.name}.dealt", (1, pixels, op.groups, each))
                turned = self.tensor(f"{node.name}.turned", (1, pixels, each, op.groups))
                order = self.constant(f"{node.name}.order", np.array([0, 1, 3, 2], np.int32))
                self._operator("TRANSPOSE", [dealt, order], turned, self._schema.TransposeOptionsT())
                self.reshaped(turned, node.name, (1, *of), y)
            case Activate():
                self._activation(x, y, op.activation)
            case _:
                assert_never(op)

    def reshaped(self, x: int, name: str, shape: tuple[int, ...], y: int | None = None) -> int:
        """The tensor `x` in another shape, as `y` or as a new one."""
        y = self.tensor(name, shape) if y is None else y
        options = self._schema.ReshapeOptionsT()
        options.newShape = list(shape)
        self._operator("RESHAPE", [x, self.constant(f"{name}.shape", np.array(shape, np.int32))], y, options)
        return y

    def _like(self, y: int, name: str) -> int:
        """A tensor of the shape of `y`."""
        return self.tensor(name, tuple(self._tensors[y].shape))

    def _convolution(
        self,
        name: str,
        op: Conv | Depthwise | Pointwise,
        x: int,
        y: int,
        seen: Shape,
        own: dict[str, NDArray[np.float32]],
    ) -> None:
        padding, stride = SAME, 1
        if not isinstance(op, Pointwise):
            x, padding = self._padded(name, op, x, seen)
            stride = op.stride
        if isinstance(op, Depthwise):
            kind, options = "DEPTHWISE_CONV_2D", self._schema.DepthwiseConv2DOptionsT()
            options.depthMultiplier = 1
            weight = own["weight"].transpose(1, 2, 3, 0)
        else:
            kind, options = "CONV_2D", self._schema.Conv2DOptionsT()
            weight = own["weight"].transpose(0, 2, 3, 1)
        options.padding = padding
        options.strideW = options.strideH = stride
        options.dilationWFactor = options.dilationHFactor = 1
        inputs = [x, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", own["bias"])]
        self._activated(kind, inputs, y, options, op.activation)

    def _window(self, name: str, op: MaxPool | MeanPool, x: int, y: int, seen: Shape) -> None:
        """A pool: what is not padded as TensorFlow pads is padded before it, a mean put right after it."""
        mean = isinstance(op, MeanPool)
        options = self._schema.Pool2DOptionsT()
        options.filterHeight = options.filterWidth = op.kernel
        options.strideH = options.strideW = op.stride
        x, options.padding = self._padded(name, op, x, seen, None if mean else LEAST)
        short = mean and options.padding == VALID and around(op, seen) != ((0, 0), (0, 0))
        made = self._like(y, f"{name}.sum") if short else y
        self._operator("AVERAGE_POOL_2D" if mean else "MAX_POOL_2D", [x], made, options)
        if short:
            inside = windows(np.ones((1, *seen[:2], 1), np.float32), op).sum(axis=(-2, -1))
            more = self.constant(f"{name}.more", np.asarray(op.kernel**2 / inside, np.float32))
            self._operator("MUL", [made, more], y, self._schema.MulOptionsT())

    def _padded(
        self, name: str, op: Windowed, x: int, seen: Shape, value: np.float32 | None = None
    ) -> tuple[int, int]:
        """A window's input and its padding: TensorFlow's own, or a PAD before it, with zeros or `value`."""
        rows, columns = around(op, seen)
        if rows == columns == (0, 0):
            return x, VALID
        own = zip(seen[:2], sides(op), strict=True)
        if (rows, columns) == tuple(pads(side, kernel, op.stride, "same") for side, kernel in own):
            return x, SAME
        amounts = np.array([[0, 0], rows, columns, [0, 0]], np.int32)
        shape = (1, seen.height + sum(rows), seen.width + sum(columns), seen.channels)
        y = self.tensor(f"{name}.padded", shape)
        inputs = [x, self.constant(f"{name}.pads", amounts)]
        if value is None:
            self._operator("PAD", inputs, y, self._schema.PadOptionsT())
        else:
            inputs.append(self.constant(f"{name}.outside", np.array(value)))
            self._operator("PADV2", inputs, y, self._schema.PadV2OptionsT())
        return y, VALID

    def _activated(self, kind: str, inputs: list[int], y: int, options: Any, activation: Activation) -> None:
        """An operator with an activation after it, its own or one of another operator."""
        if activation in FUSED:
            options.fusedActivationFunction = FUSED[activation]
            self._operator(kind, inputs, y, options)
            return
        made = self._like(y, f"{self._tensors[y].name.decode()}.plain")
        self._operator(kind, inputs, made, options)
        self._activation(made, y, activation)

    def _activation(self, x: int, y: int, activation: Activation) -> None:
        named = self._tensors[y].name.decode()
        match activation:
            case "relu" | "relu6" | "hswish" | "sigmoid":
                self._operator(ALONE[activation], [x], y, None)
            case "hsigmoid":
                more, made = self._schema.AddOptionsT(), self._like(y, f"{named}.six")
                more.fusedActivationFunction = RELU6
                three, part = (np.array([value], np.float32) for value in (3, 1 / 6))
                self._operator("ADD", [x, self.constant(f"{named}.three", three)], made, more)
                inputs = [made, self.constant(f"{named}.sixth", part)]
                self._operator("MUL", inputs, y, self._schema.MulOptionsT())
            case "swish":
                gate = self._like(y, f"{named}.gate")
                self._operator("LOGISTIC", [x], gate, None)
                self._operator("MUL", [x, gate], y, self._schema.MulOptionsT())
            case "none":
                self.reshaped(x, named, tuple(self._tensors[y].shape), y)
            case _:
                assert_never(activation)

    def _operator(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        made = self._schema.OperatorT()
        made.opcodeIndex = list(CODES).index(kind)
        made.inputs, made.outputs = inputs, [output]
        if options is not None:
            named = type(options).__name__.removesuffix("T")
            made.builtinOptions, made.builtinOptionsType = (
                options,
                getattr(self._schema.BuiltinOptions, named),
            )
        self._operators.append(made)

    def model(self) -> Any:
        """The whole file."""
        made, graph = self._schema.ModelT(), self._schema.SubGraphT()
        made.version, made.description = VERSION, b"written by mobilenets"
        made.operatorCodes = []
        for number in CODES.values():
            code = self._schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = number
            code.version = 1
            made.operatorCodes.append(code)
        graph.tensors, graph.operators = self._tensors, self._operators
        graph.inputs, graph.outputs, graph.name = self.inputs, self.outputs, b"main"
        made.subgraphs, made.buffers = [graph], self._buffers
        signature = self._schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
        signature.inputs = [self._named(INPUT, self.inputs[0])]
        signature.outputs = [self._named("output", self.outputs[0])]
        made.signatureDefs = [signature]
        return made

    def _named(self, name: str, tensor: int) -> Any:
        made = self._schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), tensor
        return made
