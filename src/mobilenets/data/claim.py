"""One process at a time makes a file; the others wait until it is there, or its maker dead."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

POLL_S = 0.1


@contextmanager
def claimed(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Nobody else is in here for the same `path`; `waiting` is called now and then until then.

    Held by a lock on a file beside it, which the system takes back from a process that dies. Where there are
    no such locks (Windows, some network file systems) nobody waits: who makes a file under a name of its own
    and puts it in place in one step does no harm to another.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    while True:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(POLL_S)
                except OSError:  # a file system without locks
                    break
            if _same(handle, lock):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the one before has removed it: another may be waiting at a new one
    try:
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(handle)


def _same(handle: int, path: Path) -> bool:
    try:
        there, held = path.stat(), os.fstat(handle)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)
