"""A file's digest is recalled while the file is as it was, and taken anew where it may not be."""

from __future__ import annotations

import hashlib
import os
import time
import zipfile
from pathlib import Path

import pytest

from mobilenets.data.catalog import Catalog, Item, scan
from mobilenets.data.digests import digests
from mobilenets.data.store import Store

LATER = 60.0
TELLS = pytest.mark.skipif(os.name == "nt", reason="no time of the last change: nothing is remembered")


class Reads:
    """Which items were read from disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        read = Catalog.read

        def counted(catalog: Catalog, item: Item) -> bytes:
            self.seen.append(item.file)
            return read(catalog, item)

        monkeypatch.setattr(Catalog, "read", counted)

    def during(self, catalog: Catalog, store: Store, now: float) -> tuple[list[str], list[str]]:
        """The digests, and the files that were read for them."""
        self.seen.clear()
        found = digests(catalog, 2, store, now=now)
        return found, sorted(self.seen)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache.sqlite")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label in "ab":
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "set" / label / f"{number}.jpg").write_bytes(f"{label}{number}".encode())
    return tmp_path / "set"


def test_a_digest_is_the_sha256_of_the_bytes(folder: Path, store: Store) -> None:
    catalog = scan(folder)
    assert digests(catalog, 2, store) == [
        hashlib.sha256((folder / item.file).read_bytes()).hexdigest() for item in catalog.items
    ]


@TELLS
def test_a_file_that_stayed_as_it_was_is_not_read_again(folder: Path, store: Store, reads: Reads) -> None:
    catalog, later = scan(folder), time.time() + LATER
    first, read = reads.during(catalog, store, later)
    assert len(read) == 6
    assert reads.during(catalog, store, later) == (first, [])
    (folder / "a" / "new.jpg").write_bytes(b"new")
    assert reads.during(scan(folder), store, later)[1] == ["a/new.jpg"]


def test_a_file_just_written_is_not_remembered(folder: Path, store: Store, reads: Reads) -> None:
    """Another change could come within the same tick of the file system's clock."""
    now = time.time()
    assert len(reads.during(scan(folder), store, now)[1]) == 6
    assert len(reads.during(scan(folder), store, now)[1]) == 6


@TELLS
def test_a_change_that_keeps_size_and_time_is_seen(folder: Path, store: Store, reads: Reads) -> None:
    catalog, later = scan(folder), time.time() + LATER
    first, _ = reads.during(catalog, store, later)
    changed = folder / "a" / "1.jpg"
    times = changed.stat()
    time.sleep(0.02)  # a tick of the clock
    changed.write_bytes(b"xy")
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    again, read = reads.during(catalog, store, later)
    assert read == ["a/1.jpg"]
    assert again[1] == hashlib.sha256(b"xy").hexdigest()
    assert again[2:] == first[2:]


def test_a_file_that_cannot_be_read_has_no_digest_though_one_is_known(
    folder: Path, store: Store, reads: Reads
) -> None:
    catalog, later = scan(folder), time.time() + LATER
    reads.during(catalog, store, later)
    (folder / "b" / "0.jpg").unlink()
    again, read = reads.during(catalog, store, later)
    assert again[3] == ""
    assert read == ["b/0.jpg"]


@TELLS
def test_a_zip_that_was_replaced_is_read_anew(tmp_path: Path, store: Store, reads: Reads) -> None:
    def packed(text: bytes) -> None:
        with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
            for name in ("a/0.jpg", "b/0.jpg"):
                archive.writestr(name, text + name.encode())
        (tmp_path / "new.zip").replace(tmp_path / "set.zip")

    later = time.time() + LATER
    packed(b"old")
    first, _ = reads.during(scan(tmp_path / "set.zip"), store, later)
    assert reads.during(scan(tmp_path / "set.zip"), store, later) == (first, [])
    packed(b"new")
    again, read = reads.during(scan(tmp_path / "set.zip"), store, later)
    assert read == ["a/0.jpg", "b/0.jpg"]
    assert again == [hashlib.sha256(b"new" + name).hexdigest() for name in (b"a/0.jpg", b"b/0.jpg")]
