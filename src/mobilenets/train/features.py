"""Every picture through the frozen body once, kept by content, so that the next head costs seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobilenets.data.catalog import Catalog, Item
from mobilenets.data.crew import Crew, Died
from mobilenets.data.digests import Progress
from mobilenets.data.look import FORMAT, Look, from_json, seen, to_json
from mobilenets.data.store import Store
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.image import prepare
from mobilenets.infer.resize import Frame
from mobilenets.spec.net import shapes
from mobilenets.spec.preprocess import Preprocess
from mobilenets.train.stream import streamed

KEEP_EVERY = 512
"""Pictures between two writes to the store: what a kill may cost."""
RAW = 2
"""Frames of up to so many times the values of the levels that they become are handed on as they are."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a worker made of a picture: levels that a body takes, or a frame that is still to be resized."""

    values: NDArray[np.uint8]
    raw: bool


_Batch: TypeAlias = tuple[list[tuple[int, Prepared]], list[int]]  # to run; all that are done with it


class Body(Protocol):
    """Runs batches of prepared levels [batch, height, width, 3], or of frames, `streams` of them at once."""

    batch: int
    streams: int
    told: str
    exact: bool
    """Whether its outputs are those of float32, to the last digits."""
    resizes: int
    """The longest side of a frame that it prepares itself, faster than a worker; 0 where it does not."""

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]: ...

    def prepared(self, levels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]: ...

    def pool(self) -> ThreadPoolExecutor: ...


@dataclass(frozen=True, slots=True)
class Features:
    """What the body made of a catalog's items: `values` [n, channels], zeros where `looks` has a problem.

    `exact` [n] tells which are those of float32, to the last digits.
    """

    values: NDArray[np.float32]
    exact: NDArray[np.bool_]
    looks: Sequence[Look]
    recalled: int


@dataclass(frozen=True, slots=True)
class Preparing:
    """A worker's job: read, look, turn and resize one item.

    Frames of up to `raw` values stay as they are, unless a side is longer than `side`.
    """

    catalog: Catalog
    target: Preprocess
    raw: int
    side: int

    def __call__(self, item: Item) -> tuple[Look, Prepared | None]:
        try:
            data = self.catalog.read(item)
        except (OSError, MemoryError) as error:
            reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            return Look("", 0, problem="unreadable", reason=reason), None
        look, frame = seen(data, item.suffix, self.target)
        if frame is None:
            return look, None
        if frame.size <= self.raw and max(frame.shape) <= self.side:
            return look, Prepared(frame, raw=True)
        try:
            return look, Prepared(prepare(frame, self.target), raw=False)
        except MemoryError:
            reason = f"{look.width} × {look.height} pixels do not fit in memory"
            return replace(look, problem="too-large", reason=reason), None


def features(
    catalog: Catalog,
    keys: Sequence[str],
    body: Artefact,
    *,
    engine: Callable[[int], Body],
    store: Store,
    workers: int,
    progress: Progress,
    rough: bool = False,
    stage: str = "features",
) -> Features:
    """The body's features of every item; what the store has is not computed again.

    `keys` are the items' digests; `engine` makes the body's engine for so many images. Rows are kept
    by picture, body and preprocessing; with `rough` those serve first that an engine made which is not exact:
    what is learned must not hang on whose features were wanted to the last digits before. A file that does
    not decode, or on which a worker dies, keeps a row of zeros and a look with a `problem`.
    """
    named = digest(body)
    exact_space, rough_space = f"features {named} plain", f"features {named} rough"
    seen_space = f"looks {FORMAT} {digest_of(body.preprocess)}"
    wanted = sorted(set(keys) - {""})
    kept: dict[str, tuple[bytes, bool]] = {}
    if rough:
        kept = {key: (value, False) for key, value in store.get_many(rough_space, wanted).items()}
    rest = [key for key in wanted if key not in kept]
    kept |= {key: (value, True) for key, value in store.get_many(exact_space, rest).items()}
    known = store.get_many(seen_space, wanted)
    channels = shapes(body.net)[body.net.output("features").node].channels
    values, exact = np.zeros((len(keys), channels), np.float32), np.ones(len(keys), bool)
    looks: list[Look | None] = [None] * len(keys)
    for index, key in enumerate(keys):
        if key in kept and key in known and len(kept[key][0]) == 4 * channels:
            values[index], exact[index] = np.frombuffer(kept[key][0], "<f4"), kept[key][1]
            looks[index] = from_json(known[key])
    todo = [index for index, look in enumerate(looks) if look is None]
    recalled = done = len(keys) - len(todo)
    fresh: dict[str, int] = {}
    progress(stage, done, len(keys))
    ran = engine(len(todo)) if todo else None
    exact[todo] = ran is None or ran.exact
    spaces = exact_space if ran is None or ran.exact else rough_space, seen_space
    for indices in _computed(catalog, todo, values, looks, ran, body.preprocess, workers) if ran else ():
        done += len(indices)
        progress(stage, done, len(keys))
        fresh.update({keys[index]: index for index in indices if keys[index]})
        if len(fresh) >= KEEP_EVERY:
            _keep(store, spaces, fresh, values, looks)
            fresh = {}
    _keep(store, spaces, fresh, values, looks)
    return Features(values, exact, [look for look in looks if look is not None], recalled)


