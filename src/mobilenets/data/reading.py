"""Pictures read and made one size by worker processes; those that cannot be, named with the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, Item, SetAside
from mobilenets.data.crew import Crew, Died
from mobilenets.data.digests import Progress
from mobilenets.infer.image import ImageError, decode, prepare
from mobilenets.spec.preprocess import Preprocess

Levels = NDArray[np.uint8]
Made = TypeVar("Made")
Lost = Mapping[int, SetAside]
VERSION = 1
"""Of what a picture becomes: a change of it makes everything that was kept of other versions useless."""
JOB_BYTES = 1 << 20
"""What a worker sends at a time: small pictures one by one would cost more to send than to decode."""
PASSING = frozenset(("missing", "changed", "no-memory"))
"""Why a picture cannot be used now, though the same bytes may be another time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Pictures of a catalog with the digests of their bytes, as they are wanted, and who makes them so."""

    catalog: Catalog
    items: Sequence[Item]
    keys: Sequence[str]
    target: Preprocess
    workers: int
    progress: Progress

    @property
    def row_bytes(self) -> int:
        return self.target.height * self.target.width * 3

    @property
    def at_once(self) -> int:
        """Pictures to a job."""
        return max(1, min(64, JOB_BYTES // self.row_bytes))

    def name(self, lost: Lost, *more: str) -> str:
        """A name for all that the levels depend on. What was lost for a passing reason counts as unreadable:
        of the same files whole there is another."""
        geometry = {name: value for name, value in asdict(self.target).items() if name not in ("mean", "std")}
        total = hashlib.sha256(json.dumps([VERSION, geometry, more]).encode())
        for index, key in enumerate(self.keys):
            passing = index in lost and lost[index].kind in PASSING
            total.update(f"\n{'' if passing else key}".encode())
        return total.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Some:
    """Pictures to read in one go, and the digests that their bytes must have."""

    items: Sequence[Item]
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """A worker's work: pictures as uint8 [height, width, 3]."""

    catalog: Catalog
    target: Preprocess

    def __call__(self, some: Some) -> list[Levels | SetAside]:
        """In order; a SetAside for what cannot be used."""
        made = [self.read(item, key) for item, key in zip(some.items, some.keys, strict=True)]
        return [value if isinstance(value, SetAside) else value[1] for value in made]

    def read(self, item: Item, key: str) -> tuple[bytes, Levels] | SetAside:
        """A picture's bytes, and what is made of them."""
        try:
            data = self.catalog.read(item)
            if hashlib.sha256(data).hexdigest() != key:
                return SetAside(item.file, "changed", "changed while it was read; run again")
            return data, prepare(decode(data, self.target), self.target)
        except ImageError as error:
            return SetAside(item.file, error.kind, str(error))
        except OSError as error:
            return SetAside(item.file, "missing", f"cannot be read any more: {error.strerror or error}")
        except MemoryError:
            return SetAside(item.file, "no-memory", "no memory is left to decode it")


def each(
    work: Callable[[Some], list[Made | SetAside]], wanted: Wanted, order: Sequence[int]
) -> Iterator[tuple[int, Made | SetAside]]:
    """Index and result of every picture in `order`, but last of those sent with one that killed a worker."""
    with Crew(work, wanted.workers) as crew:
        firsts = range(0, len(order), wanted.at_once)
        parts = [order[first : first + wanted.at_once] for first in firsts]
        left: list[int] = []
        done = 0
        for part, made in zip(parts, crew.map([_some(wanted, part) for part in parts]), strict=True):
            if isinstance(made, Died):
                left.extend(part)
                continue
            yield from zip(part, made, strict=True)
            done += len(part)
            wanted.progress("decode", done, len(order))
        for index, alone in zip(left, crew.map([_some(wanted, [index]) for index in left]), strict=True):
            if isinstance(alone, Died):
                yield index, SetAside(wanted.items[index].file, "crashed", alone.reason)
            else:
                yield index, alone[0]
            done += 1
            wanted.progress("decode", done, len(order))


def _some(wanted: Wanted, part: Sequence[int]) -> Some:
    return Some([wanted.items[i] for i in part], [wanted.keys[i] for i in part])
