"""What of a training stays on disk while it goes on, and what it takes to go on from it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mobilenets.data.digests import Progress
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.model.module import Normed
from mobilenets.spec.training import DistilOptions, Recipe, RunOptions, TrainOptions
from mobilenets.train import checkpoint, loop
from mobilenets.train.lessons import Lesson
from mobilenets.train.run import MODEL, Epoch
from mobilenets.train.student import learned
from mobilenets.train.teacher import Teacher
from mobilenets.train.world import World

CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"
LAST, DIVERGED = "last.safetensors", "diverged.txt"
"""The network as the last epoch left it, where an earlier one did better; the pictures of the step at which
learning left the numbers, one a line."""
KEEP_S = 60.0
"""Seconds of work that a kill may cost."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a run: of its progress, of each step, of each epoch with their number."""

    progress: Progress
    step: Callable[[loop.Taken], None]
    epoch: Callable[[Epoch, int], None]


class Keeper:
    """Keeps a run's last state and the best network it has been, and tells a listener."""

    def __init__(
        self, out: Path, about: Mapping[str, Any], state: loop.State, start: Artefact, listener: Listener
    ) -> None:
        self._out, self._about, self._state, self._start = out, about, state, start
        self._listener = listener
        self._before = len(state.epochs)
        self._steps = state.step
        self._kept, self._due = time.monotonic(), False
        self._seen = [0, 0.0, 0.0]

    def step(self, taken: loop.Taken) -> None:
        """A step was taken. Its row is told before the state after it is kept, for which the next speaks."""
        self._seen = [
            a + b for a, b in zip(self._seen, (taken.pictures, taken.seconds, taken.waited), strict=True)
        ]
        self._listener.step(taken)
        self._due |= time.monotonic() - self._kept > KEEP_S

    def sound(self) -> None:
        """The state as it is gave a loss that is a number: it may be gone on from."""
        if self._due:
            self._save()

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """An epoch ended; those that an earlier, cut-off run finished come first."""
        # The average has gone on since those, and what was best of them is kept.
        if epoch.epoch > self._before:
            if epoch.val_accuracy is not None and self._best() is epoch:
                artefact.save(self._averaged(), self._out / BEST)
            self._due = True
            if epoch.epoch == epochs:  # no step comes after it
                self._save()
        self._listener.epoch(epoch, epochs)

    def chosen(self) -> Artefact:
        """The averaged network that did best on validation; the last where nothing was validated."""
        best = self._best()
        if best is None or best is self._state.epochs[-1]:
            return self._averaged()
        return artefact.load(self._out / BEST)

    def leave_last(self, kept: Callable[[Artefact], Artefact]) -> None:
        """Write what the last epoch left, as `kept` would have it, where it is not the best."""
        path = self._out / LAST
        if self._best() in (None, self._state.epochs[-1]):
            path.unlink(missing_ok=True)
        else:
            artefact.save(kept(self._averaged()), path)

    def throughput(self) -> dict[str, float]:
        """Pictures a second while learning, and the share of that time spent waiting for pictures."""
        pictures, seconds, waited = self._seen
        return {
            "images_per_second": round(pictures / seconds, 1) if seconds else 0.0,
            "waiting": round(waited / seconds, 4) if seconds else 0.0,
        }

    def told(self) -> str:
        """What there is to go on from, in words."""
        path = self._out / CHECKPOINT
        return f"{path} holds the state after step {self._steps}" if self._steps else "no state was kept yet"

    def _best(self) -> Epoch | None:
        known = [epoch for epoch in self._state.epochs if epoch.val_accuracy is not None]
        return max(known, key=lambda epoch: (epoch.val_accuracy, epoch.epoch), default=None)

    def _averaged(self) -> Artefact:
        return learned(self._state.averaged, self._start)

    def _save(self) -> None:
        path = self._out / CHECKPOINT
        try:
            checkpoint.save(self._state, path, self._about)
        except OSError as error:
            kept = f"that after step {self._steps} is kept" if self._steps else "none was kept before"
            raise OSError(
                error.errno,
                f"{error.strerror}: the state after step {self._state.step} cannot be kept, {kept}; make "
                "room, then give --resume",
                str(path),
            ) from error
        self._kept, self._steps, self._due = time.monotonic(), self._state.step, False


def identity(
    recipe: Recipe,
    options: TrainOptions,
    train: Lesson,
    start: Artefact,
    where: loop.Where,
    teacher: Teacher | None,
    distil: DistilOptions | None,
) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it, by names a user knows."""
    shown = hashlib.sha256(f"{train.content} {train.truth.tolist()}".encode())
    net = start.net
    found = {
        "net": net.called,
        "classes": list(start.labels),
        "weights": options.weights,
        "seed": options.seed,
        "pictures": f"{len(train.truth)} ({shown.hexdigest()[:12]})",
        "bfloat16": where.half,
        "norms": "torch" if where.norms is None else "compiled",
        "torch": torch.__version__,
    }
    for name, value in asdict(recipe).items():
        if name == "name":
            found["recipe"] = value
        elif name not in ("told", "subject"):
            inner = value.items() if isinstance(value, dict) else [(None, value)]
            found |= {f"{name}.{part}" if part else name: one for part, one in inner}
    if teacher is not None and distil is not None:
        found["teacher"] = teacher.digest
        found |= {name: value for name, value in asdict(distil).items() if name != "teacher"}
    made: dict[str, Any] = json.loads(json.dumps(found))  # as a file gives it back
    return made


def unfinished(out: Path, on: RunOptions) -> None:
    """Raises ValueError, before any work, where there is nothing to resume or something to be lost."""
    path = out / CHECKPOINT
    if on.resume and not path.exists():
        ended = " any more: the training there came to its end" * (out / MODEL).exists()
        raise ValueError(f"{path}: there is no checkpoint to go on from{ended}; leave out --resume")
    if not on.resume and path.exists() and not on.anew:
        raise ValueError(
            f"{path} is of a training that was cut off: --resume goes on with it, --anew begins anew"
        )


def normed(
    make: Callable[[], Normed], out: Path, on: RunOptions, world: World, notes: list[str]
) -> Normed | None:
    """What normalises on a CPU: what `make` gives where all processes have it, and a run that is gone on with
    had it; else None, and a note says why. Raises ValueError where a run cannot go on without."""
    before = checkpoint.told(out / CHECKPOINT).get("norms") if on.resume else None
    made, why = None, ""
    if before != "torch":
        try:
            made = make()
        except (ValueError, RuntimeError, OSError) as error:
            why = str(error)
    if before == "compiled" and made is None:
        raise ValueError(
            f"--resume: the norms of this run were computed in C, and here they cannot be: {why}; mend that, "
            "or give --anew"
        )
    having = torch.tensor([int(made is not None)])
    world.sum([having])
    if why:
        notes.append(f"torch computed the norms, and a step took half as long again: {why}")
    return made if int(having) == world.count else None


def resumed(state: loop.State, out: Path, about: Mapping[str, Any], on: RunOptions) -> None:
    """The state of a run that was cut off, where it is to be gone on with."""
    for name in (CHECKPOINT, BEST, MODEL):
        for left in out.glob(f".{name}.*.part"):  # of a kill while it was written
            left.unlink(missing_ok=True)
    if on.anew:
        cleared(out)
    if on.resume:
        checkpoint.restore(state, out / CHECKPOINT, about)


def cleared(out: Path) -> None:
    """Nothing to go on from is left of a run that has come to its end."""
    for name in (CHECKPOINT, BEST, DIVERGED):
        (out / name).unlink(missing_ok=True)
