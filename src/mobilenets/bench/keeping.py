"""Folders that are there whole or not at all, whichever process makes them first."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def made_whole(place: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `place` in the end; where something is raised nothing is left."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=place.parent))
    try:
        yield part
        part.chmod(0o755)
        try:
            part.rename(place)
        except OSError:
            if not place.exists():  # another process may have been faster
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
