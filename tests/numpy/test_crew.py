"""Worker processes answer in order, survive what kills one of them, and never keep anyone waiting."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

from mobilenets.data.crew import Crew, Died
from mobilenets.infer.image import ImageError

T = TypeVar("T")
CHORES = '''
import os, signal, sys, time
from mobilenets.infer.image import ImageError

def napping(job):
    number, seconds = job
    time.sleep(seconds)
    return number * number

def dying(job):
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "left":
        os._exit(3)
    return os.getpid()

class Once:
    """Dies on the first try of a job, and on no other."""
    def __init__(self, folder):
        self.folder = folder
    def __call__(self, job):
        try:
            os.mkdir(os.path.join(self.folder, job))
        except FileExistsError:
            return job
        os._exit(1)

def failing(job):
    if job == 3:
        raise ImageError("truncated", "cut short")
    return job

def printing(job):
    print("noise", job)
    sys.stdout.flush()
    os.write(1, b"more noise")
    return job

class Touching:
    def __init__(self, folder):
        self.folder = folder
    def __call__(self, job):
        open(os.path.join(self.folder, str(job)), "w").close()
        return job

def surroundings(job):
    return sorted(name for name in ("torch", "pytest") if name in sys.modules)

def unsendable(job):
    return lambda: job
'''


@pytest.fixture
def chores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Work that a fresh interpreter can import: a module on this process' path."""
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "chores_of_the_crew.py").write_text(CHORES)
    monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module("chores_of_the_crew")
    sys.modules.pop("chores_of_the_crew", None)


def within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` gives, in a thread of its own; a failure where it takes longer."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still at it after {seconds} s"
    result: T = found[0]
    return result


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_jobs_however_long_each_takes(
    chores: ModuleType, workers: int
) -> None:
    jobs = [(number, 0.02 * (number % 3 == 0)) for number in range(12)]
    with Crew(chores.napping, workers) as crew:
        assert list(crew.map(jobs)) == [number * number for number in range(12)]
        assert list(crew.map(jobs[:2])) == [0, 1]  # a crew can be asked again
        assert list(crew.map([])) == []


def test_a_job_that_kills_its_worker_twice_is_given_up_and_the_others_are_done(chores: ModuleType) -> None:
    with Crew(chores.dying, 2) as crew:
        made = list(crew.map(["a", "killed", "b", "left", "c"]))
    assert made[1] == Died("the worker process died on it, twice (SIGKILL)")
    assert made[3] == Died("the worker process died on it, twice (exit 3)")
    assert all(isinstance(made[i], int) and made[i] != os.getpid() for i in (0, 2, 4))


def test_a_job_whose_worker_died_by_chance_is_done_by_the_next(chores: ModuleType, tmp_path: Path) -> None:
    with Crew(chores.Once(str(tmp_path)), 2) as crew:
        assert list(crew.map(["x", "y", "z"])) == ["x", "y", "z"]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_work_raises_is_raised_here_in_its_turn(chores: ModuleType, workers: int) -> None:
    with Crew(chores.failing, workers) as crew:
        results = crew.map(range(6))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ImageError, match="cut short") as error:
            next(results)
        assert error.value.kind == "truncated"
        assert list(crew.map([7, 8])) == [7, 8]


def test_a_result_that_cannot_cross_counts_as_a_death_and_nobody_waits(chores: ModuleType) -> None:
    with Crew(chores.unsendable, 1) as crew:
        assert [type(made) for made in within(60, lambda: list(crew.map([1])))] == [Died]


def test_work_that_prints_does_not_disturb_the_answers(chores: ModuleType) -> None:
    with Crew(chores.printing, 1) as crew:
        assert list(crew.map(range(4))) == [0, 1, 2, 3]


def test_leaving_early_ends_at_once_and_takes_the_processes_along(chores: ModuleType) -> None:
    def some() -> list[object]:
        with Crew(chores.napping, 2) as crew:
            results = crew.map([(number, 0.05) for number in range(2000)])
            found: list[object] = [next(results), next(results)]
            results.close()
            processes = [m._process for m in crew._members]
        assert all(process is None or process.poll() is not None for process in processes)
        return found

    assert within(30, some) == [0, 1]


def test_leaving_while_workers_wait_for_room_ends_too(chores: ModuleType, tmp_path: Path) -> None:
    def some() -> object:
        with Crew(chores.Touching(str(tmp_path)), 2) as crew:
            results = crew.map(range(50), ahead=2)
            first = next(results)
            time.sleep(0.3)  # both have handed in theirs and may make no more
            results.close()
        return first

    assert within(30, some) == 0


def test_an_error_of_the_one_who_asks_does_not_hang_either(chores: ModuleType) -> None:
    def some() -> str:
        try:
            with Crew(chores.napping, 2) as crew:
                for _ in crew.map([(number, 0.02) for number in range(2000)]):
                    raise ZeroDivisionError
        except ZeroDivisionError:
            return "left"
        return "stayed"

    assert within(30, some) == "left"


def test_no_more_is_made_ahead_than_was_allowed(chores: ModuleType, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    with Crew(chores.Touching(str(done)), 2) as crew:
        results = crew.map(range(100), ahead=5)
        assert next(results) == 0
        deadline = time.monotonic() + 20
        while len(list(done.iterdir())) < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)  # long enough for a dozen more, were they made
        assert len(list(done.iterdir())) == 5
        assert list(results) == list(range(1, 100))


def test_workers_start_without_what_the_caller_has_imported(chores: ModuleType) -> None:
    with Crew(chores.surroundings, 1) as crew:
        assert list(crew.map([0])) == [[]]


def test_a_worker_that_cannot_start_is_said_in_one_line(
    chores: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    useless = shutil.which("false")
    if useless is None:
        pytest.skip("no program here that does nothing but fail")
    monkeypatch.setattr(sys, "executable", useless)
    with Crew(chores.napping, 2) as crew, pytest.raises(RuntimeError, match="does not start; try with 0"):
        next(crew.map([(1, 0)]))


def test_a_crew_that_is_over_starts_no_worker_again(chores: ModuleType) -> None:
    with Crew(chores.dying, 1) as crew:
        assert len(list(crew.map(["well"]))) == 1
    with pytest.raises(RuntimeError, match="the crew is gone"):
        list(crew.map(["late"]))
