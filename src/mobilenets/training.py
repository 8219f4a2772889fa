"""The command `train`: a whole network from a recipe, its curves, its table while it learns, its report."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from shutil import rmtree
from typing import IO, TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mobilenets.console import Reporter, StoppedError, percent, say, say_json
from mobilenets.flags import JSON, flags
from mobilenets.infer.sealed import write_whole
from mobilenets.shown import show_run
from mobilenets.spec.training import DistilOptions, RunOptions, TrainOptions

if TYPE_CHECKING:
    from mobilenets.train.loop import Taken
    from mobilenets.train.run import Epoch, Run
    from mobilenets.train.teacher import Teacher

app = typer.Typer()
Options = TypeVar("Options")
KINDS = (TrainOptions, RunOptions, DistilOptions)
STEPS, EVENTS = "steps.csv", "events"
HEAD = "step,loss,share_of_rate,images_per_second,waited_s"
COMMAS = HEAD.count(",")


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
    from mobilenets.infer.weights import cache_dir
    from mobilenets.job import writable, written
    from mobilenets.listing import store
    from mobilenets.train.keeper import CHECKPOINT, Listener, cleared
    from mobilenets.train.whole import train as learn
    from mobilenets.train.world import speaks

    given = {name: os.fspath(v) if isinstance(v, os.PathLike) else v for name, v in options.items()}
    known = [field.name for kind in KINDS for field in fields(kind)]
    if strange := [name for name in given if name not in known]:
        raise ValueError(f"unknown options: {', '.join(strange)}; known: {', '.join(known)}")
    what, on, distil = (_taken(TrainOptions, given), _taken(RunOptions, given), _taken(DistilOptions, given))
    if speaks():
        writable(out)
    place = cache or cache_dir()
    base = store() if cache is None else Store(cache / "features.sqlite")
    curves = Curves(out, progress, resume=on.resume)
    try:
        run = learn(
            folder,
            out,
            options=what,
            on=on,
            store=base,
            cache=place / "decoded",
            listener=Listener(progress, curves.step, curves.epoch),
            teacher=teacher or _teacher(distil, on, progress, place),
            distil=distil,
            command=command,
        )
    except KeyboardInterrupt as error:
        kept = (out / CHECKPOINT).exists()
        how = "the same command with --resume goes on" if kept else "no step was kept yet"
        raise StoppedError(f"interrupted; {how}") from error
    finally:
        curves.close()
        base.close()
    if run is None:
        return None
    made = written(run, folder, out)
    cleared(out)
    return made


def _taken(kind: type[Options], given: Mapping[str, Any]) -> Options:
    own = {field.name: given[field.name] for field in fields(kind) if field.name in given}  # type: ignore[arg-type]
    return kind(**own)


def _teacher(distil: DistilOptions, on: RunOptions, progress: Reporter, place: Path) -> Teacher | None:
    """The teacher that options name, by the fastest engine there is for it."""
    if distil.teacher is None:
        return None
    from mobilenets.compiling import compiled_body
    from mobilenets.data.crew import cores
    from mobilenets.infer.adopt import in_floats
    from mobilenets.infer.compiled import CompiledBody, CompiledEngine
    from mobilenets.infer.ready import load
    from mobilenets.train.teacher import of_body, of_model

    ready = load(distil.teacher, progress.download)
    threads = on.threads or cores()
    if isinstance(ready.engine, CompiledEngine):
        known = ready.artefact
        size = (known.preprocess.height, known.preprocess.width)
        told = f"{known.source['digest']}, compiled to {known.source['compiled']}"
        return of_body(CompiledBody(Path(distil.teacher), threads), ready.labels, size, told)
    return of_model(
        in_floats(ready.artefact),
        on.device,
        threads,
        # Products in bfloat16 say other things: docs/log.md.
        lambda model: compiled_body(model, threads, 1 << 20, progress, place=place),
    )


class Curves:
    """What is told of a run while it goes on: a row for each step, TensorBoard's events, a line an epoch.

    Steps that an earlier, cut-off run took after its last checkpoint are taken again.
    """

    def __init__(self, out: Path, progress: Reporter, *, resume: bool) -> None:
        self._out, self._progress, self._resume = out, progress, resume
        self._file: IO[bytes] | None = None
        self._events: Any = None

    def step(self, taken: Taken) -> None:
        """A step was taken. Its row is in the file when this returns: no state is kept that lacks it."""
        if self._file is None:
            self._file = self._begun(taken.step)
        speed = taken.pictures / taken.seconds
        row = (taken.step, f"{taken.loss!r}", f"{taken.rate:.6g}", f"{speed:.1f}", f"{taken.waited:.4f}")
        line = ",".join(map(str, row)) + "\n"
        try:
            if self._file.write(line.encode()) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}; make room", str(self._out / STEPS)) from error
        if self._events is not None:
            for name, value in (("loss", taken.loss), ("rate", taken.rate), ("images_per_second", speed)):
                self._events.add_scalar(name, value, taken.step)
        self._progress("train", taken.step + 1, taken.steps)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """An epoch ended."""
        if self._events is not None and epoch.val_accuracy is not None:
            self._events.add_scalar("validation", epoch.val_accuracy, epoch.epoch)
        self._progress.row(
            ("epoch", "loss", "validation", "time"),
            (
                f"{epoch.epoch}/{epochs}",
                f"{epoch.loss:.4f}",
                percent(epoch.val_accuracy),
                f"{epoch.seconds:.0f} s",
            ),
        )

    def close(self) -> None:
        """All of it is on disk afterwards."""
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()

    def _begun(self, step: int) -> IO[bytes]:
        path = self._out / STEPS
        kept: list[str] = []
        if self._resume and path.exists():
            lines = path.read_text().splitlines()[1:]
            kept = [line for line in lines if _number(line) < step]
        write_whole(path, "".join(f"{line}\n" for line in (HEAD, *kept)).encode())
        try:
            from tensorboardX import SummaryWriter
        except ImportError:  # an extra; the table of steps says the same
            return path.open("ab", buffering=0)
        if not self._resume:  # the curves of another run would be drawn through this one's
            rmtree(self._out / EVENTS, ignore_errors=True)
        self._events = SummaryWriter(str(self._out / EVENTS), purge_step=step)
        return path.open("ab", buffering=0)


def _number(row: str) -> float:
    """The step that a row is of; none is greater where a write was cut off."""
    first = row.partition(",")[0]
    return int(first) if first.isdecimal() and row.count(",") == COMMAS else float("inf")


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
    count = os.environ.get("WORLD_SIZE", "1")
    start = ["mobilenets"] if count == "1" else ["torchrun", "--nproc-per-node", count, "-m", "mobilenets"]
    return shlex.join([*start, *(word for word in words if word not in ("--resume", "--anew"))])


app.command(
    name="train",
    epilog="Example: mobilenets train photos/ --out out --recipe modern --width 0.5 --resolution 128",
)(flags(*KINDS)(_train))
