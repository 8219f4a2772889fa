"""The sixteen published V1 with random weights, this package's code against the other runtimes, in turns.

    python benchmarks/race.py [--variants 1.0/224,v3-large/1.0/224] [--again] [-- OPTIONS]

Other networks of the family are raced where --variants names them.
OPTIONS go to `mobilenets bench` as they are; without any: both types, one and two threads, the engines that
were ever the best, no cold starts. Rows are added to results/race.csv as each variant ends, and a variant
that has rows there with the same OPTIONS from the same machine is left out, so that a run that was cut off
goes on where it was; --again measures it once more. At the end, and with --summary alone, the best of the
others against ours is told for each variant, by its latest rows, and the geometric mean over all.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilenets.bench.record import append, flat
from mobilenets.train.meter import machine_line

ROOT = Path(__file__).parents[1]
VARIANTS = [(width, side) for width in (1.0, 0.75, 0.5, 0.25) for side in (224, 192, 160, 128)]
USUAL = ["--threads", "1,2", "--dtype", "float32,int8", "--starts", "0"]
USUAL += ["--engines", "ours,onnxruntime,openvino,litert,ncnn"]


Variant = tuple[str, float, int]


def chosen(text: str) -> list[Variant]:
    """The variants named, such as 1.0/224,v2/1.0/224; all V1 for `all`."""
    if text == "all":
        return [("v1", width, side) for width, side in VARIANTS]
    parts = (word.split("/") for word in text.split(","))
    return [(net[0] if net else "v1", float(width), int(side)) for *net, width, side in parts]


def command(variant: Variant, options: Sequence[str]) -> str:
    net, width, side = variant
    return shlex.join(
        ["mobilenets", "bench", net, "--width", f"{width:g}", "--resolution", str(side), *options]
    )


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def best(rows: Iterable[Mapping[str, str]]) -> dict[tuple[str, str, str], dict[str, tuple[float, str]]]:
    """By type, threads and call of ours: for each model the best of the others against ours, and its name."""
    races: dict[tuple[str, ...], list[Mapping[str, str]]] = defaultdict(list)
    for row in rows:
        races[row["model"], row["dtype"], row["threads"], row["date"], row["machine"]].append(row)
    found: dict[tuple[str, str, str], dict[str, tuple[float, str]]] = defaultdict(dict)
    for (model, dtype, threads, _, _), race in sorted(races.items(), key=lambda item: item[0][3]):
        own = next((row for row in race if row["engine"] == "ours"), None)
        others = [row for row in race if row["engine"] != "ours"]
        if own is None or not others:
            continue
        rival = min(others, key=lambda row: float(row["latency_ms"]))
        quotient = float(rival["latency_ms"]) / float(own["latency_ms"])
        found[dtype, threads, own["call"]][model] = (quotient, rival["engine"])
    return found


def summary(rows: Iterable[Mapping[str, str]]) -> None:
    for (dtype, threads, call), models in sorted(best(rows).items()):
        print(f"{dtype}, {threads} thread{'s' * (threads != '1')}, ours called from {call}")
        for model, (quotient, rival) in sorted(models.items(), reverse=True):
            print(f"    {model:16} {quotient:5.2f}  {rival}")
        mean = math.exp(sum(math.log(quotient) for quotient, _ in models.values()) / len(models))
        print(f"    geometric mean of {len(models)}: {mean:.3f}")


def raced(variant: Variant, options: Sequence[str]) -> dict[str, Any]:
    """One variant's race; what is made for it is of no use to another and is not kept."""
    words = [sys.executable, "-m", "mobilenets", *shlex.split(command(variant, options))[1:], "--json"]
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            words, stdout=subprocess.PIPE, check=True, env={**os.environ, "MOBILENETS_CACHE": cache}
        )
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"command": command(variant, options)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default="all")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "race.csv")
    given = sys.argv[1:]
    own = given.index("--") if "--" in given else len(given)  # argparse takes no list after an option
    args, options = parser.parse_args(given[:own]), given[own + 1 :] or USUAL
    for variant in [] if args.summary else chosen(args.variants):
        told, machine = command(variant, options), machine_line()
        done = any(row["command"] == told and row["machine"] == machine for row in read(args.out))
        if done and not args.again:
            print(f"{told}: measured already", flush=True)
            continue
        found = raced(variant, options)
        for row in found["skipped"]:
            print(f"not raced: {row['engine']} {row['dtype']}: {row['reason']}", flush=True)
        append(args.out, flat(found))
    summary(read(args.out))


if __name__ == "__main__":
    main()
