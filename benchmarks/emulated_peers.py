"""Other runtimes' own builds for 64-bit ARM, run by a Python for it under an emulator, and counted.

Nothing of them is kept here: a folder is filled with Debian's packages of a Python for arm64 and with the
wheels of the runtimes, in the versions that are installed here. They choose their kernels by what Linux tells
of a processor in files, which an emulator of programs alone does not have: they are written beside it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from emulated import executed

from mobilenets.bench.engines import ENGINES, Engine
from mobilenets.bench.making import made

ROOT = Path(__file__).parents[1]
PYTHON = "usr/bin/python3.11"
DEBIAN = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libstdc++6"),
    *("libgcc-s1", "libgomp1", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5"),
)
"""Of Debian 12, whose Python is 3.11."""
WHEELS = {"ai-edge-litert": "litert", "ncnn": "ncnn", "numpy": ""}
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_24", "manylinux_2_27", "manylinux_2_28")
CORES = {
    "cortex-a53": ("0xd03", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    ),
}
"""Numbers and features by which Linux names cores."""
ASKED = """\
import sys
from importlib import import_module
from pathlib import Path
from mobilenets.bench.peers.picture import Picture
module, dtype, place, source, times = sys.argv[1:]
run = import_module(f"mobilenets.bench.peers.{module}").runner(Path(place), dtype, 1, Picture(Path(source)))
for _ in range(int(times)):
    run()
print(Path("/proc/self/maps").read_text())
"""
NOT_ITS_OWN = re.compile(r"python3|_multiarray|openblas")
"""Files whose instructions are Python's and numpy's."""


def fetched(folder: Path) -> Path:
    """`folder` with an arm64 Python and the runtimes' wheels, which are got where it is not there."""
    if (folder / PYTHON).exists():
        return folder
    state = folder / "apt"
    for part in ("state/lists/partial", "cache/archives/partial", "debs"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "apt.conf").write_text(
        'APT::Architecture "arm64"; APT::Architectures "arm64";\n'
        f'Dir::State "{state.resolve()}/state"; Dir::State::status "{state.resolve()}/status";\n'
        f'Dir::Cache "{state.resolve()}/cache";\n'
    )
    apt = ["env", f"APT_CONFIG={(state / 'apt.conf').resolve()}", "apt-get", "-q"]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *DEBIAN], cwd=state / "debs", check=True)
    platforms = [f"--platform={one}_aarch64" for one in PLATFORMS]
    wheels = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", *platforms]
    subprocess.run([*pip, "--python-version=3.11", "-d", str(state / "wheels"), *wheels], check=True)
    for wheel in (state / "wheels").iterdir():
        subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(folder / "site")], check=True)
    for package in (state / "debs").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder)], check=True)
    return folder


def told(folder: Path, core: str) -> None:
    """What Linux tells of a processor of four such cores, written into `folder`."""
    part, features = CORES[core]
    (folder / "proc").mkdir(exist_ok=True)
    lines = f"Features\t: {features}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\n"
    cores = (f"processor\t: {i}\n{lines}CPU part\t: {part}\nCPU revision\t: 4\n\n" for i in range(4))
    (folder / "proc" / "cpuinfo").write_text("".join(cores))
    system = folder / "sys" / "devices" / "system" / "cpu"
    files = dict.fromkeys(("possible", "present", "online"), "0-3") | {"kernel_max": "3"}
    for i in range(4):
        files |= {f"cpu{i}/cpufreq/cpuinfo_{end}_freq": "1400000" for end in ("min", "max")}
        files |= {f"cpu{i}/topology/{name}_list": "0-3" for name in ("core_siblings", "cluster_cpus")}
        files[f"cpu{i}/topology/physical_package_id"] = "0"
    for name, text in files.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(f"{text}\n")


def peers(dtype: str) -> list[Engine]:
    """The engines that there are wheels of."""
    return [one for one in ENGINES if one.module in WHEELS.values() and one.kind == dtype]


def counted(engine: Engine, source: Path, runner: Sequence[str], root: Path, place: Path) -> int:
    """Instructions for one answer of an engine on `source`'s picture, without those of Python and numpy."""
    told(root, runner[-1])
    paths = f"PYTHONPATH={(root / 'site').resolve()}:{ROOT / 'src'}"
    under = [*runner, "-L", str(root), "-E", paths, "-E", "PYTHONHASHSEED=0", "-E", "OPENBLAS_NUM_THREADS=1"]
    asked = [str(root / PYTHON), "-c", ASKED, engine.module, engine.kind]
    asked += [str(made(engine, source)), str(source)]
    once, twice = (_by_file(under, [*asked, times], place) for times in ("1", "2"))
    twice.subtract(once)
    return sum(count for file, count in twice.items() if not NOT_ITS_OWN.search(file))


def _by_file(under: Sequence[str], words: Sequence[str], place: Path) -> Counter[str]:
    """Instructions by the file that they were loaded from."""
    blocks, answer = executed(under, words, place, b"")
    maps = sorted(
        (int(first, 16), int(last, 16), file)
        for first, last, file in re.findall(
            r"^(\w+)-(\w+) \S+ \S+ \S+ \S+ *(\S*)", answer.decode(), re.MULTILINE
        )
    )
    begins, found = [first for first, _, _ in maps], Counter[str]()
    for at, instructions in blocks.items():
        _, last, file = maps[bisect_right(begins, at) - 1]
        found[file.rpartition("/")[2] if at < last else ""] += instructions
    return found
