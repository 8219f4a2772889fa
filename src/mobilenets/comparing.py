"""The field compared: what was printed of each network, what it costs, how long it takes; and the front."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mobilenets import measured
from mobilenets.costs.choose import Variant
from mobilenets.costs.count import Cost, cost
from mobilenets.costs.device import Device, device
from mobilenets.costs.forecast import BYTES, FITTED_TO, Factors, factors_for, forecast
from mobilenets.data.digests import Progress
from mobilenets.infer.sealed import writable, write_whole
from mobilenets.spec import zoo
from mobilenets.spec.published import SCORES, Score, for_net
from mobilenets.spec.text import json_text

TABLE, TEXT, PICTURE, PAGE, RECORD = (
    "compare.csv",
    "compare.md",
    "compare.png",
    "compare.html",
    "compare.json",
)
LARGER = "larger"
"""The family of networks that are counted and no more."""
NOWHERE = (
    "no latencies: --device NAME forecasts them (`mobilenets devices`), --rows FILE has what was measured on "
    "this machine (`mobilenets bench v1 --out DIR`)"
)


@dataclass(frozen=True, slots=True)
class Clock:
    """Where and in what a picture is timed: on a device, or on the machine that `rows` are of."""

    device: str | None = None
    dtype: str = "float32"
    threads: int = 1
    rows: tuple[Path, ...] = ()
    runtime: str = measured.OURS


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One network at one size; `label` is its name where there is little room.

    Accuracies are fractions, as `source` printed them; None where it did not.

    `weights` names the most accurate known weights of this size and `weights_accuracy` what was published of
    them. The latency `is` measured with a runtime, or forecast between `low_ms` and `high_ms`; where neither
    can be, `latency_not` says why. `front`: nothing cheaper is as accurate.
    """

    name: str
    label: str
    net: str
    width: float
    resolution: int
    family: str
    accuracy: float | None
    accuracy_int8: float | None
    source: str
    weights: str | None
    weights_accuracy: float | None
    macs: int
    params: int
    float32_bytes: int
    int8_bytes: int
    latency_ms: float | None
    low_ms: float | None
    high_ms: float | None
    latency_is: str | None
    latency_by: str | None
    latency_not: str | None
    front: bool


@dataclass(frozen=True, slots=True)
class _Times:
    """What is known of a picture's time: what was measured, and the factors that forecast the rest."""

    clock: Clock
    where: Device | None = None
    factors: Factors | None = None
    took: Mapping[tuple[Variant, str], float] = field(default_factory=dict)
    fitted: tuple[str, ...] = FITTED_TO
    lacking: str = NOWHERE

    def of(self, variant: Variant, counted: Cost) -> dict[str, Any]:
        """The fields of a row that are about time."""
        told: dict[str, Any] = dict.fromkeys(
            ("latency_ms", "low_ms", "high_ms", "latency_is", "latency_by", "latency_not")
        )
        if (ms := self.took.get((variant, self.clock.dtype))) is not None:
            return told | {"latency_ms": ms, "latency_is": "measured", "latency_by": self.clock.runtime}
        if self.where is None or self.factors is None:
            return told | {"latency_not": self.lacking}
        if reason := _beyond(self.where, counted, self.clock.dtype):
            return told | {"latency_not": reason}
        made = forecast(counted, self.where, self.clock.dtype, self.clock.threads, self.factors)
        told |= {"latency_ms": made.ms, "low_ms": made.low, "high_ms": made.high}
        return told | {"latency_is": "forecast", "latency_by": made.runtime}


