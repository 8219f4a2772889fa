"""Logits to answers: softmax, the best labels, and "unknown" below a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label and its score, a probability from 0 to 1."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model says of a picture: its best labels, best first, and whether it would rather not say."""

    predictions: tuple[Prediction, ...]
    logit: float
    """The greatest logit, what a threshold is held against."""
    unknown: bool | None
    """None where the model carries no threshold."""

    @property
    def label(self) -> str:
        return "unknown" if self.unknown else self.predictions[0].label

    @property
    def score(self) -> float:
        return self.predictions[0].score


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores along the last axis, summing to 1."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), np.float32)


def answer(logits: NDArray[np.float32], labels: Sequence[str], top: int, threshold: float | None) -> Answer:
    """The `top` best by logits [classes], earlier labels first among equals.

    The greatest logit tells strangers, not the score: softmax shares 1 out among the classes however little a
    picture is like any of them (arXiv:1911.11132).
    """
    scores = softmax(logits)
    order = np.argsort(-logits, kind="stable")[: max(top, 1)]
    best, greatest = tuple(Prediction(labels[i], float(scores[i])) for i in order), float(logits.max())
    return Answer(best, greatest, None if threshold is None else greatest < threshold)
