"""Retraining: from a folder of labelled pictures to a model file and a record of what was measured."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, scan, usable
from mobilenets.data.crew import keep_freed_memory, release_freed_memory
from mobilenets.data.digests import Progress, digests
from mobilenets.data.store import Store
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.engine import NumpyEngine, latency_ms
from mobilenets.spec.recipe import BodyOptions, LearnOptions, MachineOptions, shares
from mobilenets.train import head as heads
from mobilenets.train.blas import one_blas_thread
from mobilenets.train.features import Body, Features, features
from mobilenets.train.judge import assembled, judge, verified, verify
from mobilenets.train.material import Material, sorted_out
from mobilenets.train.meter import Meter, machine, versions
from mobilenets.train.run import MODEL, Epoch, Run, net_facts
from mobilenets.train.start import starting_body


class Bodies(Protocol):
    """What makes a faster engine than torch for a frozen body on the CPU; None where it cannot.

    With `rough` outputs need not be those of float32 to the last digits.
    """

    def __call__(
        self, model: Artefact, streams: int, images: int, progress: Progress, *, rough: bool
    ) -> Body | None: ...


CHECKPOINT = "tuning.safetensors"
STAGES = ("scan", "features", "fit")


def retrain(
    folder: Path,
    out: Path,
    *,
    body: BodyOptions,
    learn: LearnOptions,
    where: MachineOptions,
    store: Store,
    progress: Progress,
    command: str = "",
    finished: str = "",
    bodies: Bodies | None = None,
) -> Run:
    """Teach a body the classes of `folder`; writes `out/model.safetensors`, whole or not at all.

    Files that cannot be used are set aside and named in the run. `finished` is the identity of the
    fine-tuning whose model lies there: it cannot be resumed. What learns may see features that are not exact;
    what is judged has those of the model that is written. Raises ValueError, before work is done where that
    is possible, for options that make no sense, a data set that cannot be learned and weights that don't fit.
    """
    ratio = shares(learn.split)
    if learn.finetune < 0 or not 0 <= learn.smoothing < 1:
        raise ValueError("--finetune takes 0 or more epochs, --smoothing a share below 1")
    if learn.seed < 0:
        raise ValueError(f"--seed {learn.seed}: a seed is 0 or more")
    threads = int(machine()["cores"]) if where.threads is None else where.threads
    if threads < 1:
        raise ValueError(f"--threads {threads}: at least one is needed")
    device = _device(where.device)
    keep_freed_memory()
    engines: list[str] = []

    def engine(model: Artefact, images: int, *, rough: bool = False) -> Body:
        made = bodies(model, threads, images, progress, rough=rough) if bodies and device == "cpu" else None
        made = made or _torch(model, device, threads)
        engines.append(made.told if made.exact else f"{made.told}, to learn from")
        return made

    def looked(of: Catalog, named: Sequence[str], through: Artefact, stage: str, *, rough: bool) -> Features:
        return features(
            *(of, named, through),
            engine=lambda images: engine(through, images, rough=rough),
            store=store,
            workers=threads,
            progress=progress,
            rough=rough,
            stage=stage,
        )

    with Meter() as meter:
        with meter.stage("scan"):
            catalog = scan(folder)
            usable(catalog)
            start = starting_body(body, learn, progress)
            keys = digests(catalog, threads, store, progress, now=time.time())
        with meter.stage("features"):
            seen = looked(catalog, keys, start, "features", rough=True)
        material, values, aside = sorted_out(catalog, keys, seen, ratio, learn.seed)
        if not learn.finetune and not seen.exact.all():
            with meter.stage("features"):
                judged = np.union1d(material.where("test"), verified(material))
                part = replace(material.catalog, items=tuple(material.catalog.items[i] for i in judged))
                anew = looked(part, [material.keys[i] for i in judged], start, "score", rough=False)
                there = [look.problem is None for look in anew.looks]  # a file may be gone since
                values[judged[there]] = anew.values[there]
        release_freed_memory()
        notes: list[str] = []
        with meter.stage("fit"):
            chosen = _fit_head(material, values, learn, progress, gentle=learn.finetune > 0)
        learned, head, refitted = start, chosen.head, 1.0
        epochs: list[Epoch] = []
        identity = ""
        if learn.finetune:
            with meter.stage("finetune"):
                from mobilenets.train.endtoend import tuned

                learned, head, epochs, identity, notice = tuned(
                    *(start, head, material, learn, body, device, threads),
                    checkpoint=out / CHECKPOINT,
                    resume=where.resume,
                    finished=finished,
                    progress=progress,
                )
                release_freed_memory()
                notes += [notice] if notice else []
                values = looked(material.catalog, material.keys, learned, "score", rough=False).values
            val = material.where("val")
            with meter.stage("fit"):
                if len(val):
                    chosen = _fit_head(material, values, learn, progress)
                head, refitted = heads.settled(head, chosen.head, values[val], material.truth[val])
        with meter.stage("judge"):
            verdict, cooled = judge(material, values, head, chosen.c, learn, progress)
            recipe = {**asdict(body), **asdict(learn), "c": chosen.c, "refitted": refitted}
            recipe["weights"] = learned.source.get("name", learned.source.get("file", body.weights))
            model = assembled(learned, cooled, material.labels, verdict, recipe)
            with one_blas_thread():
                verify(model, material, values, threads)
                speed = latency_ms(NumpyEngine(model), model.preprocess)
            artefact.save(model, out / MODEL)
        if store.warning is not None:
            notes.append(store.warning)
        notes += [start.source["stands_in"]] if "stands_in" in start.source else []
        notes += material.remarks("C and temperature are defaults")
        seconds = {**dict.fromkeys(STAGES, 0.0), **meter.seconds, "total": meter.total_s}
        return Run(
            command=command,
            folder=str(folder),
            model=str(out / MODEL),
            options={**asdict(body), **asdict(learn), **asdict(where), "threads": threads},
            labels=material.labels,
            counts=material.counts(),
            set_aside=[*catalog.set_aside, *aside],
            duplicates=material.groups,
            accuracy=verdict.accuracy,
            top5=verdict.top5,
            interval=verdict.interval,
            test=verdict.test,
            choices=chosen.tried,
            chosen_c=chosen.c,
            refitted=refitted,
            temperature=verdict.temperature,
            calibration_error=verdict.calibration_error,
            unknown=verdict.unknown,
            epochs=epochs,
            net=net_facts(model.net, (out / MODEL).stat().st_size, speed),
            source=model.source,
            seconds={name: round(value, 3) for name, value in seconds.items()},
            peak_rss_mb=None if meter.peak_rss_mb is None else round(meter.peak_rss_mb, 1),
            machine=machine(),
            versions=versions(),
            digest=artefact.digest(model),
            identity=identity,
            engine="; ".join(dict.fromkeys(engines)),
            notes=notes,
        )


def _device(asked: str) -> str:
    """The device by name. Raises ModuleNotFoundError without torch, ValueError where it has no such device.

    torch itself is only imported where there is work for it: where all features are known already, loading
    it would take longer than anything else.
    """
    if importlib.util.find_spec("torch") is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    if asked == "cpu":
        return asked
    from mobilenets.train.body import pick_device

    return pick_device(asked)


def _torch(model: Artefact, device: str, threads: int) -> Body:
    from mobilenets.train.body import TorchEngine

    return TorchEngine(model, device, threads)


def _fit_head(
    material: Material,
    values: NDArray[np.float32],
    learn: LearnOptions,
    progress: Progress,
    *,
    gentle: bool = False,
) -> heads.Chosen:
    train, val = material.where("train"), material.where("val")
    classes = len(material.labels)
    balance = heads.balanced(material.truth[train], classes) if learn.class_weights else None
    regression = heads.Regression(values[train], material.truth[train], classes, balance)
    return heads.choose(
        regression,
        values[val],
        material.truth[val],
        lambda tried: progress("fit", tried, max(tried, 4)),
        gentle=gentle,
    )
