"""The main job: a folder of labelled pictures in, a measured model, its report and its record out."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets import energy
from mobilenets.compiling import compiled_body
from mobilenets.data.catalog import Catalog, Item
from mobilenets.data.digests import Progress
from mobilenets.data.store import Store
from mobilenets.energy import Power, PowerOptions
from mobilenets.infer import adopt
from mobilenets.infer.image import ImageError, decode
from mobilenets.infer.sealed import writable, write_whole
from mobilenets.infer.weights import NoWeightsError
from mobilenets.listing import store
from mobilenets.report import write_report
from mobilenets.spec.option import dealt
from mobilenets.spec.published import PUBLISHED
from mobilenets.spec.recipe import BodyOptions, LearnOptions, MachineOptions
from mobilenets.spec.text import json_text
from mobilenets.spec.training import DistilOptions, RunOptions, TrainOptions
from mobilenets.train.retrain import CHECKPOINT
from mobilenets.train.retrain import retrain as learn_from
from mobilenets.train.run import MODEL, Run, Variant
from mobilenets.train.start import RANDOM

LEARNED_BY_STEPS = ("images_per_second", "waiting")
RETRAINED = ("c", "refitted", "tried", "unknown", "sweep", "identity")
"""What is told of one kind of run alone."""
WIDTHS = (0.25, 0.5, 0.75, 1.0)
RESOLUTIONS = (128, 160, 192, 224)
REPORT, RECORD, SPLIT, SWEEP = "report.html", "run.json", "split.csv", "sweep.csv"
KINDS: tuple[Any, ...] = (BodyOptions, LearnOptions, MachineOptions, PowerOptions)
TRAINING: tuple[Any, ...] = (TrainOptions, RunOptions, DistilOptions)


def retrain(
    folder: Path,
    out: Path,
    options: Mapping[str, Any],
    progress: Progress,
    command: str = "",
    cache: Path | None = None,
) -> Run:
    """One retraining, all that belongs to it written to `out`. Raises ValueError for unknown options.

    `cache` is a folder that, for what is made of pictures and of the body, takes the place of the user's:
    with an empty one a retraining is as slow as the first.
    """
    given = dict(options)
    if given.pop("sweep", False):
        return sweep(folder, out, given, progress, command)
    run = _one(folder, out, given, progress, command, cache)
    if run.epochs:  # until all is written a cut-off run can be gone on with
        (out / CHECKPOINT).unlink(missing_ok=True)
    return run


def _one(
    folder: Path,
    out: Path,
    given: dict[str, Any],
    progress: Progress,
    command: str = "",
    own: Path | None = None,
) -> Run:
    """A retraining that leaves its last checkpoint."""
    given = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in given.items()}
    body, learn, where, power = dealt(given, KINDS, "sweep")
    writable(out)
    cache = store() if own is None else Store(own / "features.sqlite")
    counter, uncounted = energy.counter(gpu=where.device != "cpu")
    try:
        if counter is not None:
            counter.begin()
        run = learn_from(
            folder,
            out,
            body=body,
            learn=learn,
            where=where,
            store=cache,
            progress=progress,
            command=command,
            finished=_finished(out),
            bodies=compiled_body if own is None else partial(compiled_body, place=own),
        )
    finally:
        cache.close()
    drawn = energy.told(power.watts)
    if counter is not None and (watts := counter.end()) is not None:
        drawn = Power(watts, counter.source)
    told = energy.of_run(drawn, run.seconds["total"])
    if told is None and uncounted:
        run = replace(run, notes=[*run.notes, f"no energy: {uncounted}"])
    return written(replace(run, options={**run.options, **asdict(power)}, energy=told), folder, out)


def sweep(
    folder: Path,
    out: Path,
    options: Mapping[str, Any],
    progress: Progress,
    command: str = "",
    widths: Sequence[float] = WIDTHS,
    resolutions: Sequence[int] = RESOLUTIONS,
) -> Run:
    """A retraining for each width and resolution that has weights; gives back the best on validation.

    `weights` may be a folder of weight files, each told by its content, or one file or name, then of its
    width alone. Each variant has a folder of its own in `out`; `out/sweep.csv` and `out/report.html` compare
    them, `out/model.safetensors` is the best one's. Raises ValueError where no variant could be made.
    """
    given = {name: value for name, value in options.items() if name not in ("width", "resolution")}
    widths = widths if options.get("width") is None else (options["width"],)
    resolutions = resolutions if options.get("resolution") is None else (options["resolution"],)
    files = bodies(given.get("weights"), given.get("net", "v1"))
    rows: list[Variant] = []
    runs: list[Run] = []
    missing: list[str] = []
    choices: list[dict[str, Any]] = []
    for width, resolution in product(widths, resolutions):
        choice = {**given, "width": width, "resolution": resolution}
        if files is not None:
            near = sorted((abs(side - resolution), weights) for w, side, weights in files if w == width)
            if not near:
                missing.append(f"width {width:g}: no weights in {given['weights']}")
                continue
            choice["weights"] = near[0][1]
        choices.append(choice)
    for number, choice in enumerate(choices, 1):
        width, resolution = choice["width"], choice["resolution"]
        place = out / f"{given.get('net', 'v1')}-{width:g}-{resolution}"
        which = f"{width:g} at {resolution} ({number} of {len(choices)})"
        try:
            run = _one(folder, place, choice, _named(which, progress))
        except NoWeightsError as error:
            missing.append(str(error))
            continue
        runs.append(run)
        rows.append(_variant(run, width, resolution))
        write_whole(out / SWEEP, _table(rows))
    if not runs:
        raise ValueError(missing[0] if missing else "nothing to sweep")
    best = max(range(len(runs)), key=lambda i: (runs[i].accuracy["val"] or 0.0, -rows[i].macs))
    notes = [*runs[best].notes, *(f"left out of the sweep: {text}" for text in dict.fromkeys(missing))]
    if runs[best].accuracy["val"] is None:
        notes.append("no validation pictures: of the sweep the cheapest variant is shown")
    told = command or _command("retraining", {**options, "sweep": True}, folder, out)
    seconds = {name: sum(run.seconds.get(name, 0.0) for run in runs) for name in runs[best].seconds}
    peak = max((run.peak_rss_mb for run in runs if run.peak_rss_mb is not None), default=None)
    known = [(run.energy, run.seconds["total"]) for run in runs if run.energy is not None]
    drawn = Power()
    if known:  # of watts: the joules that a run keeps are rounded, and short runs would show it
        watts = sum(one["watts"] * lasted for one, lasted in known) / seconds["total"]
        drawn = Power(watts, known[0][0]["watts_from"])
    whole = replace(runs[best], sweep=rows, notes=notes, command=told, seconds=seconds, peak_rss_mb=peak)
    whole = replace(whole, energy=energy.of_run(drawn, seconds["total"]))
    # Where a single run has its model; one that an earlier run left there would be taken for the sweep's.
    write_whole(out / MODEL, Path(whole.model).read_bytes())
    whole = written(whole, folder, out)
    for row in rows:  # a sweep that was cut off goes on from the last epochs of what was finished
        (Path(row.model).parent / CHECKPOINT).unlink(missing_ok=True)
    return whole


def _named(which: str, progress: Progress) -> Progress:
    """Progress whose stages are those of one variant."""
    return lambda stage, done, total: progress(f"{which}: {stage}", done, total)


def as_json(run: Run) -> dict[str, Any]:
    """What `--json` prints and `run.json` keeps: everything measured, without pictures and scores."""
    told = _as_json(run)
    other = LEARNED_BY_STEPS if run.kind == "retraining" else RETRAINED
    return {name: value for name, value in told.items() if name not in other}


def _as_json(run: Run) -> dict[str, Any]:
    return {
        "model": run.model,
        "accuracy": dict(run.accuracy),
        "top5": run.top5,
        "interval": run.interval,
        "test_pictures": len(run.test.truth),
        "seconds": dict(run.seconds),
        "images": {"used": sum(map(sum, run.counts.values())), "set_aside": len(run.set_aside)},
        "set_aside": [asdict(aside) for aside in run.set_aside],
        "near_duplicate_groups": run.duplicates,
        "peak_rss_mb": run.peak_rss_mb,
        "classes": list(run.labels),
        "counts": {part: list(counts) for part, counts in run.counts.items()},
        "c": run.chosen_c,
        "energy": None if run.energy is None else dict(run.energy),
        "refitted": run.refitted,
        "tried": [{"c": c, "val_accuracy": a, "val_loss": loss} for c, a, loss in run.choices],
        "temperature": run.temperature,
        "calibration_error": dict(run.calibration_error),
        "unknown": None if run.unknown is None else dict(run.unknown),
        "epochs": [asdict(epoch) for epoch in run.epochs],
        "net": dict(run.net),
        "source": dict(run.source),
        "options": dict(run.options),
        "sweep": [asdict(row) for row in run.sweep],
        "machine": dict(run.machine),
        "versions": dict(run.versions),
        "digest": run.digest,
        "identity": run.identity,
        "kind": run.kind,
        "engine": run.engine,
        "images_per_second": run.throughput.get("images_per_second"),
        "waiting": run.throughput.get("waiting"),
        # The model of a sweep is its best variant's, in a folder of its own beside what compares them.
        "report": str(Path(run.model).parents[1 if run.sweep else 0] / REPORT),
        "command": run.command,
        "notes": list(run.notes),
    }


def written(run: Run, folder: Path, out: Path) -> Run:
    """The run with its report, its record and the test part as a data set, all of them in `out`."""
    begun = time.perf_counter()
    run = replace(run, command=run.command or _command(run.kind, run.options, folder, out))
    catalog = _read_again(folder, run.test.files)
    if inside := "a zip" if catalog.packed else "shards" if catalog.sharded else "":
        note = f"no {SPLIT}: it cannot name pictures inside {inside}"
        run = replace(run, notes=list(dict.fromkeys((*run.notes, note))))  # a sweep has its variant's already
        (out / SPLIT).unlink(missing_ok=True)  # an earlier run's would be taken for this one's
    else:
        write_whole(out / SPLIT, _split_table(run, catalog.root, out))
    write_report(run, out / REPORT, lambda file: _picture(catalog, file))
    spent = time.perf_counter() - begun
    seconds = dict(run.seconds)
    for name in ("report", "total"):
        seconds[name] = seconds.get(name, 0.0) + spent
    seconds = {name: round(value, 3) for name, value in seconds.items()}
    run = replace(run, seconds=seconds)
    if run.energy is not None:
        drawn = Power(run.energy["watts"], run.energy["watts_from"])
        run = replace(run, energy=energy.of_run(drawn, seconds["total"]))
    write_whole(out / RECORD, json_text(as_json(run), indent=1).encode())
    return run


def _split_table(run: Run, root: Path, out: Path) -> bytes:
    """The test part as a data set of its own, so that the score can be had again with `evaluate`."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "label", "split"))
    for file, truth in zip(run.test.files, run.test.truth, strict=True):
        rows.writerow((os.path.relpath(root / file, out), run.labels[truth], "test"))
    return text.getvalue().encode("utf-8", "surrogateescape")


