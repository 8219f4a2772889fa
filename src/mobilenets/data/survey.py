"""A look at every picture of a catalog, made by worker processes and remembered by the digest of the file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from mobilenets.data.catalog import Catalog, Item
from mobilenets.data.crew import Crew, Died
from mobilenets.data.digests import Progress, digests
from mobilenets.data.look import FORMAT, Look, from_json, look, to_json
from mobilenets.data.store import Store

SPACE = f"looks {FORMAT}"
KEEP_EVERY = 256


def looks_of(
    catalog: Catalog,
    store: Store | None,
    workers: int,
    progress: Progress | None = None,
    *,
    now: float = 0.0,
) -> list[Look]:
    """One look for each item, in order. What the store knows by the file's digest is not decoded again;
    `now` is as in `digests`.

    With no `workers` all is done in this process. A file that cannot be read, or on which the decoder dies,
    comes back with `problem` set to `unreadable` or `crashed`.
    """
    total = len(catalog.items)
    found: list[Look | None] = [None] * total
    if store is not None:
        keys = digests(catalog, workers, store, progress, now=now)
        _recall(catalog, store, keys, found)
    missing = [index for index, seen in enumerate(found) if seen is None]
    done = total - len(missing)
    fresh: dict[str, bytes] = {}
    bare = replace(catalog, items=(), set_aside=())  # all that reading needs: this travels to the workers
    with Crew(partial(_look_at, bare), min(workers, len(missing))) as crew:
        seen_in_turn = crew.map([catalog.items[index] for index in missing])
        for index, result in zip(missing, seen_in_turn, strict=True):
            done += 1
            if isinstance(result, Died):
                found[index] = Look("", 0, problem="crashed", reason=f"decoding it: {result.reason}")
            else:
                found[index] = result
                if (
                    result.problem is None
                ):  # what failed is tried again: a better decoder may be there by then
                    fresh[_key(result.digest, catalog.items[index])] = to_json(result)
            if store is not None and len(fresh) >= KEEP_EVERY:
                store.put_many(SPACE, fresh)
                fresh = {}
            if progress is not None:
                progress("look", done, total)
    if store is not None:
        store.put_many(SPACE, fresh)
    return [seen for seen in found if seen is not None]


def _recall(catalog: Catalog, store: Store, digested: Sequence[str], found: list[Look | None]) -> None:
    keys = [value and _key(value, item) for value, item in zip(digested, catalog.items, strict=True)]
    known = store.get_many(SPACE, sorted(set(keys) - {""}))
    for index, one in enumerate(keys):
        if one in known:
            with suppress(ValueError):
                found[index] = from_json(known[one])


def _key(digest: str, item: Item) -> str:
    return f"{digest}{item.suffix}"


def _look_at(catalog: Catalog, item: Item) -> Look:
    try:
        data = catalog.read(item)
    except (OSError, MemoryError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        return Look("", 0, problem="unreadable", reason=reason)
    return look(data, item.suffix)
