"""Resizing, defined once, in integers: an antialiased triangle, along rows and then along columns.

Along one axis of n samples going to m, output i has its centre at (i + ½) · n/m and weighs sample j by the
triangle 1 − |j + ½ − centre| / max(n/m, 1). The weights are exact fractions, rounded to 22 bits; each pass
rounds half up and clips to 0…255. Everything fits 32 bits, so C and JavaScript can equal it bit for bit.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
BITS = 22
STRIPE = 256
"""Columns at a time: of a picture of any size only so much is widened to 32 bits, and lies in the cache."""


@lru_cache(maxsize=256)
def taps(samples: int, places: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """First sample [places] and weights [places, k] in units of 2⁻²² for each output along one axis."""
    # Numerators over a common denominator 2 · max(n, m): distance |(2j + 1) m − (2i + 1) n| in those units.
    reach = 2 * max(samples, places)
    i = np.arange(places, dtype=np.int64)
    centre = (2 * i + 1) * samples
    first = np.clip(-((reach - centre) // (2 * places)) - 1, 0, samples - 1)
    count = int(min(samples, 2 * (reach // (2 * places)) + 3))
    j = first[:, None] + np.arange(count)
    numerator = reach - np.abs((2 * j + 1) * places - centre[:, None])
    numerator = np.where(j < samples, np.maximum(numerator, 0), 0)
    total = numerator.sum(axis=1, keepdims=True)
    weights = ((numerator << BITS) + total // 2) // total
    used = int(np.max(np.where(weights.any(axis=0))[0])) + 1
    return first.astype(np.int32), weights[:, :used].astype(np.int32)


def resize(frame: Frame, height: int, width: int) -> Frame:
    """uint8 [h, w, c] to uint8 [height, width, c]."""
    if frame.shape[1] != width:
        # Whole lines are far quicker to gather than single pixels: the frame is laid on its side and back.
        frame = _along_columns(frame.transpose(1, 0, 2), width).transpose(1, 0, 2)
    if frame.shape[0] != height:
        frame = _along_columns(frame, height)
    return frame


def _along_columns(frame: Frame, height: int) -> Frame:
    first, weights = taps(frame.shape[0], height)
    last = frame.shape[0] - 1
    made = np.empty((height, *frame.shape[1:]), np.uint8)
    for start in range(0, frame.shape[1], STRIPE):
        stripe = frame[:, start : start + STRIPE]
        lines = np.ascontiguousarray(stripe).reshape(len(stripe), -1).astype(np.int32)
        total = np.full((height, lines.shape[1]), 1 << (BITS - 1), np.int32)
        part = np.empty_like(total)
        for k in range(weights.shape[1]):
            np.take(lines, np.minimum(first + k, last), axis=0, out=part, mode="clip")  # `clip` spares a copy
            part *= weights[:, k, None]
            total += part
        total >>= BITS
        made[:, start : start + STRIPE] = np.clip(total, 0, 255).reshape(height, *stripe.shape[1:])
    return made
