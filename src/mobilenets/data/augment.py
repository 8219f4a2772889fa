"""Mild changes to a training picture (window, mirror, light), drawn from a seed so that a run repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, Item
from mobilenets.infer.image import ImageError, decode, prepare
from mobilenets.infer.resize import Frame
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.recipe import Augment

Levels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to prepare; with a `seed` it is augmented, and each seed gives another view."""

    item: Item
    seed: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Viewing:
    """A worker's work: one picture decoded, augmented where the job has a seed, and resized."""

    catalog: Catalog
    target: Preprocess
    augment: Augment

    def __call__(self, job: Job) -> Levels | None:
        """uint8 [height, width, 3], or None for a file that does not decode any more."""
        try:
            frame = decode(self.catalog.read(job.item), self.target)
        except (ImageError, OSError, MemoryError):
            return None
        if job.seed is None:
            return prepare(frame, self.target)
        return view(frame, self.target, self.augment, job.seed)


def view(frame: Frame, target: Preprocess, augment: Augment, seed: Sequence[int]) -> Levels:
    """An augmented view of uint8 [h, w, 3], resized to the target."""
    draw = np.random.default_rng(list(seed))
    top, left, tall, wide = _window(frame.shape[0], frame.shape[1], target, augment, draw)
    levels = prepare(frame[top : top + tall, left : left + wide], replace(target, fraction=1.0))
    if augment.mirror and draw.random() < 0.5:
        levels = levels[:, ::-1]
    gain = 1 + augment.contrast * draw.uniform(-1, 1)
    shift = 255 * augment.light * draw.uniform(-1, 1)
    curve = np.clip((np.arange(256) - 127.5) * gain + 127.5 + shift, 0, 255)
    return np.ascontiguousarray(np.round(curve).astype(np.uint8)[levels])


def _window(
    height: int, width: int, target: Preprocess, augment: Augment, draw: np.random.Generator
) -> tuple[int, int, int, int]:
    """A part of the picture, of the target's proportions where it is to be cropped, else of its own."""
    whole_tall, whole_wide = height, width
    if target.geometry == "crop":
        aspect = target.height / target.width
        whole_tall, whole_wide = min(height, round(width * aspect)), min(width, round(height / aspect))
    side = np.sqrt(draw.uniform(augment.least_area, 1))
    turn = np.exp(draw.uniform(-1, 1) * np.log(augment.stretch) / 2)
    tall = int(np.clip(round(whole_tall * side * turn), 1, height))
    wide = int(np.clip(round(whole_wide * side / turn), 1, width))
    return int(draw.integers(height - tall + 1)), int(draw.integers(width - wide + 1)), tall, wide
