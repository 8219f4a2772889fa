"""WebDataset's shards as a data set: tar files in which a picture and its class have one stem."""

from __future__ import annotations

import errno
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

SUFFIX = ".tar"
CLASS, FACTS = "cls", "json"
NAMED = ("label", "class", "cls", "class_name")
"""What a sample's JSON may call its class, where it has no `.cls`."""
MOST_LABEL_BYTES = 1 << 16
DAMAGE = (tarfile.TarError, ValueError, EOFError, OverflowError, MemoryError, RecursionError)
"""What tarfile raises over heads that are no heads: numbers without digits or beyond any file, chains of names."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Offset and size of each plain file in a tar, by name; `damage` says why there may be more of them."""

    places: Mapping[str, tuple[int, int]]
    damage: str = ""


@lru_cache(maxsize=64)
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


def read(path: Path, member: str) -> bytes:
    """The bytes of one file in a tar. Raises OSError where they cannot be read."""
    place = shard(path).places.get(member)
    if place is None:
        raise OSError(f"{path.name} does not hold it any more")
    with path.open("rb") as file:
        file.seek(place[0])
        data = file.read(place[1])
    if len(data) < place[1]:
        raise OSError(f"{path.name} is cut short")
    return data


def samples(path: Path, pictures: frozenset[str]) -> list[tuple[str, str]]:
    """Name and class of each picture in a tar, by suffix; the class is empty where none is told.

    Raises OSError where the file cannot be read.
    """
    places = shard(path).places
    kinds: dict[str, dict[str, str]] = {}
    for name in places:
        place = PurePosixPath(name)
        stem, _, kind = place.name.partition(".")
        if stem:
            kinds.setdefault(str(place.parent / stem), {})[kind.lower()] = name
    found = []
    with path.open("rb") as file:

        def small(name: str) -> bytes:
            offset, size = places[name]
            file.seek(offset)
            return file.read(min(size, MOST_LABEL_BYTES))

        for files in kinds.values():
            shown = [name for kind, name in sorted(files.items()) if f".{kind}" in pictures]
            if shown and CLASS in files:
                found.append((shown[0], _text(small(files[CLASS]))))
            elif shown:
                found.append((shown[0], _named(small(files[FACTS])) if FACTS in files else ""))
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
