"""The training loop: a plain function of a student, a recipe and pictures.

A step is made of micro-batches. Each has norms and draws of its own, so it does not matter who computes
it: the threads of one process, or several processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mobilenets.data.decoded import Decoded
from mobilenets.model.module import NORM_MOMENTUM, Layer, Normed, placed
from mobilenets.spec.net import Net, at_resolution, shapes
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.training import Recipe
from mobilenets.train.body import one_thread_each
from mobilenets.train.run import Epoch
from mobilenets.train.steps import Stepper, share_of_rate
from mobilenets.train.student import Student, copied, sharing, statistics
from mobilenets.train.views import DRAWS, draws, mixed, normalised, viewed
from mobilenets.train.world import World

ALIKE = 4
"""Resolutions of a course are multiples of it."""
FAR, PATIENT = 10, 20
"""How many times the first loss is far from it, and for how many steps in a row it may be."""
SCORED = 64
"""Pictures at a time where nothing is learned."""


class Teaching(Protocol):
    """What a teacher says of views; each is a float32 tensor [n, size]."""

    @property
    def views(self) -> int:
        """How many views of each picture it has seen."""
        ...

    def __call__(self, which: NDArray[np.int64], view: int) -> dict[str, Tensor]: ...


class Objective(Protocol):
    """The sum over pictures of what is to become small, from a student's outputs and what was to be said."""

    def __call__(self, outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Lessons:
    """Pictures to learn from, their class indices [n], and what a teacher says of them."""

    pictures: Decoded
    truth: NDArray[np.int64]
    classes: int
    teaching: Teaching | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """What a run computes on. `half` multiplies in bfloat16, `streams` threads share out a step, `norms`
    normalise in place of torch's own."""

    device: torch.device
    streams: int = 1
    half: bool = False
    world: World = World()
    norms: Normed | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """One step: its number from 0, loss, share of the highest rate, pictures, seconds, and of these how many
    were spent waiting for pictures."""

    step: int
    loss: float
    rate: float
    pictures: int
    seconds: float
    waited: float
    steps: int
    """Of the whole run."""
    ends: bool
    """Whether it is the last of its epoch."""


@dataclass(slots=True)
class State:
    """A run's whole memory: with it and the same inputs the rest comes out the same to the last bit."""

    student: Student
    averaged: Student
    stepper: Stepper
    step: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    """Of the steps since the last epoch's end."""
    lost: int = 0
    """How many steps in a row had a loss far above the first."""
    first: float | None = None
    """The loss of the first step."""


class DivergedError(ValueError):
    """A loss or a gradient that is no number, or losses far above the first: the step from 0, and the
    pictures of its batch."""

    def __init__(self, step: int, what: str, which: NDArray[np.int64]) -> None:
        super().__init__(f"training diverged in step {step}: {what}")
        self.step, self.which = step, which


def begun(student: Student, recipe: Recipe, where: Where) -> State:
    """The state of a run before its first step."""
    student = placed(student, where.device)
    return State(student, copied(student), Stepper(student, recipe.steps))


def learn(
    state: State,
    recipe: Recipe,
    lessons: Lessons,
    target: Preprocess,
    where: Where,
    *,
    seed: int,
    objective: Objective,
    judged: Callable[[Student], float | None],
    each: Callable[[Taken], None],
    sound: Callable[[], None] = lambda: None,
) -> Iterator[Epoch]:
    """Train on from `state`, in place; yields each epoch as it ends, those that lie behind `state` first.

    `judged` scores the averaged network after an epoch; `each` hears of every step after it is taken; `sound`
    is called where the state has just given gradients that are numbers, and a loss not far above the first,
    before it moves on, and may keep it. Raises DivergedError before a step that would spoil the weights and
    where the loss has left its first value far behind, ValueError for batches that cannot be shared out or
    normalised.
    """
    batch = min(recipe.batch, len(lessons.truth))
    micros = shared(recipe, batch, state.student.net, where.world.count)
    yield from list(state.epochs)
    a_epoch = len(lessons.truth) // batch
    steps = recipe.epochs * a_epoch
    classes = _Classroom(state.student, recipe, lessons, target, where, seed, objective)
    with ThreadPoolExecutor(1) as fetching, one_thread_each(where.streams) as pool:
        plan = _plan(lessons.pictures, seed, state.step, steps, a_epoch, batch, micros, where)
        ahead = next(plan, None)
        rows = None if ahead is None else fetching.submit(_rows, lessons.pictures, ahead)
        began = time.perf_counter()
        while ahead is not None and rows is not None:
            now, begin = ahead, time.perf_counter()
            levels = rows.result()
            waited = time.perf_counter() - begin
            ahead = next(plan, None)
            rows = None if ahead is None else fetching.submit(_rows, lessons.pictures, ahead)
            epoch = state.step / a_epoch
            loss, moved = classes.taught(pool, now, levels, epoch)
            share = share_of_rate(recipe.course, epoch, recipe.epochs)
            first = loss if state.first is None else state.first
            lost = state.lost + 1 if loss > FAR * max(first, 1.0) else 0
            if problem := _astray(loss, lost) or classes.trouble(recipe.steps.clip):
                raise DivergedError(state.step, problem, now.all)
            if not lost:
                sound()
            state.first, state.lost = first, lost
            classes.follow(moved)
            state.stepper.step(share, pool)
            _average(state, recipe.average)
            state.step += 1
            state.losses.append(loss)
            ends = state.step % a_epoch == 0
            each(Taken(state.step - 1, loss, share, batch, time.perf_counter() - begin, waited, steps, ends))
            if ends:
                done = Epoch(
                    state.step // a_epoch,
                    float(np.mean(state.losses)),
                    judged(state.averaged),
                    time.perf_counter() - began,
                )
                state.epochs.append(done)
                state.losses.clear()
                began = time.perf_counter()
                yield done


def _astray(loss: float, lost: int) -> str:
    """What is wrong with the loss of a step; `lost` of them in a row were far above the first."""
    if not np.isfinite(loss):
        return "the loss is no number any more"
    if lost < PATIENT:
        return ""
    return f"for {lost} steps the loss was more than {FAR} times the first, and is {loss:.3g} now"


def shared(recipe: Recipe, batch: int, net: Net, processes: int) -> int:
    """The micro-batches of a batch. Raises ValueError where there are fewer of them than processes, or one
    has no more than a single number of some channel, which no norm can be learned from."""
    micros = max(1, round(batch / recipe.norm_batch))
    if micros < processes:
        raise ValueError(
            f"--batch: {batch} pictures at a time are {micros} micro-batch{'es' * (micros > 1)} of about "
            f"{recipe.norm_batch}, for {processes} processes; give {processes * recipe.norm_batch} or more, "
            "or start fewer"
        )
    least = min(share for _, share in recipe.feed.sizes)
    seen = shapes(at_resolution(net, _size(net.resolution, least)))
    ends = [seen[node.name] for node in net.nodes if getattr(node.op, "norm", None) is not None]
    numbers = min((shape.height * shape.width for shape in ends), default=2)
    if numbers * (batch // micros) < 2:
        raise ValueError(
            f"--batch: {batch} at a time: where a layer has one number a channel for each picture, the norm "
            "of one alone has nothing to learn from; give --batch 2 or more, or a larger --resolution"
        )
    return micros


def _size(full: int, share: float) -> int:
    return full if share == 1 else min(full, ALIKE * max(1, round(share * full / ALIKE)))


@dataclass(frozen=True, slots=True)
class _Batch:
    """One step's pictures: those of all processes, and this one's micro-batches."""

    epoch: int
    all: NDArray[np.int64]
    own: Sequence[NDArray[np.int64]]
    micros: int
    """Of all processes."""


def _plan(
    pictures: Decoded, seed: int, step: int, steps: int, a_epoch: int, batch: int, micros: int, where: Where
) -> Iterator[_Batch]:
    order, of = None, -1
    for number in range(step, steps):
        epoch, place = divmod(number, a_epoch)
        if order is None or of != epoch:
            order, of = pictures.order(seed, epoch), epoch
        every = order[place * batch : (place + 1) * batch]
        parts = np.array_split(every, micros)
        yield _Batch(epoch, every, parts[where.world.rank :: where.world.count], micros)


def _rows(pictures: Decoded, batch: _Batch) -> list[NDArray[np.uint8]]:
    return [pictures.rows(which) for which in batch.own]


class _Classroom:
    """Copies of the student at each resolution, one for each thread, and what they gather in a step."""

    def __init__(
        self,
        student: Student,
        recipe: Recipe,
        lessons: Lessons,
        target: Preprocess,
        where: Where,
        seed: int,
        objective: Objective,
    ) -> None:
        self._student, self._recipe, self._lessons = student, recipe, lessons
        self._target, self._where, self._seed, self._objective = target, where, seed, objective
        self._copies: dict[int, list[Student]] = {}
        self._buffers = statistics(student)

    def taught(
        self, pool: ThreadPoolExecutor, batch: _Batch, levels: Sequence[NDArray[np.uint8]], epoch: float
    ) -> tuple[float, list[Tensor]]:
        """Gradients on the student; the mean loss of the batch, and its statistics."""
        side = self._side(epoch)
        copies = self._sized(side)
        work = list(zip(batch.own, levels, strict=True))
        told: list[Future[tuple[float, list[Tensor]]]] = [
            pool.submit(self._stream, copy, work[number :: len(copies)], batch, side)
            for number, copy in enumerate(copies)
        ]
        found = [one.result() for one in told]
        count = len(batch.all)
        loss = torch.tensor(sum(own for own, _ in found) / count, dtype=torch.float64)
        sums = [
            sum(parts[1:], parts[0]) for parts in zip(*(stats for _, stats in found if stats), strict=True)
        ]
        for first, *others in zip(self._student.parameters(), *(c.parameters() for c in copies), strict=True):
            given = [other.grad for other in others if other.grad is not None]
            first.grad = sum(given[1:], given[0]) if given else torch.zeros_like(first)
            for other in others:
                other.grad = None
        self._where.world.sum([*(p.grad for p in self._student.parameters() if p.grad is not None), *sums])
        self._where.world.sum([loss])
        return float(loss), [one / batch.micros for one in sums]

    def follow(self, statistics: list[Tensor]) -> None:
        """Move the running statistics towards a batch's."""
        if statistics:
            torch._foreach_lerp_(self._buffers, statistics, NORM_MOMENTUM)

    def trouble(self, clip: float) -> str:
        """Which part of the gradients is no number; cuts a gradient that is longer than `clip`."""
        given = [p for p in self._student.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in given if p.grad is not None])
        if clip:
            torch.nn.utils.clip_grads_with_norm_(given, clip, norm)
        return "" if bool(torch.isfinite(norm)) else "a gradient is no number any more"

    def _side(self, epoch: float) -> int:
        past = epoch / self._recipe.epochs
        share = [share for begin, share in self._recipe.feed.sizes if past >= begin][-1]
        return _size(self._target.height, share)

    def _sized(self, side: int) -> list[Student]:
        if side not in self._copies:
            copies = [sharing(self._student, side).train() for _ in range(self._where.streams)]
            for layer in (layer for copy in copies for layer in copy.modules() if isinstance(layer, Layer)):
                layer.normed = self._where.norms
            self._copies[side] = copies
        return self._copies[side]

    def _stream(
        self,
        copy: Student,
        work: Sequence[tuple[NDArray[np.int64], NDArray[np.uint8]]],
        batch: _Batch,
        side: int,
    ) -> tuple[float, list[Tensor]]:
        total, stats = 0.0, list[Tensor]()
        for which, levels in work:
            loss = self._loss(copy, which, levels, batch.epoch, side)
            (loss / len(batch.all)).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            total += float(loss.detach())
            own = [buffer.clone() for buffer in statistics(copy)]
            stats = [a + b for a, b in zip(stats, own, strict=True)] if stats else own
        return total, stats

    def _loss(
        self, copy: Student, which: NDArray[np.int64], levels: NDArray[np.uint8], epoch: int, side: int
    ) -> Tensor:
        lessons, device = self._lessons, self._where.device
        teaching = lessons.teaching
        view = epoch if teaching is None else epoch % teaching.views
        drawn = draws(self._seed, which, view, DRAWS).to(device)
        x = viewed(torch.from_numpy(levels).to(device), drawn, self._recipe.views, (side, side))
        wanted = {"classes": self._smoothed(torch.from_numpy(lessons.truth[which]).to(device))}
        if teaching is not None:
            wanted |= {name: value.to(device) for name, value in teaching(which, view).items()}
        x, together = mixed(x, torch.cat(list(wanted.values()), dim=1), drawn, self._recipe.views)
        parts = torch.split(together, [one.shape[1] for one in wanted.values()], dim=1)
        x = normalised(x, self._target.mean, self._target.std)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._where.half):
            outputs = copy(x)
        outputs = {name: value.float() for name, value in outputs.items()}
        return self._objective(outputs, dict(zip(wanted, parts, strict=True)))

    def _smoothed(self, truth: Tensor) -> Tensor:
        classes, share = self._lessons.classes, self._recipe.smoothing
        return functional.one_hot(truth, classes).float() * (1 - share) + share / classes


