"""The cache gives back what was put or nothing, whatever happens to its file."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.data.store import AT_ONCE, Store

WRITER = """
import hashlib, sys
from pathlib import Path
from mobilenets.data.store import Store

store, number = Store(Path(sys.argv[1])), int(sys.argv[2])
print("ready", flush=True)
while True:
    keys = [f"{number}-{k}" for k in range(50)]
    store.put_many("space", {key: hashlib.sha256(key.encode()).digest() * 128 for key in keys})
    number += 1
"""


def value(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest() * 128


def sound(path: Path) -> bool:
    base = sqlite3.connect(path)
    try:
        return bool(base.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    finally:
        base.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "store.db"


@given(st.dictionaries(st.text(max_size=20), st.binary(max_size=200), max_size=20))
def test_what_was_put_comes_back_and_nothing_else(items: dict[str, bytes]) -> None:
    store = Store(Path(":memory:"))
    assert store.put_many("a", items)
    assert store.get_many("a", [*items, "another"]) == items
    assert store.get_many("b", list(items)) == {}
    store.close()


def test_values_outlive_the_store_and_the_newest_wins(path: Path) -> None:
    with_values = Store(path)
    assert with_values.put_many("a", {"k": b"old", "l": b"kept"})
    assert with_values.put_many("a", {"k": b"new"})
    with_values.close()
    again = Store(path)
    assert again.get_many("a", ["k", "l"]) == {"k": b"new", "l": b"kept"}
    assert again.warning is None
    again.close()


def test_more_keys_than_one_query_takes_are_found(path: Path) -> None:
    keys = [f"{k}" for k in range(2 * AT_ONCE + 3)]
    store = Store(path)
    assert store.put_many("a", {key: value(key) for key in keys})
    assert store.get_many("a", keys) == {key: value(key) for key in keys}
    store.close()


@pytest.mark.parametrize("column", ["value", "seal", "key", "space"])
def test_an_altered_row_is_not_read_and_is_dropped(path: Path, column: str) -> None:
    store = Store(path)
    store.put_many("a", {"k": b"good", "l": b"also good"})
    store.close()
    base = sqlite3.connect(path)
    change = {"value": b"evil", "seal": b"0" * 16, "key": "m", "space": "b"}[column]
    base.execute(f"UPDATE rows SET {column} = ? WHERE key = 'k'", (change,))
    base.commit()
    base.close()
    space, key = ("b" if column == "space" else "a"), ("m" if column == "key" else "k")
    assert store.get_many(space, [key, "l"]) == ({} if column == "space" else {"l": b"also good"})
    count = store._base().execute("SELECT count(*) FROM rows").fetchone()
    assert count == (1,)
    assert store.put_many("a", {"k": b"good"})
    assert store.get_many("a", ["k"]) == {"k": b"good"}
    store.close()


@pytest.mark.parametrize("damage", ["garbage", "truncated", "middle", "empty"])
def test_a_damaged_file_is_moved_aside_and_a_fresh_one_begun(path: Path, damage: str) -> None:
    keys = [f"{k}" for k in range(300)]
    store = Store(path)
    store.put_many("a", {key: value(key) for key in keys})
    store.close()
    data = path.read_bytes()
    changed = {
        "garbage": random.Random(0).randbytes(5000),
        "truncated": data[: len(data) // 3],
        "middle": data[:8192] + bytes(len(data) - 16384) + data[-8192:],
        "empty": b"",
    }[damage]
    path.write_bytes(changed)
    store = Store(path)
    found = store.get_many("a", keys)
    assert all(found[key] == value(key) for key in found)
    assert store.put_many("a", {key: value(key) for key in keys})
    assert store.get_many("a", keys) == {key: value(key) for key in keys}
    store.close()
    assert sound(path)
    if damage != "empty":
        assert path.with_name("store.db.damaged").exists()
        assert store.warning is not None
        assert "begun afresh" in store.warning


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_one_wrong_byte_anywhere_never_gives_a_wrong_value(place: int, flip: int) -> None:
    keys = [f"{k}" for k in range(8)]
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"flip-{os.getpid()}.db"
    try:
        store = Store(path)
        store.put_many("a", {key: value(key)[:900] for key in keys})
        store.close()
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= flip
        path.write_bytes(data)
        found = store.get_many("a", keys)
        assert all(found[key] == value(key)[:900] for key in found)
        store.close()
    finally:
        for left in path.parent.glob(f"{path.name}*"):
            left.unlink()


def test_a_kill_at_any_moment_leaves_whole_rows_and_a_sound_file(path: Path) -> None:
    dice, ever = random.Random(0), 0
    for turn in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(turn * 1000)], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(dice.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store = Store(path)
        keys = [f"{number}-{k}" for number in range(turn * 1000, turn * 1000 + 200) for k in range(50)]
        found = store.get_many("space", keys)
        assert all(found[key] == value(key) for key in found)
        per_batch = [
            sum(f"{number}-{k}" in found for k in range(50))
            for number in range(turn * 1000, turn * 1000 + 200)
        ]
        assert set(per_batch) <= {0, 50}, "a batch is there as a whole or not at all"
        assert store.warning is None
        store.close()
        assert sound(path)
        ever += len(found)
    assert ever >= 50, "the writers got far enough to be killed in their work"


def test_two_processes_write_and_read_at_once(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)], stdout=subprocess.PIPE)
        for number in (0, 500_000)
    ]
    store = Store(path)
    try:
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = [store.get_many("space", [f"{number}-0"]) for number in (3, 500_003)]
            if all(found):
                break
        assert found == [{f"{number}-0": value(f"{number}-0")} for number in (3, 500_003)]
        assert store.put_many("mine", {"k": b"v"})
        assert store.warning is None
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        store.close()
    assert sound(path)


def test_threads_share_one_store(path: Path) -> None:
    store, wrong = Store(path), []

    def work(number: int) -> None:
        for k in range(20):
            key = f"{number}-{k}"
            store.put_many("a", {key: value(key)})
            if store.get_many("a", [key]) != {key: value(key)}:
                wrong.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert not wrong


def test_a_store_travels_to_another_process(path: Path) -> None:
    store = Store(path, 1 << 20)
    store.put_many("a", {"k": b"v"})
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.path, copy.limit_bytes) == (path, 1 << 20)
    assert copy.get_many("a", ["k"]) == {"k": b"v"}
    copy.close()
    store.close()


def test_a_full_database_keeps_what_it_has_and_says_so(path: Path) -> None:
    store = Store(path)
    assert store.put_many("a", {"k": b"v"})
    store._base().execute("PRAGMA max_page_count = 20")  # SQLite's own way to run out of room
    assert not store.put_many("a", {str(k): value(str(k)) for k in range(100)})
    assert store.warning is not None
    assert "full" in store.warning
    assert "\n" not in store.warning
    assert store.get_many("a", ["k", "1"]) == {"k": b"v"}
    assert not store.put_many("a", {"l": b"v"}), "it does not try a full disk again"
    store.close()


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a file system of 256 KB: this needs the right to mount")
    try:
        store = Store(place / "store.db")
        kept = [k for k in range(200) if store.put_many("a", {f"{k}": value(f"{k}")})]
        assert 0 < len(kept) < 200
        assert store.warning is not None
        found = store.get_many("a", [f"{k}" for k in range(200)])
        assert found == {f"{k}": value(f"{k}") for k in kept}
        store.close()
        again = Store(place / "store.db")
        found = again.get_many("a", [f"{k}" for k in range(200)])
        assert all(found[key] == value(key) for key in found)
        again.close()
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("where", ["folder", "below-a-file"])
def test_a_place_where_no_file_can_be_is_a_warning(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    store = Store(tmp_path / "folder" if where == "folder" else tmp_path / "file" / "store.db")
    assert store.get_many("a", ["k"]) == {}
    assert not store.put_many("a", {"k": b"v"})
    assert store.warning is not None
    assert "going on without it" in store.warning
    store.close()


def test_the_space_unused_for_longest_goes_first_and_the_file_shrinks(path: Path) -> None:
    store = Store(path, limit_bytes=1_000_000)
    for space in "abc":
        assert store.put_many(space, {str(k): value(str(k)) for k in range(75)})  # 300 KB each
        time.sleep(0.02)
    store._touched.clear()
    store.get_many("a", ["1"])
    assert store.put_many("d", {str(k): value(str(k)) for k in range(75)})
    sizes = {space: len(store.get_many(space, [str(k) for k in range(75)])) for space in "abcd"}
    assert sizes == {"a": 75, "b": 0, "c": 75, "d": 75}
    assert store.warning is None
    (total,) = store._base().execute("SELECT sum(bytes) FROM spaces").fetchone()
    assert total == 3 * 75 * 4096
    store.close()
    assert path.stat().st_size < 1_300_000


def test_a_space_that_alone_passes_the_limit_is_kept_up_to_it(path: Path) -> None:
    store = Store(path, limit_bytes=100_000)
    assert store.put_many("a", {str(k): value(str(k)) for k in range(20)})
    assert not store.put_many("a", {str(k): value(str(k)) for k in range(20, 40)})
    assert store.warning is not None
    assert "limit" in store.warning
    assert len(store.get_many("a", [str(k) for k in range(40)])) == 20
    store.close()


def test_sizes_stay_true_when_values_are_replaced(path: Path) -> None:
    store = Store(path)
    for size in (10, 500, 3):
        store.put_many("a", {"k": bytes(size), "l": b"1234"})
    assert store._base().execute("SELECT bytes FROM spaces").fetchone() == (7,)
    store.close()
