"""A model judged on a folder of labelled pictures, with numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, Item, SetAside
from mobilenets.data.digests import Progress
from mobilenets.infer import imagenet, score
from mobilenets.infer.decode import softmax
from mobilenets.infer.image import ImageError
from mobilenets.infer.ready import Model

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model did on n pictures; accuracies are fractions, `interval` is 95 % around top-1.

    `confusion` counts [true, answered] in the model's order of labels; `per_class` is the accuracy of each
    class that has pictures. `part` is the part of the data set that was used, None for all of it.
    """

    top1: float
    top5: float
    n: int
    interval: tuple[float, float]
    calibration_error: float
    labels: Sequence[str]
    per_class: Mapping[str, float]
    confusion: NDArray[np.int64]
    unknown: float | None
    """Share of pictures answered with `unknown`; None where the model carries no threshold."""
    set_aside: Sequence[SetAside]
    part: str | None


def evaluate(
    model: Model,
    catalog: Catalog,
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score every usable picture of `catalog`: of its test part where it has parts, else of all of it.

    Classes are matched by name (for ImageNet's thousand also by WordNet id). Raises ValueError that lists the
    difference where the data set has classes that the model does not know, or no picture can be used.
    """
    number = matched(model.labels, catalog.labels)
    part = next((p for p in ("test", "val") if any(i.part == p for i in catalog.items)), None)
    items = [item for item in catalog.items if part is None or item.part == part]
    aside = list(catalog.set_aside)
    rows: list[NDArray[np.float32]] = []
    truth: list[int] = []

    def one(item: Item) -> NDArray[np.float32] | SetAside:
        try:
            logits: NDArray[np.float32] = model.logits([model.frame(catalog.read(item))])[0]
            return logits
        except ImageError as error:
            return SetAside(item.file, error.kind, str(error))
        except OSError as error:
            return SetAside(item.file, "unreadable", f"cannot be read: {error.strerror or error}")

    with ThreadPoolExecutor(max(1, threads)) as pool:
        for done, (item, made) in enumerate(zip(items, pool.map(one, items), strict=True), 1):
            if isinstance(made, SetAside):
                aside.append(made)
            else:
                rows.append(made)
                truth.append(number[item.label])
            if progress is not None:
                progress("evaluate", done, len(items))
    if not rows:
        raise ValueError(f"{catalog.root}: no picture of it can be used; see `mobilenets doctor`")
    return _judged(model, np.stack(rows), np.array(truth, np.int64), aside, part)


def matched(known: Sequence[str], asked: Sequence[str]) -> dict[str, int]:
    """The model's class index of each of the data set's labels. Raises ValueError with what differs."""
    if not known:
        raise ValueError(
            "the model names no classes, so there is nothing to evaluate; it gives features only"
        )
    index = {label: i for i, label in reversed(list(enumerate(known)))}
    if tuple(known) == imagenet.labels() and all(label in set(imagenet.wnids()) for label in asked):
        index = {wnid: i for i, wnid in enumerate(imagenet.wnids())}
    strange = [label for label in asked if label not in index]
    if strange:
        spare = [label for label in known if label not in set(asked)]
        raise ValueError(
            f"classes do not match: the model does not know {_some(strange)}; "
            f"it knows {_some(spare) if spare else 'no others'} that the data set does not have; "
            "rename the folders"
        )
    return {label: index[label] for label in asked}


def _judged(
    model: Model,
    logits: NDArray[np.float32],
    truth: NDArray[np.int64],
    aside: Sequence[SetAside],
    part: str | None,
) -> Evaluation:
    scores = softmax(logits)
    right = logits.argmax(axis=1) == truth
    top1 = score.top(logits, truth)
    threshold = model.artefact.threshold
    return Evaluation(
        top1=top1,
        top5=score.top(logits, truth, 5),
        n=len(truth),
        interval=score.interval(top1, len(truth)),
        calibration_error=score.calibration_error(scores, truth),
        labels=model.labels,
        per_class={model.labels[c]: float(right[truth == c].mean()) for c in np.unique(truth)},
        confusion=score.confusion(logits, truth),
        unknown=None if threshold is None else float((logits.max(axis=1) < threshold).mean()),
        set_aside=aside,
        part=part,
    )


def _some(labels: Sequence[str], most: int = 8) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def as_json(found: Evaluation) -> dict[str, object]:
    """An evaluation as JSON values."""
    return {
        "top1": found.top1,
        "top5": found.top5,
        "n": found.n,
        "interval": list(found.interval),
        "calibration_error": found.calibration_error,
        "unknown": found.unknown,
        "part": found.part,
        "per_class": dict(found.per_class),
        "labels": list(found.labels),
        "confusion": found.confusion.tolist(),
        "set_aside": [asdict(aside) for aside in found.set_aside],
    }
