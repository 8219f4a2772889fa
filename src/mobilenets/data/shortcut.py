"""How well labels are guessed without a look at the pictures: by file size, dimensions, format or a blur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.look import THUMB, Look

FOLDS, NEIGHBOURS, MOST = 5, 15, 5000
"""Folds of the cross-validation; neighbours that vote; pictures at most, as a sample tells as much."""
LEAST = 5
"""Pictures a class must have to be judged."""
Z = 3.3
"""Standard deviations of the interval: a thousand honest sets should raise one alarm."""
GAIN = 0.1
"""A cue leaks where it surely removes this share of the errors of always naming the largest class."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """Cross-validated accuracy of guessing labels by one cue, its interval, and that of the largest class."""

    cue: str
    accuracy: float
    interval: tuple[float, float]
    majority: float
    n: int
    leaks: bool


def shortcuts(
    labels: Sequence[str], groups: NDArray[np.int64], looks: Sequence[Look]
) -> tuple[Shortcut, ...]:
    """One row for each cue: file size, dimensions, both, format, and a 4 × 4 thumbnail.

    Groups of near duplicates stay in one fold. Classes under `LEAST` pictures are left out; with fewer than
    two others there is nothing to guess. The thumbnail tells what overall colours tell, which is part of what
    pictures show: it is there for comparison and never said to leak.
    """
    _, truth, counts = np.unique(np.array(labels, object), return_inverse=True, return_counts=True)
    usable = np.array([seen.problem is None for seen in looks], bool)
    kept = np.flatnonzero(usable & (counts >= LEAST)[truth])
    random = np.random.Generator(np.random.PCG64(0))
    if len(kept) > MOST:
        kept = np.sort(random.choice(kept, MOST, replace=False))
    present = np.unique(truth[kept])
    if len(present) < 2:
        return ()
    truth = np.searchsorted(present, truth[kept])
    some = [looks[index] for index in kept.tolist()]
    _, group = np.unique(groups[kept], return_inverse=True)
    fold = (random.permutation(int(group.max()) + 1) % FOLDS)[group]
    majority = float(np.bincount(truth).max() / len(truth))
    size = np.log([[seen.bytes] for seen in some])
    sides = np.log([[seen.width, seen.height, seen.width / seen.height] for seen in some])
    density = size - sides[:, :1] - sides[:, 1:2]
    cues = {
        "file size": _ranks(size),
        "dimensions": _ranks(sides),
        "file size and dimensions": _ranks(np.hstack([size, sides, density])),
        "format": _codes([(s.format, s.mode, s.alpha, s.frames > 1, s.bits, s.orientation) for s in some]),
        "4 × 4 thumbnail": _blurred([seen.thumb for seen in some]),
    }
    found = []
    for cue, values in cues.items():
        guess = _by_code if values.ndim == 1 else _by_neighbours
        right = guess(values, truth, fold) == truth
        low, high = _interval(int(right.sum()), len(truth))
        leaks = cue != "4 × 4 thumbnail" and low > majority + GAIN * (1 - majority)
        found.append(Shortcut(cue, float(right.mean()), (low, high), majority, len(truth), leaks))
    return tuple(found)


def _by_neighbours(
    values: NDArray[np.float64], truth: NDArray[np.int64], fold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The label that the nearest pictures of the other folds vote for, nearer ones more."""
    guess = np.zeros(len(truth), np.int64)
    classes = int(truth.max()) + 1
    for part in range(FOLDS):
        asked, known = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        if not len(asked) or not len(known):
            continue
        k = min(NEIGHBOURS, len(known))
        for first in range(0, len(asked), 512):
            some = asked[first : first + 512]
            square = (values[some] ** 2).sum(1)[:, None] + (values[known] ** 2).sum(1)
            apart = square - 2 * values[some] @ values[known].T
            near = np.argpartition(apart, k - 1, axis=1)[:, :k]
            distance = np.sqrt(np.maximum(np.take_along_axis(apart, near, 1), 0))
            votes = np.zeros((len(some), classes))
            np.add.at(votes, (np.arange(len(some))[:, None], truth[known][near]), 1 / (1e-3 + distance))
            guess[some] = votes.argmax(1)
    return guess


def _by_code(
    values: NDArray[np.float64], truth: NDArray[np.int64], fold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The commonest label of the same code in the other folds, or of all where the code is new."""
    guess = np.zeros(len(truth), np.int64)
    for part in range(FOLDS):
        known = fold != part
        if not known.any():
            continue
        guess[~known] = np.bincount(truth[known]).argmax()
        for code in np.unique(values[known]):
            guess[~known & (values == code)] = np.bincount(truth[known & (values == code)]).argmax()
    return guess


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each column by rank in 0…1, equals alike: no scale or outlier matters."""
    ranks = np.empty_like(values)
    for column in range(values.shape[1]):
        # Rounded, as one side ratio may come out of two divisions a last bit apart.
        _, place, count = np.unique(np.round(values[:, column], 9), return_inverse=True, return_counts=True)
        ranks[:, column] = ((np.cumsum(count) - count / 2) / len(values))[place]
    return ranks


def _codes(facts: Sequence[tuple[object, ...]]) -> NDArray[np.float64]:
    known = {fact: number for number, fact in enumerate(sorted(set(facts), key=repr))}
    return np.array([known[fact] for fact in facts], np.float64)


def _blurred(thumbs: Sequence[bytes]) -> NDArray[np.float64]:
    half = THUMB // 2
    levels = np.frombuffer(b"".join(thumbs), np.uint8).reshape(-1, half, 2, half, 2, 3)
    return np.asarray(levels.mean(axis=(2, 4)).reshape(len(thumbs), -1) / 255)


def _interval(right: int, n: int) -> tuple[float, float]:
    """Wilson's interval for a share."""
    share = right / n
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    reach = Z / (1 + Z * Z / n) * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - reach), min(1.0, middle + reach)
