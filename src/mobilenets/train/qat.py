"""What a training in bytes begins with: a trained model, its split of the pictures, its first scales."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mobilenets.data.digests import Progress
from mobilenets.infer import adopt
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.quantise import quantise
from mobilenets.spec.training import Recipe, TrainOptions
from mobilenets.spec.views import Views, still
from mobilenets.train.blas import one_blas_thread
from mobilenets.train.lessons import Lesson
from mobilenets.train.material import Material
from mobilenets.train.start import RANDOM
from mobilenets.train.views import DRAWS, viewed

CALIBRATED = 256


def trained(options: TrainOptions, device: torch.device, features: bool) -> Artefact | None:
    """The trained model that learns on in bytes, where that is asked for."""
    if not options.qat:
        return None
    if options.weights == RANDOM:
        raise ValueError("--qat learns on from a trained model of these classes: give it with --weights")
    if features:
        raise ValueError("--qat learns from a teacher's scores alone: give --distil soft")
    if device.type == "mps":
        raise ValueError(
            "--qat --device mps: sums of bytes want float64, which Metal lacks; give --device cpu"
        )
    for name in ("net", "width", "resolution"):
        if getattr(options, name) is not None:
            raise ValueError(f"--qat --{name}: the network is that of --weights; leave out --{name}")
    if not Path(options.weights).exists():
        raise ValueError(f"--qat --weights {options.weights}: no such file; it takes a model of `train`")
    return adopt.in_floats(adopt.read(Path(options.weights)))


def gone_on(recipe: Recipe, model: Artefact, options: TrainOptions) -> Recipe:
    """The recipe for a trained model: its network, and its split, so that none of its pictures judge."""
    net = model.net
    before = model.recipe.get("feed")
    split = options.split or (before.get("split") if isinstance(before, dict) else None) or recipe.feed.split
    return replace(
        recipe,
        subject=replace(recipe.subject, net=net.name, width=net.width, resolution=net.resolution),
        feed=replace(recipe.feed, split=str(split)),
    )


def of_these(model: Artefact, options: TrainOptions, material: Material) -> Artefact:
    """The trained model. Raises ValueError for one that knows other classes, or has seen what would judge."""
    if model.labels != material.labels:
        raise ValueError(
            f"{options.weights} knows {len(model.labels)} classes, the folder has {len(material.labels)}, or "
            "they are others: --qat goes on with the same; train without it first"
        )
    seed = model.recipe.get("seed", options.seed)
    if seed != options.seed and any(item.part is None for item in material.catalog.items):
        raise ValueError(
            f"--seed {options.seed}: {options.weights} was trained with --seed {seed}, which set aside the "
            f"pictures that judge; give --seed {seed}"
        )
    return model


def quantised(start: Artefact, train: Lesson, views: Views, threads: int, progress: Progress) -> Artefact:
    """A model in bytes, calibrated on training pictures as they are."""
    pre = start.preprocess
    chosen = np.linspace(0, len(train.truth) - 1, min(CALIBRATED, len(train.truth))).astype(np.int64)
    levels = torch.from_numpy(train.pictures.rows(chosen))
    plain = viewed(levels, torch.full((len(levels), DRAWS), 0.5), still(views), (pre.height, pre.width))
    shown = plain.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    with one_blas_thread():
        return quantise(start, shown, threads=threads, progress=progress)
