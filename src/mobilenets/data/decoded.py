"""Pictures decoded once, at one size, to be had in any order; kept from run to run, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilenets.data import mapped, shards
from mobilenets.data.catalog import Catalog, Item
from mobilenets.data.claim import claimed
from mobilenets.data.digests import Progress
from mobilenets.data.mapped import Mapped
from mobilenets.data.reading import Levels, Lost, Wanted
from mobilenets.spec.preprocess import Preprocess

STEM, MAPPED, SHARDS = "decoded-", ".npy", ".shards"
SAID = "said-"
"""What teachers' answers begin with, which are kept in the same folder."""
STALE_S = 7 * 86400.0
"""How long something must have lain unused to be removed where its room is needed."""
ABANDONED_S = 86400.0
"""How old what another process is still making can be at most: it is written to all the time."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Decoded(Protocol):
    """Pictures of one size, to be had in any order, from any thread."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def __len__(self) -> int: ...

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order in which an epoch sees them: a permutation that depends on nothing else."""
        ...

    def rows(self, which: NDArray[np.int64]) -> Levels:
        """uint8 [n, height, width, 3], a fresh array."""
        ...


def decoded(
    catalog: Catalog,
    items: Sequence[Item],
    target: Preprocess,
    folder: Path,
    *,
    workers: int,
    progress: Progress,
    keys: Sequence[str],
    limit_bytes: int | None = None,
) -> tuple[Decoded, Lost]:
    """The pictures of `items` without those that are lost: by index in `items`, each with the reason.

    What was made before in `folder` of the same bytes for the same size and geometry is taken, if it is
    whole. Levels are kept where they fit into `limit_bytes` (half of what is free unless given), smaller
    files in shards otherwise; where room is short, what lay in `folder` unused for a week is removed.
    Several processes may ask for the same: one makes it, the others wait. `keys` are `data.digests` of the
    items. Raises OSError where the disk is too small even for shards, ValueError where no picture can be
    decoded.
    """
    if not items:
        return Mapped(np.zeros((0, target.height, target.width, 3), np.uint8), np.zeros(0, np.int64)), {}
    wanted = Wanted(catalog, items, keys, target, workers, progress)
    folder.mkdir(parents=True, exist_ok=True)
    found = _found(folder, wanted, {})
    if found is None:
        with claimed(folder / (STEM + wanted.name({})), lambda: progress("wait", 0, len(items))):
            found = _found(folder, wanted, {}) or _made(folder, wanted, limit_bytes)
    pictures, lost = found
    if not len(pictures):
        one = lost[min(lost)]
        raise ValueError(f"{catalog.root}: none of {len(items)} pictures decodes ({one.file}: {one.reason})")
    return pictures, lost


def _path(folder: Path, wanted: Wanted, lost: Lost, kind: str) -> Path:
    labels = [item.label for item in wanted.items] if kind == SHARDS else []
    return folder / f"{STEM}{wanted.name(lost, *labels)}{kind}"


def _found(folder: Path, wanted: Wanted, lost: Lost) -> tuple[Decoded, Lost] | None:
    """What is there and whole."""
    for kind, opened in ((MAPPED, mapped.opened), (SHARDS, shards.opened)):
        path = _path(folder, wanted, lost, kind)
        found: tuple[Decoded, Lost] | None = opened(path, wanted)
        if found is not None:
            with suppress(OSError):
                os.utime(path)  # when it was last of use
            return found
    return None


def _made(folder: Path, wanted: Wanted, limit_bytes: int | None) -> tuple[Decoded, Lost]:
    """Levels if there is room for them, else shards; nothing is left of what could not be finished."""
    needed = mapped.need(wanted)
    free = freed(folder, 2 * needed if limit_bytes is None else needed)  # what leaves it half of the disk
    share = 0.5 if wanted.row_bytes >= shards.WORTH_BYTES else 0.95
    fits = needed <= (share * free if limit_bytes is None else min(limit_bytes, free))
    kind, make = (MAPPED, mapped.make) if fits else (SHARDS, shards.make)
    part = folder / f".{STEM}{wanted.name({})}.{os.getpid()}.part"
    try:
        lost = make(part, wanted)
        path = _path(folder, wanted, lost, kind)
        if kind == SHARDS:
            _remove(path)  # a folder is replaced by none
        os.replace(part, path)
    except OSError as error:
        if error.errno in FULL and error.filename != str(folder):
            free = shutil.disk_usage(folder).free
            raise OSError(
                error.errno,
                f"{len(wanted.items)} pictures of {wanted.target.height} × {wanted.target.width} need "
                f"{needed} bytes there, {free} are free; make room, or name another folder",
                str(folder),
            ) from error
        raise
    finally:
        _remove(part)
    found = _found(folder, wanted, lost)
    if found is None:
        raise OSError(errno.EIO, "what was written there reads otherwise; check the disk", str(path))
    return found


def freed(folder: Path, enough: int) -> int:
    """Free bytes, once what was abandoned is gone, and, where they are not enough, what was long unused."""
    now = time.time()
    for path in (path for stem in (STEM, SAID) for path in folder.glob(f".{stem}*.part")):
        if _age(path, now) > ABANDONED_S:
            _remove(path)
    kept = (path for stem in (STEM, SAID) for path in folder.glob(f"{stem}*"))
    others = [path for path in kept if path.suffix in (MAPPED, SHARDS)]
    for path in sorted(others, key=lambda path: -_age(path, now)):
        if shutil.disk_usage(folder).free >= enough or _age(path, now) < STALE_S:
            break
        _remove(path)
    return shutil.disk_usage(folder).free


def _age(path: Path, now: float) -> float:
    try:
        newest = max(path.stat().st_mtime, *(p.stat().st_mtime for p in path.glob("*")), 0)
    except OSError:
        return 0.0
    return now - newest


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
