"""How a retraining goes, as frozen data: the options a user may set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

from mobilenets.spec.option import flag


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """How far a training picture may stray. Small networks want little of it (arXiv:1704.04861, 3.2), small
    sets of pictures more.

    `least_area` of the picture stays in the window, its proportions change by at most `stretch`; `light` and
    `contrast` are shares of the full scale.
    """

    least_area: float = 0.35
    stretch: float = 1.5
    mirror: bool = True
    light: float = 0.15
    contrast: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tune:
    """End-to-end training after the head is fitted: SGD with Nesterov momentum, cosine schedule, EMA.

    Rates are per batch of `batch`; layer i below the head learns at `rate` × `lower`^i. The lowest `still`
    layers stay as they are: the widest maps, where a step costs most and general features change least.
    Weight decay falls on full, pointwise and dense weights only (the V1 paper: little or none on depthwise
    filters).
    """

    epochs: int
    still: int = 11
    rate: float = 0.006
    lower: float = 0.95
    batch: int = 32
    momentum: float = 0.9
    decay: float = 4e-5
    warmup: float = 0.05
    clip: float = 5.0
    average: float = 0.995
    smoothing: float = 0.0
    augment: Augment = field(default_factory=Augment)


FROM_RANDOM: dict[str, Any] = {
    "still": 0,
    "rate": 0.15,
    "lower": 1.0,
    "average": 0.99,
    "augment": Augment(least_area=0.4, stretch=1.6, light=0.25, contrast=0.35),
}
"""What changes where there are no weights to start from: every layer learns, faster, from wilder views."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyOptions:
    """Which body, and how it is fed."""

    net: str = flag("v1", "Network: a name of `mobilenets models`.")
    width: float | None = flag(None, "Width multiplier; that of the weights unless given.")
    resolution: int | None = flag(None, "Input side in pixels; that of the weights unless given.")
    weights: str | None = flag(None, "A file, a known name (see `mobilenets models`), or `random`.")
    geometry: str | None = flag(
        None, "How a picture is made square: stretch (v1-cifar: crop) unless given, crop or letterbox."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnOptions:
    """What is learned, from which part."""

    finetune: int = flag(0, "Epochs in which the body learns too, all but its lowest layers.")
    smoothing: float = flag(0.1, "Label smoothing while fine-tuning.")
    mirror: bool = flag(True, "Mirror training pictures; not for text, arrows or other things with a left.")
    split: str = flag("80/10/10", "Shares of train/val/test where the data set has no parts of its own.")
    class_weights: bool = flag(False, "Give every class the same say, however many pictures it has.")
    unknown: bool = flag(False, "Learn a threshold below which an answer means `unknown`.")
    seed: int = flag(0, "Seed of the split and of all that is drawn.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """What it runs on."""

    device: str = flag("cpu", "cpu, cuda or mps.")
    threads: int | None = flag(None, "Threads and worker processes; as many as there are cores unless given.")
    resume: bool = flag(False, "Go on with a fine-tuning that was cut off.")


class RetrainOptions(TypedDict, total=False):
    """All options of `retrain` by name, for type checkers: those of the three classes above, and `sweep`."""

    net: str
    width: float | None
    resolution: int | None
    weights: str | None
    geometry: str | None
    finetune: int
    smoothing: float
    mirror: bool
    split: str
    class_weights: bool
    unknown: bool
    seed: int
    device: str
    threads: int | None
    resume: bool
    sweep: bool
    watts: float | None


def shares(split: str) -> tuple[int, int, int]:
    """`80/10/10` as numbers. Raises ValueError for anything that is no split."""
    parts = split.split("/")
    if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--split {split}: give three whole numbers for train/val/test, such as 80/10/10")
    train, val, test = (int(part) for part in parts)
    if train < 1 or train + val + test > 1_000_000:
        raise ValueError(f"--split {split}: train needs a share, and shares are small numbers")
    return train, val, test
