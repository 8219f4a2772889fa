"""What is wrong with a data set before it costs an hour: each problem, its files, and what to do about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, Item
from mobilenets.data.look import Look
from mobilenets.data.shortcut import Shortcut, shortcuts
from mobilenets.data.split import near_duplicates
from mobilenets.data.survey import looks_of

__all__ = ["Diagnosis", "Problem", "duplicate_groups", "examine", "looks_of"]

FEW, IMBALANCE = 10, 10
TINY, LARGE_PIXELS = 32, 25_000_000
GREY = ("1", "L", "LA", "I", "F")
SUFFIXES = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png", ".apng"},
    "WEBP": {".webp"},
    "GIF": {".gif"},
    "BMP": {".bmp", ".dib"},
    "TIFF": {".tif", ".tiff"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "AVIF": {".avif"},
}
UNUSED = {
    "empty": "copy the files again",
    "truncated": "copy or download the files again",
    "unreadable": "convert the files to JPEG or PNG, or remove them",
    "crashed": "the decoder dies on these files: remove them",
    "too-large": "scale the pictures down",
    "unreadable-folder": "give the folder read permission",
    "not-a-picture": "nothing to do unless a picture is among them: then mend its suffix",
    "no-class": "move the pictures into the folder of their class",
    "empty-class": "add pictures or remove the folder",
    "link": "nothing to do: the folder is used once, under its own path",
    "damaged": "copy or download the shards again",
    "encrypted": "zip the folder without a password",
    "bad-name": "rename the files",
    "missing": "mend the paths in the CSV",
    "listed-twice": "remove the repeated rows",
    "not-a-file": "remove what is no plain file",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: its kind, the files (or class folders) concerned, the fact, the remedy.

    `severity` is `error` (a score would mislead, or files are lost), `warning` or `note`. `groups` puts files
    together that belong together, such as duplicates.
    """

    kind: str
    files: tuple[str, ...]
    detail: str
    remedy: str
    severity: str = "warning"
    groups: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Images and classes as found, usable pictures by label, what is wrong, and the shortcuts tried."""

    images: int
    classes: int
    counts: Mapping[str, int]
    problems: tuple[Problem, ...]
    shortcuts: tuple[Shortcut, ...]


def examine(catalog: Catalog, looks: Sequence[Look]) -> Diagnosis:
    """Everything known to be wrong with a data set, gravest first; `looks` has one look for each item."""
    if len(looks) != len(catalog.items):
        raise ValueError(f"{len(looks)} looks for {len(catalog.items)} pictures do not match")
    counts = dict.fromkeys(catalog.labels, 0)
    for item, seen in zip(catalog.items, looks, strict=True):
        counts[item.label] += seen.problem is None
    groups = duplicate_groups(looks)
    guessed = shortcuts([item.label for item in catalog.items], groups, looks)
    problems = [
        *_unused(catalog, looks),
        *_duplicates(catalog.items, looks, groups),
        *_leaks(guessed, catalog.labels),
        *_classes(counts),
        *_kinds(catalog.items, looks),
    ]
    order = {"error": 0, "warning": 1, "note": 2}
    problems.sort(key=lambda problem: order[problem.severity])  # stable: as listed within one severity
    return Diagnosis(len(catalog.items), len(catalog.labels), counts, tuple(problems), guessed)


def duplicate_groups(looks: Sequence[Look]) -> NDArray[np.int64]:
    """A group id for each look; a file that could not be decoded is a group of its own."""
    hashes = np.array([seen.phash for seen in looks], np.uint64)
    usable = np.flatnonzero([seen.problem is None for seen in looks])
    ids = np.arange(len(looks), dtype=np.int64)
    if len(usable):
        some = [looks[index] for index in usable.tolist()]
        thumbs = np.stack([np.frombuffer(seen.thumb, np.uint8) for seen in some])
        found = near_duplicates(hashes[usable], [seen.digest for seen in some], thumbs)
        first = np.full(int(found.max()) + 1, -1, np.int64)
        first[found[::-1]] = usable[::-1]
        ids[usable] = first[found]
    return np.unique(ids, return_inverse=True)[1].astype(np.int64)


def _unused(catalog: Catalog, looks: Sequence[Look]) -> Iterator[Problem]:
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for item, seen in zip(catalog.items, looks, strict=True):
        if seen.problem is not None:
            found[seen.problem].append((item.file, seen.reason))
    for one in catalog.set_aside:
        found[one.kind].append((one.file, one.reason))
    for kind in sorted(
        found, key=lambda kind: (list(UNUSED).index(kind) if kind in UNUSED else len(UNUSED), kind)
    ):
        files = found[kind]
        harmless = kind in ("not-a-picture", "link", "listed-twice")
        yield Problem(
            kind,
            tuple(file for file, _ in files),
            f"{_many(len(files), 'file')} set aside; {files[0][0]}: {files[0][1]}",
            UNUSED.get(kind, "remove them"),
            "note" if harmless else "error",
        )


def _duplicates(items: Sequence[Item], looks: Sequence[Look], groups: NDArray[np.int64]) -> Iterator[Problem]:
    members: dict[int, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        members[int(group)].append(index)
    sets = [group for group in members.values() if len(group) > 1]

    def told(
        kind: str, chosen: list[list[int]], detail: str, remedy: str, severity: str
    ) -> Iterator[Problem]:
        if chosen:
            named = tuple(tuple(items[index].file for index in group) for group in chosen)
            files = tuple(file for group in named for file in group)
            example = " = ".join(named[0][:3])
            detail = f"{_many(len(chosen), 'group')} of {len(files)} pictures {detail}; {example}"
            yield Problem(kind, files, detail, remedy, severity, named)

    def parts(group: list[int]) -> set[str | None]:
        return {items[index].part for index in group} - {None}

    def labels(group: list[int]) -> set[str]:
        return {items[index].label for index in group}

    def digests(group: list[int]) -> set[str]:
        return {looks[index].digest for index in group}

    rules = (
        (
            "duplicates-across-parts",
            parts,
            "lie in more than one of train, val and test",
            "remove them from train: a test part that was learnt measures nothing",
            "error",
        ),
        (
            "conflicting-labels",
            labels,
            "show the same under different labels",
            "decide for one label",
            "error",
        ),
        (
            "near-duplicates",
            digests,
            "look the same",
            "look at them and keep one of each; a split made here keeps them on one side",
            "warning",
        ),
    )
    for kind, differing, *words in rules:
        yield from told(kind, [group for group in sets if len(differing(group)) > 1], *words)
    exact = defaultdict(list)
    for index, seen in enumerate(looks):
        if seen.digest and seen.bytes:
            exact[seen.digest].append(index)
    yield from told(
        "exact-duplicates",
        [group for group in exact.values() if len(group) > 1],
        "are the same, byte for byte",
        "keep one of each; a split made here keeps them on one side",
        "warning",
    )


def _leaks(found: Sequence[Shortcut], labels: Sequence[str]) -> Iterator[Problem]:
    leaking = [one for one in found if one.leaks]
    if not leaking:
        return
    best = max(leaking, key=lambda one: one.accuracy)
    told = ", ".join(f"{one.cue} {one.accuracy:.1%}" for one in leaking)
    yield Problem(
        "leak",
        tuple(labels),
        f"labels are guessed without a look at the pictures: {told} (the largest class: {best.majority:.1%})",
        "take every class from the same sources, or bring all pictures to one size and format and test on "
        "pictures from elsewhere",
        "error" if best.interval[0] > (1 + best.majority) / 2 else "warning",
    )


def _classes(counts: Mapping[str, int]) -> Iterator[Problem]:
    few = tuple(label for label, count in counts.items() if count < FEW)
    if few:
        least = min(few, key=lambda label: counts[label])
        detail = f"{_many(len(few), 'class')} with fewer than {FEW} pictures; {least} has {counts[least]}"
        yield Problem("few-pictures", few, detail, "add pictures, or leave these classes out")
    ordered = sorted(counts, key=lambda label: (counts[label], label))
    if ordered and counts[ordered[-1]] > IMBALANCE * max(counts[ordered[0]], 1):
        low, high = ordered[0], ordered[-1]
        detail = f"{high} has {counts[high]} pictures, {low} has {counts[low]}"
        yield Problem(
            "imbalance", (high, low), detail, "use class weights, and read the accuracy of each class"
        )


def _kinds(items: Sequence[Item], looks: Sequence[Look]) -> Iterator[Problem]:
    usable = [(item, seen) for item, seen in zip(items, looks, strict=True) if seen.problem is None]
    for kind, what, applies, remedy, severity in KINDS:
        chosen = [(item, seen) for item, seen in usable if applies(item, seen)]
        if chosen:
            label, count = Counter(item.label for item, _ in chosen).most_common(1)[0]
            detail = f"{_many(len(chosen), 'picture')} {what}; most in {label} ({count})"
            yield Problem(kind, tuple(item.file for item, _ in chosen), detail, remedy, severity)


def _misnamed(item: Item, seen: Look) -> bool:
    return PurePosixPath(item.file).suffix.lower() not in SUFFIXES.get(seen.format, set())


def _many(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


KINDS: tuple[tuple[str, str, Callable[[Item, Look], bool], str, str], ...] = (
    ("wrong-suffix", "whose suffix names another format", _misnamed, "rename them", "warning"),
    (
        "tiny",
        f"with a side under {TINY} pixels",
        lambda _, seen: min(seen.width, seen.height) < TINY,
        "use larger originals: enlarging adds nothing",
        "warning",
    ),
    (
        "large",
        f"of more than {LARGE_PIXELS // 1_000_000} megapixels",
        lambda _, seen: seen.width * seen.height > LARGE_PIXELS,
        "scale them down: decoding takes most of the time",
        "warning",
    ),
    (
        "animated",
        "of several frames",
        lambda _, seen: seen.frames > 1 and seen.format != "MPO",
        "nothing to do if the first frame shows what the label says",
        "warning",
    ),
    (
        "turned",
        "turned by EXIF",
        lambda _, seen: seen.orientation != 1,
        "nothing to do: they are turned when read",
        "note",
    ),
    (
        "greyscale",
        "without colour",
        lambda _, seen: seen.mode in GREY or seen.mode.startswith("I;16"),
        "nothing to do unless the device's camera sees colour",
        "note",
    ),
    (
        "cmyk",
        "in printing colours",
        lambda _, seen: seen.mode == "CMYK",
        "convert them to RGB where colours matter: no profile is applied",
        "note",
    ),
    ("palette", "with a palette", lambda _, seen: seen.mode in ("P", "PA"), "nothing to do", "note"),
    (
        "16-bit",
        "of 16 bits a sample",
        lambda _, seen: seen.bits > 8,
        "nothing to do: the high byte is used",
        "note",
    ),
    (
        "alpha",
        "with transparency",
        lambda _, seen: seen.alpha,
        "nothing to do: they are put on white",
        "note",
    ),
)
"""Kind, what such pictures are, which are such, remedy, severity."""


def as_json(found: Diagnosis) -> dict[str, object]:
    """A diagnosis as JSON values."""
    return {
        "images": found.images,
        "classes": found.classes,
        "counts": dict(found.counts),
        "problems": [asdict(problem) for problem in found.problems],
        "shortcuts": [asdict(guess) for guess in found.shortcuts],
    }
