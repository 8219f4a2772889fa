"""Measuring on a board, which is an sshd on this machine: what comes back, what stays, what is refused."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from getpass import getuser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mobilenets.bench import ssh
from mobilenets.bench.board import greeted

from .test_bench import KEYS

Ask = Callable[..., Any]
SMALL = ("--width", 0.25, "--resolution", 32)
SHORT = ("--rounds", 2, "--turn-ms", 3)
LONG = ("--rounds", 100_000, "--turn-ms", 3)
SSHD = shutil.which("sshd") or next(iter(Path("/usr/sbin").glob("sshd")), None)
LIMIT_S = 60

if not sys.platform.startswith("linux"):
    pytest.skip("boards run Linux, and so does what stands in for one", allow_module_level=True)
if SSHD is None or shutil.which("ssh") is None:
    pytest.skip("no sshd and ssh on this machine: Debian's package openssh-server", allow_module_level=True)
if find_spec("ziglang") is None:
    pytest.skip("ziglang, the cross compiler, is not installed", allow_module_level=True)

UNAME = "#!/bin/sh\necho {told}\n"
CAT = """#!/bin/sh
[ "$1" = /proc/cpuinfo ] || exec /bin/cat "$@"
for core in 0 1 2 3; do
printf 'processor\\t: %s\\nFeatures\\t: fp asimd evtstrm crc32\\n' $core
printf 'CPU implementer\\t: 0x41\\nCPU part\\t: 0xd08\\n\\n'
done
"""
QEMU = "qemu-aarch64 -cpu cortex-a76 "
# A board whose shell sees to a command first; `$c` is the command.
PLAIN = ""
EMULATED = f"""c=$(printf '%s' "$c" | sed 's#\\./\\(float32\\|int8\\)-#{QEMU}&#g')"""
FLIPPED = (
    """c=$(printf '%s' "$c" | sed 's#tar -xf -#& \\&\\& printf U | dd bs=1 seek=5000 conv=notrunc """
    """of=int8-model.weights 2>/dev/null#')"""
)
MUDDLED = """c=$(printf '%s' "$c" | sed 's#"$0";#"$0" | sed -u "s/[[][^,]*/[1e3/";#')"""


@dataclass(frozen=True)
class Boards:
    """Boards that are this machine, each a key of one sshd: their folders, what makes ssh find them."""

    folder: Path
    listener: int
    port: int

    def env(self) -> dict[str, str]:
        return {"MOBILENETS_SSH": f"ssh -F {self.folder}/config"}

    def add(self, name: str, before: str = PLAIN, *, home: Path | None = None, **programs: str) -> Path:
        """A board whose shell begins with `before`, with programs of its own; the folder that files go to."""
        own = self.folder / name
        for place in ("bin", "tmp", "home"):
            (own / place).mkdir(parents=True)
        for program, text in programs.items():
            (own / "bin" / program).write_text(text)
            (own / "bin" / program).chmod(0o755)
        shell = own / "shell"
        shell.write_text(
            f'#!/bin/sh\nexport PATH="{own}/bin:$PATH" TMPDIR="{own}/tmp" HOME="{home or own / "home"}"\n'
            f'c=$SSH_ORIGINAL_COMMAND\n{before}\nexec /bin/sh -c "$c"\n'
        )
        shell.chmod(0o755)
        keyed(own / "key")
        with (self.folder / "authorized").open("a") as file:
            file.write(f'restrict,command="{shell}" {(own / "key.pub").read_text()}')
        self.known(name, own / "key")
        return own / "tmp"

    def known(self, name: str, key: Path, port: int | None = None, hosts: str = "known") -> None:
        """Tell ssh of a board."""
        with (self.folder / "config").open("a") as file:
            file.write(
                f"Host {name}\n HostName 127.0.0.1\n Port {port or self.port}\n User {getuser()}\n"
                f" IdentityFile {key}\n IdentitiesOnly yes\n UserKnownHostsFile {self.folder / hosts}\n"
                f" GlobalKnownHostsFile /dev/null\n"
            )

    def sessions(self) -> list[int]:
        """Processes of sshd that serve a connection."""
        return [pid for pid, parent, _ in processes() if parent == self.listener]


