"""The pictures of a training: sorted into parts, decoded once, in step with what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, SetAside, usable
from mobilenets.data.decoded import Decoded, decoded
from mobilenets.data.digests import Progress
from mobilenets.data.doctor import duplicate_groups
from mobilenets.data.store import Store
from mobilenets.data.survey import looks_of
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.recipe import shares
from mobilenets.spec.training import Feed, Recipe
from mobilenets.train.material import PARTS, Material, arranged

NEAR_MOST = 20_000
"""Pictures up to which near duplicates are looked for: that takes the square of their number."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """The pictures of one part as they are fed, their files and class indices [n], in step.

    `content` tells them and their order from all others.
    """

    pictures: Decoded
    files: Sequence[str]
    truth: NDArray[np.int64]
    content: str


def sorted_out(
    catalog: Catalog,
    keys: Sequence[str],
    feed: Feed,
    seed: int,
    threads: int,
    store: Store,
    progress: Progress,
) -> tuple[Material, list[SetAside], list[str]]:
    """What can be read, split; what cannot, with the reason; what a reader of the scores must know.

    Near duplicates lie on one side of the split where the set is split here and has no more than
    `NEAR_MOST` pictures, equal files always.
    """
    own = {item.part for item in catalog.items}
    near = "test" not in own and len(catalog.items) <= NEAR_MOST
    notes = []
    if near:
        looks = looks_of(catalog, store, threads, progress)
        good = [index for index, seen in enumerate(looks) if seen.problem is None]
        aside = [
            SetAside(catalog.items[index].file, seen.problem, seen.reason)
            for index, seen in enumerate(looks)
            if seen.problem is not None
        ]
    else:
        good = [index for index, key in enumerate(keys) if key]
        aside = [
            SetAside(item.file, "unreadable", "cannot be read")
            for item, key in zip(catalog.items, keys, strict=True)
            if not key
        ]
        if "test" not in own:
            notes.append(
                f"more than {NEAR_MOST} pictures: only equal files were kept on one side of the split"
            )
    rest = replace(
        catalog,
        items=tuple(catalog.items[index] for index in good),
        set_aside=(*catalog.set_aside, *aside),
    )
    usable(rest)
    kept = [keys[index] for index in good]
    groups = duplicate_groups([looks[index] for index in good]) if near else _equal(kept)
    return arranged(rest, kept, groups, shares(feed.split), seed), aside, notes


def decoded_parts(
    material: Material,
    stored: Preprocess,
    judged: Preprocess,
    cache: Path,
    workers: int,
    progress: Progress,
) -> tuple[dict[str, Lesson], list[SetAside]]:
    """Each part's pictures: those to learn from as `stored` has them, the others as they are judged.

    A file that no longer decodes is left out and named.
    """
    found, aside = {}, list[SetAside]()
    for part in PARTS:
        where = material.where(part)
        items = [material.catalog.items[index] for index in where]
        target = stored if part == "train" else judged
        keys = [material.keys[index] for index in where]
        catalog = material.catalog
        pictures, lost = decoded(catalog, items, target, cache, workers=workers, progress=progress, keys=keys)
        aside += lost.values()
        good = np.array([index not in lost for index in range(len(items))], bool)
        files = [item.file for item, there in zip(items, good, strict=True) if there]
        content = hashlib.sha256(
            f"{target} {[key for key, there in zip(keys, good, strict=True) if there]}".encode()
        )
        found[part] = Lesson(pictures, files, material.truth[where][good], content.hexdigest())
    return found, aside


def everyone(labels: Sequence[str], truth: NDArray[np.int64], folder: Path) -> None:
    """Raises ValueError where a class has no picture to learn from: it would never be answered."""
    counts = np.bincount(truth, minlength=len(labels))
    if missing := [label for label, count in zip(labels, counts, strict=True) if not count]:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise ValueError(
            f"{folder}: no picture to learn from in the train part of {shown}; add some, or remove the class"
        )


def fits(recipe: Recipe, pre: Preprocess, qat: bool) -> None:
    """Raises ValueError where views of that size cannot be cut out of what is stored.

    Pictures that calibrate (`qat`) are seen without what is around them.
    """
    shift, stored = recipe.views.shift, recipe.feed.stored
    shift = 0 if qat and shift else shift
    if shift is not None and stored and pre.height > stored + 2 * shift:
        raise ValueError(
            f"--resolution {pre.height}: {recipe.name} cuts its views out of pictures of {stored} × {stored} "
            f"pixels and {shift} around them, so {stored + 2 * shift} at most; give another --recipe"
        )


def _equal(keys: Sequence[str]) -> NDArray[np.int64]:
    return np.unique(np.array(keys), return_inverse=True)[1].astype(np.int64)
