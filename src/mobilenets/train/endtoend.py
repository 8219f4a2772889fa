"""Fine-tuning as a part of retraining: the fitted head and its body learn on together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mobilenets.data.augment import Job, Viewing
from mobilenets.data.crew import Crew, release_freed_memory
from mobilenets.data.digests import Progress
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import normalise
from mobilenets.model.module import Module, module, weights_of
from mobilenets.model.unfold import unfold
from mobilenets.spec.head import HEAD, classify, headless
from mobilenets.spec.net import Net, tensors
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.recipe import FROM_RANDOM, Augment, BodyOptions, LearnOptions, Tune
from mobilenets.train import head as heads
from mobilenets.train.body import one_thread
from mobilenets.train.finetune import MICRO, Tuner
from mobilenets.train.material import Material
from mobilenets.train.run import Epoch
from mobilenets.train.start import RANDOM

STATISTICS_PICTURES = 512


class Tuned(NamedTuple):
    """Body and head, each epoch, what the run is known by, and what is to be said of resuming."""

    body: Artefact
    head: heads.Head
    epochs: list[Epoch]
    identity: str
    notice: str


def tuned(
    start: Artefact,
    head: heads.Head,
    material: Material,
    learn: LearnOptions,
    body: BodyOptions,
    device: str,
    threads: int,
    checkpoint: Path,
    resume: bool,
    finished: str,
    progress: Progress,
) -> Tuned:
    """The body and head after both have learned. Raises ValueError where the run to resume is `finished`."""
    from_random = body.weights == RANDOM
    recipe = Tune(epochs=learn.finetune, smoothing=learn.smoothing, **(FROM_RANDOM if from_random else {}))
    recipe = replace(recipe, augment=replace(recipe.augment, mirror=learn.mirror))
    identity = _identity(start, recipe, learn, material, threads, device)
    if resume and identity == finished and not checkpoint.exists():
        raise ValueError(f"{checkpoint.parent}: this run came to its end; without --resume it runs anew")
    if from_random:  # a head fitted to noise would only have to be unlearned
        head = heads.Head(np.zeros_like(head.weight), np.zeros_like(head.bias))
    net = classify(start.net, len(material.labels))
    filled = {**start.weights, f"{HEAD}.weight": head.weight, f"{HEAD}.bias": head.bias}
    train = material.of("train")
    balance = heads.balanced(train.truth, len(material.labels)) if learn.class_weights else None
    viewing = Viewing(material.catalog.bare(), start.preprocess, recipe.augment)
    # The tuner has a thread for each stream. Two in one layer would wait for one another at every barrier,
    # and, where another process has one of their cores, for that.
    with one_thread(), Crew(viewing, threads) as crew:
        tuner = Tuner(
            _with_norms(net, filled, material, start.preprocess, learn.seed, progress),
            recipe,
            crew=crew,
            target=start.preprocess,
            seed=learn.seed,
            device=device,
            checkpoint=checkpoint,
            identity=identity,
            class_weights=balance,
            frozen_norms=not from_random,
            streams=threads,
        )
        release_freed_memory()  # of fitting the head and of measuring the norms
        epochs = list(tuner.run(train, material.of("val"), resume=resume, progress=progress))
    learned = weights_of(tuner.averaged)
    body_net = headless(tuner.averaged.net)
    kept = replace(start, net=body_net, weights={name: learned[name] for name in tensors(body_net)})
    head = heads.Head(learned[f"{HEAD}.weight"], learned[f"{HEAD}.bias"])
    return Tuned(kept, head, epochs, identity, tuner.notice)


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
    net: Net,
    filled: dict[str, NDArray[np.float32]],
    material: Material,
    pre: Preprocess,
    seed: int,
    progress: Progress,
) -> Module:
    """The module to train: folded weights get their batch norms back, measured on training pictures."""
    if any(getattr(node.op, "norm", None) is not None for node in net.nodes):
        return module(net, filled)
    chosen = np.random.default_rng(seed).permutation(material.where("train"))[:STATISTICS_PICTURES]
    prepare = Viewing(material.catalog, pre, Augment())
    levels = (made for i in chosen if (made := prepare(Job(material.catalog.items[i]))) is not None)

    def batches() -> Iterator[torch.Tensor]:
        done = 0
        while some := list(islice(levels, MICRO)):
            progress("norms", done, len(chosen))
            done += len(some)
            yield torch.from_numpy(normalise(np.stack(some), pre)).permute(0, 3, 1, 2)

    return unfold(net, filled, batches())
