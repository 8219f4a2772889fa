"""A network as ncnn's own pair of files, in float32 or int8: text for the layers, bytes for the weights."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.infer.walk import Walk
from mobilenets.spec.codec import op_name
from mobilenets.spec.net import Net, Node, shapes
from mobilenets.spec.op import Activation, Add, Conv, Dense, Depthwise, Pointwise, Pool, Shape, pads

MAGIC = "7767517"
FLOAT_WEIGHTS, INT8_WEIGHTS = 0, 0x000D4B38
INPUT = "image"
MOST = 127.0
ACTIVATIONS: Mapping[Activation, str] = {"none": "", "relu": " 9=1", "relu6": " 9=3 -23310=2,0.0,6.0"}
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
    nodes = net.nodes[: 1 + next(i for i, node in enumerate(net.nodes) if node.name == last)]
    times = Counter(name for node in nodes for name in node.inputs)
    blobs = {name: _blobs(name, count) for name, count in times.items()}
    lines = [f"Input {INPUT} 0 1 {INPUT} 0={net.input.width} 1={net.input.height} 2=3"]
    lines += _split(INPUT, times[INPUT])
    for node in nodes:
        source = node.inputs[0]
        own = {
            part: weights[f"{node.name}.{part}"]
            for part in ("weight", "bias")
            if f"{node.name}.{part}" in weights
        }
        readers = [reader.op for reader in nodes if node.name in reader.inputs]
        passes_on = len(readers) == 1 and isinstance(readers[0], Conv | Depthwise | Pointwise)
        scales = None
        if largest is not None and own:
            scales = (MOST / largest[source], MOST / largest[node.name] if passes_on else None)
        read = [blobs[name].pop(0) for name in node.inputs]
        lines += [_line(node, read, known, own, scales), *_split(node.name, times[node.name])]
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


def _line(
    node: Node,
    read: Sequence[str],
    known: Mapping[str, Shape],
    own: Mapping[str, NDArray[np.float32]],
    scales: tuple[float, float | None] | None,
) -> str:
    """A layer's line: kind, name, the blobs that it reads, one output, parameters by number."""
    op, seen = node.op, known[node.inputs[0]]

    def line(kind: str, parameters: str) -> str:
        text = f"{kind} {node.name} {len(read)} 1 {' '.join(read)} {node.name} {parameters}"
        if scales is None or kind not in TERMS:
            return text
        return text + f" 8={TERMS[kind] + (100 if scales[1] is not None else 0)}"

    match op:
        case Conv() | Depthwise() | Pointwise():
            kernel, stride = (1, 1) if isinstance(op, Pointwise) else (op.kernel, op.stride)
            text = f"0={known[node.name].channels} 1={kernel} 3={stride} 5={int('bias' in own)}"
            text += f" 6={own['weight'].size}"
            if not isinstance(op, Pointwise):
                rows = pads(seen.height, kernel, stride, op.padding)
                columns = pads(seen.width, kernel, stride, op.padding)
                text += f" 4={columns[0]} 14={rows[0]} 15={columns[1]} 16={rows[1]}"
            if isinstance(op, Depthwise):
                return line("ConvolutionDepthWise", text + f" 7={seen.channels}" + ACTIVATIONS[op.activation])
            return line("Convolution", text + ACTIVATIONS[op.activation])
        case Pool():
            return line("Pooling", "0=1 4=1")
        case Dense():
            return line("InnerProduct", f"0={op.out} 1={int('bias' in own)} 2={own['weight'].size}")
        case Add():
            return line("BinaryOp", "0=0") if len(read) == 2 else line("Eltwise", "0=1")
        case _:
            raise ValueError(f"{node.name}: a {op_name(op)} cannot be written for ncnn yet")


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
