"""Engines called from C: a program for each that answers and takes turns as the Python worker does."""

from __future__ import annotations

from pathlib import Path

from mobilenets.bench.engines import Engine
from mobilenets.bench.subject import Subject


def words(engine: Engine, place: Path, subject: Subject, threads: int) -> tuple[str, ...]:
    return ()