def compare(
    names: Sequence[str],
    clock: Clock,
    sort: str,
    progress: Progress,
    *,
    out: Path | None = None,
    command: str = "",
) -> dict[str, Any]:
    """The table as JSON values; with `out` it, its picture and a page are written there.

    Raises ValueError, before work is done, for names, an order, a type or a device that there is not, OSError
    for a place that cannot be written to.
    """
    if sort not in ORDERS:
        raise ValueError(f"--sort {sort}: unknown; known: {', '.join(ORDERS)}")
    if clock.dtype not in BYTES:
        raise ValueError(f"--dtype {clock.dtype}: unknown; known: {', '.join(BYTES)}")
    if out is not None and find_spec("matplotlib") is None:
        raise ValueError("the table's picture needs matplotlib: pip install 'mobilenets[train]'")
    if out is not None:
        writable(out)
    scores = chosen(names)
    progress("fit", 0, 1)
    times = _times(clock)
    counts = []
    for done, score in enumerate(scores):
        progress("count", done, len(scores))
        counts.append(cost(zoo.net(score.net, score.width, score.resolution)))
    best = front([(counted.macs, score.top1) for score, counted in zip(scores, counts, strict=True)])
    rows = [
        _row(score, counted, times, front=number in best)
        for number, (score, counted) in enumerate(zip(scores, counts, strict=True))
    ]
    rows.sort(key=ORDERS[sort])
    found = {
        "device": None if times.where is None else times.where.name,
        "says": None if times.where is None else times.where.says,
        "dtype": clock.dtype,
        "threads": clock.threads,
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "rows": [asdict(row) for row in rows],
        "front": [row.name for row in sorted(rows, key=ORDERS["macs"]) if row.front],
        "notes": _notes(rows, times),
        "files": [],
    }
    if out is not None:
        progress("draw", 0, 1)
        _write(found, out)
    return found


ORDERS: Mapping[str, Any] = {
    "macs": lambda row: (row.macs, row.name),
    "accuracy": lambda row: (row.accuracy is None, -(row.accuracy or 0), row.macs),
    "params": lambda row: (row.params, row.macs),
    "latency": lambda row: (row.latency_ms is None, row.latency_ms or 0, row.macs),
    "name": lambda row: (row.net, -row.width, -row.resolution),
}
"""Accuracy from the most, all others from the least; what is not known comes last."""


def chosen(names: Sequence[str]) -> list[Score]:
    """What was printed of the networks of these names, or that begin so; of all without names.

    Raises ValueError that offers the nearest names.
    """
    known = list(dict.fromkeys(score.net for score in SCORES))
    wanted: set[str] = set()
    for name in names:
        asked = name.strip().lower()
        meant = [net for net in known if net == asked] or [
            net for net in known if asked and net.startswith(asked)
        ]
        if not meant:
            near = get_close_matches(asked, known, n=3, cutoff=0.5)
            told = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            what = "no accuracy was published of" if asked in zoo.NETS else "unknown network"
            raise ValueError(f"{what} {name!r}; {told}")
        wanted.update(meant)
    return [score for score in SCORES if not names or score.net in wanted]


def front(points: Sequence[tuple[int, float | None]]) -> list[int]:
    """The places of the points (cost, accuracy) that no other equals or beats in both, the cheapest first."""
    order = sorted(
        (place for place, (_, accuracy) in enumerate(points) if accuracy is not None),
        key=lambda place: (points[place][0], -(points[place][1] or 0)),
    )
    best: list[int] = []
    for place in order:
        if not best or (points[place][1] or 0) > (points[best[-1]][1] or 0):
            best.append(place)
    return best


def told(score: Score) -> str:
    """A network in words; a size that it has but one of is not said."""
    alone = len([one for one in SCORES if one.net == score.net]) == 1
    return score.net if alone else f"{score.net} {score.width:g} at {score.resolution}"


def label(score: Score) -> str:
    """The same in fewer letters: only what tells it from others of its name."""
    own = [one for one in SCORES if one.net == score.net]
    sides = len({one.resolution for one in own}) > 1
    return told(score).replace(" at ", "/") if sides or len(own) == 1 else f"{score.net} {score.width:g}"


def _row(score: Score, counted: Cost, times: _Times, *, front: bool) -> Row:
    same = [one for one in for_net(score.net, score.width, score.resolution) if one.top1 is not None]
    best = next((one for one in same if one.resolution == score.resolution), None)
    return Row(
        name=told(score),
        label=label(score),
        net=score.net,
        width=score.width,
        resolution=score.resolution,
        family=LARGER if score.net in zoo.COUNTED else score.net.partition("-")[0],
        accuracy=score.top1,
        accuracy_int8=score.int8,
        source=score.source,
        weights=None if best is None else best.name,
        weights_accuracy=None if best is None else best.top1,
        macs=counted.macs,
        params=counted.params,
        float32_bytes=counted.float32_bytes,
        int8_bytes=counted.int8_bytes,
        **times.of((score.net, score.width, score.resolution), counted),
        front=front,
    )


