"""Weights to whole numbers: the step of each row and the rounding that changes a layer's results least.

A row w read by windows x gives w·x. Rounded to step · q it is off by e·x with e = step · q − w; once the bias
takes care of the mean, the mean square of that is e·C·e, C the windows' covariance. Rounding each weight to
the nearest minimises e·e instead, and is far off where the terms of x rise and fall together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
MOST = 127
DAMPING = 0.01
"""Of the mean variance, added to each: terms that were never seen to change may do so in other pictures."""
FACTORS = tuple(0.8 + 0.01 * i for i in range(41))
"""Steps that are tried for rows that are searched, over the greatest weight's 127th part."""
SEARCHED_TERMS = 9
"""Rows up to here have all their roundings up and down compared."""
FEEDBACK_BLOCK = 32
SWEEPS = 3


@dataclass(frozen=True, slots=True)
class Rounded:
    """Weights as whole numbers [rows, terms] and the step [rows] of each row."""

    whole: NDArray[np.int8]
    step: NDArray[np.float32]

    @property
    def values(self) -> Matrix:
        return np.asarray(self.whole * self.step.astype(np.float64)[:, None])


def nearest(weight: Matrix, least: Matrix) -> Rounded:
    """Every weight to the nearest, the greatest of each row to ±127; no step below `least` [rows]."""
    step = steps(weight, least)
    return Rounded(_whole(weight / step.astype(np.float64)[:, None]), step)


def second_order(weight: Matrix, least: Matrix, covariance: Matrix) -> Rounded:
    """Weights [rows, terms] rounded for covariances [groups, terms, terms] of as many rows each.

    Never worse than `nearest` in the error it minimises: the better of the two is kept, row by row.
    """
    if 1 < len(covariance) < len(weight):
        parts = zip(*(np.split(every, len(covariance)) for every in (weight, least, covariance)), strict=True)
        made = [second_order(*part) for part in parts]
        return Rounded(
            np.concatenate([one.whole for one in made]), np.concatenate([one.step for one in made])
        )
    damped = _damped(covariance)
    best = nearest(weight, least)
    if not _definite(damped):
        return best
    cost = expected_error(weight, best, damped)
    for other in _tried(weight, least, damped):
        best, cost = _better(weight, damped, best, cost, other)
    swept = Rounded(_swept(weight, best, damped), best.step)
    return _better(weight, damped, best, cost, swept)[0]


def _definite(covariance: Matrix) -> bool:
    """Whether an error can only cost something. Of inputs that hardly vary beside their means nothing is left
    but the rounding of their sums, and then there are errors that seem to pay."""
    try:
        np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return False
    return True


def _tried(weight: Matrix, least: Matrix, covariance: Matrix) -> Iterator[Rounded]:
    """Other roundings at other steps."""
    if len(covariance) == 1:
        step = steps(weight, least)
        yield Rounded(_fed_back(weight, step, covariance[0]), step)
    elif weight.shape[1] <= SEARCHED_TERMS:
        search = _Search(covariance)
        for factor in FACTORS:
            step = steps(weight, least, factor)
            yield Rounded(search.rounded(weight, step), step)
    else:
        for factor in FACTORS:
            step = steps(weight, least, factor)
            yield Rounded(_whole(weight / step.astype(np.float64)[:, None]), step)


def expected_error(weight: Matrix, rounded: Rounded, covariance: Matrix) -> Matrix:
    """e·C·e of each row."""
    error = rounded.values - weight
    return np.asarray((_times(error, covariance) * error).sum(1))


def _better(
    weight: Matrix, covariance: Matrix, best: Rounded, cost: Matrix, other: Rounded
) -> tuple[Rounded, Matrix]:
    its = expected_error(weight, other, covariance)
    wins = its < cost
    return Rounded(
        np.where(wins[:, None], other.whole, best.whole), np.where(wins, other.step, best.step)
    ), np.where(wins, its, cost)


def _times(error: Matrix, covariance: Matrix) -> Matrix:
    if len(covariance) == 1:
        return np.asarray(error @ covariance[0])
    return np.asarray((error[:, None, :] @ covariance)[:, 0])


