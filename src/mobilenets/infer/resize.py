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
        frame = _along_rows(frame, width)
    if frame.shape[0] != height:
        frame = _along_columns(frame, height)
    return frame


def _along_rows(frame: Frame, width: int) -> Frame:
    first, weights = taps(frame.shape[1], width)
    last = frame.shape[1] - 1
    total = np.full((frame.shape[0], width, frame.shape[2]), 1 << (BITS - 1), np.int32)
    for k in range(weights.shape[1]):
        total += frame[:, np.minimum(first + k, last)] * weights[:, k, None]
    return np.asarray(np.clip(total >> BITS, 0, 255), np.uint8)


def _along_columns(frame: Frame, height: int) -> Frame:
    first, weights = taps(frame.shape[0], height)
    last = frame.shape[0] - 1
    total = np.full((height, *frame.shape[1:]), 1 << (BITS - 1), np.int32)
    for k in range(weights.shape[1]):
        total += frame[np.minimum(first + k, last)] * weights[:, k, None, None]
    return np.asarray(np.clip(total >> BITS, 0, 255), np.uint8)
