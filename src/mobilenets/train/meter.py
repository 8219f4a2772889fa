"""What a run takes: seconds by stage, the peak of memory with its workers; the machine and the versions."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from mobilenets.data.crew import cores

SAMPLE_S = 0.5
PACKAGES = ("mobilenets", "torch", "numpy", "pillow", "scipy", "simplejpeg", "safetensors")
# What speed and, through bfloat16, a fine-tuning's bytes hang on: x86, then ARM.
INSTRUCTIONS = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16"),
    *("asimd", "asimddp", "sve", "i8mm", "bf16"),
)

ARM_CORES = {
    "0xc07": "Cortex-A7",
    "0xc08": "Cortex-A8",
    "0xc09": "Cortex-A9",
    "0xc0f": "Cortex-A15",
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse N1",
    "0xd40": "Neoverse V1",
    "0xd41": "Cortex-A78",
}
"""By the part number that a core of Arm's own gives, as in Linux' arch/arm64/include/asm/cputype.h."""


class Meter:
    """Seconds by stage and, sampled in a thread, the peak of memory over this process and its children.

    On Linux memory is the sum of proportional set sizes, so that shared pages count once; elsewhere the
    largest resident set of this process alone, and on Windows nothing.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._peak_kb = 0
        self._begun = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Meter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; the same name again adds up."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    @property
    def total_s(self) -> float:
        return time.perf_counter() - self._begun

    @property
    def peak_rss_mb(self) -> float | None:
        self._sample()
        return self._peak_kb / 1024 or None

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        self._peak_kb = max(self._peak_kb, memory_kb())


def memory_kb() -> int:
    """Memory of this process and all below it, in KiB; 0 where the system does not tell."""
    if not Path("/proc/self/smaps_rollup").exists():
        try:
            import resource
        except ModuleNotFoundError:  # Windows
            return 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak
    return sum(_pss_kb(pid) for pid in _family(os.getpid()))


def _family(pid: int) -> list[int]:
    found, parents = [pid], [pid]
    while parents:
        parent = parents.pop()
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(word) for word in task.read_text().split()]
            except OSError:  # it ended while we looked
                continue
            found += children
            parents += children
    return found


def _pss_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it ended while we looked
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def instructions() -> frozenset[str]:
    """Those of the processor, by Linux' names for them; none where the system is another."""
    return _cpuinfo()[1]


def machine() -> dict[str, str]:
    """Processor, its instructions that decide speed, cores this process may use, memory and system."""
    processor, flags = _cpuinfo()
    found = {"processor": processor, "cores": str(cores()), "system": platform.platform()}
    if told := [flag for flag in INSTRUCTIONS if flag in flags]:
        found["instructions"] = " ".join(told)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    return found


def machine_line() -> str:
    """Cores, processor and its instructions in a few words, for a table."""
    found = machine()
    return _line(found["cores"], found["processor"], found.get("instructions", ""))


def machine_of(cores: str, board: str, cpuinfo: str) -> str:
    """The same of another machine, by its cores, the board's name if it has one, and Linux' /proc/cpuinfo."""
    told = _read(cpuinfo)
    named = (board or told.get("Model"), told.get("model name") or _core(told) or told.get("uarch"))
    flags = _flags(told)
    known = ", ".join(part for part in named if part) or "unknown"
    return _line(cores or "unknown", known, " ".join(flag for flag in INSTRUCTIONS if flag in flags))


def _line(cores: str, processor: str, instructions: str) -> str:
    told = f"{cores} core{'' if cores == '1' else 's'}, {processor}"
    return f"{told} ({instructions})" if instructions else told


def _cpuinfo() -> tuple[str, frozenset[str]]:
    """The processor's name and flags; no flags where the system is not Linux."""
    try:
        told = _read(Path("/proc/cpuinfo").read_text())
    except OSError:
        told = {}
    named = told.get("model name") or told.get("Model") or _core(told)
    return named or platform.processor() or platform.machine(), _flags(told)


def _read(cpuinfo: str) -> dict[str, str]:
    """What /proc/cpuinfo says, the first of each: one core stands for all."""
    lines = (line.partition(":") for line in reversed(cpuinfo.splitlines()))
    return {key.strip(): value.strip() for key, _, value in lines}


def _core(told: Mapping[str, str]) -> str:
    """The name of a core of Arm's own, of which Linux tells a number."""
    return (
        ARM_CORES.get(told.get("CPU part", "").lower(), "") if told.get("CPU implementer") == "0x41" else ""
    )


def _flags(told: Mapping[str, str]) -> frozenset[str]:
    return frozenset((told.get("flags") or told.get("Features") or "").split())


def versions() -> dict[str, str]:
    """Python and the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
