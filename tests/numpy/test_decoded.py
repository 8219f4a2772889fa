"""Decoded pictures are the ones that were asked for, whatever happened while they were kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilenets.data import decoded as module
from mobilenets.data import shards
from mobilenets.data.catalog import Catalog, scan
from mobilenets.data.decoded import Decoded, decoded
from mobilenets.data.digests import digests
from mobilenets.data.mapped import Mapped
from mobilenets.data.reading import Lost
from mobilenets.data.shards import Sharded
from mobilenets.infer.image import decode, prepare
from mobilenets.spec.preprocess import Preprocess

SIZE = Preprocess(height=20, width=24, geometry="stretch")
PLENTY, NOTHING = 1 << 40, 0
EACH = pytest.mark.parametrize("limit", [PLENTY, NOTHING], ids=["mapped", "shards"])
Ask = Callable[..., tuple[Decoded, Lost]]


def quiet(stage: str, done: int, total: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several kinds and sizes, more of them in one class than in the other."""
    draw = np.random.default_rng(0)
    for label, count in (("a", 30), ("b", 9)):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(count):
            coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            size = (int(draw.integers(8, 90)), int(draw.integers(8, 90)))
            picture = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
            suffix = ("jpg", "png", "webp", "bmp")[number % 4]
            picture.save(tmp_path / "set" / label / f"{number:02}.{suffix}")
    return tmp_path / "set"


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def run(catalog: Catalog, limit: int | None = PLENTY, **other: Any) -> tuple[Decoded, Lost]:
        given = {"target": SIZE, "folder": tmp_path / "kept", "workers": 0, "progress": quiet, **other}
        keys = given.pop("keys", None) or digests(catalog, 1, None)
        return decoded(catalog, catalog.items, keys=keys, limit_bytes=limit, **given)

    return run


def expected(catalog: Catalog, target: Preprocess = SIZE) -> np.ndarray:
    return np.stack([prepare(decode(catalog.read(item), target), target) for item in catalog.items])


def everything(pictures: Decoded) -> np.ndarray:
    return pictures.rows(np.arange(len(pictures)))


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_are_what_preparing_each_picture_gives(folder: Path, ask: Ask, workers: int) -> None:
    catalog = scan(folder)
    for target in (
        SIZE,
        Preprocess(height=31, width=31, geometry="crop"),
        replace(SIZE, geometry="letterbox"),
    ):
        pictures, lost = ask(catalog, target=target, workers=workers)
        assert isinstance(pictures, Mapped)
        assert lost == {}
        assert (pictures.height, pictures.width) == (target.height, target.width)
        assert np.array_equal(everything(pictures), expected(catalog, target))
        some = np.array([5, 0, 5, 38])
        rows = pictures.rows(some)
        assert np.array_equal(rows, expected(catalog, target)[some])
        rows[:] = 0  # a copy, of which nobody else knows
        assert np.array_equal(pictures.rows(some), expected(catalog, target)[some])


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_of_shards_are_as_they_came_or_nearly_so(folder: Path, ask: Ask, workers: int) -> None:
    catalog = scan(folder)
    pictures, lost = ask(catalog, NOTHING, workers=workers)
    assert isinstance(pictures, Sharded)
    assert lost == {}
    made, want = everything(pictures).astype(int), expected(catalog).astype(int)
    same = (made == want).all((1, 2, 3))
    assert 0 < same.sum() < len(same)  # originals where those are smaller, else a JPEG of the size
    assert np.abs(made - want).mean((1, 2, 3)).max() < 2.5
    assert np.array_equal(pictures.rows(np.array([7, 7, 1])), everything(pictures)[[7, 7, 1]])


@EACH
def test_orders_are_permutations_of_seed_and_epoch_alone(folder: Path, ask: Ask, limit: int) -> None:
    catalog = scan(folder)
    pictures, _ = ask(catalog, limit)
    first = pictures.order(3, 0)
    assert sorted(first.tolist()) == list(range(len(pictures)))
    assert np.array_equal(ask(catalog, limit)[0].order(3, 0), first)
    assert not np.array_equal(pictures.order(3, 1), first)
    assert not np.array_equal(pictures.order(4, 0), first)


