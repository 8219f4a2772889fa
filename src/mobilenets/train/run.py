"""What one retraining measured: everything a report shows, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mobilenets.costs.count import cost
from mobilenets.data.catalog import SetAside
from mobilenets.spec.net import Net

MODEL = "model.safetensors"
"""What a run leaves."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of fine-tuning: mean training loss, validation accuracy (None without pictures), seconds."""

    epoch: int
    loss: float
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Judged:
    """Scored pictures of one part: files, true class indices [n], calibrated scores [n, classes]."""

    files: Sequence[str]
    truth: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of a sweep: a width and a resolution, what it costs, what it scored (None without pictures)."""

    width: float
    resolution: int
    macs: int
    params: int
    size_bytes: int
    latency_ms: float
    latency_engine: str
    val_accuracy: float | None
    test_accuracy: float | None
    model: str


@dataclass(frozen=True, slots=True)
class Run:
    """One retraining, or training. Accuracies are fractions; `interval` is 95 % around the test's."""

    command: str
    folder: str
    model: str
    options: Mapping[str, Any]
    labels: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    """Pictures of each class, by part: train, val, test."""
    set_aside: Sequence[SetAside]
    duplicates: int
    """Near-duplicate groups that were kept on one side of the split."""
    accuracy: Mapping[str, float | None]
    """Of train, val and test; None for a part without pictures, as for everything measured on it."""
    top5: float | None
    interval: tuple[float, float] | None
    test: Judged
    choices: Sequence[tuple[float, float, float]]
    """Regularisation tried for the head: (C, validation accuracy, validation loss)."""
    chosen_c: float
    refitted: float
    """Share of that regression in the head: 1, or what `head.settled` found after fine-tuning."""
    temperature: float
    calibration_error: Mapping[str, float | None]
    """Expected calibration error on the test part, `before` and `after` temperature scaling."""
    unknown: Mapping[str, float | None] | None
    """With `--unknown`: `threshold`, `known_kept` of the test part, `strangers_turned_away`."""
    epochs: Sequence[Epoch]
    net: Mapping[str, Any]
    """name, width, resolution, macs, params, float32_bytes, int8_bytes, activation_bytes."""
    source: Mapping[str, Any]
    seconds: Mapping[str, float]
    peak_rss_mb: float | None
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    digest: str
    identity: str = ""
    """Of a fine-tuning: what another must have in common to go on from its checkpoint."""
    energy: Mapping[str, Any] | None = None
    """joules, watts and watts_from of all of it, where the power is known."""
    engine: str = ""
    """What ran the body; empty where all features were known."""
    throughput: Mapping[str, float] = field(default_factory=dict)
    """Of a training: images_per_second while it learned, the share of that time it was `waiting` for them."""
    kind: Literal["retraining", "training"] = "retraining"
    sweep: Sequence[Variant] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)


def net_facts(net: Net, file_bytes: int, speed_ms: float) -> dict[str, Any]:
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
        "latency_engine": "numpy, one thread",
    }
