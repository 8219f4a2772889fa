"""Retraining: from a folder of labelled pictures to a model file and a record of what was measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mobilenets.costs.count import cost
from mobilenets.data.augment import Job, Viewing
from mobilenets.data.catalog import scan, usable
from mobilenets.data.crew import Crew, keep_freed_memory, release_freed_memory
from mobilenets.data.store import Store
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.engine import NumpyEngine, latency_ms
from mobilenets.infer.image import normalise
from mobilenets.model.module import Module, module, weights_of
from mobilenets.model.unfold import unfold
from mobilenets.spec.head import HEAD, classify, headless
from mobilenets.spec.net import Net, tensors
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.recipe import (
    FROM_RANDOM,
    Augment,
    BodyOptions,
    LearnOptions,
    MachineOptions,
    Tune,
    shares,
)
from mobilenets.train import head as heads
from mobilenets.train.body import TorchEngine, pick_device
from mobilenets.train.features import Progress, digests, features
from mobilenets.train.finetune import Tuner
from mobilenets.train.judge import assembled, judge, verify
from mobilenets.train.material import Material, sorted_out
from mobilenets.train.meter import Meter, machine, versions
from mobilenets.train.run import Epoch, Run
from mobilenets.train.start import RANDOM, starting_body

STATISTICS_PICTURES = 512
MODEL, CHECKPOINT = "model.safetensors", "checkpoint.safetensors"
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
) -> Run:
    """Teach a body the classes of `folder`; writes `out/model.safetensors`, whole or not at all.

    Files that cannot be used are set aside and named in the run. Raises ValueError, before work is done where
    that is possible, for options that make no sense, a data set that cannot be learned and weights that don't
    fit.
    """
    ratio = shares(learn.split)
    if learn.finetune < 0 or not 0 <= learn.smoothing < 1:
        raise ValueError("--finetune takes 0 or more epochs, --smoothing a share below 1")
    if learn.seed < 0:
        raise ValueError(f"--seed {learn.seed}: a seed is 0 or more")
    threads = int(machine()["cores"]) if where.threads is None else where.threads
    if threads < 1:
        raise ValueError(f"--threads {threads}: at least one is needed")
    device = pick_device(where.device)
    torch.set_num_threads(threads)
    keep_freed_memory()
    with Meter() as meter:
        with meter.stage("scan"):
            catalog = scan(folder)
            usable(catalog)
            start = starting_body(body, learn, progress)
            keys = digests(catalog, threads, progress)
        with meter.stage("features"):
            seen = features(
                catalog,
                keys,
                start,
                engine=TorchEngine(start, device, threads),
                store=store,
                workers=threads,
                progress=progress,
            )
        material, values, aside = sorted_out(catalog, keys, seen, ratio, learn.seed)
        release_freed_memory()
        notes: list[str] = []
        with meter.stage("fit"):
            chosen = _fit_head(material, values, learn, progress, gentle=learn.finetune > 0)
        learned, head, refitted = start, chosen.head, 1.0
        epochs: list[Epoch] = []
        if learn.finetune:
            with meter.stage("finetune"):
                learned, head, epochs, notice = _finetune(
                    start, head, material, learn, body, where, out, device, threads, progress
                )
                release_freed_memory()
                notes += [notice] if notice else []
                values = features(
                    material.catalog,
                    material.keys,
                    learned,
                    engine=TorchEngine(learned, device, threads),
                    store=store,
                    workers=threads,
                    progress=progress,
                    stage="score",
                ).values
            val = material.where("val")
            with meter.stage("fit"):
                if len(val):
                    chosen = _fit_head(material, values, learn, progress)
                head, refitted = heads.settled(head, chosen.head, values[val], material.truth[val])
        with meter.stage("judge"):
            verdict, cooled = judge(material, values, head, chosen.c, learn)
            recipe = {**asdict(body), **asdict(learn), "c": chosen.c, "refitted": refitted}
            recipe["weights"] = learned.source.get("name", learned.source.get("file", body.weights))
            model = assembled(learned, cooled, material.labels, verdict, recipe)
            verify(model, material, values)
            artefact.save(model, out / MODEL)
            (out / CHECKPOINT).unlink(missing_ok=True)
            speed = latency_ms(NumpyEngine(model), model.preprocess)
        if store.warning is not None:
            notes.append(store.warning)
        unseen = [
            label for label, n in zip(material.labels, material.counts()["train"], strict=True) if not n
        ]
        if unseen:
            notes.append(f"without a picture in train, so never answered: {', '.join(unseen)}")
        if not len(material.where("val")):
            notes.append("no validation pictures: C and temperature are defaults, scores are not calibrated")
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
            net=_facts(model.net, (out / MODEL).stat().st_size, speed),
            source=model.source,
            seconds={name: round(value, 3) for name, value in seconds.items()},
            peak_rss_mb=round(meter.peak_rss_mb, 1),
            machine=machine(),
            versions=versions(),
            digest=artefact.digest(model),
            notes=notes,
        )


def _facts(net: Net, file_bytes: int, speed_ms: float) -> dict[str, Any]:
    """What the record says of the network."""
    counted = cost(net)
    return {
        "name": net.name,
        "width": net.width,
        "resolution": net.resolution,
        "macs": counted.macs,
        "params": counted.params,
        "float32_bytes": counted.float32_bytes,
        "int8_bytes": counted.int8_bytes,
        "activation_bytes": counted.activation_bytes,
        "file_bytes": file_bytes,
        "latency_ms": speed_ms,
        "latency_engine": "numpy",
    }


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


def _finetune(
    start: Artefact,
    head: heads.Head,
    material: Material,
    learn: LearnOptions,
    body: BodyOptions,
    where: MachineOptions,
    out: Path,
    device: str,
    threads: int,
    progress: Progress,
) -> tuple[Artefact, heads.Head, list[Epoch], str]:
    """The body and head after both have learned, each epoch, and what is to be said of resuming."""
    from_random = body.weights == RANDOM
    recipe = Tune(epochs=learn.finetune, smoothing=learn.smoothing, **(FROM_RANDOM if from_random else {}))
    recipe = replace(recipe, augment=replace(recipe.augment, mirror=learn.mirror))
    if from_random:  # a head fitted to noise would only have to be unlearned
        head = heads.Head(np.zeros_like(head.weight), np.zeros_like(head.bias))
    net = classify(start.net, len(material.labels))
    filled = {**start.weights, f"{HEAD}.weight": head.weight, f"{HEAD}.bias": head.bias}
    train = material.of("train")
    balance = heads.balanced(train.truth, len(material.labels)) if learn.class_weights else None
    with Crew(Viewing(material.catalog.bare(), start.preprocess, recipe.augment), threads) as crew:
        tuner = Tuner(
            _with_norms(net, filled, material, start.preprocess, learn.seed),
            recipe,
            crew=crew,
            target=start.preprocess,
            seed=learn.seed,
            device=device,
            checkpoint=out / CHECKPOINT,
            identity=_identity(start, recipe, learn, material, threads, device),
            class_weights=balance,
            frozen_norms=not from_random,
            streams=threads,
        )
        epochs = list(tuner.run(train, material.of("val"), resume=where.resume, progress=progress))
    learned = weights_of(tuner.averaged)
    body_net = headless(tuner.averaged.net)
    tuned = replace(start, net=body_net, weights={name: learned[name] for name in tensors(body_net)})
    return tuned, heads.Head(learned[f"{HEAD}.weight"], learned[f"{HEAD}.bias"]), epochs, tuner.notice


def _identity(
    start: Artefact, recipe: Tune, learn: LearnOptions, material: Material, threads: int, device: str
) -> str:
    """What must be the same for a checkpoint to be gone on from."""
    said = [artefact.digest(start), asdict(recipe), asdict(learn), threads, device, torch.__version__]
    total = hashlib.sha256(json.dumps(said).encode())
    for key, label, part in zip(material.keys, material.truth.tolist(), material.part.tolist(), strict=True):
        total.update(f"{key} {label} {part}\n".encode())
    return total.hexdigest()


def _with_norms(
    net: Net, filled: dict[str, NDArray[np.float32]], material: Material, pre: Preprocess, seed: int
) -> Module:
    """The module to train: folded weights get their batch norms back, measured on training pictures."""
    if any(getattr(node.op, "norm", None) is not None for node in net.nodes):
        return module(net, filled)
    chosen = np.random.default_rng(seed).permutation(material.where("train"))[:STATISTICS_PICTURES]
    prepare = Viewing(material.catalog, pre, Augment())
    levels = [made for i in chosen if (made := prepare(Job(material.catalog.items[i]))) is not None]
    return unfold(net, filled, _batches(levels, pre, 16))


def _batches(levels: Sequence[NDArray[np.uint8]], pre: Preprocess, size: int) -> list[torch.Tensor]:
    return [
        torch.from_numpy(normalise(np.stack(levels[i : i + size]), pre)).permute(0, 3, 1, 2)
        for i in range(0, len(levels), size)
    ]
