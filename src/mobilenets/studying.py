"""A published study's table: retrainings measured here, forecast for devices, and what was printed."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets import energy, job
from mobilenets.costs.count import Cost, cost
from mobilenets.costs.device import Device, device
from mobilenets.costs.retraining import MIPS, Parts, Retraining, retraining
from mobilenets.costs.study import PRINTED, RESOLUTION, Printed, StudyOptions
from mobilenets.data.catalog import Catalog, scan, usable
from mobilenets.data.digests import Progress
from mobilenets.data.look import seen
from mobilenets.infer.image import prepare
from mobilenets.infer.sealed import write_whole
from mobilenets.report import study as shown
from mobilenets.spec import zoo
from mobilenets.spec.preprocess import SLIM
from mobilenets.spec.text import json_text
from mobilenets.train.meter import machine, machine_line

TABLE, PAGE, PICTURE, RECORD = "study.csv", "study.md", "study.png", "study.json"
COLD = ".cold"
"""The cache of one width: nothing is in it when it begins, and it is gone when it ends."""
HERE = "this machine"
SAMPLE = 96
"""Pictures that are read to find how long all take."""
SIDE, TURNS = 1024, 8
"""Of the matrices that are multiplied to find how fast that is, and how often."""
GHZ = 3.0
"""The clock of a machine that does not tell its own."""
X86 = ("x86_64", "AMD64", "i686")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. `how` is measured, forecast or published; None is what is not known.

    Accuracies are fractions of test pictures; seconds and joules lie between `low` and `high` where they are
    forecast. What the study printed for the same device and width stands in `published_…`.
    """

    device: str
    processor: str
    memory: str | None = None
    how: str
    width: float | None = None
    resolution: int | None = None
    watts: float | None = None
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    joules: float | None = None
    joules_low: float | None = None
    joules_high: float | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    published_watts: float | None = None
    published_seconds_low: float | None = None
    published_seconds_high: float | None = None
    published_joules: float | None = None
    published_accuracy_low: float | None = None
    published_accuracy_high: float | None = None
    source: str = ""


def study(
    folder: Path, out: Path, asked: StudyOptions, progress: Progress, command: str = ""
) -> dict[str, Any]:
    """The table as JSON values; it, its picture and a folder for each width are written to `out`.

    Each width is retrained with nothing remembered of pictures or of a body. Raises ValueError, before work
    is done, for devices, widths, watts and weights that cannot be used.
    """
    if find_spec("matplotlib") is None:
        raise ValueError("the table's picture needs matplotlib: pip install 'mobilenets[train]'")
    energy.checked(asked.watts)
    targets = [device(name) for name in _listed(asked.devices)]
    for where in targets:  # one that nothing is known of says so now, not after the retrainings
        retraining(cost(zoo.net("v1", 0.25, 32)), where, _nothing())
    chosen = _chosen(asked)
    catalog = scan(folder)
    usable(catalog)
    runs = []
    for number, given in enumerate(chosen, 1):
        which = f"width {given['width']:g} ({number} of {len(chosen)})"
        runs.append(_retrained(folder, out, given, asked.resume, which, progress))
    rates = _rates()
    parts = [_parts(run, catalog, rates) for run in runs]
    carried = {
        (where.name, run["net"]["width"]): retraining(_counted(run), where, own)
        for where in targets
        for run, own in zip(runs, parts, strict=True)
    }
    rows = [_measured(run, asked.watts) for run in runs]
    rows += [
        _forecast(run, where, carried[where.name, run["net"]["width"]]) for where in targets for run in runs
    ]
    rows += _published()
    last = runs[-1]["net"]["width"]
    found = {
        "folder": str(folder),
        "machine": machine_line(),
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "rows": [asdict(row) for row in rows],
        "parts": [
            {"width": width, **{key: value for key, value in asdict(one).items() if key != "notes"}}
            for (_, width), one in carried.items()
        ],
        "notes": _notes(runs, asked),
        "assumed": [note for where in targets for note in carried[where.name, last].notes],
    }
    write_whole(out / TABLE, _table(rows))
    write_whole(out / PAGE, shown.page(found).encode("utf-8", "surrogateescape"))
    write_whole(out / PICTURE, shown.picture(found))
    write_whole(out / RECORD, (json_text(found, indent=1) + "\n").encode())
    return found


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _chosen(asked: StudyOptions) -> list[dict[str, Any]]:
    """Options of a retraining for each width. Raises ValueError for a width that there are no weights of."""
    try:
        widths = list(dict.fromkeys(float(part) for part in _listed(asked.widths)))
    except ValueError as error:
        raise ValueError(f"--widths {asked.widths}: give numbers, such as 0.25,0.5,0.75,1.0") from error
    if not widths or not all(0 < width <= 4 for width in widths):
        raise ValueError(f"--widths {asked.widths}: give multipliers above 0, such as 0.25,0.5,0.75,1.0")
    files = job.bodies(asked.weights, "v1")
    side = RESOLUTION if asked.resolution is None else asked.resolution
    made = []
    for width in widths:
        given = {"width": width, "resolution": side, "weights": asked.weights, "seed": asked.seed}
        if files is not None:
            near = sorted(
                (abs(own - side), own, weights) for own_width, own, weights in files if own_width == width
            )
            if not near:
                there = ", ".join(f"{one:g}" for one in sorted({one for one, _, _ in files})) or "none"
                raise ValueError(
                    f"width {width:g}: no weights of it in {asked.weights} (there are: {there}); "
                    "add a file, or leave it out of --widths"
                )
            given["weights"] = near[0][2]
            given["resolution"] = near[0][1] if asked.resolution is None else side
        made.append(given | ({} if asked.threads is None else {"threads": asked.threads}))
    return made


