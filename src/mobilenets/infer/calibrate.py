"""What calibration pictures tell of a network: moments of what layers read, spreads of what they give."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.resize import Frame
from mobilenets.infer.walk import Map, windows
from mobilenets.spec.net import Net, Node
from mobilenets.spec.op import Conv, Dense, Depthwise, Linear, Pointwise

Maps = Callable[[Frame, Sequence[str]], Mapping[str, NDArray[Any]]]
"""Levels uint8 [n, height, width, 3] and names of nodes to outputs and those nodes' maps, in float32."""
Ranges = Literal["min-max", "percentile", "mse"]

T = TypeVar("T")
R = TypeVar("R")
BATCH = 4
MOST_PLACES = 256
"""Places of one picture whose windows are looked at; each layer's are drawn anew for each batch."""
ROUNDING = 1e-5
BINS = 512
SHARE = 1e-4
"""Of values above zero, what `percentile` cuts off."""
CUTS = tuple(0.3 + 0.0125 * i for i in range(57))
"""Where `mse` may cut, as parts of the greatest value."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over windows: of their values [groups, terms] and of their products [groups, terms, terms].

    A depthwise layer has a group for each channel, any other layer those of its op.
    """

    count: int
    total: NDArray[np.float64]
    products: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        return np.asarray(self.total / self.count)

    @property
    def covariance(self) -> NDArray[np.float64]:
        squares, mean = self.products / self.count, self.mean
        # Where nothing changes, the rounding of float32 products is left, and must not pass for a covariance.
        rounded = ROUNDING * np.trace(squares, axis1=1, axis2=2) / squares.shape[1]
        apart = squares - mean[:, :, None] * mean[:, None, :]
        return np.asarray(apart + rounded[:, None, None] * np.eye(squares.shape[1]))

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def of(self, channels: NDArray[np.int64]) -> Moments:
        """The moments of other channels, those in the order given."""
        if len(self.total) > 1:
            return replace(self, total=self.total[channels], products=self.products[channels])
        return replace(
            self, total=self.total[:, channels], products=self.products[:, channels][:, :, channels]
        )

    def scaled(self, factors: NDArray[np.float64]) -> Moments:
        """The moments of windows whose terms [groups, terms] are `factors` times as large."""
        return Moments(
            self.count, self.total * factors, self.products * factors[:, :, None] * factors[:, None, :]
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """How the values of a map lie: least and greatest of each channel, counts above zero up to `top`.

    Least and greatest are of all values, counts of `places` that were looked at.
    """

    least: NDArray[np.float32]
    most: NDArray[np.float32]
    counts: NDArray[np.int64]
    top: float
    places: int

    @property
    def between(self) -> NDArray[np.float64]:
        """The share of each channel's values above zero and below the greatest that there can be."""
        return np.asarray(self.counts[:, :-1].sum(1) / max(self.places, 1))

    def of(self, channels: NDArray[np.int64]) -> Spread:
        """The spread of other channels, those in the order given."""
        return replace(
            self, least=self.least[channels], most=self.most[channels], counts=self.counts[channels]
        )

    @property
    def squares(self) -> NDArray[np.float64]:
        """The mean square of each channel, values below zero taken for nothing."""
        places = np.asarray((np.arange(BINS) + 0.5) * (self.top / BINS), np.float64)
        return np.asarray((self.counts * places**2).sum(1) / max(self.places, 1))

    @property
    def signed(self) -> bool:
        return bool(self.least.min(initial=0) < 0)

    def joined(self) -> Spread:
        """All channels as one."""
        return replace(
            self,
            least=self.least.min(keepdims=True),
            most=self.most.max(keepdims=True),
            counts=self.counts.sum(0)[None],
            places=self.places * len(self.most),
        )

    def limits(self, ranges: Ranges) -> NDArray[np.float64]:
        """Up to where each channel's values are worth having; for signed maps always the greatest."""
        most = self.most.astype(np.float64)
        if ranges == "min-max" or self.signed:
            return most
        places = np.asarray((np.arange(BINS) + 0.5) * (self.top / BINS), np.float64)
        if ranges == "percentile":
            above = self.counts[:, ::-1].cumsum(1)[:, ::-1]
            enough = above > SHARE * np.maximum(above[:, :1], 1)
            found = np.where(enough.any(1), places[BINS - 1 - enough[:, ::-1].argmax(1)], most)
            return np.asarray(np.minimum(found, most))
        errors = [self._error(most * cut, places) for cut in CUTS]
        return np.asarray(most * np.array(CUTS)[np.argmin(errors, axis=0)])

    def _error(self, cuts: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of squares lost by values cut off and by values rounded, for each channel cut at `cuts`."""
        beyond = np.maximum(places - cuts[:, None], 0) ** 2
        return np.asarray((beyond * self.counts).sum(1) + (cuts / 255) ** 2 / 12 * self.counts.sum(1))


@dataclass(frozen=True, slots=True)
class Observed:
    """What was seen of a network: moments by the node that reads, spreads by the node that gives."""

    moments: Mapping[str, Moments]
    spreads: Mapping[str, Spread]


def observe(net: Net, maps: Maps, levels: Frame, zero: Map, threads: int = 1) -> Observed:
    """What the pictures make of a folded network; `zero` is taken from the levels that it reads."""
    names = [node.name for node in net.nodes]
    moments: dict[str, Moments] = {}
    spreads: dict[str, Spread] = {}

    def seen(numbered: tuple[int, Frame]) -> tuple[Mapping[str, Map], dict[str, Moments]]:
        number, part = numbered
        found = {**maps(part, names), "image": part - zero}
        reading = (node for node in net.nodes if isinstance(node.op, Linear))
        return found, {n.name: moments_of(looked_at(n, found[n.inputs[0]], number)) for n in reading}

    for number, (found, more) in enumerate(in_threads(seen, enumerate(batches(levels)), threads)):
        for name in names:
            if not np.isfinite(found[name]).all():
                raise ValueError(f"{name}: gives values that are no numbers, so that it cannot be quantised")
            spreads[name] = spread(spreads.get(name), found[name], number)
        moments = {name: moments[name] + own if name in moments else own for name, own in more.items()}
    return Observed(moments, spreads)


def in_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Results in order; only as many are made ahead as there are threads."""
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        begun = deque(pool.submit(work, item) for item in islice(left, threads))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(left, 1))
            yield done


def batches(levels: Frame) -> Iterable[Frame]:
    """The pictures, a few at a time."""
    return (levels[start : start + BATCH] for start in range(0, len(levels), BATCH))


def looked_at(node: Node, x: Map, seed: int) -> Map:
    """Windows [groups, places, terms] that a layer reads of maps [n, h, w, c], at places drawn by `seed`."""
    op = node.op
    match op:
        case Dense() | Pointwise():
            flat = x.reshape(len(x), -1, x.shape[-1])
            taken = flat[:, _drawn(flat.shape[1], seed)].reshape(-1, x.shape[-1], 1)
            groups = op.groups if isinstance(op, Pointwise) else 1
        case Conv() | Depthwise():
            x = x if x.ndim == 4 else x[:, None, None]  # of one pixel, as compiled code gives it
            view = windows(x, op)
            rows, columns = np.divmod(_drawn(view.shape[1] * view.shape[2], seed), view.shape[2])
            taken = view[:, rows, columns].reshape(-1, x.shape[-1], view.shape[4] * view.shape[5])
            groups = op.groups if isinstance(op, Conv) else x.shape[-1]
        case _:
            raise ValueError(f"{node.name}: has no weights to look at windows for")
    apart = taken.reshape(len(taken), groups, -1)
    return apart.transpose(1, 0, 2) if groups == 1 else np.ascontiguousarray(apart.transpose(1, 0, 2))


def _drawn(places: int, seed: int) -> NDArray[np.int64]:
    if places <= MOST_PLACES:
        return np.arange(places)
    return np.sort(np.random.default_rng(seed).choice(places, MOST_PLACES, replace=False))


def moments_of(windows: Map) -> Moments:
    """The moments of windows [groups, places, terms]."""
    windows = windows.astype(np.float32, copy=False)
    products = (windows.transpose(0, 2, 1) @ windows).astype(np.float64)
    total = (np.ones((1, windows.shape[1]), np.float32) @ windows)[:, 0]  # a seventh of the time of `sum`
    return Moments(windows.shape[1], total.astype(np.float64), products)


def spread(before: Spread | None, values: Map, seed: int) -> Spread:
    """A spread with more maps [n, h, w, c] (or vectors [n, c]) in it."""
    flat = values.reshape(len(values), -1, values.shape[-1])
    least, most = flat.min((0, 1)), flat.max((0, 1))
    if before is None:
        before = Spread(least, most, np.zeros((len(most), BINS), np.int64), max(float(most.max()), 1e-6), 0)
    counts, top = before.counts, before.top
    while float(most.max()) > top:  # twice as wide: neighbouring bins become one
        halved = counts.reshape(len(counts), BINS // 2, 2).sum(2)
        counts, top = np.concatenate([halved, np.zeros_like(halved)], 1), 2 * top
    seen = flat[:, _drawn(flat.shape[1], seed)].reshape(-1, flat.shape[2])
    bins = np.minimum((np.maximum(seen, 0) * np.float32(BINS / top)).astype(np.int32), BINS - 1)
    bins += np.arange(flat.shape[2], dtype=np.int32) * BINS
    more = np.bincount(bins[seen > 0], minlength=counts.size).reshape(counts.shape)
    return replace(
        before,
        least=np.minimum(before.least, least),
        most=np.maximum(before.most, most),
        counts=counts + more,
        top=top,
        places=before.places + len(seen),
    )
