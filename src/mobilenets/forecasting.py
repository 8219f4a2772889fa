"""Factors of a forecast from figures that somebody measured: least squares in logarithms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mobilenets.costs.count import Cost
from mobilenets.costs.device import Device
from mobilenets.costs.forecast import BYTES, PRODUCTS, Factors, memory_of, spent, together

FREE = ("overhead", "scaling", "read", "write", "overlap")
AT_MOST_ONE = ("scaling", "overlap")
HELD = 0.05
"""How strongly factors are held to where they began, against figures: what those don't tell stays there."""
STEP = 1e-4
ROUNDS = 40
COVERED = 0.9

Values = NDArray[np.float64]


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


@dataclass(frozen=True, slots=True)
class _Layers:
    """The layers of all figures one after the other: arrays for `spent`, a layer each."""

    rate: NDArray[np.intp]
    """Which rate of a vector of factors is its own."""
    begins: NDArray[np.intp]
    """Each figure's first layer."""
    known: dict[str, Values]
    """What `spent` takes that no fit changes."""
    ms: Values
    """Of each figure."""

    def errors(self, factors: Factors) -> Values:
        """Logarithms of forecast over figure."""
        parts = spent(**self.known, rate=np.array(_rates(factors))[self.rate], factors=factors)
        layers = together(*parts, factors.overlap)
        made: Values = np.log(np.add.reduceat(layers, self.begins) / self.ms)
        return made


def _layers(figures: Sequence[Figure], factors: Factors) -> _Layers:
    places = {key: place for place, key in enumerate(_keys(factors))}
    rates: list[int] = []
    begins: list[int] = []
    rows: list[tuple[float, ...]] = []
    for figure in figures:
        memory, size = memory_of(figure.device), BYTES[figure.dtype]
        begins.append(len(rows))
        for row in figure.counted.rows:
            group = "product" if row.kind in PRODUCTS else "depthwise"
            rates.append(places[group, figure.device.kind, figure.dtype])
            rows.append(
                (
                    row.macs or row.values_read,
                    *(size * value for value in (row.weights, row.values_read, row.output.elements)),
                    *(figure.threads, figure.device.ghz, memory.read, memory.fill),
                )
            )
    names = ("products", "weights", "read", "written", "threads", "ghz", "read_gb_s", "fill_gb_s")
    known = dict(zip(names, np.array(rows, np.float64).T, strict=True))
    return _Layers(np.array(rates), np.array(begins), known, np.array([figure.ms for figure in figures]))


def fit(figures: Sequence[Figure], start: Factors) -> Factors:
    """The factors nearest to `figures`, from `start` on; its `spread` stays.

    Raises KeyError for a figure of cores or a dtype that `start` has no rates for.
    """
    layers, begun = _layers(figures, start), _vector(start)

    def off(place: Values) -> Values:
        return np.concatenate([layers.errors(_factors(start, place)), HELD * (place - begun)])

    place, best, damping = begun, off(begun), 1.0
    for _ in range(ROUNDS):
        slopes = np.stack([(off(place + one) - best) / STEP for one in STEP * np.eye(len(place))], axis=1)
        wanted = np.linalg.solve(slopes.T @ slopes + damping * np.eye(len(place)), -slopes.T @ best)
        moved = place + np.clip(wanted, -1, 1)
        found = off(moved)
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


def errors(figures: Sequence[Figure], factors: Factors) -> Values:
    """Logarithms of forecast over figure."""
    return _layers(figures, factors).errors(factors)


def left_out(figures: Sequence[Figure], start: Factors) -> list[NDArray[np.float64]]:
    """Logarithms of forecast over figure, device by device, each by a fit to all others.

    Where all are of one device, network by network.
    """
    alone = len({figure.device.name for figure in figures}) == 1
    own = [figure.told if alone else figure.device.name for figure in figures]
    off = []
    for name in dict.fromkeys(own):
        rest = [figure for figure, other in zip(figures, own, strict=True) if other != name]
        left = [figure for figure, other in zip(figures, own, strict=True) if other == name]
        off.append(errors(left, fit(rest, start)))
    return off


def spread(errors_of: Sequence[NDArray[np.float64]]) -> float:
    """Within what nine in ten of `left_out` lie; each device counts the same however many figures it has."""
    off = sorted((abs(float(error)), 1 / len(own)) for own in errors_of for error in own)
    reached = np.cumsum([weight for _, weight in off])
    # Of few figures the next larger error counts: an interval is rather too wide than too narrow.
    return off[int(np.searchsorted(reached, COVERED * reached[-1] - 1e-9))][0]


def _keys(factors: Factors) -> list[tuple[str, str, str]]:
    groups = {"product": factors.product, "depthwise": factors.depthwise}
    return [
        (group, kind, dtype)
        for group, by_kind in groups.items()
        for kind, own in by_kind.items()
        for dtype in own
    ]


def _rates(factors: Factors) -> list[float]:
    return [getattr(factors, group)[kind][dtype] for group, kind, dtype in _keys(factors)]


def _vector(factors: Factors) -> Values:
    made: Values = np.log([*_rates(factors), *(getattr(factors, name) for name in FREE)])
    return made


def _factors(start: Factors, place: Values) -> Factors:
    values = iter(np.exp(place).tolist())
    product, depthwise = (
        {kind: {dtype: next(values) for dtype in own} for kind, own in by_kind.items()}
        for by_kind in (start.product, start.depthwise)
    )
    free = dict(zip(FREE, values, strict=True))
    free |= {name: min(free[name], 1.0) for name in AT_MOST_ONE}
    return replace(start, product=product, depthwise=depthwise, **free)