def _retrained(
    folder: Path, out: Path, given: Mapping[str, Any], resume: bool, which: str, progress: Progress
) -> dict[str, Any]:
    """What is kept of one width: of an earlier run that had the same options, or of one that is made now."""
    place = out / f"width-{given['width']:g}"
    if resume and (kept := _kept(place / job.RECORD, folder, given)):
        return kept
    watched, cold = _Watched(which, progress), out / COLD
    shutil.rmtree(cold, ignore_errors=True)  # what a kill left
    try:
        job.retrain(folder, place, given, watched, cache=cold)
    finally:
        shutil.rmtree(cold, ignore_errors=True)
    told: dict[str, Any] = json.loads((place / job.RECORD).read_bytes())
    told["cold"] = {"folder": str(folder), "start_s": round(watched.start_s, 3)}
    write_whole(place / job.RECORD, json_text(told, indent=1).encode())
    return told


class _Watched:
    """Progress of one width that sees how long the body takes until its first pictures are through."""

    def __init__(self, which: str, progress: Progress) -> None:
        self.start_s = 0.0
        self._which, self._progress = which, progress
        self._begun: float | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if stage == "features" and not done:
            self._begun = now
        elif stage == "features" and self._begun is not None:
            self.start_s, self._begun = now - self._begun, None
        self._progress(f"{self._which}: {stage}", done, total)


