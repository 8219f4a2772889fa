"""Rows that `mobilenets bench` kept: what each network took, and the factors of a forecast that they give."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from mobilenets.costs.choose import DTYPES, Variant
from mobilenets.costs.count import Cost, cost
from mobilenets.costs.device import Device, Memory
from mobilenets.costs.forecast import Factors
from mobilenets.forecasting import Figure, errors, fit, left_out, spread
from mobilenets.spec import zoo

OURS = "ours"
LEAST = 4
"""Networks in the type asked for, from which on a fit says something: left out in turn, three are left."""
KIND = "here"
MEMORY = Memory(10, 20)
START = {"overhead": 1e3, "scaling": 0.95, "read": 1.0, "write": 1.0, "overlap": 0.1}
RATES = {"product": {"float32": 60.0, "int8": 250.0}, "depthwise": {"float32": 20.0, "int8": 80.0}}


@dataclass(frozen=True, slots=True)
class Row:
    """What an engine took for a picture of a network, by a file of rows."""

    file: str
    variant: Variant
    classes: int
    engine: str
    dtype: str
    threads: int
    ms: float
    machine: str

    @property
    def net(self) -> str:
        """The network in words."""
        name, width, resolution = self.variant
        return f"{name} {width:g} at {resolution}"

    @property
    def counted(self) -> Cost:
        return _counted(self.variant, self.classes)


def read(paths: Iterable[Path]) -> list[Row]:
    """The rows of all files; of those that repeat a network, engine, type and threads the last.

    Raises ValueError that names the file, the line and what is wrong with it.
    """
    found: dict[tuple[Variant, str, str, int], Row] = {}
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            try:
                for line in reader:
                    row = _row(path.name, line)
                    key = (row.variant, row.engine, row.dtype, row.threads)
                    found.pop(key, None)
                    found[key] = row
            except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
                told = f"no column {error}" if isinstance(error, KeyError) else str(error)
                where = f"{path}, line {reader.line_num}"
                raise ValueError(f"{where}: no rows.csv of `mobilenets bench --out`: {told}") from error
    if not found:
        raise ValueError(f"{', '.join(map(str, paths))}: no rows of `mobilenets bench`")
    return list(found.values())


def _row(file: str, line: Mapping[str, str]) -> Row:
    if None in line.values():
        raise ValueError("a line that is cut off")
    name, width, _, side = line["model"].split()
    variant, ms = (name, float(width), int(side)), float(line["latency_ms"])
    if not 0 < ms < float("inf"):
        raise ValueError(f"a latency of {line['latency_ms']} ms")
    return Row(
        file=file,
        variant=variant,
        classes=_classes(variant, int(line["macs"])),
        engine=line["engine"],
        dtype=line["dtype"],
        threads=int(line["threads"]),
        ms=ms,
        machine=line["machine"],
    )


@cache
def _counted(variant: Variant, classes: int) -> Cost:
    return cost(zoo.net(*variant, classes))


def _classes(variant: Variant, macs: int) -> int:
    """How many classes the network was raced with, by its multiply-accumulates."""
    one, two = (_counted(variant, classes).macs for classes in (1, 2))
    more, rest = divmod(macs - one, two - one)
    if rest or more < 0:
        raise ValueError(f"{macs:,} multiply-accumulates are not those of {variant[0]} {variant[1]:g}")
    return 1 + more


def factors(
    rows: Sequence[Row], dtype: str, threads: int, engine: str = OURS, device: Device | None = None
) -> tuple[Device, Factors]:
    """The machine that rows were measured on, and how an engine uses it with so many threads.

    `device` where it is one of the table, whose clock, memory and power count then. Raises ValueError where
    the rows hold too few networks, or are of several machines.
    """
    own = [row for row in rows if (row.engine, row.threads) == (engine, threads) and row.dtype in DTYPES]
    nets = {row.variant for row in own if row.dtype == dtype}
    if len(nets) < LEAST:
        raise ValueError(_lacking(rows, dtype, threads, engine, len(nets)))
    if len(machines := dict.fromkeys(row.machine for row in own)) > 1:
        raise ValueError(f"rows of several machines: {'; '.join(machines)}: give those of one")
    where = device or Device(
        name="this machine",
        says=f"the machine of the rows: {own[-1].machine}",
        kind=KIND,
        cores=threads,
        ghz=1.0,  # nobody tells: cycles are nanoseconds
        memory=MEMORY,
    )
    known = {row.dtype for row in own}
    start = Factors(
        runtime=engine,
        product={where.kind: {name: rate for name, rate in RATES["product"].items() if name in known}},
        depthwise={where.kind: {name: rate for name, rate in RATES["depthwise"].items() if name in known}},
        spread=0,
        rests_on="",
        **START,
    )
    where, start = _scaled(_figures(own, where), start, where, device is None)
    files = ", ".join(dict.fromkeys(row.file for row in own))
    told = f"{len(own)} rows of {engine} in {files}, measured on {own[-1].machine}"
    figures = _figures(own, where)
    return where, replace(fit(figures, start), spread=spread(left_out(figures, start)), rests_on=told)


def _figures(rows: Iterable[Row], where: Device) -> list[Figure]:
    return [Figure(where, row.counted, row.dtype, row.threads, row.ms, row.net) for row in rows]


def took(rows: Iterable[Row], threads: int, engine: str = OURS) -> dict[tuple[Variant, str], float]:
    """The milliseconds of an engine on so many threads, by variant and type."""
    return {
        (row.variant, row.dtype): row.ms for row in rows if (row.threads, row.engine) == (threads, engine)
    }


def _scaled(
    figures: Sequence[Figure], start: Factors, where: Device, memory_too: bool
) -> tuple[Device, Factors]:
    """`start` made as quick as the machine is: a fit is held to it, and machines differ by a thousand.

    Where nobody told the machine's memory it is taken to be quicker as the rest is.
    """
    off, rates = errors(figures, start), {}
    for dtype in {figure.dtype for figure in figures}:
        one = [error for figure, error in zip(figures, off, strict=True) if figure.dtype == dtype]
        rates[dtype] = float(np.exp(np.median(one)))
    product, depthwise = (
        {kind: {dtype: rate * rates[dtype] for dtype, rate in own.items()} for kind, own in group.items()}
        for group in (start.product, start.depthwise)
    )
    quick = float(np.exp(np.median(off)))
    start = replace(start, product=product, depthwise=depthwise, overhead=start.overhead / quick)
    if memory_too:
        return replace(where, memory=Memory(MEMORY.copy * quick, MEMORY.fill * quick)), start
    return where, replace(start, read=start.read / quick, write=start.write / quick)


def _lacking(rows: Sequence[Row], dtype: str, threads: int, engine: str, found: int) -> str:
    groups: dict[tuple[str, str, int], set[Variant]] = {}
    for row in rows:
        groups.setdefault((row.engine, row.dtype, row.threads), set()).add(row.variant)
    said = [
        f"{len(nets)} of {name} in {kind} on {_threads(count)}"
        for (name, kind, count), nets in sorted(groups.items(), key=lambda group: group[0][0] != engine)
    ]
    files = ", ".join(dict.fromkeys(row.file for row in rows))
    return (
        f"{files}: {found} networks of {engine} in {dtype} on {_threads(threads)}, {LEAST} are needed to "
        f"forecast others; measured are {'; '.join(said[:4])}{'; …' * (len(said) > 4)}"
    )


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"
