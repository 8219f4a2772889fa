"""Instructions of a program under an emulator, by the block they lie in; emulated.c counts."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def plugin(emulator: str, place: Path) -> Path:
    """The counting plugin, made in `place` for the interface that the QEMU that is here has."""
    told = subprocess.run([emulator, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\d+)", told)
    interface = 1 if version and int(version[1]) < 9 else 2
    made = place / f"{emulator}.so"
    words = ["cc", "-O2", "-shared", "-fPIC", f"-DINTERFACE={interface}", "-o", str(made)]
    subprocess.run([*words, str(Path(__file__).with_suffix(".c"))], check=True)
    return made


def executed(
    runner: Sequence[str], words: Sequence[str], place: Path, given: bytes
) -> tuple[Counter[int], bytes]:
    """Instructions by the address of their block, of a program under `runner`, and what it answers `given`.

    `place` is where the plugin is made and writes.
    """
    counting, counts = plugin(runner[0], place), place / "counts.txt"
    run = [runner[0], "-plugin", str(counting), *runner[1:], *words]
    env = {**os.environ, "COUNTED": str(counts)}
    answer = subprocess.run(run, input=given, stdout=subprocess.PIPE, env=env, check=True).stdout
    found: Counter[int] = Counter()
    for line in counts.read_text().splitlines():
        at, instructions, times = map(int, line.split())
        found[at] += instructions * times
    return found, answer
