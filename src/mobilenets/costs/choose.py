"""The variant for a budget: every network of the zoo on a device, what fits, the most accurate first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mobilenets.costs.count import cost
from mobilenets.costs.device import Device
from mobilenets.costs.forecast import Forecast, factors_for, forecast
from mobilenets.spec import zoo

Variant = tuple[str, float, int]
"""A network's name, width and resolution."""

SLIM = "tensorflow/models, research/slim/nets (mobilenet_v1.md, mobilenet/README.md): ImageNet, float32"
# Top-1 on ImageNet's validation set, from the resolutions of the first line down.
V1_TOP1 = {
    1.0: (0.709, 0.700, 0.680, 0.652),
    0.75: (0.684, 0.672, 0.653, 0.621),
    0.5: (0.633, 0.617, 0.591, 0.563),
    0.25: (0.498, 0.477, 0.455, 0.415),
}
V2_TOP1 = {
    1.4: (0.750,),
    1.3: (0.744,),
    1.0: (0.718, 0.707, 0.688, 0.653, 0.603),
    0.75: (0.698, 0.687, 0.664, 0.632, 0.588),
    0.5: (0.654, 0.639, 0.610, 0.577, 0.512),
    0.35: (0.603, 0.582, 0.557, 0.508, 0.455),
}
RESOLUTIONS = (224, 192, 160, 128, 96)
PUBLISHED: Mapping[Variant, float] = {
    (name, width, side): top1
    for name, table in (("v1", V1_TOP1), ("v2", V2_TOP1))
    for width, row in table.items()
    for side, top1 in zip(RESOLUTIONS, row, strict=False)
}
"""Scores by variant, of the source `SLIM`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What may be spent on a picture; None is no limit."""

    latency_ms: float | None = None
    size_kb: float | None = None
    ram_kb: float | None = None
    energy_mj: float | None = None

    @property
    def limits(self) -> dict[str, float]:
        """Those that were set, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in given.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant on a device: its forecast, weights and maps in KB, and its accuracy where one is known."""

    variant: Variant
    dtype: str
    forecast: Forecast
    size_kb: float
    ram_kb: float
    accuracy: float | None

    def takes(self, limit: str) -> float | None:
        """What it takes of what a limit is of; None where that is not known."""
        return {
            "latency_ms": self.forecast.ms,
            "size_kb": self.size_kb,
            "ram_kb": self.ram_kb,
            "energy_mj": self.forecast.energy_mj,
        }[limit]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        net, width, resolution = self.variant
        return {
            "net": net,
            "width": width,
            "resolution": resolution,
            "dtype": self.dtype,
            "accuracy": self.accuracy,
            "latency_ms": self.forecast.ms,
            "low_ms": self.forecast.low,
            "high_ms": self.forecast.high,
            "measured": False,
            "runtime": self.forecast.runtime,
            "size_kb": self.size_kb,
            "ram_kb": self.ram_kb,
            "energy_mj": self.forecast.energy_mj,
        }

    def over(self, budget: Budget) -> float:
        """How many times what may be spent the worst of it is; at most 1 where it fits."""
        shares = [self.takes(name) for name in budget.limits]
        limits = budget.limits.values()
        known = [share / limit for share, limit in zip(shares, limits, strict=True) if share is not None]
        return max(known, default=0.0)


def candidates(
    device: Device,
    dtypes: Sequence[str] = ("float32", "int8"),
    threads: int = 1,
    scores: Mapping[Variant, float] = PUBLISHED,
    classes: int | None = None,
) -> list[Candidate]:
    """Every variant that has a score, in every type the device has factors for."""
    known = factors_for(device).product[device.kind]
    if not set(dtypes) & set(known):
        told = f"{factors_for(device).runtime} in {' or '.join(dtypes)}, only in {', '.join(known)}"
        raise ValueError(f"{device.name}: nothing is known of {told}")
    made = []
    for variant, accuracy in scores.items():
        counted = cost(zoo.net(*variant, classes))
        made += [
            Candidate(
                variant,
                dtype,
                forecast(counted, device, dtype, threads),
                (counted.int8_bytes if dtype == "int8" else counted.float32_bytes) / 1024,
                counted.activation_bytes / (4096 if dtype == "int8" else 1024),
                accuracy,
            )
            for dtype in dtypes
            if dtype in known
        ]
    return made


def chosen(found: Iterable[Candidate], budget: Budget) -> tuple[list[Candidate], Candidate | None]:
    """Those that fit, the most accurate first and of equals the quicker; where none does, who comes closest.

    Raises ValueError for a limit on energy where the device's power is not known.
    """
    found = list(found)
    if "energy_mj" in budget.limits and any(one.forecast.energy_mj is None for one in found):
        raise ValueError(f"{found[0].forecast.device}: its power is not known, so no energy either")
    fitting = [one for one in found if one.over(budget) <= 1]
    fitting.sort(key=lambda one: (-(one.accuracy or 0), one.forecast.ms))
    closest = None if fitting else min(found, key=lambda one: one.over(budget), default=None)
    return fitting, closest
