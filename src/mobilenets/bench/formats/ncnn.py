"""A network as ncnn's own pair of files, in float32 or int8: text for the layers, bytes for the weights."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.infer.walk import Walk
from mobilenets.spec.net import Net, Node, needed, shapes
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Convolution,
    Dense,
    Depthwise,
    Linear,
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
    sides,
)

MAGIC = "7767517"
FLOAT_WEIGHTS, INT8_WEIGHTS = 0, 0x000D4B38
INPUT = "image"
MOST = 127.0
FUSED: Mapping[Activation, str] = {
    "none": "",
    "relu": " 9=1",
    "relu6": " 9=3 -23310=2,0.0,6.0",
    "sigmoid": " 9=4",
    "hswish": " 9=6 -23310=2,0.16666667,0.5",
}
"""What a layer of weights does itself after it."""
ALONE: Mapping[Activation, str] = {
    "relu": "ReLU {}",
    "relu6": "Clip {} 0=0.0 1=6.0",
    "hswish": "HardSwish {} 0=0.16666667 1=0.5",
    "hsigmoid": "HardSigmoid {} 0=0.16666667 1=0.5",
    "sigmoid": "Sigmoid {}",
    "swish": "Swish {}",
}
"""The same as a layer, `{}` its name and blobs."""
# What ncnn's quantiser writes: 2 and 1 for a scale a channel, 100 more where the next layer takes int8 too.
TERMS = {"Convolution": 2, "ConvolutionDepthWise": 1, "InnerProduct": 2}


def write(model: Artefact, folder: Path, calibration: NDArray[np.float32] | None = None) -> str:
    """Write model.param and model.bin; the name of the blob to ask for.

    With `calibration`, inputs [n, height, width, 3], weights are int8 with a scale a channel and maps int8
    with one scale, from the largest value seen: what ncnn's own tools make, which its wheel leaves out.
    """
    net, weights = fold(model.net, model.weights)
    known, last = shapes(net), net.outputs[0].node
    largest = None if calibration is None else _largest(net, weights, calibration)
    data = bytearray()
    nodes = needed(net, [last])
    times = Counter(name for node in nodes for name in node.inputs)
    blobs = {name: _blobs(name, count) for name, count in times.items()}
    lines = [f"Input {INPUT} 0 1 {INPUT} 0={net.input.width} 1={net.input.height} 2=3"]
    lines += _split(INPUT, times[INPUT])
    flat: set[str] = set()
    for node in nodes:
        source = node.inputs[0]
        if _flat(node, flat):
            flat.add(node.name)
        own = {
            part: weights[f"{node.name}.{part}"]
            for part in ("weight", "bias")
            if f"{node.name}.{part}" in weights
        }
        readers = [reader.op for reader in nodes if node.name in reader.inputs]
        fused = isinstance(node.op, Convolution) and node.op.activation in FUSED
        alike = (
            node.name not in flat
            and len(readers) == 1
            and isinstance(readers[0], Convolution)
            and _whole(readers[0])
        )
        passes_on = fused and alike
        scales = None
        if largest is not None and _whole(node.op):
            scales = (MOST / largest[source], MOST / largest[node.name] if passes_on else None)
        read = [blobs[name].pop(0) for name in node.inputs]
        lines += [
            *_lines(node, read, known, own, scales, source in flat),
            *_split(node.name, times[node.name]),
        ]
        data += _bytes(own, scales)
    made = len(lines) + sum(count - 1 for count in times.values())
    text = "\n".join((MAGIC, f"{len(lines)} {made}", *lines))
    (folder / "model.param").write_text(text + "\n", encoding="ascii")
    (folder / "model.bin").write_bytes(bytes(data))
    return last


def _largest(
    net: Net, weights: Mapping[str, NDArray[np.float32]], calibration: NDArray[np.float32]
) -> dict[str, float]:
    """The largest value of every map over the calibration inputs."""
    walk = Walk(net, weights)
    taps = [node.name for node in net.nodes]
    found = {INPUT: float(np.abs(calibration).max())}
    for one in calibration:
        for name, value in walk(one[None], taps).items():
            if name in taps:
                found[name] = max(found.get(name, 1e-6), float(np.abs(value).max()))
    return found


def _blobs(name: str, times: int) -> list[str]:
    """What the readers of a map ask for: a blob can be read but once."""
    return [name] if times == 1 else [f"{name}.{number}" for number in range(times)]


def _split(name: str, times: int) -> list[str]:
    """The line that makes as many blobs of one as are read; none where one is."""
    if times < 2:
        return []
    return [f"Split {name}.split 1 {times} {name} {' '.join(_blobs(name, times))}"]


def _flat(node: Node, flat: set[str]) -> bool:
    """Whether a node gives a blob of one dimension."""
    match node.op:
        case Pool() | Dense():
            return True
        case Conv() | Depthwise() | MaxPool() | MeanPool():
            return False
        case Pointwise(groups=groups) if groups > 1:
            return False
        case _:
            return node.inputs[0] in flat


def _whole(op: Op) -> bool:
    """Whether a layer's weights become int8: those of several groups, of which ncnn's int8 has one scale for
    each, stay float32 (ShuffleNet V1 0.25: correlation 0.82 with them)."""
    match op:
        case Conv(groups=groups) | Pointwise(groups=groups):
            return groups == 1
        case _:
            return isinstance(op, Linear)


def _lines(
    node: Node,
    read: Sequence[str],
    known: Mapping[str, Shape],
    own: Mapping[str, NDArray[np.float32]],
    scales: tuple[float, float | None] | None,
    flat: bool,
) -> list[str]:
    """A node's lines: kind, name, the blobs that it reads, one output, parameters by number.

    `flat` says that it reads a blob of one dimension, which ncnn makes of a mean over the map.
    """
    op, seen = node.op, known[node.inputs[0]]

    def line(kind: str, parameters: str, after: Activation = "none") -> list[str]:
        own_name = f"{node.name}.plain" if after != "none" else node.name
        text = f"{kind} {own_name} {len(read)} 1 {' '.join(read)} {own_name} {parameters}"
        if scales is not None and kind in TERMS:
            text += f" 8={TERMS[kind] + (100 if scales[1] is not None else 0)}"
        if after == "none":
            return [text]
        return [text, ALONE[after].format(f"{node.name} 1 1 {own_name} {node.name}")]

    match op:
        case Pointwise(groups=1) if flat:
            text = f"0={op.out} 1={int('bias' in own)} 2={own['weight'].size}"
            fused = FUSED.get(op.activation)
            return line("InnerProduct", text + (fused or ""), "none" if fused is not None else op.activation)
        case Conv() | Depthwise() | Pointwise():
            text = f"0={known[node.name].channels} 5={int('bias' in own)} 6={own['weight'].size}"
            text += " 1=1 3=1" if isinstance(op, Pointwise) else _slides(op, seen)
            fused, after = FUSED.get(op.activation), op.activation
            if fused is not None:
                text, after = text + fused, "none"
            groups = seen.channels if isinstance(op, Depthwise) else op.groups
            if isinstance(op, Depthwise) or groups > 1:
                return line("ConvolutionDepthWise", f"{text} 7={groups}", after)
            return line("Convolution", text, after)
        case Pool():
            return line("Pooling", "0=1 4=1")
        case MaxPool() | MeanPool():
            mean = int(isinstance(op, MeanPool))
            rows, columns = around(op, seen)
            text = f"0={mean} 1={op.kernel} 2={op.stride} 5=1 6=0"
            return line("Pooling", f"{text} 3={columns[0]} 13={rows[0]} 14={columns[1]} 15={rows[1]}")
        case Dense():
            return line("InnerProduct", f"0={op.out} 1={int('bias' in own)} 2={own['weight'].size}")
        case Add():
            kind, number = ("BinaryOp", 0) if len(read) == 2 else ("Eltwise", 1)
            return line(kind, f"0={number}", op.activation)
        case Mul():
            return line("BinaryOp", "0=2")
        case Concat():
            return line("Concat", "0=0")
        case Shuffle():
            return line("ShuffleChannel", f"0={op.groups}")
        case Slice():
            return line("Crop", f"-23309=1,{op.begin} -23310=1,{op.end} -23311=1,0")
        case Activate():
            if op.activation == "none":
                return line("Noop", "")
            return [ALONE[op.activation].format(f"{node.name} 1 1 {read[0]} {node.name}")]
        case _:
            assert_never(op)


def _slides(op: Windowed, x: Shape) -> str:
    """How a window moves over a map."""
    (tall, wide), (rows, columns) = sides(op), around(op, x)
    text = f" 1={wide} 11={tall} 3={op.stride}"
    return f"{text} 4={columns[0]} 14={rows[0]} 15={columns[1]} 16={rows[1]}"


def _bytes(own: Mapping[str, NDArray[np.float32]], scales: tuple[float, float | None] | None) -> bytes:
    """A layer's weights: a word for their type, weights, bias, then the scales."""
    if not own:
        return b""
    bias: bytes = own["bias"].astype("<f4").tobytes() if "bias" in own else b""
    rows = own["weight"].reshape(own["weight"].shape[0], -1)
    if scales is None:
        return struct.pack("<I", FLOAT_WEIGHTS) + rows.astype("<f4").tobytes() + bias
    steps: NDArray[np.float32] = MOST / np.maximum(np.abs(rows).max(axis=1), 1e-6)
    whole: bytes = np.clip(np.rint(rows * steps[:, None]), -MOST, MOST).astype(np.int8).tobytes()
    whole += b"\0" * (-len(whole) % 4)
    ends: bytes = np.array([scale for scale in scales if scale is not None], "<f4").tobytes()
    return struct.pack("<I", INT8_WEIGHTS) + whole + bias + steps.astype("<f4").tobytes() + ends