def processes() -> Iterator[tuple[int, int, str]]:
    """Of every process its number, its parent's, and its name."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, rest = stat.read_text().rpartition(")")
        except OSError:  # it ended while we looked
            continue
        yield int(stat.parent.name), int(rest.split()[1]), head.partition("(")[2]


def keyed(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    folder = tmp_path_factory.mktemp("boards")
    folder.chmod(0o755)
    keyed(folder / "host")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "authorized").touch()
    (folder / "sshd").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, as root, is locked in before a user is known
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen([str(SSHD), "-D", "-e", "-f", folder / "sshd"], stderr=log)
    made = Boards(folder, daemon.pid, port)
    try:
        made.add("board")
        awaited(lambda: reached(port) or daemon.poll() is not None)
        if daemon.poll() is not None:
            pytest.skip(f"sshd does not start here: {(folder / 'log').read_text()}")
        yield made
    finally:
        for pid in made.sessions():
            os.kill(pid, signal.SIGKILL)
        daemon.terminate()
        daemon.wait()


def reached(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def awaited(there: Callable[[], Any]) -> Any:
    until = time.monotonic() + LIMIT_S
    while not (found := there()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def measured(ask: Ask, boards: Boards, tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("measured")
    words = ("--threads", "1,2", "--dtype", "float32,int8", "--watts", "2.1", "--out", out, "--json")
    words += ("--engines", "ours,ncnn")
    return out, ask("bench", "v1", *SMALL, *SHORT, "--on", "board", *words, env=boards.env()).facts


def test_ours_is_measured_on_a_board_and_nothing_stays_there(measured: Any, boards: Boards) -> None:
    facts = measured[1]
    assert [(row["dtype"], row["threads"]) for row in facts["rows"]] == [
        *(("float32", 1), ("float32", 2), ("int8", 1), ("int8", 2))
    ]
    for row in facts["rows"]:
        assert set(row) == KEYS
        assert (row["engine"], row["call"]) == ("ours", "c")
        assert 0 < row["p10_ms"] <= row["latency_ms"] <= row["p90_ms"]
        assert row["n"] >= 2 * 3
        assert 0.1 < row["peak_rss_mb"] < 50
        assert row["energy_mj"] == pytest.approx(2.1 * row["latency_ms"], rel=1e-3)
        assert (row["watts"], row["watts_from"]) == (2.1, "stated")
    assert facts["verified"]["int8"]["largest"] == 0
    assert 0 < facts["verified"]["float32"]["largest"] < 1e-4
    assert facts["host"] == "board"
    assert {(row["engine"], row["reason"]) for row in facts["skipped"]} == {
        ("ncnn", "--on board runs our compiled code only")
    }
    assert list((boards.folder / "board" / "tmp").iterdir()) == []
    assert list((boards.folder / "board" / "home").iterdir()) == []


def test_rows_of_a_board_stand_beside_those_measured_here(measured: Any, ask: Ask, boards: Boards) -> None:
    out, facts = measured
    assert json.loads((out / "rows.json").read_text()) == facts
    page = (out / "race.html").read_text()
    assert "copied to board over ssh" in page
    assert f"{facts['rows'][0]['energy_mj']:.3g}" in page
    here = ("--engines", "ours", "--starts", 0, "--device", "raspberry-pi-zero-2", "--out", out)
    ask("bench", "v1", *SMALL, *SHORT, *here, env=boards.env())
    with (out / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first, last = rows[0], rows[-1]
    assert len(rows) == 5
    known = ("net", "width", "resolution", "dtype", "threads", "engine", "host", "device")
    assert [first[name] for name in known] == ["v1", "0.25", "32", "float32", "1", "ours", "board", ""]
    assert [last[name] for name in known] == [
        *("v1", "0.25", "32", "float32", "1", "ours", "", "raspberry-pi-zero-2")
    ]
    assert last["watts"] == "2.1"
    assert last["watts_from"].startswith("table: geerlingguy/top500-benchmark")
    assert float(last["energy_mj"]) == pytest.approx(2.1 * float(last["latency_ms"]), rel=1e-3)


def test_code_for_another_processor_runs_there(ask: Ask, boards: Boards) -> None:
    if shutil.which("qemu-aarch64") is None:
        pytest.skip("no qemu-aarch64 on this machine: Debian's package qemu-user")
    programs = {"uname": UNAME.format(told="Linux aarch64"), "nproc": "#!/bin/sh\necho 4\n", "cat": CAT}
    place = boards.add("pi", EMULATED, **programs)
    facts = ask(
        *("bench", "v1", *SMALL, *SHORT, "--on", "pi", "--dtype", "int8"),
        *("--device", "raspberry-pi-4", "--json"),
        env=boards.env(),
    ).facts
    assert facts["target"] == "aarch64"
    assert facts["machine"] == "4 cores, Cortex-A72 (asimd)"
    assert facts["device"] == "raspberry-pi-4"
    assert facts["verified"]["int8"]["isas"] == ["neon_dot", "neon"]
    assert facts["verified"]["int8"]["largest"] == 0
    (row,) = facts["rows"]
    assert row["watts"] == 7.2
    assert row["watts_from"].startswith("table: geerlingguy")
    assert list(place.iterdir()) == []


def test_a_board_that_cannot_be_measured_on_is_named_with_the_remedy(
    refuse_each: Callable[..., list[str]], boards: Boards
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        boards.known("off", boards.folder / "board" / "key", port=free.getsockname()[1])
    boards.known("unseen", boards.folder / "board" / "key", hosts="nobody")
    keyed(boards.folder / "stranger")
    boards.known("closed", boards.folder / "stranger")
    boards.add("mac", uname=UNAME.format(told="Darwin arm64"))
    boards.add("zero", uname=UNAME.format(told="Linux armv6l"))
    asking, words = "first make `{} true` work without a question", boards.env()["MOBILENETS_SSH"]
    bad = (
        ("off", "Connection refused", asking.format(f"{words} off")),
        (
            *("pi@nowhere.invalid:2222", "Could not resolve hostname nowhere.invalid"),
            asking.format(f"{words} -p 2222 pi@nowhere.invalid"),
        ),
        ("unseen", "Host key verification failed", asking.format(f"{words} unseen")),
        ("closed", "Permission denied (publickey)", asking.format(f"{words} closed")),
        ("mac", "it says Darwin arm64", "there is code for Linux on x86_64"),
        ("zero", "it says Linux armv6l", "there is code for Linux on x86_64"),
    )
    lines = refuse_each(*(("bench", "v1", *SMALL, "--on", name) for name, _, _ in bad), env=boards.env())
    for line, (name, said, remedy) in zip(lines, bad, strict=True):
        assert line.startswith(f"mobilenets: --on {name}: ")
        assert said in line
        assert remedy in line


def test_words_for_ssh_that_no_shell_has_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ssh.COMMAND, 'ssh "-F')
    with pytest.raises(ValueError, match='MOBILENETS_SSH=ssh "-F: No closing quotation'):
        ssh.host("board")


def test_what_a_board_says_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"{ssh.MARK}\nLinux x86_64\n4\nA \x1b[2JBoard\nmodel name\t: Chip\x07\n"
    monkeypatch.setattr(ssh, "asked", lambda *_: said)
    assert greeted(ssh.host("board")).machine == "4 cores, A \\x1b[2JBoard, Chip\\x07"


def test_options_of_a_board_that_cannot_be_are_told_before_any_work(
    refuse_each: Callable[..., list[str]], refuse: Callable[..., str]
) -> None:
    bad = (
        (("--on", "-oProxyCommand=touch"), "give user@board"),
        (("--on", "a b"), "give user@board"),
        (("--on", "board:port"), "give user@board"),
        (("--watts", "0"), "--watts 0: a number above 0"),
        (("--watts", "nan"), "--watts nan"),
        (("--device", "stm32h747"), "a microcontroller"),
        (("--device", "raspberry-pi-9"), "unknown device 'raspberry-pi-9'; did you mean"),
        (("--on", "board", "--engines", "ncnn"), "leave --engines ncnn out"),
    )
    lines = refuse_each(*(("bench", "v1", *SMALL, *words) for words, _ in bad))
    for line, (_, said) in zip(lines, bad, strict=True):
        assert said in line
    line = refuse("bench", "v1", *SMALL, "--on", "pi@board", env={"MOBILENETS_SSH": "no-such-ssh -4"})
    assert "--on pi@board: no-such-ssh, of MOBILENETS_SSH: No such file" in line


@contextmanager
def begun(surroundings: dict[str, str], boards: Boards, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A measurement that goes on and on, being timed on the board."""
    words = ["bench", "v1", *map(str, (*SMALL, *LONG)), "--on", "board", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mobilenets", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**surroundings, **boards.env()},
    )
    try:
        awaited(lambda: timed() or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.communicate()


def timed() -> list[int]:
    """The programs that are timed."""
    return [pid for pid, _, name in processes() if name == "float32-turns"]


def _connection(boards: Boards, process: subprocess.Popen[str]) -> None:
    for pid in boards.sessions():
        os.kill(pid, signal.SIGKILL)


def _program(boards: Boards, process: subprocess.Popen[str]) -> None:
    for pid in timed():
        os.kill(pid, signal.SIGKILL)


def _interrupted(boards: Boards, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)


def _killed(boards: Boards, process: subprocess.Popen[str]) -> None:
    process.kill()


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [
        (
            _connection,
            2,
            r"the connection was lost while it (was timed|started): .+; nothing was kept",
        ),
        (_program, 2, "--on board: the program was ended there by SIGKILL, as a system does"),
        (_interrupted, 130, "interrupted"),
        (_killed, -signal.SIGKILL, ""),
    ],
)
def test_what_ends_half_way_leaves_no_row_and_nothing_on_the_board(
    ends: Callable[[Boards, subprocess.Popen[str]], None],
    code: int,
    said: str,
    boards: Boards,
    measured: Any,
    surroundings: dict[str, str],
) -> None:
    out = measured[0]
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    place = boards.folder / "board" / "tmp"
    with begun(surroundings, boards, out) as process:
        assert len(list(place.iterdir())) == 1
        ends(boards, process)
        err = process.communicate(timeout=LIMIT_S)[1]
    lines = [line for line in err.splitlines() if line.startswith("mobilenets: ")]
    assert process.returncode == code
    assert len(lines) == bool(said)
    assert re.search(said, "".join(lines))
    awaited(lambda: not list(place.iterdir()))
    awaited(lambda: not timed())
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_board_that_computes_something_else_is_refused(ask: Ask, boards: Boards) -> None:
    """One byte of its weights is another; and, as a broken second core would, only the timed answer is."""
    boards.add("flipped", FLIPPED)
    words = ("--on", "flipped", "--dtype", "int8")
    told = ask("bench", "v1", *SMALL, *SHORT, *words, code=2, env=boards.env()).err
    assert "of the program on flipped differs from the reference by" in told
    boards.add("muddled", MUDDLED)
    told = ask("bench", "v1", *SMALL, *SHORT, "--on", "muddled", code=2, env=boards.env()).err
    assert "of ours (float32, 1 thread) on muddled differs from the reference by" in told


def test_files_go_where_there_is_room_and_programs_may_run(
    ask: Ask, refuse: Callable[..., str], boards: Boards
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a full disk, or one from which nothing runs")
    with ExitStack() as mounts:
        for name in ("bare", "full"):
            boards.add(name, home=boards.folder / "full" / "tmp" if name == "bare" else None)
            place = boards.folder / name / "tmp"
            options = "noexec,size=16m" if name == "bare" else "size=256k"
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=False)
            if done.returncode:
                pytest.skip("this root may not mount")
            mounts.callback(subprocess.run, ["umount", place], check=True)
        line = refuse("bench", "v1", *SMALL, "--on", "bare", env=boards.env())
        for part in ("no place for 2.", "nothing may be run from there", "No space left on device", "TMPDIR"):
            assert part in line
        facts = ask("bench", "v1", *SMALL, *SHORT, "--on", "full", "--json", env=boards.env()).facts
        assert len(facts["rows"]) == 1  # in the home folder
        for name in ("bare", "full"):
            assert list((boards.folder / name / "tmp").iterdir()) == []
