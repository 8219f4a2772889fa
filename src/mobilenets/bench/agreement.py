"""Whether an engine computes the network at all: its answer against the numpy walk's, before it is timed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.options import Dtype

Values = NDArray[np.float32]
MOST_SHARES = 1.1
"""Values above zero that sum to less are those of a softmax, a background class apart."""
MOST_DIFFERENCE = 1e-3
"""Of float32, in parts of the largest value."""
LEAST_CORRELATION = 0.9
"""Of int8, which every quantiser rounds in its own way; random weights are the hardest to quantise."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest difference in parts of the largest value, and the correlation."""

    relative: float
    correlation: float


def agreement(got: Values, wanted: Values, dtype: Dtype) -> Agreement:
    """How an answer compares with `wanted` [frames, n], whose first row is of the same picture.

    Raises ValueError where it is the answer of another network: float32 that differs by more than rounding,
    int8 that correlates too little, or more with the answer to another picture. A given file may end in a
    softmax or begin with a class for the background: its answer is compared with the same of ours.
    """
    if len(got) == wanted.shape[1] + 1:
        got = got[1:]
    if len(got) != wanted.shape[1]:
        raise ValueError(f"it gives {len(got)} values, the network {wanted.shape[1]}")
    if not np.isfinite(got).all():
        raise ValueError("its answer holds values that are no numbers")
    if len(got) > 1 and got.min() >= 0 and got.sum() < MOST_SHARES and wanted.min() < 0:
        wanted = np.exp(wanted - wanted.max(axis=1, keepdims=True))
        wanted /= wanted.sum(axis=1, keepdims=True)
    found = Agreement(
        relative=float(np.abs(got - wanted[0]).max() / max(float(np.abs(wanted[0]).max()), 1e-30)),
        correlation=_correlation(got, wanted[0]),
    )
    if dtype == "float32" and not found.relative <= MOST_DIFFERENCE:
        raise ValueError(
            f"its answer differs from the reference by {found.relative:.1e} of the largest value"
        )
    if dtype == "int8" and not found.correlation >= LEAST_CORRELATION:
        raise ValueError(f"its answer correlates with the float32 reference by {found.correlation:.2f} only")
    if any(_correlation(got, other) > found.correlation for other in wanted[1:]):
        raise ValueError("its answer is nearer to that of another picture")
    return found


def _correlation(a: Values, b: Values) -> float:
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale else 1.0
