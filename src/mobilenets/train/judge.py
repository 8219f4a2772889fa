"""What a learned model is worth: calibrated scores of every part, the file's content, its verification."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.digests import Progress
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.decode import softmax
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode
from mobilenets.infer.score import calibration_error, interval, top
from mobilenets.spec.head import HEAD, classify
from mobilenets.spec.recipe import LearnOptions
from mobilenets.train import head as heads
from mobilenets.train.material import PARTS, Material
from mobilenets.train.run import Judged

VERIFIED_PICTURES = 16
AGREE = 5e-3
"""Largest difference of logits between torch and the numpy walk that float32 in another order explains."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything measured on the parts of a data set. What has no pictures to be measured on is None."""

    accuracy: dict[str, float | None]
    top5: float | None
    interval: tuple[float, float] | None
    test: Judged
    temperature: float
    calibration_error: dict[str, float | None]
    unknown: dict[str, float | None] | None


def judge(
    material: Material,
    values: NDArray[np.float32],
    head: heads.Head,
    c: float,
    learn: LearnOptions,
    progress: Progress,
) -> tuple[Verdict, heads.Head]:
    """Scores of each part from features [n, channels], and the head with its temperature folded in."""
    where = {part: material.where(part) for part in PARTS}
    truth = {part: material.truth[where[part]] for part in PARTS}
    logits = {part: head(values[where[part]]) for part in PARTS}
    temperature = heads.temperature(logits["val"], truth["val"])
    cooled = head.cooled(temperature)
    told = {part: cooled(values[where[part]]) for part in PARTS}
    scores = {part: softmax(told[part]) for part in PARTS}
    accuracy = {part: _known(top(told[part], truth[part])) for part in PARTS}
    unknown = _unknown(told, where, material, values, c, learn, progress) if learn.unknown else None
    right, n = accuracy["test"], len(truth["test"])
    verdict = Verdict(
        accuracy=accuracy,
        top5=_known(top(told["test"], truth["test"], 5)),
        interval=None if right is None else interval(right, n),
        test=Judged([material.catalog.items[i].file for i in where["test"]], truth["test"], scores["test"]),
        temperature=temperature,
        calibration_error={
            "before": _known(calibration_error(softmax(logits["test"]), truth["test"])),
            "after": _known(calibration_error(scores["test"], truth["test"])),
        },
        unknown=unknown,
    )
    return verdict, cooled


def assembled(
    body: Artefact,
    head: heads.Head,
    labels: Sequence[str],
    verdict: Verdict,
    recipe: dict[str, Any],
) -> Artefact:
    """The model file's content. It holds no time and no path: the same learning gives the same bytes."""
    return replace(
        body,
        net=classify(body.net, len(labels)),
        weights={**body.weights, f"{HEAD}.weight": head.weight, f"{HEAD}.bias": head.bias},
        labels=tuple(labels),
        threshold=verdict.unknown["threshold"] if verdict.unknown else None,
        recipe=recipe,
        scores={
            "accuracy": verdict.accuracy,
            "top5": verdict.top5,
            "interval": None if verdict.interval is None else list(verdict.interval),
            "test_pictures": len(verdict.test.truth),
            "calibration_error": verdict.calibration_error,
            "temperature": verdict.temperature,
            "unknown": verdict.unknown,
        },
    )


def verified(material: Material) -> NDArray[np.int64]:
    """Pictures by which a model is compared with the walk: a few, from all over the set."""
    count = len(material.truth)
    return np.linspace(0, count - 1, min(VERIFIED_PICTURES, count)).astype(np.int64)


def verify(model: Artefact, material: Material, values: NDArray[np.float32], threads: int) -> float:
    """Largest difference of logits between what was scored and the numpy walk, on a few pictures.

    Raises RuntimeError where they differ by more than float32 explains, or where none of the pictures can be
    read any more: nothing is written then.
    """
    engine = NumpyEngine(model)
    head = heads.Head(np.asarray(model.weights[f"{HEAD}.weight"]), np.asarray(model.weights[f"{HEAD}.bias"]))

    def difference(index: int) -> float | None:
        try:
            frame = decode(material.catalog.read(material.catalog.items[index]), model.preprocess)
        except OSError:  # it was there when its features were made; the others tell as much
            return None
        return float(np.abs(engine(frame)["logits"] - head(values[index : index + 1])[0]).max())

    with ThreadPoolExecutor(threads) as pool:
        told = [value for value in pool.map(difference, verified(material).tolist()) if value is not None]
    if not told:
        raise RuntimeError(
            f"{material.catalog.root}: no picture can be read any more; the model is not written"
        )
    worst = float(np.max(told))  # unlike max, it lets no NaN pass
    if not worst <= AGREE:
        raise RuntimeError(
            f"the model's logits differ by {worst:.2g} from those that were scored; not written"
        )
    return worst


def _unknown(
    logits: dict[str, NDArray[np.float32]],
    where: dict[str, NDArray[np.int64]],
    material: Material,
    values: NDArray[np.float32],
    c: float,
    learn: LearnOptions,
    progress: Progress,
) -> dict[str, float | None]:
    threshold = heads.rejection(logits["val"], material.truth[where["val"]])
    if threshold is None:
        return {"threshold": None, "known_kept": None, "strangers_turned_away": None}
    kept = logits["test"].max(axis=1) >= threshold
    # A body that was tuned on them knows every class: none is a stranger to it.
    away = (
        None
        if learn.finetune
        else heads.turned_away(
            values[where["train"]],
            material.truth[where["train"]],
            values[where["val"]],
            material.truth[where["val"]],
            c=c,
            class_weights=learn.class_weights,
            seed=learn.seed,
            progress=partial(progress, "strangers"),
        )
    )
    return {
        "threshold": threshold,
        "known_kept": _known(float(kept.mean()) if len(kept) else float("nan")),
        "strangers_turned_away": away,
    }


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
