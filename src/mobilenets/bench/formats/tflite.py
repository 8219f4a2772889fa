"""A network as a float32 TensorFlow Lite file, by the schema's own classes: NHWC, its first output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.spec.codec import op_name
from mobilenets.spec.net import Node, shapes
from mobilenets.spec.op import (
    Activation,
    Add,
    Conv,
    Dense,
    Depthwise,
    Op,
    Padding,
    Pointwise,
    Pool,
    Shape,
    pads,
)

FUSED: dict[Activation, int] = {"none": 0, "relu": 1, "relu6": 3}
SAME, VALID = 0, 1
VERSION = 3
SIGNATURE, INPUT = "serving_default", "image"
"""By which quantisers ask for the graph and its input."""
CODES = {"PAD": 34, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "MEAN": 40, "FULLY_CONNECTED": 9, "ADD": 0}


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
    vectors: set[str] = set()
    for node in net.nodes:
        own = {
            part: weights[f"{node.name}.{part}"]
            for part in ("weight", "bias")
            if f"{node.name}.{part}" in weights
        }
        if isinstance(node.op, Pool | Dense) or (isinstance(node.op, Add) and vectors >= set(node.inputs)):
            vectors.add(node.name)
        shape = (1, known[node.name].channels) if node.name in vectors else (1, *known[node.name])
        y = graph.tensor(node.name, shape)
        graph.add(node, [values[name] for name in node.inputs], y, known[node.inputs[0]], own)
        values[node.name] = y
        if node.name == last:
            graph.outputs = [y]
            break
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
        self, node: Node, given: list[int], y: int, seen: Shape, own: dict[str, NDArray[np.float32]]
    ) -> None:
        """The operators of one node, from the tensors `given`, each of shape `seen`, to tensor `y`."""
        op: Op = node.op
        x = given[0]
        if "weight" in own and "bias" not in own:
            own["bias"] = np.zeros(own["weight"].shape[0], np.float32)
        match op:
            case Conv() | Depthwise() | Pointwise():
                x, padding = self._padded(node.name, op, x, seen)
                stride = 1 if isinstance(op, Pointwise) else op.stride
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
                options.fusedActivationFunction = FUSED[op.activation]
                inputs = [x, self.constant(f"{node.name}.weight", weight)]
                self._operator(kind, [*inputs, self.constant(f"{node.name}.bias", own["bias"])], y, options)
            case Pool():
                options = self._schema.ReducerOptionsT()
                options.keepDims = False
                axes = self.constant(f"{node.name}.axes", np.array([1, 2], np.int32))
                self._operator("MEAN", [x, axes], y, options)
            case Dense():
                options = self._schema.FullyConnectedOptionsT()
                inputs = [x, self.constant(f"{node.name}.weight", own["weight"])]
                bias = self.constant(f"{node.name}.bias", own["bias"])
                self._operator("FULLY_CONNECTED", [*inputs, bias], y, options)
            case Add():
                for index, other in enumerate(given[1:], 2):
                    sum_ = y if index == len(given) else self.tensor(f"{node.name}.{index}", (1, *seen))
                    self._operator("ADD", [x, other], sum_, self._schema.AddOptionsT())
                    x = sum_
            case _:
                raise ValueError(f"{node.name}: a {op_name(op)} cannot be written for LiteRT yet")

    def _padded(self, name: str, op: Conv | Depthwise | Pointwise, x: int, seen: Shape) -> tuple[int, int]:
        """The input of a convolution and its padding: TensorFlow's own, or a PAD before it."""
        if isinstance(op, Pointwise):
            return x, SAME
        here: Padding = op.padding
        rows, columns = (pads(side, op.kernel, op.stride, here) for side in seen[:2])
        if (rows, columns) == tuple(pads(side, op.kernel, op.stride, "same") for side in seen[:2]):
            return x, SAME
        amounts = np.array([[0, 0], rows, columns, [0, 0]], np.int32)
        shape = (1, seen.height + sum(rows), seen.width + sum(columns), seen.channels)
        y = self.tensor(f"{name}.padded", shape)
        self._operator("PAD", [x, self.constant(f"{name}.pads", amounts)], y, self._schema.PadOptionsT())
        return y, VALID

    def _operator(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        made = self._schema.OperatorT()
        made.opcodeIndex = list(CODES).index(kind)
        made.inputs, made.outputs, made.builtinOptions = inputs, [output], options
        named = type(options).__name__.removesuffix("T")
        made.builtinOptionsType = getattr(self._schema.BuiltinOptions, named)
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
