"""Which pictures learn, which choose and which judge: seeded, stratified, near duplicates on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

NEAR = 10
"""Bits plus levels apart up to which two pictures look the same. On Caltech-101 most pairs within it are one
picture saved twice, while at 12 catalogue shots of unlike motorbikes outnumber them; saved again at another
quality or half the size, 99 % of pictures stay within it."""
NEAR_BITS = 8
NEAR_BITS_ALONE = 4
MOST_SHIFT = 40
"""Levels of brightness that a copy may gain or lose: more, and two flat pictures would be one."""
BLOCK = 512


def split(
    catalog_labels: Sequence[str],
    groups: Sequence[int],
    parts: Sequence[str | None],
    ratio: tuple[int, int, int] = (80, 10, 10),
    seed: int = 0,
) -> list[str]:
    """`train`, `val` or `test` for each picture, by its label, its group of near duplicates and its own part.

    Without parts of its own, a class of n gives round(n · share) to test and to val, halves rounded up, but
    always keeps a picture for train; a group stays together, and one that spans classes goes to train.
    A data set's own parts are kept. Where it has train and test, val is taken from train; where train and
    val, its val becomes test and a new val is taken from train. A picture without a part beside others with
    one counts as train. Raises ValueError where there is nothing to train on.
    """
    if not len(catalog_labels) == len(groups) == len(parts):
        raise ValueError(
            f"{len(catalog_labels)} labels, {len(groups)} groups and {len(parts)} parts do not match"
        )
    if min(ratio) < 0 or ratio[0] == 0:
        raise ValueError(
            f"split {'/'.join(map(str, ratio))}: shares are at least 0, and train's above; try 80/10/10"
        )
    own = {part for part in parts if part is not None}
    if own and "train" not in own and None not in parts:
        raise ValueError(
            f"the data set has no train part, only {' and '.join(sorted(own))}; name a folder train"
        )
    if own <= {"train"}:
        return _assigned(catalog_labels, groups, range(len(groups)), ratio, seed)
    kept = [part or "train" for part in parts]
    if "val" in own and "test" in own:
        return kept
    kept = ["train" if part == "train" else "test" for part in kept]
    pool = [index for index, part in enumerate(kept) if part == "train"]
    taken = _assigned(catalog_labels, groups, pool, (ratio[0] + ratio[2], ratio[1], 0), seed)
    for index in pool:
        kept[index] = taken[index]
    return kept


def _assigned(
    labels: Sequence[str], groups: Sequence[int], pool: Sequence[int], ratio: tuple[int, int, int], seed: int
) -> list[str]:
    made = ["train"] * len(labels)
    spread: dict[int, set[str]] = defaultdict(set)
    inside: dict[int, list[int]] = defaultdict(list)
    everywhere: dict[int, int] = defaultdict(int)
    for index in range(len(labels)):
        spread[groups[index]].add(labels[index])
        everywhere[groups[index]] += 1
    members: dict[str, list[int]] = defaultdict(list)
    for index in pool:
        inside[groups[index]].append(index)
        members[labels[index]].append(index)
    for label in sorted(members):
        units = {
            groups[index]: inside[groups[index]]
            for index in members[label]
            # A group that reaches into another class or another part stays where it was.
            if len(spread[groups[index]]) == 1 and everywhere[groups[index]] == len(inside[groups[index]])
        }
        order = sorted(units.values())
        Random(f"{seed}:{label}").shuffle(
            order
        )  # seeded by text: the same on every machine and beside other classes
        left = dict(zip(("test", "val"), _quotas(len(members[label]), ratio), strict=True))
        for unit in order:
            part = next((part for part, room in left.items() if len(unit) <= room), "train")
            for index in unit:
                made[index] = part
            if part != "train":
                left[part] -= len(unit)
    return made


def _quotas(n: int, ratio: tuple[int, int, int]) -> tuple[int, int]:
    """Pictures of a class of n for test and val; halves round up, one stays for train."""
    total = sum(ratio)
    test = min((2 * n * ratio[2] + total) // (2 * total), n - 1)
    val = min((2 * n * ratio[1] + total) // (2 * total), n - 1 - test)
    return test, val


def near_duplicates(
    phashes: NDArray[np.uint64], digests: Sequence[str], thumbs: NDArray[np.uint8] | None = None
) -> NDArray[np.int64]:
    """Group ids [n], numbered by first member: pictures with one digest, or that look the same.

    Two look the same where the bits that their hashes differ in and the levels that their `thumbs` (uint8
    [n, …]) differ by on average, brightness apart, add up to at most `NEAR`; without thumbs, by
    `NEAR_BITS_ALONE`. A group's members stay within a bounded distance of its first, so that a chain of small
    changes does not join what is unlike.
    """
    parent = np.arange(len(digests))
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        parent[index] = first.setdefault(digest, index)
    members = {index: [index] for index in first.values()}
    single = np.flatnonzero(parent == np.arange(len(digests)))
    for one, other, _ in sorted(
        _pairs(phashes, thumbs, single), key=lambda pair: (pair[2], pair[0], pair[1])
    ):
        a, b = sorted((_root(parent, one), _root(parent, other)))
        if a != b and np.bitwise_count(phashes[a] ^ phashes[members[b]]).max() <= 2 * NEAR_BITS:
            parent[b] = a
            members[a] += members.pop(b)
    roots = np.array([_root(parent, index) for index in range(len(digests))], np.int64)
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _root(parent: NDArray[np.int64], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = int(parent[index])
    return int(index)


def _pairs(
    phashes: NDArray[np.uint64], thumbs: NDArray[np.uint8] | None, among: NDArray[np.int64]
) -> list[tuple[int, int, int]]:
    """(index, later index, bits apart) of all that look the same, in blocks that fit the cache."""
    hashes = phashes[among]
    most = NEAR_BITS_ALONE if thumbs is None else NEAR_BITS
    found: list[tuple[int, int, int]] = []
    for top in range(0, len(hashes), BLOCK):
        rows = hashes[top : top + BLOCK, None]
        for left in range(top, len(hashes), 8 * BLOCK):
            apart = np.bitwise_count(rows ^ hashes[None, left : left + 8 * BLOCK])
            i, j = np.nonzero(apart <= most)
            later = i + top < j + left
            i, j = i[later], j[later]
            bits, i, j = apart[i, j], among[i + top], among[j + left]
            if thumbs is not None and i.size:
                near = _alike(thumbs[i], thumbs[j], bits)
                i, j, bits = i[near], j[near], bits[near]
            found.extend(zip(i.tolist(), j.tolist(), bits.tolist(), strict=True))
    return found


def _alike(ones: NDArray[np.uint8], others: NDArray[np.uint8], bits: NDArray[np.uint8]) -> NDArray[np.bool_]:
    apart = ones.reshape(len(ones), -1).astype(np.int16) - others.reshape(len(others), -1)
    shift = np.median(apart, axis=1)
    levels = np.abs(apart - shift[:, None]).mean(axis=1)
    return np.asarray((bits + levels <= NEAR) & (np.abs(shift) <= MOST_SHIFT))