def test_an_epoch_reads_few_shards_at_a_time_and_each_has_of_the_whole_list(
    folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 6 * 1024)
    monkeypatch.setattr(shards, "WINDOW", 3)
    catalog = scan(folder)
    pictures, _ = ask(catalog, NOTHING)
    assert isinstance(pictures, Sharded)
    shard = pictures._places[:, 0]
    assert shard.max() >= 6
    for epoch in range(3):
        visits = shard[pictures.order(0, epoch)]
        stays = [np.flatnonzero(visits == number)[[0, -1]] for number in np.unique(shard)]
        for place in range(len(visits)):
            assert sum(begin <= place <= end for begin, end in stays) <= 3
    reach = [np.ptp(np.flatnonzero(shard == number)) for number in np.unique(shard)]
    assert np.mean(reach) > 12, "the list is sorted by class: what is beside each other in it must be parted"


# Its reader leaves files to the garbage collector.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*FileIO:pytest.PytestUnraisableExceptionWarning")
def test_shards_are_read_by_webdataset(folder: Path, ask: Ask, tmp_path: Path) -> None:
    """Its own reader finds each picture with its class."""
    dataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    catalog = scan(folder)
    ask(catalog, NOTHING)
    files = [str(path) for path in sorted((tmp_path / "kept").glob("*.shards/*.tar"))]
    found = {}
    for sample in dataset.WebDataset(files, shardshuffle=False).decode("rgb8"):
        picture = next(sample[kind] for kind in ("jpg", "png", "webp") if kind in sample)
        found[int(sample["__key__"])] = (picture, sample["cls"])
    assert sorted(found) == list(range(len(catalog.items)))
    for index, item in enumerate(catalog.items):
        assert catalog.labels[found[index][1]] == item.label
        if item.file.endswith(".png") and found[index][0].shape != (20, 24, 3):
            assert np.array_equal(found[index][0], decode(catalog.read(item)))


