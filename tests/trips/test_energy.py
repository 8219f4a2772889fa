"""Energy is counted where a machine counts it, stated where a user knows it, and nothing elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mobilenets import energy
from mobilenets.costs.device import DEVICES
from mobilenets.energy import Power

Ask = Callable[..., Any]
SMALL = ("--width", 0.25, "--resolution", 32, "--engines", "ours", "--starts", 0)
ZONES = {"intel-rapl:0": ("package-0", 9.0), "intel-rapl:0/intel-rapl:0:0": ("dram", 3.0)}
"""Watts of a processor and of its memory, each a folder of what Linux counts."""
RANGE_UJ = 3_000_000
"""A counter that runs over each third of a second."""

needs_zeus = pytest.mark.skipif(
    find_spec("zeus") is None, reason="zeus, which reads counters, is not installed"
)


def counting(place: Path) -> Iterator[None]:
    """Counters in `place` as Linux has them; each step counts what was drawn until now."""
    begun = time.perf_counter()
    while True:
        spent = time.perf_counter() - begun
        for zone, (name, watts) in ZONES.items():
            folder = place / zone
            if not folder.exists():
                folder.mkdir(parents=True)
                (folder / "name").write_text(f"{name}\n")
                (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
            (folder / "next").write_text(f"{int(1e6 * watts * spent) % RANGE_UJ}\n")
            (folder / "next").replace(folder / "energy_uj")
        yield


@contextmanager
def counted(place: Path) -> Iterator[None]:
    """The same, moving while the block runs."""
    steps, done = counting(place), threading.Event()
    next(steps)

    def run() -> None:
        while not done.wait(0.001):
            next(steps)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@needs_zeus
def test_a_counter_that_runs_over_gives_the_watts_that_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zeus.device import cpu

    monkeypatch.setattr(cpu.rapl, "RAPL_DIR", str(tmp_path))
    monkeypatch.setattr(cpu, "_cpus", None)
    cpu.rapl_is_available.cache_clear()
    monkeypatch.setattr(energy, "RAPL", (tmp_path,))
    with counted(tmp_path):
        counter, why = energy.counter()
        assert counter is not None, why
        assert counter.source == "counter: RAPL package, RAPL memory"
        found = []
        for _ in range(30):
            counter.begin()
            time.sleep(0.08)  # a quarter of a range
            found.append(counter.end())
    told = [watts for watts in found if watts is not None]
    assert len(told) >= 10  # zeus sees after a while that a counter has run over: those turns say nothing
    assert sorted(told)[len(told) // 2] == pytest.approx(12, rel=0.15)
    cpu.rapl_is_available.cache_clear()


@needs_zeus
def test_what_a_graphics_card_counts_is_added() -> None:
    from zeus.monitor.energy import Measurement

    class Monitor:
        """Gives what zeus gives where there is a card: joules by card, and by processor."""

        def begin_window(self, key: str, **how: bool) -> None: ...

        def end_window(self, key: str, **how: bool) -> Measurement:
            return Measurement(time=2.0, gpu_energy={0: 500.0, 1: 20.0}, cpu_energy={0: 30.0})

    counter = energy.Counter(Monitor())
    assert counter.source == "counter: RAPL package, GPU"
    assert counter.end() == 275


FAKE = """
import subprocess, sys
from pathlib import Path
subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/sys/class"], check=True)
sys.path.insert(0, sys.argv[1])
from test_energy import counted
with counted(Path("/sys/class/powercap/intel-rapl")):
    done = subprocess.run([sys.executable, "-m", "mobilenets", *sys.argv[2:]])
sys.exit(done.returncode)
"""


@needs_zeus
def test_a_race_tells_what_the_machine_counted(surroundings: dict[str, str]) -> None:
    """Where Linux keeps its counters, in a view of the file system that this process alone has."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may show a process another /sys")
    if subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/sys/class"], check=False
    ).returncode:
        pytest.skip("this root may not mount")
    words = ["bench", "v1", *map(str, SMALL), "--rounds", "20", "--turn-ms", "40", "--watts", "99", "--json"]
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", FAKE, str(Path(__file__).parent), *words],
        capture_output=True,
        env=surroundings,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["watts"] == pytest.approx(12, rel=0.2)
    assert row["watts_from"] == "counter: RAPL package, RAPL memory"  # not what was stated
    assert row["energy_mj"] == pytest.approx(row["watts"] * row["latency_ms"], rel=1e-3)


def test_counters_that_cannot_be_read_are_said_to_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "RAPL", (tmp_path / "nothing",))
    assert energy.counter() == (None, "")
    monkeypatch.setattr(energy, "RAPL", (tmp_path,))
    next(counting(tmp_path))
    monkeypatch.setattr(energy, "find_spec", lambda name: None)
    assert "pip install 'mobilenets[energy]'" in energy.counter()[1]
    monkeypatch.setattr(energy, "find_spec", lambda name: object())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    said = energy.counter()[1]
    assert "intel-rapl:0/energy_uj, which this user may not read" in said
    assert "state --watts" in said


def test_looking_for_a_counter_that_is_not_there_loads_nothing() -> None:
    script = (
        "import sys; from pathlib import Path; from mobilenets import energy\n"
        "energy.RAPL = (Path('/nowhere'),); energy.counter()\n"
        "print(*({'zeus', 'pandas', 'pynvml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_power_is_what_was_stated_else_the_tables_else_nothing() -> None:
    board, unknown = DEVICES["m8s-pro"], DEVICES["nanopi-k2"]
    assert energy.told(3.5, board) == Power(3.5, "stated")
    assert energy.told(None, board) == Power(2.1, "table: the published Caltech-101 study's table")
    assert energy.told(None, unknown).watts is None
    assert "nanopi-k2; --watts states one" in energy.told(None, unknown).source
    assert energy.told(None) == Power()
    # The study's own row: 2.1 W for 3123 s.
    known = energy.of_run(energy.told(2.1), 3123)
    assert known == {"joules": 6558.3, "watts": 2.1, "watts_from": "stated"}
    assert energy.of_run(Power(), 3123) is None
    assert energy.of_picture(Power(2.1, "stated"), 75.0)["energy_mj"] == 157.5


def test_a_race_shows_energy_where_it_is_known_and_says_why_where_not(ask: Ask) -> None:
    words = ("bench", "v1", *SMALL, "--rounds", 2, "--turn-ms", 3)
    told = ask(*words, "--watts", 2.5).out
    assert "energy, mJ" in told
    assert "2.5 W, stated" in told
    told = ask(*words, "--device", "nanopi-k2").out
    assert "energy, mJ" not in told
    assert "no energy: the table has no power of nanopi-k2; --watts states one" in told
