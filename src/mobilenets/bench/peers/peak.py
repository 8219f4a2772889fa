"""What the machine itself can do: multiply-adds of float32, and of bytes, that touch no memory."""

from __future__ import annotations

import ctypes
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

from mobilenets.bench.peers.picture import Picture, Run

CALL_S = 0.0004
"""About as long as a network's: what cuts into longer calls alone would make the machine look slow."""


def make(source: Path, place: Path, dtype: str) -> None:
    """Build it for this machine."""
    from mobilenets.compile.build import build_here

    text = files("mobilenets.bench.native").joinpath("peak.c").read_text(encoding="utf-8")
    (place / "peak.c").write_text(text, encoding="utf-8")
    build_here(["peak.c"], "peak.so", place, ["-shared", "-fPIC", "-march=native"])
    (place / "peak.c").unlink()


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    """Each call gives the operations that it did, two for each multiply-add."""
    peak = getattr(ctypes.CDLL(str(place / "peak.so")), f"peak_{dtype}")
    peak.restype = ctypes.c_double
    peak.argtypes = [ctypes.c_int, ctypes.c_long]
    rounds = 250
    peak(threads, rounds)
    while True:
        begun = time.perf_counter()
        found = peak(threads, rounds)
        if time.perf_counter() - begun > CALL_S / 2:
            break
        rounds *= 2
    if not found:
        raise RuntimeError(f"the system gave no {threads} threads")
    told = np.full(1, found, np.float64)

    def once() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        peak(threads, rounds)
        return told

    return once  # type: ignore[return-value]  # float32 would round the count
