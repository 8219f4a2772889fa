"""Pictures to calibrate on: some of a folder's, drawn by seed, prepared as the model wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from mobilenets.data.catalog import PICTURES, SetAside, scan
from mobilenets.data.digests import Progress
from mobilenets.infer.image import ImageError, decode, prepare
from mobilenets.infer.resize import Frame
from mobilenets.spec.preprocess import Preprocess

MOST = 256


@dataclass(frozen=True, slots=True)
class Calibration:
    """Levels uint8 [n, height, width, 3], the files they are from, and those that could not be used."""

    levels: Frame
    files: Sequence[str]
    set_aside: Sequence[SetAside]


@dataclass(frozen=True, slots=True)
class Listed:
    """Names of pictures that lie in `path`, and ways to their bytes."""

    path: Path
    files: Sequence[tuple[str, Callable[[], bytes]]]


def pictures(
    there: Listed, pre: Preprocess, *, most: int = MOST, seed: int = 0, progress: Progress | None = None
) -> Calibration:
    """At most `most` of those that were listed, decoded and prepared.

    The same for the same files and seed. Raises ValueError where there is no picture that can be used.
    """
    found = list(there.files)
    Random(seed).shuffle(found)
    levels: list[Frame] = []
    files: list[str] = []
    aside: list[SetAside] = []
    for file, read in found:
        if len(levels) == most:
            break
        try:
            levels.append(prepare(decode(read(), pre), pre))
            files.append(file)
        except ImageError as error:
            aside.append(SetAside(file, error.kind, str(error)))
        except OSError as error:
            aside.append(SetAside(file, "unreadable", f"cannot be read: {error.strerror or error}"))
        if progress is not None:
            progress("calibrate", len(levels), min(most, len(found)))
    if not levels:
        why = f": {aside[0].file}: {aside[0].reason}" if aside else ""
        raise ValueError(
            f"{there.path}: none of its {len(found)} pictures can be used{why}; see `mobilenets doctor`"
        )
    return Calibration(np.stack(levels), tuple(files), tuple(aside))


def listed(path: Path) -> Listed:
    """Sorted: a data set's pictures (those of its train part where it has parts), or all below a folder.

    Raises ValueError where there are none.
    """
    try:
        catalog = scan(path)
    except ValueError:
        if not path.is_dir():
            raise
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
        if not files:
            raise ValueError(
                f"{path}: a folder without pictures; give one with some to calibrate on"
            ) from None
        return Listed(path, [(str(file.relative_to(path)), file.read_bytes) for file in files])
    items = [item for item in catalog.items if item.part in (None, "train")]
    return Listed(path, [(item.file, partial(catalog.read, item)) for item in items or catalog.items])
