"""TensorFlow Lite files: their chain of operators read as a network of the zoo, in float32 or in integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mobilenets.infer import tflite_integers
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.flatbuffer import DamagedError, Table
from mobilenets.infer.integer import check
from mobilenets.infer.recognise import Layer, Tensor, labels_for, recognise
from mobilenets.infer.scale import Scale
from mobilenets.infer.tflite_integers import halves_up, scale_of
from mobilenets.infer.tflite_schema import Entry, Graph, Operator
from mobilenets.spec.net import shape_after
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
    slid,
)
from mobilenets.spec.preprocess import Preprocess

MAGIC = b"TFL3"
"""At byte 4 of every file."""
MOST_SIDE = 4096
ACTIVATIONS: dict[int, Activation] = {0: "none", 1: "relu", 3: "relu6"}
KNOWN = frozenset(
    {"ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "DEQUANTIZE", "FULLY_CONNECTED", "MEAN", "PAD"}
    | {"QUANTIZE", "RELU", "RELU6", "RESHAPE", "SOFTMAX", "SQUEEZE"}
)
SUBNORMAL = float(np.finfo(np.float32).tiny)


def read(data: bytes, *, integers: bool = False) -> Artefact:
    """The V1 or V2 in a .tflite file, batch norm folded as it is there, uint8 and int8 weights dequantised.

    With `integers` a file that takes bytes stays quantised as it is, with its own scales.
    Logits are taken before a closing softmax. Raises ValueError, one line that says what the file is not.
    """
    if data[4:8] != MAGIC:
        raise ValueError("no TensorFlow Lite file: bytes 4 to 8 are not TFL3")
    try:
        return _read(Graph(data), integers)
    except DamagedError as error:
        raise ValueError(f"a damaged TensorFlow Lite file ({error}); get it again") from error


def _read(graph: Graph, integers: bool) -> Artefact:
    if len(graph.inputs) != 1:
        raise ValueError(f"it takes {len(graph.inputs)} inputs; a V1 or V2 takes one picture")
    entry = graph.tensor(graph.inputs[0])
    if len(entry.shape) != 4 or entry.shape[0] not in (1, -1) or entry.shape[3] != 3:
        raise ValueError(f"its input is {list(entry.shape)}; a V1 or V2 takes [1, height, width, 3]")
    image = Shape(entry.shape[1], entry.shape[2], 3)
    if not (1 <= image.height <= MOST_SIDE and 1 <= image.width <= MOST_SIDE):
        raise ValueError(
            f"its input is {image.height} × {image.width} pixels; sides must lie in 1…{MOST_SIDE}"
        )
    quantised = entry.dtype in ("u1", "i1")
    chain = _Chain(graph, graph.inputs[0], image, integers=integers and quantised)
    unknown = Counter(operator.name for operator in graph.operators if operator.name not in KNOWN)
    if unknown:
        listed = ", ".join(f"{name} × {count}" for name, count in unknown.most_common(8))
        raise ValueError(f"it has operators that no V1 or V2 classifier has: {listed}{_where(chain, graph)}")
    for operator in graph.operators:
        chain.take(operator)
    net, weights = recognise(chain.layers, image)
    pre, told = _preprocess(entry, net.input, chain)
    source = {"format": "tflite", "weights": chain.kinds(), "input": told}
    if integers and quantised:
        named = zip(net.nodes, chain.scales, strict=True)
        scales = {node.name: scale for node, scale in named if scale is not None}
        check(net, weights, scales)
        return Artefact(net, weights, pre, labels_for(net), source=source, scales=scales)
    if quantised:
        source["note"] = "integer activations in the file run here in float32"
    return Artefact(net=net, weights=weights, preprocess=pre, labels=labels_for(net), source=source)


def _where(chain: _Chain, graph: Graph) -> str:
    """Where the layers before the first unknown operator leave the zoo, for the message."""
    try:
        for operator in graph.operators:
            if operator.name not in KNOWN:
                break
            chain.take(operator)
    except ValueError:
        return ""  # what comes before does not even make a chain; the operators' names say enough
    try:
        recognise(chain.layers, chain.image)
    except ValueError as error:
        return f"; {error}"
    return ""


def _preprocess(entry: Entry, image: Shape, chain: _Chain) -> tuple[Preprocess, str]:
    """Levels to the network's input as the file's own quantisation says; files in float32 don't say."""
    if entry.dtype in ("u1", "i1"):
        if len(entry.scale) != 1 or not SUBNORMAL < float(entry.scale[0]) < 1e3 or len(entry.zero) > 1:
            raise DamagedError("an integer input without one scale")
        zero = int(entry.zero[0]) if len(entry.zero) else 0
        if abs(zero) > 255:
            raise DamagedError(f"an input's zero point of {zero}")
        # q is the level itself as uint8, the level − 128 as int8.
        mean = float(zero if entry.dtype == "u1" else zero + 128)
        std = float(f"{1 / float(entry.scale[0]):.6g}")
        told = "levels as the file's quantisation says"
    elif chain.tiny:
        mean, std = 0.0, 255.0
        told = "levels / 255, as MLPerf Tiny's person detector is trained; the file does not say"
    else:
        mean = std = 127.5
        told = "(levels − 127.5) / 127.5, as TensorFlow's V1 and V2 are trained; the file does not say"
    pre = Preprocess(height=image.height, width=image.width, mean=(mean,) * 3, std=(std,) * 3)
    return pre, told


