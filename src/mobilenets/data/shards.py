"""Pictures too many to keep decoded: small files in WebDataset's shards, decoded when they are asked for.

A folder of tar files with `KEY.jpg` (or .png, .webp) and `KEY.cls`, the class as a number, for each picture,
and an index that says where each lies. A picture is kept as it came where that is smaller than a JPEG of the
size wanted, at the highest quality that is of use.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import threading
import weakref
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenets.data.catalog import SetAside
from mobilenets.data.crew import Crew, Died
from mobilenets.data.reading import Levels, Lost, Reading, Some, Wanted, each
from mobilenets.infer.image import ImageError, decode, prepare
from mobilenets.infer.sealed import ArtefactError, pack, unpack, write_whole
from mobilenets.spec.preprocess import Preprocess

VERSION = 1
INDEX = "index.safetensors"
SHARD_BYTES = 64 << 20
WINDOW = 8
"""Shards that an epoch reads from at a time: half a gigabyte, which a machine's memory holds."""
WORTH_BYTES = 4096
"""Levels of a picture below which files in shards, two blocks of head and two of data, are hardly smaller."""
QUALITY = 95
SAMPLES = 64
"""Pictures encoded to tell how much room all will need."""
SPARE = 1.1
"""How much more than told by them is asked for."""
KNOWN = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG", "png"), (b"RIFF", "webp"))
"""What WebDataset's readers decode, by its first bytes."""
DECODINGS = 16
"""Pictures to a worker at a time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a picture lies; `ready` where it has the size wanted."""

    shard: int
    offset: int
    size: int
    ready: bool


@dataclass(frozen=True, slots=True)
class Encoding:
    """A worker's work: pictures as small files, their suffix, and whether they have the size wanted."""

    reading: Reading

    def __call__(self, some: Some) -> list[tuple[bytes, str, bool] | SetAside]:
        """In order; a SetAside for what cannot be used."""
        return [self._one(self.reading.read(*pair)) for pair in zip(some.items, some.keys, strict=True)]

    def _one(self, read: tuple[bytes, Levels] | SetAside) -> tuple[bytes, str, bool] | SetAside:
        if isinstance(read, SetAside):
            return read
        data, levels = read
        made = io.BytesIO()
        Image.fromarray(levels).save(made, "JPEG", quality=QUALITY, subsampling=0)
        suffix = next((suffix for first, suffix in KNOWN if data.startswith(first)), "")
        if suffix and len(data) <= made.tell():
            return data, suffix, False
        return made.getvalue(), "jpg", True


@dataclass(frozen=True, slots=True)
class Decoding:
    """A worker's work: pictures out of shards, uint8 [n, height, width, 3]."""

    folder: Path
    target: Preprocess

    def __call__(self, places: Sequence[Place]) -> Levels:
        """In order. Raises OSError for what does not read as it was written."""
        made = np.empty((len(places), self.target.height, self.target.width, 3), np.uint8)
        for levels, place in zip(made, places, strict=True):
            path = _shard(self.folder, place.shard)
            with path.open("rb") as file:
                file.seek(place.offset)
                data = file.read(place.size)
            try:
                frame = decode(data) if place.ready else decode(data, self.target)
                levels[:] = frame if place.ready else prepare(frame, self.target)
            except (ImageError, ValueError) as error:
                raise OSError(
                    errno.EIO, f"altered while it was in use ({error}); run again", str(path)
                ) from error
        return made


