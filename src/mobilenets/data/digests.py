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
    items = catalog.items
    parts = [items[first : first + EVERY] for first in range(0, len(items), EVERY)]
    with ThreadPoolExecutor(max(1, threads)) as pool:
        # A stamp is older than what is read under it: at worst a change costs reading the file once more.
        # Many files to a job: what a pool spends on one is more than a look at a file takes.
        seen = pool.map(lambda part: [_stamp(catalog, item, now) for item in part], parts)
        stamps = [stamp for part in seen for stamp in part]
        kept = {} if store is None else store.get_many(SPACE, [stamp for stamp in stamps if stamp])
        found = [kept.get(stamp, b"").decode() for stamp in stamps]
        unread = [index for index, value in enumerate(found) if not value]

        def digest(index: int) -> str:
            try:
                return hashlib.sha256(catalog.read(items[index])).hexdigest()
            except (OSError, MemoryError):
                return ""

        made = zip(unread, pool.map(digest, unread), strict=True)
        for done, (index, value) in enumerate(made, len(items) - len(unread) + 1):
            found[index] = value
            if progress is not None and done % EVERY == 0:
                progress("scan", done, len(items))
    if progress is not None:
        progress("scan", len(items), len(items))
    if store is not None:
        fresh = zip(stamps, found, strict=True)
        store.put_many(SPACE, {s: value.encode() for s, value in fresh if s and value and s not in kept})
    return found


def _stamp(catalog: Catalog, item: Item, now: float) -> str:
    """A name for a file's state; empty where another state could have the same, or where it cannot be read.

    Only where a system keeps the time of the last change out of programs' reach (st_ctime; on Windows it is
    that of the making) do size and times tell every change.
    """
    path = catalog.place(item).absolute()
    try:
        seen = path.stat()
    except OSError:
        return ""
    if os.name == "nt" or max(seen.st_mtime, seen.st_ctime) > now - SETTLED_S or not os.access(path, os.R_OK):
        return ""
    facts = (str(path), item.file, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return hashlib.sha256(repr(facts).encode()).hexdigest()
