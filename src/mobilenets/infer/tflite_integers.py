"""The integers of a TensorFlow Lite file as `infer.integer` has them: signed weights, unsigned activations.

uint8 weights and int8 activations move by 128 and their zeros with them, so that every sum stays what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.flatbuffer import DamagedError
from mobilenets.infer.scale import Scale
from mobilenets.infer.tflite_schema import Entry, Graph

SHIFT = 128
SAME_STEP = 1e-3
"""How far, in parts, a bias's step may lie from the product of those of input and weight."""


def scale_of(entry: Entry) -> Scale:
    """What the bytes of a map stand for, as unsigned ones. Raises ValueError where it has no bytes."""
    if entry.dtype not in ("u1", "i1") or len(entry.scale) != 1 or len(entry.zero) > 1:
        raise ValueError(
            "a map between its layers is not of bytes with one scale; read it without its integers"
        )
    zero = int(entry.zero[0]) if len(entry.zero) else 0
    try:
        return Scale(float(entry.scale[0]), zero + (SHIFT if entry.dtype == "i1" else 0))
    except ValueError as error:
        raise DamagedError(str(error)) from error


def halves_up(scale: Scale) -> Scale:
    """A scale whose step is a hair less, so that a mean halfway between two bytes becomes the upper one.

    The interpreter's means round so; a hair is one float32 step of the multiplier, too little for the rest.
    """
    return Scale(scale.step * (1 - 2.0**-23), scale.zero)


def tensors(
    graph: Graph, weight: int, bias: int | None, axis: int, before: Entry, *, first: bool
) -> dict[str, NDArray[Any]]:
    """A layer's `weight` in the file's order, `step`, `bias` and, unless it is nothing, `zero`.

    `axis` of the weight has its channels. `first` layers read the image, whose levels have step 1: the file's
    own step goes into theirs.
    """
    entry = graph.tensor(weight)
    channels = entry.shape[axis]
    alike = len(entry.scale) in (1, channels) and len(entry.zero) in (0, 1, len(entry.scale))
    if entry.dtype not in ("u1", "i1") or not alike or (len(entry.scale) > 1 and entry.axis != axis):
        raise ValueError("a layer's weights are not of bytes with scales; read it without its integers")
    values = graph.plain(weight)
    zero = np.broadcast_to(entry.zero if len(entry.zero) else np.zeros(1, np.int64), (channels,))
    if entry.dtype == "u1":
        values, zero = values.astype(np.int16) - SHIFT, zero - SHIFT
    if zero.min() < -SHIFT or zero.max() >= SHIFT:
        raise DamagedError(f"zero points of {zero.min()} to {zero.max()}")
    source = float(scale_of(before).step)
    step = np.broadcast_to(entry.scale, (channels,)).astype(np.float64)
    if not (np.isfinite(step).all() and step.min() > 0):
        raise DamagedError("a scale that is no number above zero")
    with np.errstate(over="ignore", under="ignore"):  # what becomes nothing or infinite is refused later
        own = (step * source if first else step).astype(np.float32)
    made: dict[str, NDArray[Any]] = {
        "weight": values.astype(np.int8),
        "step": own,
        "bias": np.zeros(channels, np.int32) if bias is None else _bias(graph, bias, source * step),
    }
    return made | ({"zero": zero.astype(np.int32)} if zero.any() else {})


def _bias(graph: Graph, place: int, wanted: NDArray[np.float64]) -> NDArray[np.int32]:
    entry = graph.tensor(place)
    if entry.dtype != "<i4" or entry.zero.any():
        raise ValueError("a bias that is not of whole numbers of 32 bits; read it without its integers")
    if len(entry.scale) not in (0, 1, len(wanted)):
        raise DamagedError(f"{len(entry.scale)} scales for a bias of {len(wanted)}")
    with np.errstate(all="ignore"):
        apart = np.abs(entry.scale / wanted - 1) if len(entry.scale) else np.zeros(1)
    if not (apart < SAME_STEP).all():
        raise ValueError("a bias whose step is not that of its sums; read it without its integers")
    return graph.plain(place).astype(np.int32)
