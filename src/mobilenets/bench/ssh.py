"""A board by the system's `ssh`: its words, a folder that goes with the connection, what went wrong."""

from __future__ import annotations

import io
import os
import re
import selectors
import shlex
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mobilenets.data.digests import Progress

COMMAND = "MOBILENETS_SSH"
"""The words to call in place of `ssh`, such as `ssh -F FILE`."""
SILENT = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR"),
    *("-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=3", "-o", "ClearAllForwardings=yes"),
)
"""Never a question, none of the user's tunnels, half a minute until a silent board counts as gone."""
NAME = re.compile(
    r"(?P<user>[^\s@:\-][^\s@:]*@)?(?P<name>[^\s@:\-\[][^\s@:]*|\[[0-9A-Fa-f:.]+(%\w+)?\])(:(?P<port>\d{1,5}))?"
)
GREET_S, LEAVE_S = 60.0, 20.0
"""For a connection and its first line; for what was copied to be removed."""
LOST, CANNOT_RUN, UNPACKED = 255, (126, 127), 90
"""Exit codes: ssh's own, a shell's for what it cannot run, and ours for what `tar` could not unpack."""
CHUNK = 1 << 16
MARK = "mobilenets:"
"""Goes before what we read: a shell's own start files may speak first."""


@dataclass(frozen=True, slots=True)
class Host:
    """A board: its name as it was given, and the words that go before a command for it."""

    name: str
    words: tuple[str, ...]
    plain: str
    """A command by which a user sees whether it can be reached."""

    def command(self, script: str) -> list[str]:
        """The words that run `script` there by `sh`, whichever shell the user has; it holds no ' and no !."""
        return [*self.words, f"exec sh -c {shlex.quote(script)}"]

    def __str__(self) -> str:
        return f"--on {self.name}"


def host(text: str) -> Host:
    """The board of `[user@]host[:port]`, or of a Host in ssh's configuration. ValueError for others."""
    found = NAME.fullmatch(text)
    if found is None:
        raise ValueError(f"--on {text}: give user@board, user@board:port, or a Host of ssh's configuration")
    try:
        words = shlex.split(os.environ.get(COMMAND, "")) or ["ssh"]
    except ValueError as error:
        raise ValueError(
            f"{COMMAND}={os.environ[COMMAND]}: {error}; give words, as a shell has them"
        ) from error
    name = (found["user"] or "") + found["name"].strip("[]")
    port = ("-p", found["port"]) if found["port"] else ()
    return Host(text, (*words, *SILENT, *port, "--", name), shlex.join([*words, *port, name, "true"]))


def asked(board: Host, script: str, doing: str, data: bytes = b"", progress: Progress | None = None) -> str:
    """What `script` says there, fed `data`. Raises what `failure` makes of another end than 0.

    Fed nothing, it has a minute.
    """
    with tempfile.TemporaryFile() as said:
        process = _started(board, script, said)
        assert process.stdin is not None
        assert process.stdout is not None
        late = threading.Event()

        def give_up() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(GREET_S, give_up)
        try:
            sent = 0
            try:
                while sent < len(data):
                    sent += process.stdin.write(data[sent : sent + CHUNK])
                    if progress is not None:
                        progress("copy", sent, len(data))
            except BrokenPipeError:
                pass  # it ended before it had read all: its code says why
            process.stdin.close()
            if not data:
                timer.start()
            told = process.stdout.read()
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
        if late.is_set():
            raise ValueError(f"{board}: no answer within {GREET_S:.0f} s")
        if code:
            raise failure(board, code, _lines(said), doing)
    return told.decode(errors="replace")


