"""SHA-256 of every file of a catalog, remembered while the file stays as it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mobilenets.data.catalog import Catalog, Item
from mobilenets.data.store import Store

SPACE = "digests"
SETTLED_S = 2.0
"""How old a change must be for a later one to have another time on any file system."""
EVERY = 64
Progress = Callable[[str, int, int], None]
"""Called with a stage's name, how much of it is done and how much there is."""


def digests(
    catalog: Catalog, threads: int, store: Store | None, progress: Progress | None = None, *, now: float = 0.0
) -> list[str]:
    """SHA-256 of each item's bytes, in order; empty where a file cannot be read.

    A file that the store knows, with the size and the times it had then, is not read again; one that changed
    less than `SETTLED_S` before `now` (seconds since the epoch; 0 for no clock) is not remembered.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        # A stamp is older than what is read under it: at worst a change costs reading the file once more.
        stamps = list(pool.map(lambda item: _stamp(catalog, item, now), catalog.items))
        kept = {} if store is None else store.get_many(SPACE, [stamp for stamp in stamps if stamp])

        def digest(job: tuple[Item, str]) -> str:
            item, stamp = job
            if stamp in kept:
                return kept[stamp].decode()
            try:
                return hashlib.sha256(catalog.read(item)).hexdigest()
            except (OSError, MemoryError):
                return ""

        found = []
        for done, value in enumerate(pool.map(digest, zip(catalog.items, stamps, strict=True)), 1):
            found.append(value)
            if progress is not None and (done % EVERY == 0 or done == len(stamps)):
                progress("scan", done, len(stamps))
    if store is not None:
        fresh = zip(stamps, found, strict=True)
        store.put_many(SPACE, {s: value.encode() for s, value in fresh if s and value and s not in kept})
    return found


def _stamp(catalog: Catalog, item: Item, now: float) -> str:
    """A name for a file's state; empty where another state could have the same, or where it cannot be read.

    Only where a system keeps the time of the last change out of programs' reach (st_ctime; on Windows it is
    that of the making) do size and times tell every change.
    """
    path = (catalog.root if catalog.packed else catalog.root / item.file).absolute()
    try:
        seen = path.stat()
    except OSError:
        return ""
    if os.name == "nt" or max(seen.st_mtime, seen.st_ctime) > now - SETTLED_S or not os.access(path, os.R_OK):
        return ""
    facts = (str(path), item.file, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return hashlib.sha256(repr(facts).encode()).hexdigest()
