"""Our compiled code on a board over ssh: built here for its processor, compared and timed there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench import engines, making, options, ssh
from mobilenets.bench.agreement import agreement
from mobilenets.bench.measure import described, row
from mobilenets.bench.options import BenchOptions, Dtype
from mobilenets.bench.peers import board as programs
from mobilenets.bench.race import raced
from mobilenets.bench.ssh import MARK, Host, PlaceError
from mobilenets.bench.subject import Subject
from mobilenets.bench.team import Job, Worker, WorkerError, close_all
from mobilenets.compile import verify
from mobilenets.compile.runner import Program, ProgramError
from mobilenets.compile.target import TARGETS, family
from mobilenets.console import size
from mobilenets.data.digests import Progress
from mobilenets.energy import Power
from mobilenets.frames import frames
from mobilenets.infer import artefact
from mobilenets.infer.engine import NumpyEngine
from mobilenets.spec.text import visible
from mobilenets.train.meter import machine_of

MACHINES: Mapping[str, str] = {
    "x86_64": "x86-64",
    "amd64": "x86-64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "armv7",
    "armv8l": "armv7",
    "riscv64": "riscv64",
}
"""Targets by what `uname -m` says on Linux."""
PLACES = ("${TMPDIR:-/tmp}", "$HOME")
"""Where files are copied to: the first that has room and lets programs run."""
ASKED = (
    f'echo "{MARK}"; uname -sm; nproc 2>/dev/null || echo; '
    'tr -d "\\0" </proc/device-tree/model 2>/dev/null; echo; '
    "cat /proc/cpuinfo 2>/dev/null; :"
)
FRAMES = 4
"""Frames on which a board's answers are compared, besides the picture that is timed."""
Outputs = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Board:
    """What a board says of itself: the target to build for, and its machine in a few words."""

    host: Host
    target: str
    machine: str


class Far(Worker):
    """A worker on a board: between turns it waits for a line, and its end is the end of all."""

    def __init__(self, job: Job, board: Host) -> None:
        self._board = board
        super().__init__(job)

    def first(self) -> tuple[float, dict[str, Any]]:
        try:
            return super().first()
        except WorkerError as error:
            raise _lost(self._board, error, "it started") from error

    def turn(self, seconds: float) -> list[float]:
        try:
            return super().turn(seconds)
        except WorkerError as error:
            raise _lost(self._board, error, "it was timed") from error

    def _signal(self, name: str) -> None:
        """The ssh that runs here is not what would be stopped."""


def measured_there(
    host: Host, subject: Subject, asked: BenchOptions, power: Power, progress: Progress, command: str
) -> dict[str, Any]:
    """Time ours on `host` as asked, in the rows that a race here gives; nothing stays there.

    Raises ValueError or RuntimeError, one line, where any part of it fails: there are all rows or none.
    """
    threads, dtypes = options.threads(asked), options.dtypes(asked)
    if "ours" not in options.families(asked):
        raise ValueError(f"{host} runs our compiled code only: leave --engines {asked.engines} out")
    if subject.wanted is None:
        raise ValueError(
            f"{host} needs the model file: {subject.name} is compiled already, for one processor"
        )
    progress("connect", 0, 1)
    board = greeted(host)
    progress("connect", 1, 1)
    jobs: list[Job] = []
    places: dict[Dtype, Path] = {}
    for number, dtype in enumerate(dtypes):
        progress("build", number, len(dtypes))
        places[dtype] = making.made(engines.board_of(dtype, board.target), subject.folder)
    progress("build", len(dtypes), len(dtypes))
    sent = [(f"{dtype}-{name}", places[dtype] / name) for dtype in dtypes for name in programs.SENT]
    sent += [(_input(dtype), subject.folder / _input(dtype)) for dtype in dtypes]
    with settled(host, sent, progress) as place:
        verified = {
            dtype: _verified(board, subject, places[dtype], place, dtype, asked, progress) for dtype in dtypes
        }
        for dtype in dtypes:
            for count in threads:
                words = f"{count} {dtype} {_input(dtype)} {dtype}-{programs.WEIGHTS}"
                script = f'cd "{place}" && ./{dtype}-{programs.TURNS} {words} "$0"; exit $?'
                there = tuple(host.command(script))
                jobs.append(
                    Job(engines.board_of(dtype, board.target), places[dtype], subject.folder, count, there)
                )
        rows = _timed(host, jobs, subject, asked, power, progress)
    others = [] if "all" in asked.engines else [name for name in options.families(asked) if name != "ours"]
    return described(subject, asked, command) | {
        "rows": rows,
        "best": [],
        "peaks": [],
        "interpreter": None,
        "skipped": [
            {"engine": name, "dtype": dtype, "reason": f"{host} runs our compiled code only"}
            for name in others
            for dtype in dtypes
        ],
        "unpowered": "" if power.watts is not None else power.source,
        "machine": board.machine,
        "host": host.name,
        "target": board.target,
        "verified": verified,
    }


def greeted(host: Host) -> Board:
    """What `host` says of itself. ValueError where it cannot be reached or is of no target."""
    told = ssh.asked(host, ASKED, "")
    lines = told[told.index(MARK) :].splitlines()[1:] if MARK in told else []
    system, _, machine = (lines[0] if lines else "").partition(" ")
    target = MACHINES.get(machine) if system == "Linux" else None
    if target is None:
        said = lines[0] if lines else "nothing of itself"
        raise ValueError(f"{host}: it says {said}; there is code for Linux on {', '.join(MACHINES)}")
    cores, model = [*lines[1:3], "", ""][:2]
    return Board(host, target, visible(machine_of(cores, model, "\n".join(lines[3:]) or machine)))


