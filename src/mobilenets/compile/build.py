"""From C to a library: which compiler, which flags, and what it said when it failed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from mobilenets.compile.source import Source
from mobilenets.compile.target import TARGETS, Target

WARNINGS = ("-Wall", "-Wextra", "-Werror")
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno")
LIMIT_S = 600
MOST_LINES = 12
ZIG = (sys.executable, "-m", "ziglang")


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
    for name, text in (source.example, *source.glue):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / f"{source.name}.weights").write_bytes(source.weights)


def build(source: Source, target: Target, folder: Path) -> Built:
    """The library of a model whose files lie in `folder`.

    Raises ValueError where there is no compiler, RuntimeError with its first lines where it fails.
    """
    compiler = _compiler(target)
    library = folder / f"{target.prefix}{source.name}{target.suffix}"
    words = [*compiler, *_flags(source), *WARNINGS, *target.flags]
    words += [f"-D{source.name.upper()}_LINKED"] if target.linked else []
    made = f"{source.name}.o" if target.archived else library.name
    words += ["-c"] if target.archived else []
    words += [f"{source.name}.c", *(name for name, _ in source.glue), "-o", made]
    words += ["-lpthread"] if source.threads > 1 and target.linked else []
    begun = time.perf_counter()
    _run(words, folder)
    if target.archived and (folder / made).exists():
        _run([*ZIG, "ar", "rcsD", library.name, made], folder)
        (folder / made).unlink()
    if not library.exists():
        raise RuntimeError(f"the C compiler said that all was well and wrote nothing: {shlex.join(words)}")
    return Built(library, _version(compiler), shlex.join(words), time.perf_counter() - begun)


def build_here(
    sources: Sequence[str],
    made: str,
    folder: Path,
    flags: Sequence[str] = (),
    libraries: Sequence[str] = ("-lpthread", "-ldl"),
) -> None:
    """A program or library of a few C files in `folder`, for this machine; raises as `build` does."""
    words = [*_compiler(TARGETS["host"]), *FLAGS, *WARNINGS, *flags, *sources, "-o", made, *libraries]
    _run(words, folder)


def norms(folder: Path) -> Path:
    """The library of `norms.c` for this processor alone, made in `folder`; raises as `build` does."""
    name, made = "norms.c", "norms.so"
    (folder / name).write_bytes(files("mobilenets.compile").joinpath(name).read_bytes())
    own = ("-shared", "-fPIC", "-fno-trapping-math", "-march=native")
    try:
        build_here([name], made, folder, own, ["-lm"])
    except RuntimeError:  # a compiler that does not know its own processor
        build_here([name], made, folder, own[:-1], ["-lm"])
    return folder / made


def program(
    source: Source,
    target: Target,
    folder: Path,
    place: Path,
    threads: int = 1,
    *,
    symbols: bool = False,
) -> list[str]:
    """What a runner is given: a program made in `place` of the files in `folder`, and the words it takes.

    It has names for its functions where they are asked for.
    """
    name, text = source.harness
    (place / name).write_text(text, encoding="utf-8")
    if not target.program:
        return [str(place / name), str(folder / source.example[0]), str(threads)]
    made, weights = str(place / "program"), str(folder / f"{source.name}.weights")
    words = [*_program_words(source, target, folder), *(() if symbols else ("-s",))]
    if target.script:
        (place / target.script).write_bytes(files("mobilenets.compile").joinpath(target.script).read_bytes())
        words += ["-T", str(place / target.script), f"-D{source.name.upper()}_LINKED"]
    _run([*words, str(place / name), f"{source.name}.c", "-o", made], folder)
    return [made] if target.script else [made, weights, str(threads)]


def static_program(source: Source, target: Target, folder: Path, mains: Sequence[str], made: Path) -> None:
    """A program that needs nothing on the target's machine: C files in `folder` beside the network's."""
    _run([*_program_words(source, target, folder), "-s", *mains, f"{source.name}.c", "-o", str(made)], folder)


def _program_words(source: Source, target: Target, folder: Path) -> list[str]:
    compiler = [*_compiler(target)[: -len(target.zig)], *target.program]
    return [*compiler, *_flags(source), *WARNINGS, f"-I{folder}"]


def _flags(source: Source) -> tuple[str, ...]:
    return (*FLAGS, "-ffp-contract=off", "-fwrapv") if source.exact else FLAGS


def _compiler(target: Target) -> list[str]:
    if target.zig:
        if find_spec("ziglang") is None:
            raise ValueError(f"--target {target.name} needs the cross compiler: pip install 'mobilenets[cc]'")
        return [*ZIG, "cc", *target.zig]
    asked = os.environ.get("CC")
    if asked:
        named, *rest = shlex.split(asked)
        return [str(Path(named).absolute()) if os.sep in named else named, *rest]
    found = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if found:
        return [found]
    if find_spec("ziglang") is not None:
        return [*ZIG, "cc"]
    raise ValueError(
        "no C compiler: neither CC nor cc, gcc or clang; install one, or pip install 'mobilenets[cc]'"
    )


def _version(compiler: Sequence[str]) -> str:
    with tempfile.TemporaryDirectory() as place:  # for Apple's systems the question leaves an empty a.o
        words = [*compiler, "--version"]
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _run(words: Sequence[str], folder: Path) -> None:
    told = shlex.join(words)
    try:
        done = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=LIMIT_S, check=False
        )
    except FileNotFoundError as error:
        raise ValueError(f"{words[0]}: no such C compiler; mend the variable CC") from error
    except OSError as error:
        raise ValueError(f"{words[0]}: no C compiler ({error.strerror}); mend the variable CC") from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the C compiler had not ended after {LIMIT_S} s: {told}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()][:MOST_LINES]
        raise RuntimeError(
            f"the C compiler failed ({done.returncode}): {told}: " + "; ".join(lines or ["it said nothing"])
        )