class _Chain:
    """Operators taken one after the other into layers, each reading what the one before it wrote."""

    def __init__(self, graph: Graph, start: int, image: Shape, *, integers: bool) -> None:
        self.image, self.layers = image, list[Layer]()
        self.scales: list[Scale | None] = []
        """Of each layer's result; all None unless the file's integers are wanted."""
        self._integers = integers
        self._graph, self._now, self._shape = graph, start, image
        self._made: dict[int, tuple[int, Shape]] = {}
        """Of each tensor the number of the layer that gives it, and its shape."""
        self._aliases: dict[int, int] = {}
        self._pad: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._ended = False
        self._types: Counter[str] = Counter()

    @property
    def tiny(self) -> bool:
        """MLPerf Tiny's person detector (arXiv:2106.07597): 96 pixels, plain relu, a dense layer of two."""
        ops = [layer.op for layer in self.layers]
        head = ops[-1] if ops else None
        first = ops[0] if ops else None
        return (
            self.image[:2] == (96, 96)
            and isinstance(head, Dense)
            and head.out == 2
            and isinstance(first, Conv)
            and first.activation == "relu"
        )

    def kinds(self) -> str:
        """The types in which the file keeps its weights."""
        names = {"<f4": "float32", "<f2": "float16", "u1": "uint8", "i1": "int8"}
        return " and ".join(names.get(kind, kind) for kind in sorted(self._types))

    def take(self, operator: Operator) -> None:
        """Add one operator. Raises ValueError where it does not continue the chain."""
        if not operator.inputs or len(operator.outputs) != 1:
            raise DamagedError(
                f"{operator.name} with {len(operator.inputs)} inputs, {len(operator.outputs)} outputs"
            )
        first = operator.inputs[0]
        if operator.name == "DEQUANTIZE" and self._graph.is_constant(first):
            self._aliases[operator.outputs[0]] = first
            return
        if self._now not in (operator.inputs if operator.name == "ADD" else operator.inputs[:1]):
            raise ValueError(f"{operator.name} does not follow the layer before it: no V1 or V2 does that")
        if self._ended:
            raise ValueError(f"{operator.name} after the closing softmax")
        if self._pad is not None and operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            raise ValueError(f"{operator.name} after a PAD: only convolutions are padded in a V1 or V2")
        match operator.name:
            case "CONV_2D":
                self._convolution(operator, depthwise=False)
            case "DEPTHWISE_CONV_2D":
                self._convolution(operator, depthwise=True)
            case "FULLY_CONNECTED":
                self._dense(operator)
            case "AVERAGE_POOL_2D" | "MEAN":
                self._pool(operator)
            case "ADD":
                self._sum(operator)
            case "PAD":
                self._padding(operator)
            case "RELU" | "RELU6":
                self._activation("relu" if operator.name == "RELU" else "relu6")
            case "SOFTMAX":
                self._ended = True
            case "RESHAPE" | "SQUEEZE":
                if self._shape[:2] != (1, 1):
                    raise ValueError(f"{operator.name} of a map of {list(self._shape)}: a V1 pools before it")
            case "QUANTIZE" | "DEQUANTIZE":
                pass
            case name:
                raise ValueError(f"{name} is in no V1 or V2 classifier")
        self._now = operator.outputs[0]
        self._made[self._now] = len(self.layers) - 1, self._shape
        self._scaled(operator)

    def _scaled(self, operator: Operator) -> None:
        """Note what the layer just added gives, in integers; refuse what they don't do alike."""
        new = len(self.layers) - len(self.scales)
        if not self._integers:
            self.scales += [None] * new
            return
        if new:
            scale = scale_of(self._graph.tensor(operator.outputs[0]))
            mean = isinstance(self.layers[-1].op, Pool)
            self.scales.append(halves_up(scale) if mean else scale)
            return
        before, after = (self._graph.tensor(i) for i in (operator.inputs[0], operator.outputs[0]))
        same = operator.name not in ("QUANTIZE", "PAD") or scale_of(before) == scale_of(after)
        if operator.name in ("RELU", "RELU6") or not same:
            raise ValueError(
                f"{operator.name} rounds between layers, not defined here; read it without its integers"
            )

    def _convolution(self, operator: Operator, *, depthwise: bool) -> None:
        options = _options(operator)
        activation = _activation(options, 4 if depthwise else 3)
        stride, across = options.count(2, "i"), options.count(1, "i")
        dilation = (options.count(6, "i", 1), options.count(5, "i", 1))
        if not depthwise:
            dilation = (options.count(5, "i", 1), options.count(4, "i", 1))
        if stride != across or not 1 <= stride <= 64 or dilation != (1, 1):
            raise ValueError(f"{operator.name} with strides {stride}, {across} and dilation {list(dilation)}")
        parts = self._weights(operator, 4)
        weight = parts["weight"]
        if weight.shape[1] != weight.shape[2] or weight.shape[1] > 64:
            raise ValueError(f"{operator.name} with a kernel of {weight.shape[1]} × {weight.shape[2]}")
        kernel, seen = weight.shape[1], weight.shape[3]
        if seen != self._shape.channels or (depthwise and weight.shape[0] != 1):
            raise ValueError(
                f"{operator.name} with a weight of {list(weight.shape)} on {self._shape.channels} channels"
            )
        padding = self._padding_of(
            operator, kernel, stride, "same" if options.count(0, "b") == 0 else "valid"
        )
        op: Op
        if depthwise:
            op = Depthwise(kernel=kernel, stride=stride, padding=padding, bias=True, activation=activation)
            weight = weight.transpose(3, 0, 1, 2)
        elif self._shape[:2] == (1, 1) and self._pooled:
            self._add(Dense(out=weight.shape[0]), parts | {"weight": weight[:, 0, 0]}, operator)
            if activation != "none" or kernel != 1:
                raise ValueError(f"a head with {activation} and a kernel of {kernel}")
            return
        elif kernel == stride == 1:
            op = Pointwise(out=weight.shape[0], bias=True, activation=activation)
            weight = weight.transpose(0, 3, 1, 2)
        else:
            op = Conv(
                out=weight.shape[0],
                kernel=kernel,
                stride=stride,
                padding=padding,
                bias=True,
                activation=activation,
            )
            weight = weight.transpose(0, 3, 1, 2)
        self._add(op, parts | {"weight": weight}, operator)

    @property
    def _pooled(self) -> bool:
        return any(isinstance(layer.op, Pool) for layer in self.layers)

    def _dense(self, operator: Operator) -> None:
        options = _options(operator)
        if _activation(options, 0) != "none" or options.count(1, "b"):
            raise ValueError(
                "FULLY_CONNECTED with an activation or a shuffled weight: no V1 classifier has that"
            )
        parts = self._weights(operator, 2)
        weight = parts["weight"]
        if self._shape[:2] != (1, 1) or weight.shape[1] != self._shape.channels:
            raise ValueError(f"FULLY_CONNECTED with a weight of {list(weight.shape)} on {list(self._shape)}")
        self._add(Dense(out=weight.shape[0]), parts, operator)

    def _weights(self, operator: Operator, dimensions: int) -> dict[str, Tensor]:
        if len(operator.inputs) < 2:
            raise DamagedError(f"{operator.name} without a weight")
        place = self._aliases.get(operator.inputs[1], operator.inputs[1])
        if place < 0 or not self._graph.is_constant(place):
            raise ValueError(f"{operator.name} with a weight that is computed, not kept")
        entry = self._graph.tensor(place)
        if len(entry.shape) != dimensions:
            raise DamagedError(f"{operator.name} with a weight of {list(entry.shape)}")
        self._types[entry.dtype] += 1
        axis = 3 if operator.name == "DEPTHWISE_CONV_2D" else 0
        channels = entry.shape[axis]
        of_bias = operator.inputs[2] if len(operator.inputs) > 2 else -1
        of_bias = self._aliases.get(of_bias, of_bias)
        before = self._graph.tensor(operator.inputs[0])
        if self._integers:
            second = None if of_bias < 0 else of_bias
            first = not self.layers
            made = tflite_integers.tensors(self._graph, place, second, axis, before, first=first)
        else:
            scale = before.scale[:1] * entry.scale if len(before.scale) and len(entry.scale) else None
            made = {
                "weight": self._graph.constant(place),
                "bias": np.zeros(channels, np.float32)
                if of_bias < 0
                else self._graph.constant(of_bias, scale),
            }
        if made["bias"].shape != (channels,):
            raise DamagedError(
                f"{operator.name} with a bias of {list(made['bias'].shape)} for {channels} channels"
            )
        return made

    def _padding_of(self, operator: Operator, kernel: int, stride: int, how: str) -> Padding:
        before, self._pad = self._pad, None
        if how == "same":
            if before is not None:
                raise ValueError(f"{operator.name} pads SAME after a PAD: no V1 pads twice")
            return "same"
        wanted = before or ((0, 0), (0, 0))
        kinds: tuple[Padding, ...] = ("same", "symmetric")
        for kind in kinds:
            if tuple(pads(side, kernel, stride, kind) for side in self._shape[:2]) == wanted:
                return kind
        raise ValueError(
            f"{operator.name} of {kernel} × {kernel} is padded by {wanted}: neither SAME nor symmetric"
        )

    def _padding(self, operator: Operator) -> None:
        if len(operator.inputs) < 2:
            raise DamagedError("PAD without paddings")
        amounts = self._graph.integers(operator.inputs[1])
        if len(amounts) != 8 or amounts[:2] != [0, 0] or amounts[6:] != [0, 0]:
            raise ValueError(f"PAD by {amounts}: a V1 pads rows and columns only")
        self._pad = (amounts[2], amounts[3]), (amounts[4], amounts[5])

    def _pool(self, operator: Operator) -> None:
        options = _options(operator)
        if operator.name == "MEAN":
            axes = sorted(self._graph.integers(operator.inputs[1])) if len(operator.inputs) > 1 else []
            if axes not in ([1, 2], [-3, -2]):
                raise ValueError(f"MEAN over axes {axes}: a V1 takes the mean over the whole map")
        else:
            window = (options.count(4, "i"), options.count(3, "i"))
            if window != self._shape[:2] or _activation(options, 5) != "none":
                raise ValueError(
                    f"AVERAGE_POOL_2D of {window} on {list(self._shape)}: a V1 pools the whole map"
                )
            sides = zip(window, (options.count(2, "i"), options.count(1, "i")), strict=True)
            if options.count(0, "b") == 0 and any(slid(n, n, max(s, 1), "same") != 1 for n, s in sides):
                raise ValueError("AVERAGE_POOL_2D with SAME padding over more than one place")
        self.layers.append(Layer(Pool(), {}))
        self._shape = Shape(1, 1, self._shape.channels)

    def _sum(self, operator: Operator) -> None:
        """The sum of what the layer before gives and of what an earlier one gave."""
        places = [self._made.get(place, (-1, self.image)) for place in operator.inputs]
        if len(places) != 2 or any(number < 0 or shape != self._shape for number, shape in places):
            raise ValueError("ADD of other things than two maps of one shape: no V2 has that")
        first, second = sorted(number for number, _ in places)
        op = Add(activation=_activation(_options(operator), 0))
        self.layers.append(Layer(op, {}, (first, second)))

    def _activation(self, activation: Activation) -> None:
        last = self.layers[-1].op if self.layers else None
        if not isinstance(last, Conv | Depthwise | Pointwise) or last.activation != "none":
            raise ValueError(f"{activation} where no convolution waits for one")
        self.layers[-1] = replace(self.layers[-1], op=replace(last, activation=activation))

    def _add(self, op: Op, parts: dict[str, Tensor], operator: Operator) -> None:
        self.layers.append(Layer(op, parts | {"weight": np.ascontiguousarray(parts["weight"])}))
        self._shape = shape_after(op, [self._shape])
        if min(self._shape) < 1:
            raise DamagedError(f"{operator.name} that leaves nothing of its map")


def _options(operator: Operator) -> Table:
    if operator.options is None:
        raise DamagedError(f"{operator.name} without options")
    return operator.options


def _activation(options: Table, slot: int) -> Activation:
    number = options.count(slot, "b")
    if number not in ACTIVATIONS:
        raise ValueError(f"a fused activation ({number}) that no V1 has")
    return ACTIVATIONS[number]
