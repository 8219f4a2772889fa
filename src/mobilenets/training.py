"""The command `train`: a whole network from a recipe, its curves, its table while it learns, its report."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenets.console import Reporter, StoppedError, percent, say, say_json
from mobilenets.curves import Curves
from mobilenets.flags import JSON, flags
from mobilenets.shown import show_run
from mobilenets.spec.option import dealt
from mobilenets.spec.training import DistilOptions, RunOptions, TrainOptions

if TYPE_CHECKING:
    from mobilenets.model.fused import Norms
    from mobilenets.train.run import Run
    from mobilenets.train.teacher import Teacher

app = typer.Typer()
KINDS = (TrainOptions, RunOptions, DistilOptions)


def train(
    folder: Path,
    out: Path,
    options: Mapping[str, Any],
    progress: Reporter,
    command: str = "",
    cache: Path | None = None,
    teacher: Teacher | None = None,
) -> Run | None:
    """One training, all that belongs to it written to `out`. Raises ValueError for unknown options.

    `teacher` takes the place of the file that options may name: see `train.teacher.of_module`. None in every
    process but the first of those that learn together. Raises StoppedError where a user stops it.
    """
    from mobilenets.data.store import Store
    from mobilenets.infer.sealed import writable
    from mobilenets.infer.weights import cache_dir
    from mobilenets.job import written
    from mobilenets.listing import store
    from mobilenets.train.keeper import CHECKPOINT, Listener, cleared
    from mobilenets.train.whole import train as learn
    from mobilenets.train.world import speaks

    given = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in options.items()}
    what, on, distil = dealt(given, KINDS)
    if teacher is None and distil.teacher is None and distil != DistilOptions():
        raise ValueError("--distil and what belongs to it ask for somebody who teaches: give --teacher MODEL")
    place = cache or cache_dir()
    asked: Callable[[], Teacher] | None = None
    if teacher is not None:
        asked = partial(_given, teacher)
    elif distil.teacher is not None:
        asked = partial(_teacher, distil.teacher, on, progress, place)
    if speaks():
        writable(out)
    base = store() if cache is None else Store(cache / "features.sqlite")
    curves, before = Curves(out, progress, resume=on.resume), _stamp(out / CHECKPOINT)
    try:
        run = learn(
            folder,
            out,
            options=what,
            on=on,
            store=base,
            cache=place / "decoded",
            listener=Listener(progress, curves.step, curves.epoch),
            teacher=asked,
            distil=distil,
            norms=compiled_norms,
            command=command,
        )
    except KeyboardInterrupt as error:
        kept = on.resume or _stamp(out / CHECKPOINT) not in (None, before)
        again = "with --resume in place of --anew" if on.anew else "with --resume"
        how = f"the same command {again} goes on" if kept else "no step was kept yet"
        raise StoppedError(f"interrupted; {how}") from error
    finally:
        curves.close()
        base.close()
    if run is None:
        return None
    made = written(run, folder, out)
    cleared(out)
    return made


def compiled_norms() -> Norms:
    """Batch norms for this processor as C built now. Raises ValueError where there is no compiler or they are
    not torch's, RuntimeError where it fails, OSError where the disk does."""
    from mobilenets.compile.build import norms
    from mobilenets.model.fused import Norms

    # A library that is open cannot be deleted on every system.
    with tempfile.TemporaryDirectory(prefix="mobilenets-", ignore_cleanup_errors=True) as place:
        return Norms(norms(Path(place)))


def _stamp(path: Path) -> int | None:
    """When a file was written; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def _given(teacher: Teacher) -> Teacher:
    return teacher


def _teacher(name: str, on: RunOptions, progress: Reporter, place: Path) -> Teacher:
    """The teacher of that name, by the fastest engine there is for it."""
    from mobilenets.compiling import compiled_body
    from mobilenets.data.crew import cores
    from mobilenets.infer.adopt import in_floats
    from mobilenets.infer.compiled import CompiledBody, CompiledEngine
    from mobilenets.infer.ready import load
    from mobilenets.train.teacher import of_body, of_model

    ready = load(name, progress.download)
    threads = on.threads or cores()
    if isinstance(ready.engine, CompiledEngine):
        known = ready.artefact
        size = (known.preprocess.height, known.preprocess.width)
        told = f"{known.source['digest']}, compiled to {known.source['compiled']}"
        return of_body(CompiledBody(Path(name), threads), ready.labels, size, told)
    return of_model(
        in_floats(ready.artefact),
        on.device,
        threads,
        # Products in bfloat16 say other things: docs/log.md.
        lambda model: compiled_body(model, threads, 1 << 20, progress, place=place),
    )


def _train(
    folder: Annotated[Path, typer.Argument(help="A folder of class folders, a zip of one, or a CSV.")],
    out: Annotated[Path, typer.Option(help="Where the model, the report, curves and checkpoints go.")],
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    **options: Any,
) -> None:
    """Train a whole network by a recipe, from random weights or given ones; `torchrun` starts several."""
    from mobilenets.train.world import speaks

    with Reporter(quiet=not speaks()) as progress:
        run = train(folder, out, options, progress, command=_line(sys.argv[1:]))
    if run is None:
        return
    if json:
        from mobilenets.job import as_json

        say_json(as_json(run))
        return
    show_run(run, out)
    speed, waiting = run.throughput["images_per_second"], percent(run.throughput["waiting"])
    say(f"{speed:g} pictures a second, {waiting} of the time waiting for them")


def _line(words: Sequence[str]) -> str:
    """The command that gives this run again, from its beginning."""
    count, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    nodes = ["--nnodes", str(count // here)] if count > here else []
    several = ["torchrun", *nodes, "--nproc-per-node", str(here), "-m", "mobilenets"]
    start = several if count > 1 else ["mobilenets"]
    return shlex.join([*start, *(word for word in words if word not in ("--resume", "--anew"))])


app.command(
    name="train",
    epilog="Example: mobilenets train photos/ --out out --recipe modern --width 0.5 --resolution 128",
)(flags(*KINDS)(_train))
