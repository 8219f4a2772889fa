"""What was computed once and can be had again: bytes by key, in one SQLite file that is only ever a cache."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

LIMIT_BYTES = 4 << 30
BUSY_S = 20.0
TOUCH_S = 60.0
AT_ONCE = 500
"""Keys in one query: SQLite's older builds take at most 999 parameters."""
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
FULL = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (name TEXT PRIMARY KEY, used REAL NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rows (space TEXT NOT NULL, key TEXT NOT NULL, seal BLOB NOT NULL,
                                 value BLOB NOT NULL, UNIQUE (space, key));
CREATE TRIGGER IF NOT EXISTS more AFTER INSERT ON rows BEGIN
    UPDATE spaces SET bytes = bytes + length(new.value) WHERE name = new.space; END;
CREATE TRIGGER IF NOT EXISTS other AFTER UPDATE OF value ON rows BEGIN
    UPDATE spaces SET bytes = bytes + length(new.value) - length(old.value) WHERE name = new.space; END;
CREATE TRIGGER IF NOT EXISTS fewer AFTER DELETE ON rows BEGIN
    UPDATE spaces SET bytes = bytes - length(old.value) WHERE name = old.space; END;
"""
T = TypeVar("T")


class Store:
    """Bytes by space and key. A space holds what one recipe computed, and is dropped as a whole.

    Nothing here may stop a run: what cannot be read is absent, what cannot be written is not kept, and
    `warning` then says why in one line. Each row is sealed by a digest of space, key and value, and one that
    does not match is dropped. Several processes and threads may use one file; a kill at any moment loses at
    most the last `put_many`.
    """

    def __init__(self, path: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self.warning: str | None = None
        self._lock = threading.RLock()
        self._held: sqlite3.Connection | None = None
        self._process = 0
        self._shut = False
        self._touched: dict[str, float] = {}

    def __getstate__(self) -> tuple[Path, int]:
        return self.path, self.limit_bytes

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # a store in another process opens its own connection

    def get_many(self, space: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The values that are there and whole, by key."""
        found: dict[str, bytes] = {}
        broken: list[str] = []

        def read(base: sqlite3.Connection) -> None:
            found.clear()
            broken.clear()
            for first in range(0, len(keys), AT_ONCE):
                some = keys[first : first + AT_ONCE]
                marks = ",".join("?" * len(some))
                for key, seal, value in base.execute(
                    f"SELECT key, seal, value FROM rows WHERE space = ? AND key IN ({marks})", (space, *some)
                ):
                    if _whole(space, key, seal, value):
                        found[key] = value
                    else:
                        broken.append(key)

        self._attempt(read, None)
        if broken:
            self._attempt(lambda base: _drop(base, space, broken), None)
        if found:
            self._attempt(lambda base: self._touch(base, space), None, quiet=True)
        return found

    def put_many(self, space: str, items: Mapping[str, bytes]) -> bool:
        """Keep all of `items` or none; False (and `warning`) where they could not be kept."""
        if not items or self._shut:
            return not items
        rows = [(space, key, _seal(space, key, value), value) for key, value in items.items()]
        return self._attempt(lambda base: self._write(base, space, rows), False)

    def close(self) -> None:
        """Close the file; a later call opens it again."""
        with self._lock:
            if self._held is not None and self._process == os.getpid():
                self._held.close()
            self._held = None

    def _write(self, base: sqlite3.Connection, space: str, rows: list[tuple[str, str, bytes, bytes]]) -> bool:
        with _transaction(base):
            more = sum(len(row[3]) for row in rows)
            if not self._room(base, space, more):
                self.warning = (
                    f"{self.path}: its limit of {self.limit_bytes} bytes is reached; no more is cached"
                )
                return False
            base.execute("INSERT OR IGNORE INTO spaces VALUES (?, ?, 0)", (space, time.time()))
            base.execute("UPDATE spaces SET used = ? WHERE name = ?", (time.time(), space))
            base.executemany(
                "INSERT INTO rows VALUES (?, ?, ?, ?) ON CONFLICT (space, key) "
                "DO UPDATE SET seal = excluded.seal, value = excluded.value",
                rows,
            )
        return True

    def _room(self, base: sqlite3.Connection, space: str, more: int) -> bool:
        """Make room for `more` bytes by dropping other spaces, the longest unused first."""
        sizes = base.execute("SELECT name, bytes FROM spaces ORDER BY used, name").fetchall()
        total = more + sum(size for _, size in sizes)
        freed = False
        for name, size in sizes:
            if total <= self.limit_bytes:
                break
            if name != space:
                base.execute("DELETE FROM rows WHERE space = ?", (name,))
                base.execute("DELETE FROM spaces WHERE name = ?", (name,))
                total -= size
                freed = True
        if freed:
            base.execute("PRAGMA incremental_vacuum").fetchall()
        return bool(total <= self.limit_bytes)

    def _touch(self, base: sqlite3.Connection, space: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(space, -TOUCH_S) >= TOUCH_S:
            self._touched[space] = now
            with _transaction(base):
                base.execute("UPDATE spaces SET used = ? WHERE name = ?", (time.time(), space))

    def _attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T, quiet: bool = False) -> T:
        """Run `work`; a damaged file is moved aside and the work tried once more on a fresh one."""
        with self._lock:
            for attempt in range(2):
                try:
                    return work(self._base())
                except sqlite3.DatabaseError as error:
                    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                    if code in DAMAGED and attempt == 0 and self._renewed():
                        continue
                    if not quiet:
                        self._gave_up(code, error)
                except OSError as error:
                    if not quiet:
                        self._gave_up(sqlite3.SQLITE_CANTOPEN, error)
                return otherwise
            return otherwise

    def _gave_up(self, code: int, error: Exception) -> None:
        self._shut = self._shut or code in FULL or code in DAMAGED
        self.warning = f"{self.path}: the cache cannot be used ({error}); going on without it"

    def _base(self) -> sqlite3.Connection:
        if self._held is None or self._process != os.getpid():
            self._held, self._process = _opened(self.path), os.getpid()
        return self._held

    def _renewed(self) -> bool:
        """Move the file aside, unless it proves sound: another process may have renewed it already."""
        self.close()
        try:
            with _closing(_opened(self.path)) as base:
                if base.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
                    return True
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGED:
                return False
        try:
            for tail in ("-wal", "-shm", ""):
                part = Path(f"{self.path}{tail}")
                if part.exists():
                    part.replace(f"{part}.damaged")
        except OSError:
            return False
        self.warning = (
            f"{self.path}: the cache was damaged; moved to {self.path.name}.damaged and begun afresh"
        )
        return True


def _seal(space: str, key: str, value: bytes) -> bytes:
    return hashlib.sha256(f"{len(space)} {len(key)} {space}{key}".encode() + value).digest()[:16]


def _whole(space: str, key: str, seal: object, value: object) -> bool:
    return isinstance(value, bytes) and seal == _seal(space, key, value)


def _drop(base: sqlite3.Connection, space: str, keys: Sequence[str]) -> None:
    with _transaction(base):
        base.executemany("DELETE FROM rows WHERE space = ? AND key = ?", [(space, key) for key in keys])


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Transactions are begun by hand; the store's own lock keeps threads apart.
    base = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        base.execute(
            "PRAGMA auto_vacuum = INCREMENTAL"
        )  # only takes hold in a new file: dropped spaces shrink it
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        if base.execute("SELECT count(*) FROM sqlite_master WHERE name = 'fewer'").fetchone() == (0,):
            base.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
    except BaseException:
        base.close()
        raise
    return base


@contextmanager
def _closing(base: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield base
    finally:
        base.close()


@contextmanager
def _transaction(base: sqlite3.Connection) -> Iterator[None]:
    base.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if base.in_transaction:
            base.execute("ROLLBACK")
        raise
    base.execute("COMMIT")
