"""From C to a library: which compiler, which flags, and what it said when it failed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mobilenets.compile.source import Source

WARNINGS = ("-Wall", "-Wextra", "-Werror")
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno")
LIMIT_S = 600
MOST_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What code is built for; `zig` is the target of the cross compiler, empty for the machine's own."""

    name: str
    family: str
    zig: tuple[str, ...] = ()
    suffix: str = ".so"
    says: str = ""


TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(name="host", family="x86-64", says="this machine, by its own C compiler"),
        Target(
            name="x86-64",
            family="x86-64",
            zig=("-target", "x86_64-linux-gnu.2.17"),
            says="any x86-64 Linux: the best of AVX-512, AVX2 and SSE2 is chosen when it runs",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Built:
    """A library, the compiler's name and version, and how long it took."""

    file: Path
    compiler: str
    command: str
    seconds: float


def write(source: Source, folder: Path) -> None:
    """The files of a compiled model, without its library."""
    (folder / f"{source.name}.c").write_text(source.code, encoding="utf-8")
    (folder / f"{source.name}.h").write_text(source.header, encoding="utf-8")
    (folder / "main.c").write_text(source.example, encoding="utf-8")
    (folder / f"{source.name}.weights").write_bytes(source.weights)


def build(source: Source, target: Target, folder: Path) -> Built:
    """The library of a model whose files lie in `folder`, weights linked in.

    Raises ValueError where there is no compiler, RuntimeError with its first lines where it fails.
    """
    compiler = _compiler(target)
    library = folder / f"{source.name}{target.suffix}"
    words = [*compiler, *FLAGS, *WARNINGS, "-fPIC", "-shared", "-s", f"-D{source.name.upper()}_LINKED"]
    words += [f"{source.name}.c", "-o", library.name, "-lpthread"]
    begun = time.perf_counter()
    _run(words, folder)
    return Built(library, _version(compiler), shlex.join(words), time.perf_counter() - begun)


def build_here(files: Sequence[str], made: str, folder: Path, flags: Sequence[str] = ()) -> None:
    """A program or library of a few C files in `folder`, for this machine; raises as `build` does."""
    words = [*_compiler(TARGETS["host"]), *FLAGS, *WARNINGS, *flags, *files, "-o", made, "-lpthread", "-ldl"]
    _run(words, folder)


def _compiler(target: Target) -> list[str]:
    if target.zig:
        if find_spec("ziglang") is None:
            raise ValueError(f"--target {target.name} needs the cross compiler: pip install 'mobilenets[cc]'")
        return [sys.executable, "-m", "ziglang", "cc", *target.zig]
    asked = os.environ.get("CC")
    if asked:
        return shlex.split(asked)
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found:
        return [found]
    if find_spec("ziglang") is not None:
        return [sys.executable, "-m", "ziglang", "cc"]
    raise ValueError(
        "no C compiler: neither CC nor cc, gcc or clang; install one, or pip install 'mobilenets[cc]'"
    )


def _version(compiler: Sequence[str]) -> str:
    done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _run(words: Sequence[str], folder: Path) -> None:
    told = shlex.join(words)
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False
        )
    except FileNotFoundError as error:
        raise ValueError(f"{words[0]}: no such C compiler; mend the variable CC") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the C compiler had not ended after {LIMIT_S} s: {told}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()][:MOST_LINES]
        raise RuntimeError(
            f"the C compiler failed ({done.returncode}): {told}: " + "; ".join(lines or ["it said nothing"])
        )
