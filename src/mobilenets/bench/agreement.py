"""Whether an engine computes the network at all: its answer against the numpy walk's, before it is timed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.options import Dtype

MOST_DIFFERENCE = 1e-3
"""Of float32, in parts of the largest value."""
LEAST_CORRELATION = 0.9
"""Of int8, which every quantiser rounds in its own way; random weights are the hardest to quantise."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The largest difference in parts of the largest value, and the correlation."""

    relative: float
    correlation: float


def agreement(got: NDArray[np.float32], wanted: NDArray[np.float32], dtype: Dtype) -> Agreement:
    """How an answer compares. Raises ValueError where it is that of another network.

    A given file may end in a softmax, or begin with a class for the background: its answer is then compared
    with the same of ours.
    """
    if len(got) == len(wanted) + 1:
        got = got[1:]
    if got.shape != wanted.shape:
        raise ValueError(f"it gives {len(got)} values, the network {len(wanted)}")
    if not np.isfinite(got).all():
        raise ValueError("its answer holds values that are no numbers")
    if len(got) > 1 and got.min() >= 0 and got.sum() < 1.1 and wanted.min() < 0:
        # Shares of a softmax: their logarithms are logits but for a constant.
        seen = got > 0 if dtype == "float32" else got >= np.sort(got)[-min(10, len(got))]
        logs = np.log(np.maximum(got[seen], 1e-6))
        got, wanted = logs - logs.mean(), wanted[seen] - wanted[seen].mean()
    found = Agreement(
        relative=float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-30)),
        correlation=_correlation(got, wanted),
    )
    if dtype == "float32" and not found.relative <= MOST_DIFFERENCE:
        raise ValueError(f"its answer differs from the reference by {found.relative:.1e} of the largest value")
    if dtype == "int8" and not found.correlation >= LEAST_CORRELATION:
        raise ValueError(f"its answer correlates with the float32 reference by {found.correlation:.2f} only")
    return found


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a - a.mean(dtype=np.float64), b - b.mean(dtype=np.float64)
    scale = float(np.sqrt((x * x).sum() * (y * y).sum()))
    return float((x * y).sum() / scale) if scale else 1.0