@EACH
def test_what_was_made_is_taken_again_and_nothing_is_decoded(
    folder: Path, ask: Ask, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = scan(folder)
    keys = digests(catalog, 1, None)
    before = everything(ask(catalog, limit, keys=keys)[0])
    shutil.rmtree(folder)
    for other in (PLENTY, NOTHING):
        again, lost = ask(catalog, other, keys=keys)
        assert lost == {}
        assert np.array_equal(everything(again), before)
    levels = replace(SIZE, mean=(0.0, 0.0, 0.0))  # what comes after the levels makes no difference
    assert np.array_equal(everything(ask(catalog, limit, keys=keys, target=levels)[0]), before)


def test_other_bytes_another_size_or_order_are_something_else(folder: Path, ask: Ask, tmp_path: Path) -> None:
    catalog = scan(folder)
    ask(catalog)
    Image.new("RGB", (9, 9), (250, 0, 0)).save(folder / "a" / "00.jpg")
    assert np.array_equal(everything(ask(catalog)[0]), expected(catalog))
    backwards = replace(catalog, items=catalog.items[::-1])
    assert np.array_equal(everything(ask(backwards)[0]), expected(backwards))
    small = replace(SIZE, height=5)
    assert np.array_equal(everything(ask(catalog, target=small)[0]), expected(catalog, small))
    assert len(list((tmp_path / "kept").iterdir())) == 4


@EACH
def test_files_gone_bad_are_named_and_left_out(folder: Path, ask: Ask, limit: int) -> None:
    catalog = scan(folder)
    files = [item.file for item in catalog.items]
    (folder / files[3]).write_bytes(b"no picture")
    (folder / files[8]).write_bytes((folder / files[8]).read_bytes()[:-40])
    keys = digests(catalog, 1, None)
    for _ in range(2):  # decoded, and from what was kept
        pictures, lost = ask(catalog, limit, keys=keys)
        assert {index: (one.file, one.kind) for index, one in lost.items()} == {
            3: (files[3], "unreadable"),
            8: (files[8], "truncated"),
        }
        rest = replace(catalog, items=tuple(i for n, i in enumerate(catalog.items) if n not in lost))
        assert len(pictures) == len(rest.items)
        made = everything(pictures).astype(int)
        assert np.abs(made - expected(rest)).mean((1, 2, 3)).max() < (1e-9 if limit else 2.5)


@EACH
def test_files_that_are_away_are_missed_only_while_they_are(
    folder: Path, ask: Ask, limit: int, tmp_path: Path
) -> None:
    catalog = scan(folder)
    keys = digests(catalog, 1, None)
    away, changed = folder / catalog.items[2].file, folder / catalog.items[5].file
    away.rename(folder / "away")
    old = changed.read_bytes()
    changed.write_bytes(old + b"more")
    _, lost = ask(catalog, limit, keys=keys)
    assert {index: one.kind for index, one in lost.items()} == {2: "missing", 5: "changed"}
    assert "cannot be read any more: No such file" in lost[2].reason
    changed.write_bytes(old)
    keys = digests(catalog, 1, None)
    assert keys[2] == ""
    ask(catalog, limit, keys=keys)
    made = {path: path.stat().st_ino for path in (tmp_path / "kept").iterdir()}
    _, lost = ask(catalog, limit, keys=keys)  # what was made without it is taken while it is away
    assert {index: one.kind for index, one in lost.items()} == {2: "missing"}
    assert {path: path.stat().st_ino for path in (tmp_path / "kept").iterdir()} == made
    (folder / "away").rename(away)
    keys = digests(catalog, 1, None)
    pictures, lost = ask(catalog, limit, keys=keys)
    assert lost == {}
    assert len(pictures) == len(catalog.items)


def test_a_set_of_which_nothing_decodes_is_refused_and_an_empty_one_is_empty(folder: Path, ask: Ask) -> None:
    catalog = scan(folder)
    none, lost = ask(replace(catalog, items=()))
    assert (len(none), lost, everything(none).shape) == (0, {}, (0, 20, 24, 3))
    assert len(none.order(0, 0)) == 0
    for item in catalog.items:
        (folder / item.file).write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none of 39 pictures decodes \(a/00.jpg: no picture of a known"):
        ask(catalog)


@pytest.mark.parametrize("harm", ["cut", "longer", "pixel", "text", "header", "seal", "empty"])
def test_a_file_that_was_harmed_is_made_anew(folder: Path, ask: Ask, tmp_path: Path, harm: str) -> None:
    catalog = scan(folder)
    ask(catalog)
    (path,) = (tmp_path / "kept").iterdir()
    data = bytearray(path.read_bytes())
    whole = bytes(data)
    match harm:
        case "cut":
            del data[-5000:]
        case "longer":
            data += b"x"
        case "pixel":
            data[9000] ^= 1
        case "text":
            data[-60] ^= 1
        case "header":
            data[60] ^= 1
        case "seal":
            data[-1] ^= 1
        case "empty":
            data.clear()
    path.write_bytes(data)
    pictures, _ = ask(catalog)
    assert np.array_equal(everything(pictures), expected(catalog))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("harm", ["cut", "byte", "gone", "index"])
def test_shards_that_were_harmed_are_made_anew(folder: Path, ask: Ask, tmp_path: Path, harm: str) -> None:
    catalog = scan(folder)
    before = everything(ask(catalog, NOTHING)[0])
    (place,) = (tmp_path / "kept").iterdir()
    shard = place / "000000.tar"
    data = bytearray(shard.read_bytes())
    if harm == "gone":
        shard.unlink()
    elif harm == "index":
        (place / shards.INDEX).write_bytes((place / shards.INDEX).read_bytes()[:-9])
    else:
        data[2000] ^= 255
        shard.write_bytes(data if harm == "byte" else data[:3000])
    assert np.array_equal(everything(ask(catalog, NOTHING)[0]), before)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [place.name]


def test_a_file_in_numpys_own_form(folder: Path, ask: Ask, tmp_path: Path) -> None:
    catalog = scan(folder)
    ask(catalog)
    (path,) = (tmp_path / "kept").iterdir()
    assert np.array_equal(np.load(path), expected(catalog))


MAKE = """
import sys
from pathlib import Path
from mobilenets.data.catalog import scan
from mobilenets.data.decoded import decoded
from mobilenets.data.digests import digests
from mobilenets.spec.preprocess import Preprocess
catalog = scan(Path(sys.argv[1]))
pictures, lost = decoded(
    catalog, catalog.items, Preprocess(height=20, width=24, geometry="stretch"), Path(sys.argv[2]),
    workers=0, progress=lambda *_: print(*_, flush=True), keys=digests(catalog, 1, None),
    limit_bytes=int(sys.argv[3]),
)
print("made", len(pictures), flush=True)
"""
SABOTAGE = """
import os, signal
real, seen = os.{kind}, [0]
def sabotaged(*arguments, **options):
    seen[0] += 1
    if seen[0] == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)
os.{kind} = sabotaged
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
@EACH
def test_a_maker_that_is_killed_leaves_nothing_that_is_read(
    folder: Path, ask: Ask, limit: int, tmp_path: Path
) -> None:
    """Killed before the first byte is on the disk, before the last is, and before the name is given."""
    catalog, place = scan(folder), tmp_path / "kept"
    for kind, number in (
        ("posix_fallocate" if limit else "mkdir", 1),
        ("fsync", 1),
        ("replace", 1 if limit else 2),
    ):
        if not hasattr(os, kind):
            continue
        script = SABOTAGE.format(kind=kind, number=number) + MAKE
        if kind == "mkdir":
            place.mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, "-c", script, folder, place, str(limit)], capture_output=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        assert not [path for path in place.iterdir() if not path.name.startswith(".")]
    pictures, _ = ask(catalog, limit)
    assert np.abs(everything(pictures).astype(int) - expected(catalog)).mean() < 2.5
    old = time.time() - 2 * module.ABANDONED_S
    for path in [*place.glob(".*"), *place.glob(".*/*")]:
        os.utime(path, (old, old))
    ask(catalog, limit, target=replace(SIZE, height=3))
    left = [path.name for path in place.iterdir() if path.name.endswith(".part")]
    assert left == []


@EACH
def test_several_makers_at_once_make_it_once(folder: Path, ask: Ask, limit: int, tmp_path: Path) -> None:
    catalog = scan(folder)
    command = [sys.executable, "-c", MAKE, folder, tmp_path / "kept", str(limit)]
    crowd = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    said = [one.communicate() for one in crowd]
    assert [one.returncode for one in crowd] == [0, 0, 0], said
    assert all(out.endswith(b"made 39\n") for out, _ in said)
    if os.name == "posix":
        assert sum(b"decode" in out for out, _ in said) == 1
    assert [path.name[0] for path in (tmp_path / "kept").iterdir()] == ["d"]
    assert len(ask(catalog, limit)[0]) == 39


def test_who_waits_goes_on_when_the_maker_is_dead(folder: Path, ask: Ask, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no locks of this kind here")
    stopped = "import os, signal\nos.fsync = lambda handle: os.kill(os.getpid(), signal.SIGSTOP)\n"
    first = subprocess.Popen([sys.executable, "-c", stopped + MAKE, folder, tmp_path / "kept", str(PLENTY)])
    try:
        until = time.monotonic() + 30
        while not list((tmp_path / "kept").glob(".*.part")) and time.monotonic() < until:
            time.sleep(0.02)
        told: list[str] = []
        found: list[Decoded] = []
        catalog = scan(folder)
        thread = threading.Thread(
            target=lambda: found.append(ask(catalog, progress=lambda stage, *_: told.append(stage))[0])
        )
        thread.start()
        time.sleep(0.5)
        assert found == []
        assert set(told) == {"wait"}
    finally:
        first.kill()
        first.wait()
    thread.join(30)
    assert np.array_equal(everything(found[0]), expected(catalog))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of 256 KB: this needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_what_does_not_fit_decoded_is_kept_in_shards_and_else_refused_before_any_work(
    folder: Path, ask: Ask, small_disk: Path
) -> None:
    catalog = scan(folder)
    target = Preprocess(height=60, width=60, geometry="stretch")  # 421 KB decoded, some 100 encoded
    stages: list[str] = []
    pictures, _ = ask(catalog, None, folder=small_disk / "kept", target=target)
    assert isinstance(pictures, Sharded)
    shutil.rmtree(small_disk / "kept")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - (20 << 10)))
    with pytest.raises(OSError, match="39 pictures of 60 × 60 need about") as error:
        ask(
            catalog,
            None,
            folder=small_disk / "kept",
            target=target,
            progress=lambda stage, *_: stages.append(stage),
        )
    assert stages == []
    assert "bytes are free; make room, or name another folder" in str(error.value).replace(
        "are free", "bytes are free"
    )
    assert error.value.filename == str(small_disk / "kept")
    assert list((small_disk / "kept").iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_leaves_nothing_behind(
    folder: Path, ask: Ask, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog, place = scan(folder), small_disk / "kept"
    usage = shutil.disk_usage(small_disk)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1 << 30))
    for limit in (PLENTY, NOTHING):
        (small_disk / "filler").write_bytes(bytes(240 << 10))
        with pytest.raises(OSError, match="39 pictures of 60 × 60 need 4") as error:
            ask(catalog, limit, folder=place, target=Preprocess(height=60, width=60, geometry="stretch"))
        assert error.value.filename == str(place)
        assert list(place.iterdir()) == []
        (small_disk / "filler").unlink()


@pytest.mark.parametrize("of", ["pictures", "a teacher"])
def test_what_was_long_unused_goes_first_where_room_is_needed(
    folder: Path, ask: Ask, small_disk: Path, of: str
) -> None:
    catalog = scan(folder)
    ask(catalog, None, folder=small_disk)
    (first,) = small_disk.iterdir()
    if of == "a teacher":
        first = first.rename(small_disk / "said-0123-logits.npy")
    (small_disk / "mine").write_bytes(bytes(150 << 10))
    other = Preprocess(height=24, width=24, geometry="stretch")  # 66 KB
    with pytest.raises(OSError, match="39 pictures of 24 × 24 need about"):
        ask(catalog, None, folder=small_disk, target=other)
    assert first.exists()
    old = time.time() - 2 * module.STALE_S
    os.utime(first, (old, old))
    assert isinstance(ask(catalog, None, folder=small_disk, target=other)[0], Mapped)
    assert not first.exists()
    assert (small_disk / "mine").exists()


DYING = """
import os
from mobilenets.infer import image
real = image._decoded
def dying(data, picture, head, factor):
    if head.width == 13:
        os._exit(9)
    return real(data, picture, head, factor)
image._decoded = dying
"""


def test_a_picture_that_kills_its_worker_is_named_and_its_neighbours_are_kept(
    folder: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are fresh interpreters: what they import first is told by their environment."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DYING)
    Image.new("RGB", (13, 13)).save(folder / "a" / "10.jpg")
    catalog = scan(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), *sys.path]))
    few, gone = ask(catalog, NOTHING, workers=1, folder=tmp_path / "few")
    assert len(few) == 39  # one was added
    pictures, lost = ask(catalog, workers=1)
    assert gone == lost
    (index,) = lost
    assert (lost[index].file, lost[index].kind) == ("a/10.jpg", "crashed")
    assert "died on it, twice (exit 9)" in lost[index].reason
    assert np.array_equal(everything(pictures), np.delete(expected(catalog), index, 0))


@EACH
def test_many_threads_may_ask_at_once(folder: Path, ask: Ask, limit: int) -> None:
    pictures, _ = ask(scan(folder), limit, workers=1)
    whole = everything(pictures)
    wrong: list[int] = []

    def look(seed: int) -> None:
        for epoch in range(5):
            order = pictures.order(seed, epoch)[:20]
            if not np.array_equal(pictures.rows(order), whole[order]):
                wrong.append(seed)

    threads = [threading.Thread(target=look, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shards_altered_while_they_are_in_use_are_named(folder: Path, ask: Ask, tmp_path: Path) -> None:
    pictures, _ = ask(scan(folder), NOTHING)
    (shard,) = (tmp_path / "kept").glob("*/*.tar")
    shard.write_bytes(bytes(shard.stat().st_size))
    with pytest.raises(OSError, match="altered while it was in use") as error:
        everything(pictures)
    assert error.value.filename == str(shard)


def test_real_pictures_come_back_as_they_are(material: Path, ask: Ask, tmp_path: Path) -> None:
    """A hundred of CIFAR-10 at their own size and of tiny ImageNet enlarged, by workers."""
    for name, side in (("cifar10.tar.xz", 32), ("tiny-imagenet-22k.tar", 96)):
        chosen = 0
        with tarfile.open(material / "data" / name) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith((".jpg", ".webp")):
                    tar.extract(member, tmp_path / "real", filter="data")
                    chosen += 1
                    if chosen == 100:
                        break
        place = next((tmp_path / "real").iterdir())
        catalog = scan(next(path for path in sorted(place.iterdir()) if path.is_dir()))
        target = Preprocess(height=side, width=side, geometry="stretch")
        pictures, lost = ask(catalog, target=target, workers=2)
        assert lost == {}
        assert np.array_equal(everything(pictures), expected(catalog, target))
        few, _ = ask(catalog, NOTHING, folder=tmp_path / "shards", target=target, workers=1)
        error = np.abs(everything(few).astype(int) - everything(pictures)).mean()
        assert error < 1.5
        shutil.rmtree(tmp_path / "real")