@contextmanager
def folder(board: Host, within: str) -> Iterator[str]:
    """A new folder in `within`, as the shell there spells it; gone in the end, whichever way that comes.

    A shell waits there for the end of its input, which the end of a connection is too, and of this process.
    """
    script = (
        f'umask 077; d=$(mktemp -d "{within}/mobilenets-XXXXXX") || exit 1; trap "rm -rf \\"$d\\"" EXIT; '
        f'trap "exit 1" HUP INT TERM; echo "{MARK}$d"; while read -r line; do :; done'
    )
    with tempfile.TemporaryFile() as said:
        process = _started(board, script, said)
        try:
            place = _first_line(process, board)
            if place is None:
                code, lines = process.wait(), _lines(said)
                if code in (0, LOST):
                    raise failure(board, code, lines, "")
                raise PlaceError(lines[-1] if lines else f"`mktemp` ended with {code}")
            if re.search(r"[\s\"'$`\\!]", place):
                raise ValueError(f"{board}: {place}: no name that a shell takes; set TMPDIR there to another")
            yield place
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(LEAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def copied(board: Host, place: str, files: Sequence[tuple[str, Path]], progress: Progress) -> None:
    """Copy files in one go under the names given, and see that `./NAME` of the first can be run there."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, path in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = path.stat().st_size, 0o700, int(time.time())
            with path.open("rb") as file:
                archive.addfile(member, file)
    # Without words a program of ours only complains, with code 1 or 2.
    script = (
        f'cd "{place}" && tar -xf - || exit {UNPACKED}; ./{files[0][0]} </dev/null >/dev/null; c=$?; '
        f"[ $c -gt 2 ] && exit $c; exit 0"
    )
    asked(board, script, "copying", packed.getvalue(), progress)


def failure(board: Host, code: int, said: Sequence[str], doing: str) -> Exception:
    """What the end of a command with `code` comes to, as a line; `doing` is empty while nothing was begun."""
    last = said[-1] if said else ""
    if code < 0:
        return RuntimeError(f"{board}: ssh was ended by {signal.Signals(-code).name}")
    if code == LOST:
        told = last or "ssh gives no reason"
        if not doing:
            return ValueError(f"{board}: {told}; first make `{board.plain}` work without a question")
        return RuntimeError(
            f"{board}: the connection was lost while {doing}: {told}; nothing was kept, try again"
        )
    if code == UNPACKED:
        full = (line for line in said if "space" in line.lower() or "quota" in line.lower())
        return PlaceError(f"what is copied cannot be unpacked ({next(full, (*said, 'why is not said')[0])})")
    if code in CANNOT_RUN:
        return PlaceError(f"nothing may be run from there ({last})")
    if code > 128:
        number = code - 128
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        why = {
            "SIGKILL": ", as a system does that is out of memory: try a smaller network or fewer threads",
            "SIGILL": ": its processor lacks instructions that this code needs",
        }.get(name, "")
        return RuntimeError(f"{board}: the program was ended there by {name}{why}")
    return RuntimeError(f"{board}: code {code} while {doing or 'connecting'}: {last or 'it said nothing'}")


class PlaceError(RuntimeError):
    """A folder on the board that cannot serve: full, or nothing may be run from there."""


def _started(board: Host, script: str, said: IO[bytes]) -> subprocess.Popen[bytes]:
    words = board.command(script)
    try:
        return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, bufsize=0)
    except OSError as error:
        told = "no ssh on this machine: install OpenSSH's client"
        if COMMAND in os.environ:
            told = f"{words[0]}, of {COMMAND}: {error.strerror}"
        raise ValueError(f"{board}: {told}") from error


def _first_line(process: subprocess.Popen[bytes], board: Host) -> str | None:
    """What follows our mark; None where the process ended before."""
    assert process.stdout is not None
    until, text = time.monotonic() + GREET_S, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ)
        while not (found := re.search(MARK.encode() + rb"(.*)\n", text)):
            if not waiting.select(max(0.0, until - time.monotonic())):
                process.kill()
                raise ValueError(f"{board}: no answer within {GREET_S:.0f} s")
            data = os.read(process.stdout.fileno(), CHUNK)
            if not data:
                return None
            text += data
    return found[1].decode(errors="replace")


def _lines(said: IO[bytes]) -> list[str]:
    said.seek(0)
    lines = (line.strip() for line in said.read().decode(errors="replace").splitlines())
    return [line for line in lines if line]