def cross_entropy(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """The plain objective: what is said of the classes against what was to be said."""
    return -(wanted["classes"] * functional.log_softmax(outputs["logits"], dim=1)).sum()


def scores(made: Student, pictures: Decoded, target: Preprocess, where: Where) -> NDArray[np.float32]:
    """Logits [n, classes] of a network on all pictures as they are, in float32."""
    parts = [
        np.arange(first, min(first + SCORED, len(pictures))) for first in range(0, len(pictures), SCORED)
    ]
    return said(made, [partial(pictures.rows, part) for part in parts], target, where)


def said(
    made: Student, batches: Sequence[Callable[[], NDArray[np.uint8]]], target: Preprocess, where: Where
) -> NDArray[np.float32]:
    """Logits [n, classes] of a network on batches of levels [n, height, width, 3], in float32."""
    copies = [sharing(made) for _ in range(where.streams)]
    for copy in copies:
        copy.eval()

    def run(number: int) -> list[NDArray[np.float32]]:
        found = []
        for batch in batches[number :: len(copies)]:
            with torch.inference_mode():
                x = torch.from_numpy(batch()).to(where.device).permute(0, 3, 1, 2).float()
                given = copies[number](normalised(x, target.mean, target.std))
                found.append(given["logits"].float().cpu().numpy())
        return found

    # cuDNN would round to TF32: other logits than the numpy walk's. The flag is every thread's.
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    with exact, one_thread_each(len(copies)) as pool:
        told = list(pool.map(run, range(len(copies))))
    rows = [told[number % len(copies)][number // len(copies)] for number in range(len(batches))]
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.float32)


def _average(state: State, most: float) -> None:
    """The average follows fast at first, then slowly, as TensorFlow's does with a step count."""
    keep = min(most, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        mean = list(state.averaged.state_dict().values())
        torch._foreach_lerp_(mean, list(state.student.state_dict().values()), 1 - keep)
