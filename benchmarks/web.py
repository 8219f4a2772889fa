"""Compiled WebAssembly, float32 and int8, against onnxruntime-web's float32, one thread each, in Node.

    python benchmarks/web.py [--variants 1.0/224,0.25/128] [--rounds 20] [--turn-ms 200] [--node-flags FLAGS]

Node and npm have to be there; onnxruntime-web is fetched into the cache, at the version named below. V1 with
random weights as `mobilenets bench` draws them, compiled by `--target wasm`. Each engine has a process of its
own, which stands still while another has its turn, and turns come in another order each round. It is given a
picture as it takes it best: prepared values, and levels where the network computes in bytes. The first
answer of each is compared with the numpy walk's before it is timed. Rows go to results/web.csv.
"""

from __future__ import annotations

import argparse
import random
import shlex
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rows import keep

from mobilenets.bench.agreement import Agreement, agreement
from mobilenets.bench.engines import Engine
from mobilenets.bench.formats import onnx
from mobilenets.bench.keeping import made_whole
from mobilenets.bench.options import Dtype
from mobilenets.bench.race import raced
from mobilenets.bench.subject import Subject, opened
from mobilenets.bench.team import Job, Worker, close_all
from mobilenets.compiling import compile_model
from mobilenets.infer.artefact import load
from mobilenets.infer.weights import cache_dir
from mobilenets.train.meter import machine_line

ROOT = Path(__file__).parents[1]
PEER, VERSION = "onnxruntime-web", "1.30.0"
RUNS: tuple[tuple[str, Dtype], ...] = ((PEER, "float32"), ("ours", "float32"), ("ours", "int8"))


def packages() -> Path:
    """The node_modules with the peer's npm package, fetched unless it is there."""
    place = cache_dir() / f"{PEER}-{VERSION}"
    if not place.exists():
        with made_whole(place) as part:
            words = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(part)]
            subprocess.run([*words, f"{PEER}@{VERSION}"], check=True)
    return place / "node_modules"


def made(subject: Subject, engine: str, dtype: Dtype, place: Path) -> Path:
    """The file that an engine loads, made anew: what the compiler writes may have changed."""
    model = load(subject.folder / "model.safetensors")
    if engine == PEER:
        onnx.write(model, place / "model.onnx")
        return place / "model.onnx"
    calibrate = subject.folder / "calibration" if dtype == "int8" else None
    shutil.rmtree(place / dtype, ignore_errors=True)
    compile_model(
        model,
        place / dtype,
        lambda *_: None,
        name="model",
        target="wasm",
        dtype=dtype,
        calibrate=calibrate,
    )
    return place / dtype / "model.mjs"


def worker(subject: Subject, engine: str, dtype: Dtype, file: Path, flags: list[str]) -> Worker:
    own = "levels.bin" if dtype == "int8" else "values.bin"
    given = subject.folder / ("planes.bin" if engine == PEER else own)
    words = ("node", *flags, str(Path(__file__).with_suffix(".mjs")), engine, str(file), str(given))
    words += (str(subject.model.net.resolution), str(packages()))
    kind = Engine(name=engine, family=engine, dtype=dtype, module="", kind=dtype)
    return Worker(Job(kind, file, subject.folder, 1, words))


def checked(one: Worker, subject: Subject) -> Agreement:
    assert subject.wanted is not None
    answer = np.asarray(one.first()[1]["answer"], np.float32)
    one.stop()
    return agreement(answer, subject.wanted, one.job.engine.dtype)


def measured(subject: Subject, args: argparse.Namespace, flags: list[str]) -> list[dict[str, Any]]:
    place = subject.folder / "web"
    place.mkdir(exist_ok=True)
    files = [made(subject, *run, place) for run in RUNS]
    workers: list[Worker] = []
    try:
        for run, file in zip(RUNS, files, strict=True):
            workers.append(worker(subject, *run, file, flags))
        agreements = [checked(one, subject) for one in workers]

        def aside(one: Worker, reason: str) -> None:
            raise SystemExit(f"{one.job}: {reason}")

        order = random.Random(0)
        times = raced(workers, args.rounds, args.turn_ms / 1e3, order, aside, lambda *_: None)
    finally:
        close_all(workers)
    rows = []
    for one, agreed in zip(workers, agreements, strict=True):
        low, middle, high = (round(1e3 * seconds, 3) for seconds in times[one].at(0.1, 0.5, 0.9))
        own = one.job.engine.name == "ours"
        wasm = one.job.place.with_suffix(".wasm") if own else packages() / PEER / "dist"
        wasm = wasm if own else wasm / "ort-wasm-simd-threaded.wasm"
        rows.append(
            {
                "model": subject.name,
                "weights": subject.weights,
                "engine": one.job.engine.name,
                "dtype": one.job.engine.dtype,
                "threads": 1,
                "latency_ms": middle,
                "p10_ms": low,
                "p90_ms": high,
                "n": times[one].n,
                "code_bytes": wasm.stat().st_size,
                "difference": f"{agreed.relative:.2e}",
                "correlation": round(agreed.correlation, 5),
                "version": "" if own else VERSION,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default="1.0/224,0.25/128")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--turn-ms", type=int, default=200)
    parser.add_argument("--node-flags", default="")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "web.csv")
    args = parser.parse_args()
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    told = {"node": " ".join([node, args.node_flags]).strip(), "machine": machine_line()}
    for variant in args.variants.split(","):
        width, side = variant.split("/")
        subject = opened("v1", width=float(width), resolution=int(side), seed=0, calibrate=None)
        rows = measured(subject, args, shlex.split(args.node_flags))
        date = time.strftime("%Y-%m-%dT%H:%M:%S")
        for row in rows:
            keep(args.out, row | told | {"date": date, "command": shlex.join(["python", *sys.argv])})
        for other, own in pairwise(rows):
            quotients = [other[key] / own[key] for key in ("latency_ms", "p10_ms")]
            told_of = "{engine} {dtype}".format_map
            print(
                f"{variant}: {told_of(own)} {quotients[0]:.2f} times as fast as {told_of(other)} "
                f"({quotients[1]:.2f} by the tenth percentiles)"
            )


if __name__ == "__main__":
    main()