@contextmanager
def settled(host: Host, files: list[tuple[str, Path]], progress: Progress) -> Iterator[str]:
    """A folder on the board with these files, in the first place that serves; gone in the end."""
    reasons = []
    for within in PLACES:
        with ExitStack() as stack:
            try:
                place = stack.enter_context(ssh.folder(host, within))
                ssh.copied(host, place, files, progress)
            except PlaceError as error:
                reasons.append(str(error))
                continue
            yield place
            return
    total = size(sum(path.stat().st_size for _, path in files))
    raise ValueError(
        f"{host}: no place for {total}: {'; '.join(reasons)}; make room, or set TMPDIR there to a "
        "folder that has it and lets programs run"
    )


def _verified(
    board: Board,
    subject: Subject,
    made: Path,
    place: str,
    dtype: Dtype,
    asked: BenchOptions,
    progress: Progress,
) -> dict[str, Any]:
    """How far the board's answers are from the reference's on whole frames; RuntimeError where too far."""
    model = artefact.load(made / programs.MODEL)
    reference, most = NumpyEngine(model), verify.SAME if model.scales else verify.AGREE
    shown = frames(asked.calibrate)[0][:FRAMES]
    script = f'cd "{place}" && ./{dtype}-{programs.ANSWERS} {dtype}-{programs.WEIGHTS} 1; exit $?'
    isas = [one.name for one in family(TARGETS[board.target], dtype).isas]
    found: dict[str, verify.Difference] = {}
    try:
        outputs = {name: value.shape for name, value in reference(shown[0]).items()}
        with Program(board.host.command(script), outputs, isas) as program:
            for number, frame in enumerate(shown):
                progress("verify", number, len(shown))
                wanted = reference(frame)
                for isa in program.isas:
                    program.use(isa)
                    verify.add(found, program(frame), wanted)
    except ProgramError as error:
        raise ssh.failure(board.host, error.code, error.said, "its answers were compared") from error
    progress("verify", len(shown), len(shown))
    verify.hold(found, most, f"the program on {board.host.name}")
    largest = max(one.relative for one in found.values())
    return {
        "frames": len(shown),
        "isas": list(program.isas),
        "largest": largest,
        "held": f"within {largest:.0e}" if largest else "bit for bit",
    }


def _timed(
    host: Host, jobs: list[Job], subject: Subject, asked: BenchOptions, power: Power, progress: Progress
) -> list[dict[str, Any]]:
    """Rows of the jobs, their programs timed in turns after the first answer of each was compared."""
    workers: list[Worker] = []
    agreed, memory = {}, {}
    try:
        for number, job in enumerate(jobs):
            progress("open", number, len(jobs))
            worker = Far(job, host)
            workers.append(worker)
            told = worker.first()[1]
            answer = np.asarray(told["answer"], np.float32)
            _hold_first(host, job, answer, subject)
            assert subject.wanted is not None
            agreed[job] = agreement(answer, subject.wanted, job.engine.dtype)
            memory[job] = told["peak_rss_mb"]
        progress("open", len(jobs), len(jobs))
        order = random.Random(asked.seed)
        times = raced(workers, asked.rounds, asked.turn_ms / 1e3, order, _nobody, progress)
    finally:
        close_all(workers)
    return [
        row(
            worker.job,
            own,
            agreed[worker.job],
            power,
            peak_share=None,
            cold_start_s=None,
            peak_rss_mb=memory[worker.job],
            artefact_bytes=sum(
                (worker.job.place / name).stat().st_size for name in (programs.TURNS, programs.WEIGHTS)
            ),
            install_bytes=0,
        )
        for worker, own in times.items()
    ]


def _hold_first(host: Host, job: Job, answer: NDArray[np.float32], subject: Subject) -> None:
    """The picture that is timed, by as many threads as are: what was verified is what runs."""
    model = artefact.load(job.place / programs.MODEL)
    first = model.net.outputs[0].name
    levels = np.load(subject.folder / "levels.npy")
    wanted = NumpyEngine(model).prepared(levels[None])[first].ravel()
    if answer.shape != wanted.shape:
        raise RuntimeError(
            f"{host}: {job} gives {answer.size} values, the network {wanted.size}: nothing was kept"
        )
    found: dict[str, verify.Difference] = {}
    verify.add(found, {first: answer}, {first: wanted})
    verify.hold(found, verify.SAME if model.scales else verify.AGREE, f"{job} on {host.name}")


def _nobody(worker: Worker, reason: str) -> None:
    """No worker falls out alone: `Far` says what became of the connection."""
    raise RuntimeError(reason)


def _lost(host: Host, error: WorkerError, doing: str) -> Exception:
    """What a worker's end comes to; one that hangs says so itself."""
    if error.code is None:
        return RuntimeError(f"--on {host.name}: {error}")
    return ssh.failure(host, error.code, [error.said] if error.said else [], doing)


def _input(dtype: Dtype) -> str:
    return "levels.bin" if dtype == "int8" else "values.bin"
