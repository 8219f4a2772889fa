"""Training a whole network: from a folder of labelled pictures to a model file and a record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilenets.data.catalog import scan, usable
from mobilenets.data.crew import keep_freed_memory, release_freed_memory
from mobilenets.data.digests import Progress, digests
from mobilenets.data.store import Store
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.decode import softmax
from mobilenets.infer.engine import NumpyEngine, latency_ms
from mobilenets.infer.score import calibration_error, interval, top
from mobilenets.infer.sealed import write_whole
from mobilenets.model.module import Normed, random_weights, weights_of
from mobilenets.model.unfold import unfold
from mobilenets.spec import zoo
from mobilenets.spec.head import HEAD, classify
from mobilenets.spec.net import tensors
from mobilenets.spec.preprocess import SLIM, Preprocess
from mobilenets.spec.recipe import BodyOptions, LearnOptions, shares
from mobilenets.spec.recipes import named
from mobilenets.spec.training import DistilOptions, Recipe, RunOptions, TrainOptions
from mobilenets.spec.views import Views, still
from mobilenets.train import loop, qat
from mobilenets.train.blas import one_blas_thread
from mobilenets.train.body import one_thread, pick_device
from mobilenets.train.finetune import half_is_native
from mobilenets.train.head import temperature
from mobilenets.train.judge import AGREE, VERIFIED_PICTURES
from mobilenets.train.keeper import DIVERGED, Keeper, Listener, identity, normed, resumed, unfinished
from mobilenets.train.lessons import Lesson, decoded_parts, everyone, fits, sorted_out
from mobilenets.train.meter import Meter, machine, versions
from mobilenets.train.run import MODEL, Epoch, Judged, Run, net_facts
from mobilenets.train.start import RANDOM, starting_body
from mobilenets.train.student import Student, student
from mobilenets.train.teacher import (
    Asked,
    Said,
    Teacher,
    asked,
    matched,
    objective,
    refused,
    spread,
    unmatched,
)
from mobilenets.train.views import DRAWS, normalised, viewed
from mobilenets.train.world import World, joined, others, speaks

STATISTICS_PICTURES = 512
BYTES_APART = 1
FILES_NAMED = 3
STORED = 8 / 7
"""Sides of what is stored for those of what is seen: 256 for 224, as the papers cut their crops."""


def train(
    folder: Path,
    out: Path,
    *,
    options: TrainOptions,
    on: RunOptions,
    store: Store,
    cache: Path,
    listener: Listener,
    teacher: Callable[[], Teacher] | None = None,
    distil: DistilOptions = DistilOptions(),  # noqa: B008  # it is frozen
    norms: Callable[[], Normed] | None = None,
    command: str = "",
) -> Run | None:
    """Train a network on `folder`; writes `out/model.safetensors`, whole or not at all.

    Pictures are decoded once, into `cache`; `teacher` is made when options and classes have been checked,
    `norms` where a CPU is to learn, and where they cannot be had torch normalises. Of several processes that
    learn together (`torchrun`) the first writes and gives the record, the others None. Raises ValueError,
    before work is done where that is possible, for options that make no sense, a data set that cannot be
    learned and a checkpoint of another run.
    """
    recipe = named(options)
    device = torch.device(pick_device(on.device))
    trained = qat.trained(options, device, teacher is not None and distil.distil == "features")
    if trained is not None:
        recipe = qat.gone_on(recipe, trained, options)
    shares(recipe.feed.split)
    if trained is None and options.weights == RANDOM:
        zoo.net(recipe.subject.net, recipe.subject.width, recipe.subject.resolution)
    threads = on.threads or max(1, int(machine()["cores"]) // (1 + others()))
    if speaks():
        unfinished(out, on)
    keep_freed_memory()
    with Meter() as meter, joined(device) as world, one_thread(), _deterministic(on.deterministic):
        with meter.stage("scan"), world.in_turn():
            catalog = scan(folder)
            usable(catalog)
            keys = digests(catalog, threads, store, listener.progress, now=time.time())
            material, aside, notes = sorted_out(
                catalog, keys, recipe.feed, options.seed, threads, store, listener.progress
            )
            everyone(material.labels, material.truth[material.where("train")], folder)
            mentor = None if teacher is None else teacher()
            if mentor is not None:
                refused(mentor, distil, material.labels)
            if trained is None:
                start = _started(recipe, options, material.labels, listener.progress)
            else:
                start = qat.of_these(trained, options, material)
            pre = start.preprocess
            fits(recipe, pre, options.qat)
        with meter.stage("decode"):
            side = recipe.feed.stored or round(STORED * pre.height)
            stored = replace(pre, height=side, width=side, fraction=1.0)
            with world.in_turn():
                parts, lost = decoded_parts(material, stored, pre, cache, threads, listener.progress)
            truth = parts["train"].truth
            everyone(material.labels, truth, folder)
            start = start if options.qat else _normed(start, parts["train"], options.seed)
            loop.shared(recipe, min(recipe.batch, len(truth)), start.net, world.count)
            release_freed_memory()
        half = on.half and half_is_native(device)
        fast: Normed | None = None
        if norms is not None and device.type == "cpu" and not options.qat:
            with meter.stage("train"):
                fast = normed(norms, out, on, world, notes)
        where = loop.Where(world.device, threads if device.type == "cpu" else 1, half, world, fast)
        lessons = loop.Lessons(parts["train"].pictures, truth, len(material.labels))
        aim: loop.Objective = loop.cross_entropy
        if mentor is not None:
            with meter.stage("teacher"):
                asking = _Asking(mentor, distil, recipe, options.seed, cache)
                start, lessons, aim = _taught(asking, start, lessons, parts["train"], world, listener)
        if options.qat:
            with meter.stage("quantise"):
                start = qat.quantised(start, parts["train"], recipe.views, threads, listener.progress)
        with meter.stage("train"):  # torch imports much for its first optimiser
            state = loop.begun(student(start, where.device), recipe, where)
        about = identity(recipe, options, parts["train"], start, where, mentor, distil)
        resumed(state, out, about, on)
        world.agree(f"{about} {state.step}")
        keeper = Keeper(out, about, state, start, listener)
        with meter.stage("train"):
            for epoch in _learned(
                loop.learn(
                    state,
                    recipe,
                    lessons,
                    pre,
                    where,
                    seed=options.seed,
                    objective=aim,
                    judged=partial(_validated, part=parts["val"], pre=pre, where=where),
                    each=keeper.step if world.first else lambda taken: None,
                    sound=keeper.sound if world.first else lambda: None,
                ),
                parts["train"].files,
                keeper,
                out / DIVERGED if world.first else None,
            ):
                if world.first:
                    keeper.epoch(epoch, recipe.epochs)
        if not world.first:
            return None
        with meter.stage("judge"):
            learned = _alone(keeper.chosen())
            model, test, told = _judged(learned, _kept(recipe, options.seed), parts, material.labels, where)
            with one_blas_thread():
                _verify(model, parts, where)
                speed = latency_ms(NumpyEngine(model), pre)
            artefact.save(model, out / MODEL)
            keeper.leave_last(_alone)
        if store.warning is not None:
            notes.append(store.warning)
        return Run(
            command=command,
            folder=str(folder),
            model=str(out / MODEL),
            options={
                **asdict(options),
                "recipe": recipe.name,
                **asdict(on),
                "threads": threads,
                **({} if mentor is None else asdict(distil)),
            },
            labels=material.labels,
            counts=material.counts(),
            set_aside=[*catalog.set_aside, *aside, *lost],
            duplicates=material.groups,
            accuracy=told["accuracy"],
            top5=told["top5"],
            interval=told["interval"],
            test=test,
            choices=(),
            chosen_c=0.0,
            refitted=0.0,
            temperature=told["temperature"],
            calibration_error=told["calibration_error"],
            unknown=None,
            epochs=state.epochs,
            net=net_facts(model.net, (out / MODEL).stat().st_size, speed),
            source=model.source,
            seconds={
                name: round(value, 3) for name, value in (meter.seconds | {"total": meter.total_s}).items()
            },
            peak_rss_mb=None if meter.peak_rss_mb is None else round(meter.peak_rss_mb, 1),
            machine=machine(),
            versions=versions(),
            digest=artefact.digest(model),
            engine=_engine(where),
            throughput=keeper.throughput(),
            notes=[*notes, *material.remarks("temperature is a default")],
            kind="training",
        )


def _engine(where: loop.Where) -> str:
    """What learned, in words."""
    processes = f"{where.world.count} processes of " if where.world.count > 1 else ""
    threads = f"{where.streams} thread{'s' * (where.streams > 1)}"
    of = threads if where.device.type == "cpu" else "one device"
    also = f"{', bfloat16' if where.half else ''}{', norms in C' if where.norms else ''}"
    return f"torch, {where.device.type}, {processes}{of}{also}"


@contextmanager
def _deterministic(asked: bool) -> Iterator[None]:
    """Torch refuses operations that may end in other bits, in here; and afterwards what it did before."""
    before = torch.are_deterministic_algorithms_enabled()
    if asked:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS may sum in any order
    torch.use_deterministic_algorithms(asked or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _learned(
    epochs: Iterator[Epoch], files: Sequence[str], keeper: Keeper, place: Path | None
) -> Iterator[Epoch]:
    """The epochs. Where learning leaves the numbers the error says in which step, on what, and what to do;
    `place` has all the pictures of that step."""
    try:
        yield from epochs
    except loop.DivergedError as error:
        shown = [files[index] for index in error.which[:FILES_NAMED].tolist()]
        more = len(error.which) - len(shown)
        rest = f" and {more} more" if more else ""
        if more and place is not None:
            write_whole(place, "".join(f"{files[index]}\n" for index in error.which.tolist()).encode())
            rest += f", listed in {place}"
        raise ValueError(
            f"{error}; its pictures were {', '.join(shown)}{rest}; "
            f"{keeper.told()}; give a lower --rate, and --anew"
        ) from error


def _started(recipe: Recipe, options: TrainOptions, labels: Sequence[str], progress: Progress) -> Artefact:
    """The whole network before its first step, with norms, fed as the recipe says."""
    subject = recipe.subject
    width, geometry = subject.width, recipe.feed.geometry
    if options.weights == RANDOM:
        net = zoo.net(subject.net, width, subject.resolution, len(labels))
        pre = replace(SLIM, height=net.input.height, width=net.input.width, geometry=geometry)
        return Artefact(
            net,
            random_weights(net, options.seed),
            pre,
            labels=tuple(labels),
            source={"name": "random weights"},
        )
    body = BodyOptions(
        net=subject.net,
        width=options.width,
        resolution=subject.resolution,
        weights=options.weights,
        geometry=geometry,
    )
    found = starting_body(body, LearnOptions(finetune=1), progress)
    net = classify(found.net, len(labels))
    fresh = random_weights(net, options.seed)
    return replace(found, net=net, weights=fresh | dict(found.weights), labels=tuple(labels))


@dataclass(frozen=True, slots=True)
class _Asking:
    """Whom to ask, how, and where the answers are kept."""

    teacher: Teacher
    how: DistilOptions
    recipe: Recipe
    seed: int
    cache: Path


def _taught(
    asking: _Asking, start: Artefact, lessons: loop.Lessons, train: Lesson, world: World, listener: Listener
) -> tuple[Artefact, loop.Lessons, loop.Objective]:
    """The network ready to be taught, lessons with what the teacher says, and what is to be learned."""
    output = "logits" if asking.how.distil == "soft" else "features"

    def ask() -> Said:
        views = min(asking.how.teacher_views, asking.recipe.epochs)
        size = (start.preprocess.height, start.preprocess.width)
        what = Asked(train.pictures, train.content, asking.recipe.views, size, asking.seed, views)
        return asked(asking.teacher, [output], what, asking.cache, listener.progress)

    with world.in_turn():
        said = ask()
    taught = replace(lessons, teaching=said)
    if output == "logits":
        return start, taught, objective(asking.how, asking.teacher, 1.0)
    net = matched(start.net, said.kept[output].shape[2])
    fresh = random_weights(net, asking.seed)
    grown = replace(start, net=net, weights=fresh | dict(start.weights))
    return grown, taught, objective(asking.how, asking.teacher, spread(said))


def _alone(learned: Artefact) -> Artefact:
    """A network without what only its teacher needed."""
    if learned.scales:
        return learned
    net = unmatched(learned.net)
    return replace(learned, net=net, weights={name: learned.weights[name] for name in tensors(net)})


def _validated(made: Student, part: Lesson, pre: Preprocess, where: loop.Where) -> float | None:
    if not where.world.first or not len(part.truth):
        return None
    return top(loop.scores(made, part.pictures, pre, where), part.truth)


def _judged(
    learned: Artefact,
    recipe: Mapping[str, Any],
    parts: Mapping[str, Lesson],
    labels: Sequence[str],
    where: loop.Where,
) -> tuple[Artefact, Judged, dict[str, Any]]:
    """The model with its temperature folded into its head, and what was measured on the parts held out."""
    made = student(learned, where.device)
    logits = {
        part: loop.scores(made, parts[part].pictures, learned.preprocess, where) for part in ("val", "test")
    }
    truth = {part: parts[part].truth for part in logits}
    # A quantised head stays as it is: it began with its float model's temperature.
    tells = len(truth["val"]) and not learned.scales
    warm = temperature(logits["val"], truth["val"]) if tells else 1.0
    scores = {part: softmax(value / np.float32(warm)) for part, value in logits.items() if len(value)}
    accuracy = {"train": None} | {
        part: top(logits[part], truth[part]) if len(truth[part]) else None for part in logits
    }
    right, n = accuracy["test"], len(truth["test"])
    told: dict[str, Any] = {
        "accuracy": accuracy,
        "top5": top(logits["test"], truth["test"], 5) if n else None,
        "interval": None if right is None else interval(right, n),
        "test_pictures": n,
        "temperature": warm,
        "calibration_error": {
            "before": calibration_error(softmax(logits["test"]), truth["test"]) if n else None,
            "after": calibration_error(scores["test"], truth["test"]) if n else None,
        },
    }
    cooled = {
        name: value / np.float32(warm) if warm != 1 and name.startswith(f"{HEAD}.") else value
        for name, value in learned.weights.items()
    }
    model = replace(learned, weights=cooled, recipe=recipe, scores=told)
    shown = scores.get("test", np.zeros((0, len(labels)), np.float32))
    return model, Judged(parts["test"].files, truth["test"], shown), told


def _verify(model: Artefact, parts: Mapping[str, Lesson], where: loop.Where) -> None:
    """Raises RuntimeError where the walk says other logits than torch, by more than float32 explains."""
    part = next((parts[name] for name in ("test", "val") if len(parts[name].truth)), None)
    size = (model.preprocess.height, model.preprocess.width, 3)
    levels = np.random.default_rng(0).integers(0, 256, (VERIFIED_PICTURES, *size), np.uint8)
    if part is not None:
        count = len(part.truth)
        chosen = np.linspace(0, count - 1, min(VERIFIED_PICTURES, count)).astype(np.int64)
        levels = part.pictures.rows(chosen)
    told = loop.said(student(model, where.device), [lambda: levels], model.preprocess, where)
    apart = np.abs(NumpyEngine(model).prepared(levels)["logits"] - told).max(axis=1)
    # A sum of bytes that lies at a half may fall to either side: on few pictures, and told by those alone.
    worst = float(np.sort(apart)[max(0, len(apart) - 1 - BYTES_APART)] if model.scales else apart.max())
    if not worst <= AGREE * max(1.0, float(np.abs(told).max())):
        raise RuntimeError(
            f"the model's logits differ by {worst:.2g} from those that were scored; not written"
        )


def _kept(recipe: Recipe, seed: int) -> dict[str, Any]:
    """What a model file says of its training: what was measured of the recipe elsewhere is none of it."""
    return {**{name: value for name, value in asdict(recipe).items() if name != "told"}, "seed": seed}


def _normed(start: Artefact, train: Lesson, seed: int) -> Artefact:
    """The same function with batch norms, measured on training pictures where they were folded away."""
    if any(getattr(node.op, "norm", None) is not None for node in start.net.nodes):
        return start
    pre = start.preprocess
    chosen = np.random.default_rng(seed).permutation(len(train.truth))[:STATISTICS_PICTURES]

    def batches() -> Iterator[Tensor]:
        for first in range(0, len(chosen), loop.SCORED):
            levels = torch.from_numpy(train.pictures.rows(chosen[first : first + loop.SCORED]))
            drawn = torch.full((len(levels), DRAWS), 0.5)
            x = viewed(levels, drawn, still(Views()), (pre.height, pre.width))
            yield normalised(x, pre.mean, pre.std)

    made = unfold(start.net, start.weights, batches())
    return replace(start, net=made.net, weights=weights_of(made))