def _read_again(folder: Path, files: Sequence[str]) -> Catalog:
    """What reads pictures that a scan of `folder` named. What was written there since is not looked at."""
    packed = not folder.is_dir() and folder.suffix.lower() != ".csv"
    root = folder if folder.is_dir() or packed else folder.parent
    first, _, rest = next(iter(files), "").partition("/")
    return Catalog(root, (), (), (), packed, sharded=not packed and bool(rest) and (root / first).is_file())


def _picture(catalog: Catalog, file: str) -> NDArray[np.uint8] | None:
    try:
        return decode(catalog.read(Item(file, "")))
    except (OSError, ImageError):
        return None


def _finished(out: Path) -> str:
    """The identity of the fine-tuning whose model lies in `out`; empty where none does."""
    try:
        kept = json.loads((out / RECORD).read_bytes())
    except (OSError, ValueError):
        return ""
    there = isinstance(kept, dict) and (out / MODEL).exists()
    return str(kept.get("identity", "")) if there else ""


def bodies(option: str | None, net: str) -> list[tuple[float, int, str]] | None:
    """Width, resolution and file (or name) of the weights of `net` that the option names, be it a folder.

    None where any known ones may serve.
    """
    if option in (None, RANDOM):
        return None
    known = [(entry.width, entry.resolution, entry.name) for entry in PUBLISHED if entry.name == option]
    if known:
        return known
    if not Path(option).is_dir():
        made = adopt.read(Path(option)).net
        return [(made.width, made.resolution, option)]
    found = []
    for path in sorted(Path(option).iterdir()):
        try:
            made = adopt.read(path).net
        except ValueError:
            continue  # not every file in a folder is a body
        if made.name == net:
            found.append((made.width, made.resolution, str(path)))
    return found


def _command(kind: str, options: Mapping[str, Any], folder: Path, out: Path) -> str:
    """The command that gives a run with these options again, for one that no command started."""
    name, kinds = ("retrain", KINDS) if kind == "retraining" else ("train", TRAINING)
    words = ["mobilenets", name, str(folder), "--out", str(out)]
    usual = {field.name: field.default for kind in kinds for field in fields(kind)}
    for name, value in options.items():
        if value == usual.get(name) or name in ("resume", "anew", "threads"):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            words += [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _variant(run: Run, width: float, resolution: int) -> Variant:
    return Variant(
        width=width,
        resolution=resolution,
        macs=run.net["macs"],
        params=run.net["params"],
        size_bytes=run.net["file_bytes"],
        latency_ms=run.net["latency_ms"],
        latency_engine=run.net["latency_engine"],
        val_accuracy=run.accuracy["val"],
        test_accuracy=run.accuracy["test"],
        model=run.model,
    )


def _table(rows: Sequence[Variant]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Variant)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().encode("utf-8", "surrogateescape")
