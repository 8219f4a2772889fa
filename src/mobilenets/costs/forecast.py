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

BYTES = {"float32": 4, "int8": 1}
MIXED = ("depthwise", "pool", "add")
"""Kinds of layer that mix no channels: each value read serves few products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """How a runtime uses cores and memory.

    `product` and `depthwise` are multiply-accumulates a cycle and core, by the kind of core and then by
    dtype; `overhead` is cycles a layer; threads t count as t ** `scaling`. Each value of a map is read from
    memory `read` times and written `write` times. Of compute and transfer the larger counts, and of the
    smaller what `overlap` leaves: 1 nothing, 0 all of it. Of figures left out of a fit nine in ten lay within
    exp(±`spread`).
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
    memory, notes = device.memory, []
    if memory is None:
        memory = typical(device.kind)
        if device.ram_kb is None:
            notes.append(f"its memory is taken for that of other boards: {memory.copy:g} GB/s copied")
    layers = tuple(_layer(row, device, memory, dtype, threads, factors) for row in counted.rows)
    ms = sum(layer.ms for layer in layers)
    energy = None
    if device.busy_w is not None:
        energy = ms * device.busy_w
        notes.append(f"energy: {device.busy_w:g} W, {device.sources['power']}")
    return Forecast(
        device=device.name,
        runtime=factors.runtime,
        dtype=dtype,
        threads=threads,
        ms=ms,
        low=ms * exp(-factors.spread),
        high=ms * exp(factors.spread),
        energy_mj=energy,
        rests_on=factors.rests_on,
        notes=tuple(notes),
        layers=layers,
    )


def factors_for(device: Device) -> Factors:
    """The factors there are for a device's cores. Raises ValueError where there are none."""
    for factors in known_factors():
        if device.kind in factors.product:
            return factors
    raise ValueError(f"{device.name}: no figures were found to forecast from; `mobilenets bench` measures")


@cache
def known_factors() -> tuple[Factors, ...]:
    """All that were fitted."""
    text = files("mobilenets.costs").joinpath("factors.json").read_text(encoding="utf-8")
    return tuple(Factors(**one) for one in json.loads(text))


def typical(kind: str) -> Memory:
    """The middle of what boards with such cores have; where none is known, of all."""
    found = [device.memory for device in TABLE if device.kind == kind and device.memory is not None]
    if not found:
        found = [device.memory for device in TABLE if device.memory is not None]
    return Memory(median(one.copy for one in found), median(one.fill for one in found))


def as_json(found: Forecast, by_layer: bool = False) -> dict[str, Any]:
    """A forecast as JSON values."""
    told = asdict(found)
    if not by_layer:
        del told["layers"]
    return told | {"measured": False}


def _layer(row: Row, device: Device, memory: Memory, dtype: str, threads: int, factors: Factors) -> Layer:
    size = BYTES[dtype]
    rates = (factors.depthwise if row.kind in MIXED else factors.product)[device.kind]
    cycles = (row.macs or row.input.elements) / rates[dtype] / threads**factors.scaling
    compute = cycles / device.ghz * 1e-6
    read = size * (row.weights + factors.read * row.input.elements) / memory.read
    transfer = (read + size * factors.write * row.output.elements / memory.fill) * 1e-6
    overhead = factors.overhead / device.ghz * 1e-6
    ms = max(compute, transfer) + (1 - factors.overlap) * min(compute, transfer) + overhead
    parts = {"compute": compute, "memory": transfer, "overhead": overhead}
    return Layer(row.name, row.kind, ms, max(parts, key=lambda name: parts[name]))
