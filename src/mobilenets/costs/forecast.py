"""How long a network takes on a device: layer by layer, what its cores compute and what its memory moves.

The factors of a runtime on a kind of core are fitted to published or measured figures
(`benchmarks/forecast.py`) and lie in factors.json. A forecast is no measurement: it has an interval, and says
what it rests on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from math import exp
from statistics import median
from typing import Any

from mobilenets.costs.count import Cost, Row
from mobilenets.costs.device import TABLE, Device, Memory

BYTES = {"float32": 4, "float16": 2, "int8": 1}
FITTED_TO = ("v1", "v2")
"""Networks that the published figures are of: how far off forecasts of others are nobody has measured."""
PRODUCTS = ("conv", "pointwise", "dense")
"""Kinds of layer that mix channels: each value read serves many products. All others count as depthwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """How a runtime uses cores and memory.

    `product` and `depthwise` are multiply-accumulates a cycle and core, by the kind of core and then by
    dtype; `overhead` is cycles a layer; threads t count as t ** `scaling`. Each value of a map is read from
    memory `read` times and written `write` times. Of compute and transfer the larger counts, and of the
    smaller what `overlap` leaves: 1 nothing, 0 all of it. Of figures left out of a fit nine in ten lay within
    exp(±`spread`), each device counting the same.
    """

    runtime: str
    product: Mapping[str, Mapping[str, float]]
    depthwise: Mapping[str, Mapping[str, float]]
    overhead: float
    scaling: float
    read: float
    write: float
    overlap: float
    spread: float
    rests_on: str


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, in milliseconds; `bound` is what most of that is: compute, memory or overhead."""

    name: str
    kind: str
    ms: float
    bound: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Milliseconds for one picture, from `low` to `high`; millijoules; `notes` say what was assumed."""

    device: str
    runtime: str
    dtype: str
    threads: int
    ms: float
    low: float
    high: float
    energy_mj: float | None
    rests_on: str
    notes: tuple[str, ...]
    layers: tuple[Layer, ...]


def forecast(
    counted: Cost,
    device: Device,
    dtype: str = "float32",
    threads: int = 1,
    factors: Factors | None = None,
) -> Forecast:
    """A picture on a device, with `threads` of its cores; of a network that `costs.count.cost` counted.

    Raises ValueError where nothing is known of the device's cores, or it has fewer of them.
    """
    if threads > device.cores:
        raise ValueError(f"{device.name} has {device.cores} cores, not {threads}")
    factors = factors or factors_for(device)
    if dtype not in factors.product[device.kind]:
        known = ", ".join(factors.product[device.kind])
        raise ValueError(f"{device.name}: nothing is known of {factors.runtime} in {dtype}, only in {known}")
    memory, notes = memory_of(device), []
    if device.memory is None and device.ram_kb is None:
        notes.append(f"its memory is taken for that of other boards: {memory.copy:g} GB/s copied")
    layers = tuple(_layer(row, device, memory, dtype, threads, factors) for row in counted.rows)
    ms = sum(layer.ms for layer in layers)
    power = power_w(device, threads)
    if power is not None:
        notes.append(power_told(device, threads))
    return Forecast(
        device=device.name,
        runtime=factors.runtime,
        dtype=dtype,
        threads=threads,
        ms=ms,
        low=ms * exp(-factors.spread),
        high=ms * exp(factors.spread),
        energy_mj=None if power is None else ms * power,
        rests_on=factors.rests_on,
        notes=tuple(notes),
        layers=layers,
    )


def factors_for(device: Device) -> Factors:
    """The factors there are for a device's cores. Raises ValueError where there are none."""
    found = published_for(device)
    if found is None:
        raise ValueError(
            f"{device.name}: no figures were found to forecast from; `mobilenets bench` measures"
        )
    return found


def published_for(device: Device) -> Factors | None:
    """The same, or None."""
    return next((factors for factors in known_factors() if device.kind in factors.product), None)


@cache
def known_factors() -> tuple[Factors, ...]:
    """All that were fitted."""
    text = files("mobilenets.costs").joinpath("factors.json").read_text(encoding="utf-8")
    return tuple(Factors(**one) for one in json.loads(text))


def memory_of(device: Device) -> Memory:
    """A device's own; else the middle of what boards with such cores have; where none is known, of all."""
    if device.memory is not None:
        return device.memory
    found = [one.memory for one in TABLE if one.kind == device.kind and one.memory is not None]
    found = found or [one.memory for one in TABLE if one.memory is not None]
    return Memory(median(one.copy for one in found), median(one.fill for one in found))


def as_json(found: Forecast, by_layer: bool = False) -> dict[str, Any]:
    """A forecast as JSON values."""
    told = asdict(found)
    if not by_layer:
        del told["layers"]
    return told | {"measured": False}


def power_w(device: Device, threads: int) -> float | None:
    """What a device takes while `threads` of its cores work; None where no source tells.

    Between idle and all cores busy in proportion to the cores. Where idle is not known it is the power with
    all of them busy, an upper bound.
    """
    if device.busy_w is None or device.idle_w is None:
        return device.busy_w
    return device.idle_w + (device.busy_w - device.idle_w) * threads / device.cores


def power_told(device: Device, threads: int) -> str:
    """What an energy rests on, in words, with the source."""
    told, source = f"energy: {power_w(device, threads):.3g} W", device.sources["power"]
    if device.cores == 1:
        return f"{told} while it works: {source}"
    if device.idle_w is None:
        return f"{told}, with all {device.cores} cores busy, an upper bound: {source}"
    ends = f"{device.idle_w:g} W idle, {device.busy_w:g} W with all {device.cores} cores busy"
    return f"{told}, for {threads} of {device.cores} cores between {ends}: {source}"


def spent(
    *,
    products: Any,
    weights: Any,
    read: Any,
    written: Any,
    rate: Any,
    threads: Any,
    ghz: Any,
    read_gb_s: Any,
    fill_gb_s: Any,
    factors: Factors,
) -> tuple[Any, Any, Any]:
    """Milliseconds of compute, transfer and overhead of a layer; of many where numbers come as arrays.

    `products` are multiply-accumulates, `rate` of them a cycle and core; `weights`, and of maps what is
    `read` and `written`, are bytes.
    """
    compute = products / rate / threads**factors.scaling / ghz * 1e-6
    moved = (weights + factors.read * read) / read_gb_s + factors.write * written / fill_gb_s
    return compute, moved * 1e-6, factors.overhead / ghz * 1e-6


def together(compute: Any, transfer: Any, overhead: Any, overlap: float) -> Any:
    """Milliseconds of a layer: the larger of compute and transfer, what `overlap` leaves of the other."""
    both = compute + transfer
    return both - overlap * (both - abs(compute - transfer)) / 2 + overhead


def _layer(row: Row, device: Device, memory: Memory, dtype: str, threads: int, factors: Factors) -> Layer:
    size = BYTES[dtype]
    rates = factors.product if row.kind in PRODUCTS else factors.depthwise
    compute, transfer, overhead = spent(
        products=row.macs or row.values_read,
        weights=size * row.weights,
        read=size * row.values_read,
        written=size * row.output.elements,
        rate=rates[device.kind][dtype],
        threads=threads,
        ghz=device.ghz,
        read_gb_s=memory.read,
        fill_gb_s=memory.fill,
        factors=factors,
    )
    ms = together(compute, transfer, overhead, factors.overlap)
    parts = {"compute": compute, "memory": transfer, "overhead": overhead}
    return Layer(row.name, row.kind, ms, max(parts, key=lambda name: parts[name]))
