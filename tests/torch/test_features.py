"""Features are the walk's, computed once for each picture, and no bad file stops the others."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.data.catalog import Catalog, scan  # noqa: E402 - after the line that skips
from mobilenets.data.digests import digests  # noqa: E402
from mobilenets.data.store import Store  # noqa: E402
from mobilenets.infer.artefact import Artefact  # noqa: E402
from mobilenets.infer.compiled import MOST_SIDE  # noqa: E402
from mobilenets.infer.engine import NumpyEngine  # noqa: E402
from mobilenets.infer.image import decode, prepare  # noqa: E402
from mobilenets.model.module import random_weights  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.preprocess import Preprocess  # noqa: E402
from mobilenets.train import features as features_module  # noqa: E402
from mobilenets.train.body import TorchEngine  # noqa: E402
from mobilenets.train.features import Features, features  # noqa: E402

DEADLY = """
import os, signal
from mobilenets.train.features import Preparing

class Deadly(Preparing):
    __slots__ = ()
    def __call__(self, job):
        if "deadly" in job.file:
            os.kill(os.getpid(), signal.SIGKILL)
        return Preparing.__call__(self, job)
"""


def silent(stage: str, done: int, total: int) -> None:
    pass


def body(seed: int = 0) -> Artefact:
    net = zoo.v1(0.25, 32)
    pre = Preprocess(height=32, width=32, mean=(127.5,) * 3, std=(127.5,) * 3)
    return Artefact(net, random_weights(net, seed), pre)


class Counting(TorchEngine):
    """An engine that counts the pictures it runs; one that is not exact says so, and is a little off."""

    ran = 0
    off = np.float32(0)

    def rounded(self) -> Counting:
        self.exact, self.off = False, np.float32(0.25)
        return self

    def prepared(self, levels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        self.ran += int(levels.any(axis=(1, 2, 3)).sum())  # blank ones fill a batch
        return {name: value + self.off for name, value in super().prepared(levels).items()}


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(1, 256, (24, 30, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(9):
        draw(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "set"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "features.sqlite")


def run(
    folder: Path,
    store: Store,
    model: Artefact,
    *,
    workers: int = 0,
    rough: bool = False,
    streams: int = 1,
    progress: Callable[[str, int, int], None] = silent,
) -> tuple[Features, int, Catalog]:
    """The features of a folder, how many pictures the body ran on, and the catalog."""
    catalog = scan(folder)
    engine = Counting(model, streams=streams)
    engine = engine.rounded() if rough else engine
    found = features(
        catalog,
        digests(catalog, 2, None),
        model,
        engine=lambda images: engine,
        store=store,
        workers=workers,
        progress=progress,
        rough=rough,
    )
    return found, engine.ran, catalog


@pytest.mark.parametrize(("workers", "streams"), [(0, 1), (2, 2)])
def test_features_are_those_of_the_numpy_walk_picture_by_picture(
    folder: Path, store: Store, workers: int, streams: int
) -> None:
    model = body()
    found, _, catalog = run(folder, store, model, workers=workers, streams=streams)
    walk = NumpyEngine(model)
    for item, row in zip(catalog.items, found.values, strict=True):
        wanted = walk(decode(catalog.read(item)))["features"]
        np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


def test_a_second_run_computes_nothing_and_gives_the_same_bits(folder: Path, store: Store) -> None:
    first, ran, _ = run(folder, store, body())
    assert (ran, first.recalled) == (9, 0)
    second, ran, _ = run(folder, store, body())
    assert (ran, second.recalled) == (0, 9)
    assert second.values.tobytes() == first.values.tobytes()
    assert list(second.looks) == list(first.looks)


def test_only_a_changed_or_a_new_picture_is_computed_again(folder: Path, store: Store) -> None:
    first, _, before = run(folder, store, body())
    draw(folder / "a" / "4.png", 100)
    draw(folder / "b" / "new.png", 101)
    (folder / "a" / "6.png").rename(folder / "b" / "moved.png")  # what a picture is, not where
    second, ran, after = run(folder, store, body())
    assert (ran, second.recalled) == (2, 8)
    old = {item.file: row for item, row in zip(before.items, first.values, strict=True)}
    new = {item.file: row for item, row in zip(after.items, second.values, strict=True)}
    assert (new["b/moved.png"] == old["a/6.png"]).all()
    assert not (new["a/4.png"] == old["a/4.png"]).all()


def test_another_body_or_another_geometry_is_computed_anew(folder: Path, store: Store) -> None:
    model = body()
    plain, _, _ = run(folder, store, model)
    for other in (body(seed=1), replace(model, preprocess=replace(model.preprocess, geometry="stretch"))):
        found, ran, _ = run(folder, store, other)
        assert ran == 9
        assert not np.allclose(found.values, plain.values)
    assert run(folder, store, model)[1] == 0


def test_rough_features_serve_who_asks_for_such_and_nobody_else(folder: Path, store: Store) -> None:
    rough, ran, _ = run(folder, store, body(), rough=True)
    assert (ran, rough.exact.any()) == (9, False)
    again, ran, _ = run(folder, store, body(), rough=True)
    assert (ran, again.exact.any()) == (0, False)
    assert again.values.tobytes() == rough.values.tobytes()
    (folder / "a" / "0.png").rename(folder.parent / "0.png")
    exact, ran, _ = run(folder, store, body())
    assert (ran, exact.exact.all()) == (8, True)
    np.testing.assert_allclose(exact.values, rough.values[1:] - 0.25, atol=1e-5)
    (folder.parent / "0.png").rename(folder / "a" / "0.png")
    both, ran, _ = run(folder, store, body(), rough=True)  # whatever exact ones have come since
    assert (ran, both.exact.any()) == (0, False)
    assert both.values.tobytes() == rough.values.tobytes()


def test_exact_features_serve_who_asks_for_rough_ones_and_has_none(folder: Path, store: Store) -> None:
    exact, _, _ = run(folder, store, body())
    found, ran, _ = run(folder, store, body(), rough=True)
    assert (ran, found.exact.all()) == (0, True)
    assert found.values.tobytes() == exact.values.tobytes()


def test_a_run_that_is_cut_off_keeps_what_it_had_written(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "KEEP_EVERY", 4)
    monkeypatch.setattr("mobilenets.train.body.BATCH", 4)

    def cut(stage: str, done: int, total: int) -> None:
        if done > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, store, body(), progress=cut)
    found, ran, _ = run(folder, store, body())
    assert found.recalled == 4
    assert ran == 5


def test_a_file_that_changed_after_its_digest_was_taken_is_not_kept_under_it(
    folder: Path, store: Store
) -> None:
    catalog = scan(folder)
    keys = digests(catalog, 1, None)
    changed = catalog.items[0].file
    before = (folder / changed).read_bytes()
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(folder / changed)

    def made() -> Features:
        engine = TorchEngine(body())
        return features(
            catalog, keys, body(), engine=lambda images: engine, store=store, workers=0, progress=silent
        )

    made()
    assert made().recalled == len(keys) - 1
    (folder / changed).write_bytes(before)
    fresh, _, _ = run(folder, Store(folder.parent / "other.sqlite"), body())
    np.testing.assert_array_equal(made().values, fresh.values)


def test_a_picture_that_does_not_fit_in_memory_is_set_aside(
    folder: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(frame: NDArray[np.uint8], target: Preprocess) -> NDArray[np.uint8]:
        if frame[0, 0, 0] == 7:
            raise MemoryError
        return prepare(frame, target)

    monkeypatch.setattr(features_module, "prepare", full)
    Image.fromarray(np.full((40, 40, 3), 7, np.uint8)).save(folder / "a" / "large.png")
    found, _, catalog = run(folder, store, body())
    problems = {
        item.file: (look.problem, look.reason)
        for item, look in zip(catalog.items, found.looks, strict=True)
        if look.problem
    }
    assert problems == {"a/large.png": ("too-large", "40 × 40 pixels do not fit in memory")}


def test_bad_files_have_a_reason_and_a_row_of_nothing_and_the_others_are_as_without_them(
    folder: Path, store: Store, tmp_path: Path
) -> None:
    clean, _, names = run(folder, Store(tmp_path / "other.sqlite"), body())
    (folder / "a" / "cut.png").write_bytes((folder / "a" / "0.png").read_bytes()[:400])
    (folder / "a" / "none.png").write_bytes(b"")
    (folder / "b" / "words.jpg").write_bytes(b"these are words")
    for _ in range(2):  # a bad file is looked at again each time: it may have been mended
        found, _, catalog = run(folder, store, body())
        problems = {
            item.file: look.problem
            for item, look in zip(catalog.items, found.looks, strict=True)
            if look.problem
        }
        assert problems == {"a/cut.png": "truncated", "a/none.png": "empty", "b/words.jpg": "unreadable"}
        rows = {item.file: row for item, row in zip(catalog.items, found.values, strict=True)}
        assert not any(rows[file].any() for file in problems)
        for item, row in zip(names.items, clean.values, strict=True):
            np.testing.assert_allclose(rows[item.file], row, rtol=1e-4, atol=1e-5)


def test_a_file_that_is_gone_since_the_scan_is_no_crash(folder: Path, store: Store) -> None:
    catalog = scan(folder)
    (folder / "a" / "0.png").unlink()
    keys = digests(catalog, 2, None)
    assert keys[0] == ""
    found = features(
        catalog,
        keys,
        body(),
        engine=lambda images: TorchEngine(body()),
        store=store,
        workers=0,
        progress=silent,
    )
    assert found.looks[0].problem == "unreadable"
    assert found.values[1:].any(axis=1).all()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_picture_that_kills_its_worker_is_set_aside_and_the_others_are_done(
    folder: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "deadly_pictures.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    draw(folder / "a" / "deadly.png", 50)
    monkeypatch.setattr(features_module, "Preparing", importlib.import_module("deadly_pictures").Deadly)
    found, ran, catalog = run(folder, store, body(), workers=2)
    (look,) = [look for look in found.looks if look.problem]
    (place,) = [i for i, item in enumerate(catalog.items) if "deadly" in item.file]
    assert found.looks[place] is look
    assert look.problem == "crashed"
    assert "SIGKILL" in look.reason
    assert ran == 9
    assert found.values.any(axis=1).sum() == 9


def test_a_picture_thinner_than_compiled_code_takes_is_resized_before(tmp_path: Path) -> None:
    for number, width in enumerate((32767, 32768)):
        levels = np.full((1, width, 3), 9, np.uint8)
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(levels).save(tmp_path / "a" / f"{number}.png")
    catalog = scan(tmp_path)
    prepare_one = features_module.Preparing(catalog, body().preprocess, raw=10**6, side=MOST_SIDE)
    made = [prepare_one(item)[1] for item in catalog.items]
    assert [one.raw for one in made if one is not None] == [True, False]


def test_progress_goes_up_to_the_number_of_pictures(folder: Path, store: Store) -> None:
    seen: list[tuple[str, int, int]] = []
    run(folder, store, body(), progress=lambda *step: seen.append(step))
    assert seen[0] == ("features", 0, 9)
    assert seen[-1] == ("features", 9, 9)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