def _kept(record: Path, folder: Path, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a width that this study finished, on this processor."""
    try:
        told = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("cold", {}).get("folder") != str(folder):
        return None
    same = all(told["options"].get(name) == value for name, value in given.items())
    alike = all(told["machine"][name] == machine()[name] for name in ("processor", "cores"))
    return told if same and alike else None


def _measured(run: Mapping[str, Any], watts: float | None) -> Row:
    seconds = run["seconds"]["total"]
    low, high = run["interval"] or (None, None)
    return Row(
        device=HERE,
        processor=f"{run['machine']['processor']}, {run['machine']['cores']} cores",
        memory=run["machine"].get("memory"),
        how="measured",
        width=run["net"]["width"],
        resolution=run["net"]["resolution"],
        watts=watts,
        seconds=seconds,
        joules=None if watts is None else watts * seconds,
        accuracy=run["accuracy"]["test"],
        accuracy_low=low,
        accuracy_high=high,
        source=f"seconds and accuracy measured, {run['engine']}"
        + ("" if watts is None else "; watts stated"),
    )


def _forecast(run: Mapping[str, Any], where: Device, found: Retraining) -> Row:
    low, high = run["interval"] or (None, None)
    printed = next(
        (one for one in PRINTED if (one.device, one.width) == (where.name, run["net"]["width"])), None
    )
    watts = next((one.watts for one in PRINTED if one.device == where.name and one.watts), None)
    return replace(
        _beside(printed or Printed(device=where.name)),
        device=where.name,
        processor=where.says,
        memory=None if where.ram_gb is None else f"{where.ram_gb:g} GB",
        how="forecast",
        width=run["net"]["width"],
        resolution=run["net"]["resolution"],
        watts=where.busy_w,
        seconds=found.seconds,
        seconds_low=found.low,
        seconds_high=found.high,
        joules=found.joules(found.seconds),
        joules_low=found.joules(found.low),
        joules_high=found.joules(found.high),
        accuracy=run["accuracy"]["test"],
        accuracy_low=low,
        accuracy_high=high,
        published_watts=watts,
        source="an estimate; accuracy measured here: it is the weights' and the pictures', not the device's",
    )


def _published() -> list[Row]:
    """What the study printed without a width, a line each."""
    return [
        replace(_beside(one), source=one.source if one.device else f"{one.source}: all devices and widths")
        for one in PRINTED
        if one.width is None
    ]


def _beside(printed: Printed) -> Row:
    """The published columns of a row."""
    seconds, accuracy = printed.seconds or (None, None), printed.accuracy or (None, None)
    return Row(
        device=printed.device or "the study's table",
        processor=device(printed.device).says if printed.device else "",
        how="published",
        published_watts=printed.watts,
        published_seconds_low=seconds[0],
        published_seconds_high=seconds[1],
        published_joules=printed.joules,
        published_accuracy_low=accuracy[0],
        published_accuracy_high=accuracy[1],
    )


def _counted(run: Mapping[str, Any]) -> Cost:
    """The body of a run, without a head."""
    return cost(zoo.body("v1", run["net"]["width"], run["net"]["resolution"]))


def _nothing() -> Parts:
    return Parts(pictures=0, decode_s=0, fit_s=0, rest_s=0, mips=1, gmacs=1)


def _rates() -> Parts:
    """How fast this machine is; no retraining yet."""
    x86 = platform.machine() in X86
    return replace(
        _nothing(),
        mips=MIPS["skylake" if x86 else "a72"] * 1e3 * (_clock() or GHZ),
        gmacs=_products(),
    )


def _parts(run: Mapping[str, Any], catalog: Catalog, rates: Parts) -> Parts:
    seconds = run["seconds"]
    rest = run["cold"]["start_s"] + sum(seconds.get(name, 0.0) for name in ("scan", "judge", "report"))
    used = run["images"]["used"]
    return replace(
        rates,
        pictures=used,
        decode_s=used * _read_s(catalog, run["net"]["resolution"]),
        fit_s=seconds["fit"],
        rest_s=rest,
    )


def _read_s(catalog: Catalog, resolution: int) -> float:
    """Seconds of one core to read and prepare a picture, the mean of a sample."""
    target = replace(SLIM, height=resolution, width=resolution, geometry="stretch")
    some = catalog.items[:: max(1, len(catalog.items) // SAMPLE)]
    begun = time.thread_time()  # others' use of the machine does not count
    for item in some:
        try:
            _, frame = seen(catalog.read(item), item.suffix, target)
        except OSError:
            continue
        if frame is not None:
            prepare(frame, target)
    return (time.thread_time() - begun) / len(some)


def _products() -> float:
    """Billions of float32 multiply-accumulates a second in products of matrices, at best."""
    left = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    best = math.inf
    for _ in range(TURNS):
        begun = time.perf_counter()
        np.matmul(left, left)
        best = min(best, time.perf_counter() - begun)
    return SIDE**3 / best / 1e9


def _clock() -> float | None:
    """This processor's clock in GHz as the system tells it; None where it does not."""
    try:
        return float(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text()) / 1e6
    except (OSError, ValueError):
        pass
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return max(float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")) / 1e3
    except (OSError, ValueError):
        return None


def _notes(runs: Sequence[Mapping[str, Any]], asked: StudyOptions) -> list[str]:
    own = sorted({run["net"]["resolution"] for run in runs})
    clock, alike = _clock(), "Kaby Lake" if platform.machine() in X86 else "Cortex-A72"
    busy, cores = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0, int(machine()["cores"])
    told = [
        "measured: this package's retraining, features alone, each width with nothing remembered of pictures "
        "or of a body (the system's own cache of files is as it was)",
        "forecast: this same retraining on the device; published: the study's own, by TensorFlow",
        f"forecast: this machine's clock is {'taken for' if clock is None else 'told as'} "
        f"{clock or GHZ:.2g} GHz, what a core does in a cycle is taken for that of a {alike}",
    ]
    if len(own) > 1:
        told.append(
            "each width was run at the resolution of the weights there are nearest to "
            f"{RESOLUTION} pixels, V1's own; which the study used is not known"
        )
    if asked.watts is not None:
        told.append(f"{asked.watts:g} W are as stated, not measured")
    if busy > cores + 0.5:  # this run's own threads count too
        told.append(f"others used this machine: at the end {busy:.1f} threads wanted its {cores} cores")
    return told


def _table(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _short(value) for key, value in asdict(row).items()} for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value
