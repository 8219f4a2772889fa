"""The program that calls an engine from C, built here; it is a worker of its own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def make(source: Path, place: Path, dtype: str) -> None:
    """Build the program of `dtype`, which names the engine."""
    from mobilenets.compile.build import build_here

    names = ("turns.h", "turns.c", f"{dtype}.c")
    for name in names:
        text = files("mobilenets.bench.native").joinpath(name).read_text(encoding="utf-8")
        (place / name).write_text(text, encoding="utf-8")
    build_here(names[1:], "program", place)
    for name in names:
        (place / name).unlink()
