"""Compiled code on one thread and on two, with the machine to itself and beside a process that takes a core.

    python benchmarks/threads.py [--variants 1.0/224,0.5/160,0.25/128] [--rounds 12] [--turn-ms 500]

V1 with random weights as `mobilenets bench` draws them, both types, compiled for this machine. One and two
threads take turns in random order; in every other round a Python loop runs beside them that never waits. What
is told for each is the mean of a call as well as its median: a thread that is kept from running shows in
few calls, but in those very much. Rows go to results/threads.csv.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
from rows import keep

from mobilenets.bench.subject import opened
from mobilenets.compiling import compile_model
from mobilenets.infer.artefact import load
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.train.meter import machine_line

ROOT = Path(__file__).parents[1]
LOOP = "while True: pass"


def timed(engine: CompiledEngine, levels: np.ndarray, seconds: float) -> list[float]:
    """Seconds of each call in one turn; those of its first tenth do not count."""
    begun = time.perf_counter()
    found = []
    while (at := time.perf_counter()) < begun + seconds:
        engine.levels(levels, {})  # nothing is copied out
        if at > begun + seconds / 10:
            found.append(time.perf_counter() - at)
    return found


def measured(variant: str, dtype: str, rounds: int, turn_s: float, out: Path) -> None:
    width, side = variant.split("/")
    subject = opened("v1", width=float(width), resolution=int(side), seed=0, calibrate=None)
    model = load(subject.folder / "model.safetensors")
    with tempfile.TemporaryDirectory() as folder:
        more = {"calibrate": subject.folder / "calibration"} if dtype == "int8" else {}
        compile_model(model, Path(folder), lambda *_: None, name="model", dtype=dtype, **more)
        engines = {count: CompiledEngine(Path(folder) / "model.so", count) for count in (1, 2)}
    levels = np.random.default_rng(0).integers(0, 256, tuple(model.net.input), dtype=np.uint8)
    order, times = random.Random(0), {key: list[float]() for key in product((False, True), (1, 2))}
    for number in range(2 * rounds):
        busy = number % 2 == 1
        beside = subprocess.Popen([sys.executable, "-c", LOOP]) if busy else None
        try:
            time.sleep(0.3)  # a pool that was held up has forgotten it then
            for count in order.sample((1, 2), 2):
                times[busy, count] += timed(engines[count], levels, turn_s)
        finally:
            if beside is not None:
                beside.kill()
                beside.wait()
    for busy in (False, True):
        one = np.array(times[busy, 1]) * 1e3
        for count in (1, 2):
            own = np.array(times[busy, count]) * 1e3
            row = {
                "model": subject.name,
                "dtype": dtype,
                "beside": "a busy loop" if busy else "nothing of ours",
                "threads": count,
                "mean_ms": round(float(own.mean()), 4),
                "median_ms": round(float(np.median(own)), 4),
                "p90_ms": round(float(np.percentile(own, 90)), 4),
                "n": len(own),
                "mean_of_one_threads": round(float(own.mean() / one.mean()), 3),
                "median_of_one_threads": round(float(np.median(own) / np.median(one)), 3),
                "machine": machine_line(),
                "date": time.strftime("%Y-%m-%dT%H:%M:%S"),
                "command": f"python benchmarks/threads.py --rounds {rounds}",
            }
            keep(out, row)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default="1.0/224,0.5/160,0.25/128")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--turn-ms", type=float, default=500)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "threads.csv")
    args = parser.parse_args()
    for variant, dtype in product(args.variants.split(","), ("float32", "int8")):
        measured(variant, dtype, args.rounds, args.turn_ms / 1e3, args.out)


if __name__ == "__main__":
    main()
