"""Files and folders that take another's place in one step, when all of them is there."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part-"
STALE_S = 24 * 3600


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """A path beside `target` to write a file or a folder to, which becomes `target` when all went well.

    What was there stays until then; an OSError names a path.
    """
    absent = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise NotADirectoryError(
                20, "a file is in its way; give another --out", str(target.parent)
            ) from error
        drop_left(target.parent)
        with tempfile.TemporaryDirectory(prefix=PART, dir=target.parent) as place:
            part, before = Path(place) / target.name, Path(place) / "before" / target.name
            yield part
            if target.is_dir():  # which a file or a folder with content cannot replace
                before.parent.mkdir()
                target.replace(before)
            try:
                part.replace(target)
            except OSError:
                if before.exists():
                    before.replace(target)
                raise
    except BaseException as error:
        for folder in absent:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror or str(error), str(target)) from error
        raise


def drop_left(out: Path) -> None:
    """Remove what a kill has left: parts that nothing can be at work on any more."""
    for left in out.glob(f"{PART}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left, ignore_errors=True)
