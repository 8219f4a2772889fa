"""Factors of a forecast from figures that somebody measured: least squares in logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mobilenets.costs.count import Cost
from mobilenets.costs.device import Device
from mobilenets.costs.forecast import Factors, forecast

FREE = ("overhead", "scaling", "read", "write", "overlap")
HELD = 0.05
"""How strongly factors are held to where they began, against figures: what those don't tell stays there."""
STEP = 1e-4
ROUNDS = 40


@dataclass(frozen=True, slots=True)
class Figure:
    """What a network took on a device: milliseconds for one picture."""

    device: Device
    counted: Cost
    dtype: str
    threads: int
    ms: float
    told: str = ""
    """The network in words."""


def fit(figures: Sequence[Figure], start: Factors) -> Factors:
    """The factors nearest to `figures`, from `start` on; its `spread` stays."""
    place = _vector(start)
    best, damping = _off(figures, start, place, place), 1.0
    for _ in range(ROUNDS):
        slopes = np.stack(
            [
                (_off(figures, start, place + one, _vector(start)) - best) / STEP
                for one in STEP * np.eye(len(place))
            ],
            axis=1,
        )
        wanted = np.linalg.solve(slopes.T @ slopes + damping * np.eye(len(place)), -slopes.T @ best)
        moved = place + np.clip(wanted, -1, 1)
        found = _off(figures, start, moved, _vector(start))
        if found @ found < best @ best:
            gained = best @ best - found @ found
            place, best, damping = moved, found, damping / 3
            if gained < 1e-9:
                break
        else:
            damping *= 4
            if damping > 1e9:
                break
    return _factors(start, place)


def errors(figures: Sequence[Figure], factors: Factors) -> NDArray[np.float64]:
    """Logarithms of forecast over figure."""
    return np.array(
        [np.log(forecast(f.counted, f.device, f.dtype, f.threads, factors).ms / f.ms) for f in figures]
    )


def spread(figures: Sequence[Figure], start: Factors) -> float:
    """Within what nine in ten lie, as a logarithm, when their own device (or, of one device, they themselves)
    is left out of the fit."""
    names = [f.device.name for f in figures]
    alone = len(set(names)) == 1
    off: list[float] = []
    groups = (
        [[i] for i in range(len(figures))]
        if alone
        else [[i for i, name in enumerate(names) if name == own] for own in dict.fromkeys(names)]
    )
    for group in groups:
        rest = [f for i, f in enumerate(figures) if i not in group]
        found = fit(rest, start)
        off += np.abs(errors([figures[i] for i in group], found)).tolist()
    return float(np.quantile(off, 0.9))


def _vector(factors: Factors) -> NDArray[np.float64]:
    rates = [
        rate
        for by_kind in (factors.product, factors.depthwise)
        for own in by_kind.values()
        for rate in own.values()
    ]
    return np.log([*rates, *(getattr(factors, name) for name in FREE)])


def _factors(start: Factors, place: NDArray[np.float64]) -> Factors:
    values = iter(np.exp(place).tolist())
    product, depthwise = (
        {kind: {dtype: next(values) for dtype in own} for kind, own in by_kind.items()}
        for by_kind in (start.product, start.depthwise)
    )
    free = dict(zip(FREE, values, strict=True))
    free["scaling"], free["overlap"] = min(free["scaling"], 1.0), min(free["overlap"], 1.0)
    return replace(start, product=product, depthwise=depthwise, **free)


def _off(
    figures: Sequence[Figure], start: Factors, place: NDArray[np.float64], begun: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.concatenate([errors(figures, _factors(start, place)), HELD * (place - begun)])
