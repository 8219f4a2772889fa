"""How good scored answers are: accuracy with its interval, confusion, calibration."""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]
Truth = NDArray[np.int64]
BINS = 15
Z95 = 1.959963984540054


def top(scores: Scores, truth: Truth, k: int = 1) -> float:
    """Share of rows of scores [n, classes] whose truth [n] is among the k best; ties count against."""
    if len(truth) == 0:
        return float("nan")
    own = scores[np.arange(len(truth)), truth][:, None]
    better = (scores >= own).sum(axis=1) - 1
    return float((better < k).mean())


def interval(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in n trials (J. Am. Stat. Assoc. 22, 1927)."""
    if n == 0:
        return 0.0, 1.0
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion(scores: Scores, truth: Truth) -> NDArray[np.int64]:
    """Counts [true class, answered class]."""
    classes = scores.shape[1]
    pairs = truth * classes + scores.argmax(axis=1)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def reliability(scores: Scores, truth: Truth, bins: int = BINS) -> NDArray[np.float64]:
    """Rows [bins, 3] of count, mean score and accuracy of the best answer, by equal steps of its score."""
    best, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    which = np.minimum((best * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    some = np.maximum(counts, 1)
    return np.stack(
        [counts, np.bincount(which, best, bins) / some, np.bincount(which, right, bins) / some], axis=1
    )


def calibration_error(scores: Scores, truth: Truth, bins: int = BINS) -> float:
    """Expected calibration error of the best answer (arXiv:1706.04599, eq. 3)."""
    if len(truth) == 0:
        return float("nan")
    rows = reliability(scores, truth, bins)
    return float((rows[:, 0] / rows[:, 0].sum() * np.abs(rows[:, 1] - rows[:, 2])).sum())


def log_loss(scores: Scores, truth: Truth) -> float:
    """Mean negative log score of the truth."""
    own = scores[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(own, 1e-12)).mean())
