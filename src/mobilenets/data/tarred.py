"""WebDataset's shards as a data set: tar files in which a picture and its class have one stem."""

from __future__ import annotations

import errno
import json
import re
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

SUFFIX = ".tar"
CLASS, FACTS = "cls", "json"
NAMED = ("label", "class", "cls", "class_name")
"""What a sample's JSON may call its class, where it has no `.cls`."""
MOST_LABEL_BYTES = 1 << 16
DAMAGE = (tarfile.TarError, ValueError, EOFError, OverflowError, MemoryError, RecursionError)
"""What tarfile raises over heads that are none: numbers without digits, or beyond a file, chains of names."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Offset and size of each plain file in a tar, by name; `damage` says why there may be more of them."""

    places: Mapping[str, tuple[int, int]]
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file lies in a tar: offset and size, and the CRC-32 of its head, which tells another tar."""

    offset: int
    size: int
    head: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture in a tar: its name, its class (empty where none is told), and where it lies."""

    name: str
    label: str
    place: Place


def shard(path: Path) -> Shard:
    """What a tar file holds, as far as it is whole. Raises OSError where it cannot be read."""
    size = path.stat().st_size
    places: dict[str, tuple[int, int]] = {}
    damage = ""
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if tar.offset < member.offset_data:  # tarfile would read the same heads for ever
                    raise ValueError(f"{member.name} has less than no bytes")
                if member.isfile() and not member.issparse():
                    places[member.name] = member.offset_data, member.size
            end = tar.offset
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # from a place that no file has
            raise
        why = str(error) or type(error).__name__
        return Shard(_inside(places, size), f"cut short or no tar file ({why})")
    with path.open("rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):  # where reading stopped without a word
            damage = f"damaged at byte {end}"
    return Shard(_inside(places, size), damage)


def _inside(places: Mapping[str, tuple[int, int]], size: int) -> dict[str, tuple[int, int]]:
    return {name: place for name, place in places.items() if sum(place) <= size}


def place(path: Path, member: str) -> Place:
    """Where one file of a tar lies. Raises OSError where it cannot be read, or holds no such file."""
    found = shard(path).places.get(member)
    if found is None:
        raise OSError(f"{path.name} does not hold it")
    with path.open("rb") as file:
        return _place(file, *found)


def read(path: Path, place: Place) -> bytes:
    """The bytes of one file in a tar. Raises OSError where they cannot be read, or lie there no more."""
    with path.open("rb") as file:
        file.seek(place.offset - tarfile.BLOCKSIZE)
        head, data = file.read(tarfile.BLOCKSIZE), file.read(place.size)
    if len(data) < place.size:
        raise OSError(f"{path.name} is cut short")
    if zlib.crc32(head) != place.head:
        raise OSError(f"{path.name} is another file than it was; run again")
    return data


def _place(file: BinaryIO, offset: int, size: int) -> Place:
    file.seek(offset - tarfile.BLOCKSIZE)
    return Place(offset, size, zlib.crc32(file.read(tarfile.BLOCKSIZE)))


def samples(path: Path, shard: Shard, pictures: frozenset[str]) -> list[Sample]:
    """The pictures, by suffix, of a tar that holds this. Raises OSError where it cannot be read."""
    kinds: dict[str, dict[str, str]] = {}
    for name in shard.places:
        place = PurePosixPath(name)
        stem, _, kind = place.name.partition(".")
        if stem:
            kinds.setdefault(str(place.parent / stem), {})[kind.lower()] = name
    found = []
    with path.open("rb") as file:

        def small(name: str) -> bytes:
            offset, size = shard.places[name]
            file.seek(offset)
            return file.read(min(size, MOST_LABEL_BYTES))

        for files in kinds.values():
            shown = next((name for kind, name in sorted(files.items()) if f".{kind}" in pictures), None)
            if shown is None:
                continue
            label = _text(small(files[CLASS])) if CLASS in files else ""
            if CLASS not in files and FACTS in files:
                label = _named(small(files[FACTS]))
            found.append(Sample(shown, label, _place(file, *shard.places[shown])))
    return found


def part(name: str, parts: Mapping[str, str]) -> str | None:
    """The part of the data set that a shard's name tells, as in `imagenet-train-000012.tar`."""
    return next((parts[word] for word in re.split(r"[^a-z]+", name.casefold()) if word in parts), None)


def _text(data: bytes) -> str:
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        return ""


def _named(data: bytes) -> str:
    """The class that a sample's JSON tells."""
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(facts, dict):
        return ""
    told = (facts[name] for name in NAMED if isinstance(facts.get(name), str | int))
    return str(next(told, "")).strip()