def _times(clock: Clock) -> _Times:
    where = None if clock.device is None else device(clock.device)
    if where is not None and clock.threads > where.cores:
        raise ValueError(f"{where.name} has {where.cores} cores, not {clock.threads}")
    if clock.rows:
        return _by_rows(clock, where)
    if where is None:
        return _Times(clock)
    factors = factors_for(where)
    if clock.dtype not in factors.product[where.kind]:
        known = ", ".join(factors.product[where.kind])
        raise ValueError(
            f"{where.name}: nothing is known of {factors.runtime} in {clock.dtype}, only in {known}"
        )
    return _Times(clock, where, factors)


def _by_rows(clock: Clock, where: Device | None) -> _Times:
    rows = measured.read(clock.rows)
    own = [row for row in rows if (row.engine, row.threads) == (clock.runtime, clock.threads)]
    nets = tuple(dict.fromkeys(row.variant[0] for row in own if row.dtype == clock.dtype))
    took = measured.took(rows, clock.threads, clock.runtime)
    if not nets:
        there = ", ".join(dict.fromkeys(f"{row.engine} in {row.dtype} on {row.threads}" for row in rows))
        raise ValueError(
            f"--rows: none of {clock.runtime} in {clock.dtype} on {clock.threads} threads; there are {there}"
        )
    if sum(dtype == clock.dtype for _, dtype in took) < measured.LEAST:
        files = ", ".join(path.name for path in clock.rows)
        lacking = f"not measured in {files}, whose rows are too few to forecast others by"
        return _Times(clock, where, None, took, nets, lacking)
    where, factors = measured.factors(rows, clock.dtype, clock.threads, clock.runtime, where)
    return _Times(clock, where, factors, took, nets)


def _beyond(where: Device, counted: Cost, dtype: str) -> str | None:
    """Why a network cannot run on a part that holds it in its own memories; None where it can, or may."""
    weights = counted.int8_bytes if dtype == "int8" else counted.params * BYTES[dtype]
    maps = counted.activation_bytes // 4 * BYTES[dtype]
    for what, need, there in (("weights", weights, where.flash_kb), ("maps", maps, where.ram_kb)):
        if there is not None and need > 1024 * there:
            return f"its {what} do not fit into {there} KB"
    return None


def _notes(rows: Sequence[Row], times: _Times) -> list[str]:
    notes = [
        "accuracy: top-1 on ImageNet's validation pictures as printed; all else is counted from the table"
    ]
    counted = {row.latency_is: 0 for row in rows} | {None: 0}
    for row in rows:
        counted[row.latency_is] += 1
    if counted.get("measured"):
        files = ", ".join(path.name for path in times.clock.rows)
        notes.append(
            f"measured: {counted['measured']} of {len(rows)} latencies, {times.clock.runtime} in {files}"
        )
    if counted.get("forecast") and times.factors is not None:
        notes.append(f"forecasts are estimates, from {times.factors.rests_on}")
        unseen = [row.name for row in rows if row.latency_is == "forecast" and row.net not in times.fitted]
        if unseen:
            notes.append(
                f"those figures are of {', '.join(times.fitted)}: how far off forecasts of other networks "
                "are, beyond their intervals too, nobody has measured"
            )
    for reason in dict.fromkeys(row.latency_not for row in rows if row.latency_not):
        own = [row.name for row in rows if row.latency_not == reason]
        notes.append(reason if len(own) == len(rows) else f"no latency of {', '.join(own)}: {reason}")
    return notes


def _write(found: dict[str, Any], out: Path) -> None:
    from mobilenets.report import compare as shown

    found["files"] = [TABLE, TEXT, PICTURE, PAGE, RECORD]
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / TABLE, _csv(found["rows"]))
    write_whole(out / TEXT, shown.text(found, PICTURE).encode("utf-8", "surrogateescape"))
    write_whole(out / PICTURE, shown.picture(found))
    write_whole(out / PAGE, shown.page(found).encode("utf-8", "replace"))
    write_whole(out / RECORD, (json_text(found, indent=1) + "\n").encode())


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Row)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue().encode("utf-8", "surrogateescape")