class Sharded:
    """Pictures of a folder of shards. Reads go to few shards at a time, in the order that `order` gives."""

    def __init__(self, folder: Path, target: Preprocess, places: NDArray[np.int64], workers: int) -> None:
        self.height, self.width = target.height, target.width
        self._places = places
        self._crew = Crew(Decoding(folder, target), workers)
        self._turn = threading.Lock()
        weakref.finalize(self, self._crew.__exit__, None, None, None)

    def __len__(self) -> int:
        return len(self._places)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order of an epoch: shards in any, and the pictures of `WINDOW` shards in any."""
        draw = np.random.default_rng([seed, epoch])
        shards = draw.permutation(int(self._places[:, 0].max(initial=-1)) + 1)
        rank = np.argsort(shards)[self._places[:, 0]] // WINDOW
        mixed = draw.permutation(len(rank))
        return mixed[np.argsort(rank[mixed], kind="stable")]

    def rows(self, which: NDArray[np.int64]) -> Levels:
        """uint8 [n, height, width, 3], decoded by worker processes. Raises OSError where that fails."""
        made = np.empty((len(which), self.height, self.width, 3), np.uint8)
        places = [Place(row[0], row[1], row[2], bool(row[3])) for row in self._places[which].tolist()]
        parts = [places[first : first + DECODINGS] for first in range(0, len(places), DECODINGS)]
        with self._turn:  # a worker's pipe carries one conversation
            for number, levels in enumerate(self._crew.map(parts)):
                if isinstance(levels, Died):
                    raise OSError(errno.EIO, f"decoding pictures of shards: {levels.reason}")
                made[number * DECODINGS : (number + 1) * DECODINGS] = levels
        return made


def make(path: Path, wanted: Wanted) -> Lost:
    """Encode all pictures into shards in a new folder; what was lost.

    Raises OSError where the disk is too small, told by a sample before all are encoded.
    """
    # Lists of pictures are sorted by class: each shard is to have some of all.
    order = np.random.default_rng(0).permutation(len(wanted.items)).tolist()
    work = Encoding(Reading(wanted.catalog.bare(), wanted.target))
    path.mkdir()
    _enough(path, work, wanted, order[:SAMPLES])
    labels = {*wanted.catalog.labels, *(item.label for item in wanted.items)}
    number = {label: index for index, label in enumerate(sorted(labels))}
    lost: dict[int, SetAside] = {}
    places = np.full((len(wanted.items), 4), -1, np.int64)
    with ExitStack() as stack:
        shard = stack.enter_context(_Shard(path, 0))
        for index, made in each(work, wanted, order):
            if isinstance(made, SetAside):
                lost[index] = made
                continue
            if shard.full():
                stack.close()
                shard = stack.enter_context(_Shard(path, shard.number + 1))
            data, suffix, ready = made
            offset = shard.add(f"{index:09d}.{suffix}", data)
            shard.add(f"{index:09d}.cls", str(number[wanted.items[index].label]).encode())
            places[index] = shard.number, offset, len(data), ready
    facts = {"shards": VERSION, "lost": [[index, *astuple(one)] for index, one in sorted(lost.items())]}
    sums = _sums(path, shard.number + 1, wanted)
    write_whole(path / INDEX, pack(facts, {"places": places, "sums": sums}))
    return lost


def opened(path: Path, wanted: Wanted) -> tuple[Sharded, Lost] | None:
    """The pictures of a whole folder; None where there is none, or one that is cut short or altered."""
    try:
        facts, tensors = unpack((path / INDEX).read_bytes())
        places, sums = tensors["places"], tensors["sums"]
        if facts["shards"] != VERSION or not np.array_equal(_sums(path, len(sums), wanted), sums):
            return None
    except (OSError, ArtefactError, KeyError):
        return None
    lost = {int(index): SetAside(*rest) for index, *rest in facts["lost"]}
    kept = np.setdiff1d(np.arange(len(places)), np.fromiter(lost, np.int64))
    return Sharded(path, wanted.target, places[kept], wanted.workers), lost


class _Shard:
    """One tar file being written."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._file = _shard(folder, number).open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def full(self) -> bool:
        return self._file.tell() >= SHARD_BYTES

    def add(self, name: str, data: bytes) -> int:
        """Where the data begins."""
        head = tarfile.TarInfo(name)
        head.size = len(data)
        offset = self._file.tell() + tarfile.BLOCKSIZE
        self._tar.addfile(head, io.BytesIO(data))
        return offset

    def __enter__(self) -> _Shard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:  # else its folder is on its way out
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.tar"


def _enough(path: Path, work: Encoding, wanted: Wanted, some: Sequence[int]) -> None:
    made = each(work, replace(wanted, progress=lambda *_: None), some)
    sizes = [len(one[0]) for _, one in made if not isinstance(one, SetAside)]
    if not sizes:
        return
    each_bytes = sum(sizes) / len(sizes) + 4 * tarfile.BLOCKSIZE
    needed, free = int(SPARE * each_bytes * len(wanted.items)), shutil.disk_usage(path).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{len(wanted.items)} pictures of {wanted.target.height} × {wanted.target.width} need about "
            f"{needed} bytes there, {free} are free; make room, or name another folder",
            str(path.parent),
        )


def _sums(path: Path, count: int, wanted: Wanted) -> NDArray[np.int64]:
    """CRC-32 of each shard."""
    made = []
    with ThreadPoolExecutor(max(1, wanted.workers)) as pool:
        for done, value in enumerate(
            pool.map(lambda n: zlib.crc32(_shard(path, n).read_bytes()), range(count)), 1
        ):
            made.append(value)
            wanted.progress("check", done, count)
    return np.array(made, np.int64)
