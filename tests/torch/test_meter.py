"""What a run took is measured: stages add up, memory counts the workers, versions are those installed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

from mobilenets.train import meter
from mobilenets.train.meter import Meter

ONLY_LINUX = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="elsewhere memory is this process' alone"
)
HOLDING = (
    "import sys, time; held = bytearray(100 << 20); held[::4096] = b'x' * len(held[::4096]); "
    "print('ready', flush=True); time.sleep(60)"
)


def holding(through: int = 0) -> subprocess.Popen[bytes]:
    """A process that holds 100 MiB, perhaps as a child of a child; it says when it does."""
    code = HOLDING
    for _ in range(through):
        code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 9)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def test_a_stage_entered_twice_adds_up_and_one_that_fails_is_timed_too() -> None:
    with Meter() as found:
        for _ in range(2):
            with found.stage("nap"):
                time.sleep(0.03)
        with suppress(ZeroDivisionError), found.stage("fail"):
            time.sleep(0.02)
            raise ZeroDivisionError
    assert set(found.seconds) == {"nap", "fail"}
    assert found.seconds["nap"] >= 0.06
    assert found.seconds["fail"] >= 0.02
    assert sum(found.seconds.values()) <= found.total_s


@ONLY_LINUX
@pytest.mark.parametrize("through", [0, 1])
def test_memory_counts_children_and_their_children(through: int) -> None:
    before = meter.memory_kb()
    process = holding(through)
    try:
        grown = meter.memory_kb() - before
    finally:
        ended(process)
    assert 95 * 1024 < grown < 250 * 1024
    assert meter.memory_kb() < before + 50 * 1024


@ONLY_LINUX
def test_the_peak_is_caught_between_two_questions_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "SAMPLE_S", 0.02)
    with Meter() as found:
        before = found.peak_rss_mb
        process = holding()
        time.sleep(0.4)
        ended(process)
        peak = found.peak_rss_mb
        assert peak > before + 95
        assert found.peak_rss_mb == peak


@ONLY_LINUX
def test_a_process_that_ended_counts_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert meter._pss_kb(process.pid) == 0
    assert meter._family(process.pid) == [process.pid]


def test_the_machine_is_told_in_words_and_its_cores_are_those_this_process_may_use() -> None:
    found = meter.machine()
    assert found["processor"]
    assert found["system"] == platform.platform()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert int(found["cores"]) == usable


def test_versions_are_those_installed() -> None:
    found = meter.versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == metadata.version("numpy")
    assert set(found) <= {"python", *meter.PACKAGES}
