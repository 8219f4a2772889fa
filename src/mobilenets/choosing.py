"""A choice for a budget with all that it rests on: scores, measured rows, what cannot be built yet."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenets.costs import choose
from mobilenets.costs.choose import PUBLISHED, Budget, Candidate, Variant
from mobilenets.costs.device import Device
from mobilenets.costs.device import device as device_named
from mobilenets.costs.forecast import Factors, memory_of, power_told, published_for
from mobilenets.spec.net import Net
from mobilenets.spec.published import SLIM


@dataclass(frozen=True, slots=True)
class Choice:
    """What fits a budget on a device, the best first; or who comes closest. `notes` say what it rests on."""

    device: Device
    budget: Budget
    scores: str
    fitting: Sequence[Candidate]
    closest: Candidate | None
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        near = None
        if self.closest is not None:
            near = self.closest.as_json() | {"breaks": breaks(self.closest, self.budget)}
        return {
            "device": self.device.name,
            "budget": self.budget.limits,
            "scores": self.scores,
            "notes": list(self.notes),
            "fitting": [one.as_json() for one in self.fitting],
            "closest": near,
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracies of variants on the pictures of `part`; `left_out` is how many variants have none.

    `classes` is None where the file does not tell how many there are.
    """

    by_variant: Mapping[Variant, float]
    part: str
    left_out: int
    classes: int | None


def sweep_scores(path: Path) -> Scores:
    """The scores in a `sweep.csv`, which stands beside its `run.json`.

    On the test part; on the validation part where no variant was tested. Raises ValueError that names the
    file and what it lacks.
    """
    net, classes = _swept(path.with_name("run.json"))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if any(None in row.values() for row in rows):
            raise ValueError("a line that is cut off")
        part = "test" if any(row["test_accuracy"] for row in rows) else "val"
        scored = [row for row in rows if row[f"{part}_accuracy"]]
        found = {
            (net, float(row["width"]), int(row["resolution"])): float(row[f"{part}_accuracy"])
            for row in scored
        }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        told = f"no column {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: no sweep.csv of `mobilenets retrain --sweep`: {told}") from error
    if not found:
        raise ValueError(f"{path}: has no variant with an accuracy, of test or of validation pictures")
    return Scores(found, "validation" if part == "val" else part, len(rows) - len(scored), classes)


def _swept(record: Path) -> tuple[str, int | None]:
    """The network and the classes of a sweep; V1, and of classes nothing known, without its record."""
    try:
        kept = json.loads(record.read_bytes())
        return str(kept["net"]["name"]), len(kept["classes"])
    except (OSError, ValueError, LookupError, TypeError):
        return "v1", None


def unbuilt(net: Net) -> str | None:
    """Why a network cannot be compiled yet; None where it can."""
    from mobilenets.compile.lacking import refuse

    try:
        refuse(net)
    except ValueError as error:
        return str(error)
    return None


def breaks(one: Candidate, budget: Budget) -> dict[str, dict[str, float]]:
    """The limits that a variant does not keep: what it takes, what there is, how many times that."""
    return {
        name: {"takes": share * budget.limits[name], "limit": budget.limits[name], "times": share}
        for name, share in one.shares(budget).items()
        if share > 1
    }


def chosen(
    device: str,
    asked: Budget,
    dtype: str | None,
    threads: int,
    scores: Path | None,
    rows: Sequence[Path],
    runtime: str,
) -> Choice:
    """The variants for a budget. Raises ValueError for what is unknown, and where too little is known."""
    where = device_named(device)
    if threads > where.cores:
        raise ValueError(f"{where.name} has {where.cores} cores, not {threads}")
    given = Scores(PUBLISHED, "test", 0, None) if scores is None else sweep_scores(scores)
    dtypes = choose.DTYPES if dtype is None else (dtype,)
    took: dict[tuple[choose.Variant, str], float] = {}
    factors: Factors | None = None
    notes = []
    if rows:
        took, factors, told = _by_rows(rows, dtypes, threads, runtime, where)
        notes.append(told)
    factors = factors or published_for(where)
    found = choose.candidates(
        where,
        dtypes,
        threads,
        given.by_variant,
        given.classes,
        factors=factors,
        measured=took,
        runtime=runtime,
        refused=unbuilt,
    )
    budget = asked.on(where)
    fitting, closest = choose.chosen(found, budget)
    shown = fitting or [one for one in (closest,) if one is not None]
    notes += _notes(where, asked, budget, given, dtypes, threads, shown, found, factors)
    source = SLIM if scores is None else f"{scores}, of {given.part} pictures"
    return Choice(where, budget, source, fitting, closest, notes)


def _by_rows(
    paths: Sequence[Path], dtypes: Sequence[str], threads: int, runtime: str, where: Device
) -> tuple[dict[tuple[choose.Variant, str], float], Factors | None, str]:
    """What was measured; the factors for other variants, where enough was; and both in words."""
    from mobilenets import measured

    rows = measured.read(paths)
    took = measured.took(rows, threads, runtime)
    if not took:
        engines = ", ".join(dict.fromkeys(f"{row.engine} on {row.threads}" for row in rows))
        raise ValueError(f"--rows: none of {runtime} on {threads} threads; there are {engines}")
    files = ", ".join(path.name for path in paths)
    told = f"measured: {len(took)} rows of {runtime} in {files}"
    for dtype in dtypes:
        if sum(own == dtype for _, own in took) >= measured.LEAST:
            _, factors = measured.factors(rows, dtype, threads, runtime, where)
            return took, factors, f"{told}; they forecast others"
    return took, None, f"{told}, too few to forecast others by"


def _notes(
    where: Device,
    asked: Budget,
    budget: Budget,
    given: Scores,
    dtypes: Sequence[str],
    threads: int,
    shown: Sequence[Candidate],
    found: Sequence[Candidate],
    factors: Factors | None,
) -> list[str]:
    notes = []
    if any(not one.measured for one in shown) and factors is not None:
        notes.append(f"forecasts are estimates, from {factors.rests_on}")
        if where.memory is None and where.ram_kb is None:
            copied = memory_of(where).copy
            notes.append(f"its memory is taken for that of other boards: {copied:g} GB/s copied")
    for dtype in dtypes:
        if not any(one.dtype == dtype for one in found):
            by = factors.runtime if factors is not None else "anything"
            notes.append(f"{dtype} is left out: nothing is known of {by} in it on {where.name}")
    if budget != asked:
        own = f"{where.ram_kb} KB of RAM and {where.flash_kb} KB of flash"
        notes.append(f"its own memories are limits: {own}, for maps and weights alone; code comes on top")
    if any(one.energy_mj is not None for one in shown):
        notes.append(power_told(where, threads))
    if given.left_out:
        notes.append(f"{given.left_out} variants without an accuracy on {given.part} pictures are left out")
    if refused := dict.fromkeys(one.refused for one in shown if one.refused):
        notes.append(f"not built yet: {'; '.join(str(reason) for reason in refused)}")
    return notes