def _damped(covariance: Matrix) -> Matrix:
    terms = covariance.shape[1]
    variance = np.trace(covariance, axis1=1, axis2=2) / terms
    floor = np.where(variance > 0, DAMPING * variance, 1.0)
    return np.asarray(covariance + floor[:, None, None] * np.eye(terms))


def steps(weight: Matrix, least: Matrix, factor: float | Matrix = 1.0) -> NDArray[np.float32]:
    """Steps that float32 holds, the greatest of a row being MOST / factor of them; 1 for a row of nothing."""
    greatest = np.abs(weight).max(1)
    step = np.maximum(factor * greatest / MOST, least)
    return np.where(step > np.finfo(np.float32).tiny, step, 1.0).astype(np.float32)


def _whole(values: Matrix) -> NDArray[np.int8]:
    return np.clip(np.rint(values), -MOST, MOST).astype(np.int8)


class _Search:
    """All roundings up and down compared: with e = f + s·u, u of 0 and 1, e·C·e is quadratic in u."""

    def __init__(self, covariance: Matrix) -> None:
        rows, terms, _ = covariance.shape
        self._covariance = covariance
        self._ups = np.array(list(product((0.0, 1.0), repeat=terms)))
        pairs = (self._ups[:, :, None] * self._ups[:, None, :]).reshape(len(self._ups), -1)
        self._squares = covariance.reshape(rows, -1) @ pairs.T

    def rounded(self, weight: Matrix, step: NDArray[np.float32]) -> NDArray[np.int8]:
        wide = step.astype(np.float64)[:, None]
        floor = np.clip(np.floor(weight / wide), -MOST, MOST - 1)
        gradient = _times(wide * floor - weight, self._covariance)
        cost = 2 * wide * (gradient @ self._ups.T) + wide**2 * self._squares
        return np.asarray(floor + self._ups[cost.argmin(1)], np.int8)


def _fed_back(weight: Matrix, step: NDArray[np.float32], covariance: Matrix) -> NDArray[np.int8]:
    """One term after the other, its error made up for by those still to come (arXiv:2210.17323)."""
    order = np.argsort(-np.diag(covariance), kind="stable")
    # The upper factor of the inverse: row i tells how the later terms answer an error in term i.
    inverse = np.linalg.inv(covariance[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    wide = step.astype(np.float64)
    left = np.ascontiguousarray(weight.T[order])  # a term a row, so that rows lie together
    whole = np.empty(left.shape, np.int8)
    for start in range(0, len(left), FEEDBACK_BLOCK):
        stop = min(start + FEEDBACK_BLOCK, len(left))
        errors = np.empty((stop - start, left.shape[1]))
        for i in range(start, stop):
            whole[i] = _whole(left[i] / wide)
            errors[i - start] = (left[i] - wide * whole[i]) / upper[i, i]
            left[i + 1 : stop] -= upper[i, i + 1 : stop, None] * errors[i - start]
        left[stop:] -= upper[start:stop, stop:].T @ errors
    found = np.empty(weight.shape, np.int8)
    found[:, order] = whole.T
    return found


def _swept(weight: Matrix, rounded: Rounded, covariance: Matrix) -> NDArray[np.int8]:
    """Each whole number in turn moved to where the error is least, the others held; a few times over."""
    whole = rounded.whole.astype(np.float64)
    step = rounded.step.astype(np.float64)
    gradient = _times(rounded.values - weight, covariance)
    for _ in range(SWEEPS):
        moved = False
        for term in range(weight.shape[1]):
            curvature = covariance[:, term, term]
            move = np.clip(whole[:, term] - np.rint(gradient[:, term] / (curvature * step)), -MOST, MOST)
            rows = np.flatnonzero(move != whole[:, term])
            if not rows.size:
                continue
            moved = True
            change = (move - whole[:, term])[rows] * step[rows]
            along = covariance[0, term] if len(covariance) == 1 else covariance[rows, term]
            gradient[rows] += change[:, None] * along
            whole[rows, term] = move[rows]
        if not moved:
            break
    return whole.astype(np.int8)