def digest_of(target: Preprocess) -> str:
    """What names a way of looking: scaled decoding depends on the target."""
    return hashlib.sha256(repr(target).encode()).hexdigest()[:16]


def _computed(
    catalog: Catalog,
    todo: Sequence[int],
    values: NDArray[np.float32],
    looks: list[Look | None],
    engine: Body,
    target: Preprocess,
    workers: int,
) -> Iterator[list[int]]:
    """Fills `values` and `looks` batch by batch; gives the indices that are new."""
    jobs = [catalog.items[index] for index in todo]
    raw = RAW * 3 * target.height * target.width if engine.resizes else 0

    def batches(crew: Crew[Item, tuple[Look, Prepared | None]]) -> Iterator[_Batch]:
        batch, new = [], []
        for index, made in zip(todo, crew.map(jobs, ahead=8 * engine.batch + 4 * workers), strict=True):
            new.append(index)
            if isinstance(made, Died):
                looks[index] = Look("", 0, problem="crashed", reason=made.reason)
            else:
                looks[index], picture = made
                if picture is not None:
                    batch.append((index, picture))
            if len(batch) == engine.batch:
                yield batch, new
                batch, new = [], []
        yield batch, new

    def work(given: _Batch) -> list[int]:
        batch, new = given
        frames = [(index, own.values) for index, own in batch if own.raw]
        ready = [(index, own.values) for index, own in batch if not own.raw]
        if frames:
            made = engine.many([frame for _, frame in frames])
            values[[index for index, _ in frames]] = made["features"]
        if ready:
            # Always a whole batch: torch takes another kernel for a short one, and a picture's features would
            # depend, in their last bits, on how many others were new with it.
            levels = np.zeros((engine.batch, target.height, target.width, 3), np.uint8)
            for place, (_, own) in enumerate(ready):
                levels[place] = own
            values[[index for index, _ in ready]] = engine.prepared(levels)["features"][: len(ready)]
        return new

    # A worker needs no list of items, only where to read.
    with Crew(Preparing(catalog.bare(), target, raw, engine.resizes), workers) as crew, engine.pool() as pool:
        yield from streamed(pool, work, batches(crew), 2 * engine.streams)


def _keep(
    store: Store,
    spaces: tuple[str, str],
    fresh: dict[str, int],
    values: NDArray[np.float32],
    looks: Sequence[Look | None],
) -> None:
    # A file may have changed since its digest was taken: what it is now is not kept under what it was.
    good = {
        key: index
        for key, index in fresh.items()
        if (look := looks[index]) and look.problem is None and look.digest == key
    }
    store.put_many(spaces[0], {key: values[index].astype("<f4").tobytes() for key, index in good.items()})
    store.put_many(
        spaces[1], {key: to_json(look) for key, index in good.items() if (look := looks[index]) is not None}
    )
