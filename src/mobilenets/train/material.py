"""The usable part of a data set: items, digests, classes as numbers, and the part each picture belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, Item, SetAside, usable
from mobilenets.data.doctor import duplicate_groups
from mobilenets.data.split import split
from mobilenets.train.features import Features

PARTS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Part:
    """Items and their class indices [n]."""

    items: Sequence[Item]
    truth: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Material:
    """Items, digests, class indices [n] and parts [n], in step.

    `groups` counts groups of near duplicates, `conflicts` has of each under several labels
    a file of two of them.
    """

    catalog: Catalog
    labels: tuple[str, ...]
    keys: Sequence[str]
    truth: NDArray[np.int64]
    part: NDArray[np.str_]
    groups: int
    conflicts: Sequence[Sequence[str]]

    def where(self, part: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.part == part)

    def of(self, part: str) -> Part:
        chosen = self.where(part)
        return Part([self.catalog.items[i] for i in chosen], self.truth[chosen])

    def counts(self) -> dict[str, list[int]]:
        size = len(self.labels)
        return {p: np.bincount(self.truth[self.where(p)], minlength=size).tolist() for p in PARTS}

    def remarks(self, unchosen: str) -> list[str]:
        """What a reader of scores must know of the pictures; `unchosen` is what validation would choose."""
        told = []
        if several := self.conflicts:
            told.append(
                f"pictures that look the same lie under several labels, such as {' = '.join(several[0])}"
                + (f", and {len(several) - 1} more such" if len(several) > 1 else "")
                + "; `mobilenets doctor --json` lists all"
            )
        counts = self.counts()
        heard = "not heard where a network or a temperature is chosen"
        for part, so in (("train", "never answered"), ("val", heard), ("test", "never judged")):
            missing = [label for label, n in zip(self.labels, counts[part], strict=True) if not n]
            if missing and any(counts[part]):
                told.append(f"without a picture in {part}, so {so}: {', '.join(missing)}")
        if not any(counts["val"]):
            told.append(f"no validation pictures: {unchosen}, scores are not calibrated")
        return told


def sorted_out(
    catalog: Catalog, keys: Sequence[str], seen: Features, ratio: tuple[int, int, int], seed: int
) -> tuple[Material, NDArray[np.float32], list[SetAside]]:
    """What can be used, split; features in step with it; what cannot, with the reason."""
    good = [i for i, look in enumerate(seen.looks) if look.problem is None]
    aside = [
        SetAside(item.file, look.problem, look.reason)
        for item, look in zip(catalog.items, seen.looks, strict=True)
        if look.problem is not None
    ]
    rest = replace(
        catalog,
        items=tuple(catalog.items[i] for i in good),
        set_aside=(*catalog.set_aside, *aside),
    )
    groups = duplicate_groups([seen.looks[i] for i in good])
    material = arranged(rest, [keys[i] for i in good], groups, ratio, seed)
    return material, seen.values[good], aside


def arranged(
    catalog: Catalog,
    keys: Sequence[str],
    groups: NDArray[np.int64],
    ratio: tuple[int, int, int],
    seed: int,
) -> Material:
    """All items of a catalog, which have these digests, split so that no group lies on both sides."""
    items = catalog.items
    labels = tuple(sorted({item.label for item in items}))
    rest = replace(catalog, labels=labels)
    usable(rest)
    number = {label: index for index, label in enumerate(labels)}
    part = split([i.label for i in items], groups.tolist(), [i.part for i in items], ratio, seed)
    sizes = np.bincount(groups)
    truth = np.array([number[item.label] for item in items], np.int64)
    alike = [np.flatnonzero(groups == group) for group in np.flatnonzero(sizes > 1)]
    return Material(
        catalog=rest,
        labels=labels,
        keys=keys,
        truth=truth,
        part=np.array(part),
        groups=len(alike),
        conflicts=[
            [items[group[first]].file for first in np.unique(truth[group], return_index=True)[1][:2]]
            for group in alike
            if len(np.unique(truth[group])) > 1
        ],
    )
