"""The variant for a budget: every network of the zoo on a device, what fits, the most accurate first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, NamedTuple

from mobilenets.costs.count import cost
from mobilenets.costs.device import Device
from mobilenets.costs.forecast import FITTED_TO, Factors, factors_for, forecast, power_w, published_for
from mobilenets.spec import zoo
from mobilenets.spec.net import Net
from mobilenets.spec.published import SCORES

DTYPES = ("float32", "int8")
Variant = tuple[str, float, int]
"""A network's name, width and resolution."""

PUBLISHED: Mapping[Variant, float] = {
    (one.net, one.width, one.resolution): one.top1
    for one in SCORES
    if one.net in FITTED_TO and one.top1 is not None
}
"""Scores by variant, of the source `SLIM`: those of networks that forecasts were fitted to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent on a picture; None is no limit. ValueError for one that is no number above nought."""

    latency_ms: float | None = None
    size_kb: float | None = None
    ram_kb: float | None = None
    energy_mj: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if not (isfinite(limit) and limit > 0):
                raise ValueError(f"--{name.replace('_', '-')} {limit:g}: a limit is a number above 0")

    @property
    def limits(self) -> dict[str, float]:
        """Those that were set, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in given.items() if limit is not None}

    def on(self, device: Device) -> Budget:
        """The same on a device whose own memories are limits too."""
        there = {"size_kb": device.flash_kb, "ram_kb": device.ram_kb}
        own = {name: float(limit) for name, limit in there.items() if limit is not None}
        return replace(
            self, **{name: min(limit, self.limits.get(name, limit)) for name, limit in own.items()}
        )


class _Timed(NamedTuple):
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    measured: bool
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A variant on a device: its latency, weights and maps in KB, its accuracy where one is known.

    The latency is `measured` with `runtime`, or a forecast of it between `low_ms` and `high_ms`. `refused` is
    why the variant cannot be compiled yet.
    """

    device: str
    variant: Variant
    dtype: str
    accuracy: float | None
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    measured: bool
    runtime: str
    size_kb: float
    ram_kb: float
    energy_mj: float | None
    refused: str | None = None

    def takes(self, limit: str) -> float | None:
        """What it takes of what a limit is of; None where that is not known."""
        found: float | None = getattr(self, limit)
        return found

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        told = asdict(self)
        net, width, resolution = told.pop("variant")
        return {"net": net, "width": width, "resolution": resolution} | told

    def shares(self, budget: Budget) -> dict[str, float]:
        """How many times each limit it takes, where that is known."""
        taken = {name: self.takes(name) for name in budget.limits}
        return {name: own / budget.limits[name] for name, own in taken.items() if own is not None}

    def over(self, budget: Budget) -> float:
        """How many times what may be spent the worst of it is; at most 1 where it fits."""
        return max(self.shares(budget).values(), default=0.0)


def candidates(
    device: Device,
    dtypes: Sequence[str] = DTYPES,
    threads: int = 1,
    scores: Mapping[Variant, float] = PUBLISHED,
    classes: int | None = None,
    *,
    factors: Factors | None = None,
    measured: Mapping[tuple[Variant, str], float] | None = None,
    runtime: str = "",
    refused: Callable[[Net], str | None] | None = None,
) -> list[Candidate]:
    """Every variant that has a score, in every type that is known of the device.

    Milliseconds that were `measured` with `runtime` take the place of forecasts. `refused` says of a network
    why it cannot be compiled. Raises ValueError where nothing is known in any of the types.
    """
    if wrong := [dtype for dtype in dtypes if dtype not in DTYPES]:
        raise ValueError(f"--dtype {wrong[0]}: unknown; known: {', '.join(DTYPES)}")
    measured = measured or {}
    if factors is None:
        factors = published_for(device) if measured else factors_for(device)
    known = {} if factors is None else factors.product[device.kind]
    there = {dtype for _, dtype in measured} | set(known)
    if not set(dtypes) & there:
        told = f"{factors.runtime if factors else runtime} in {' or '.join(dtypes)}"
        raise ValueError(f"{device.name}: nothing is known of {told}, only in {', '.join(sorted(there))}")
    power, made = power_w(device, threads), []
    for variant, accuracy in scores.items():
        net = zoo.net(*variant, classes)
        counted, reason = cost(net), refused(net) if refused else None
        for dtype in dtypes:
            ms = measured.get((variant, dtype))
            if ms is not None:
                timed = _Timed(ms, None, None, True, runtime)
            elif factors is not None and dtype in known:
                found = forecast(counted, device, dtype, threads, factors)
                timed = _Timed(found.ms, found.low, found.high, False, found.runtime)
            else:
                continue
            made.append(
                Candidate(
                    device=device.name,
                    variant=variant,
                    dtype=dtype,
                    accuracy=accuracy,
                    **timed._asdict(),
                    size_kb=(counted.int8_bytes if dtype == "int8" else counted.float32_bytes) / 1024,
                    ram_kb=counted.activation_bytes / (4096 if dtype == "int8" else 1024),
                    energy_mj=None if power is None else power * timed.latency_ms,
                    refused=reason,
                )
            )
    if not made:
        raise ValueError(f"{device.name}: none of these variants was measured, nor figures published")
    return made


def chosen(found: Iterable[Candidate], budget: Budget) -> tuple[list[Candidate], Candidate | None]:
    """Those that fit, the most accurate first and of equals the quicker; where none does, who comes closest.

    Raises ValueError for a limit on energy where the device's power is not known.
    """
    found = list(found)
    if "energy_mj" in budget.limits and any(one.energy_mj is None for one in found):
        raise ValueError(f"{found[0].device}: its power is not known, so no energy either")
    fitting = [one for one in found if one.over(budget) <= 1]
    fitting.sort(key=lambda one: (-(one.accuracy or 0), one.latency_ms))
    closest = None if fitting else min(found, key=lambda one: one.over(budget), default=None)
    return fitting, closest
