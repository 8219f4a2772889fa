"""`mobilenets train` as a user runs it, timed from outside, its pictures decoded anew.

    python benchmarks/train.py SET RECIPE --data FOLDER [--seeds 0,1,2] [--out OUT] [--int8] [-- OPTIONS]

FOLDER has `data/SET.tar` or `data/SET.tar.xz` (cifar10, tiny-imagenet-22k). OPTIONS go to `mobilenets train`
as they are. Each seed is a process with an empty cache; its seconds are wall-clock from its start to its end,
reading, decoding and judging included. With --out what each run leaves stays there, and one that was cut off
goes on: its seconds are then those of the last process alone, and the row says so. With --int8 the network is
compiled in bytes too, calibrated on what it learned from, and judged on the set's test part. Rows are added
to results/train.csv as they come, and what each epoch ended with to results/curves/.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from retrain import COMMAND
from rows import keep, told

from mobilenets.train.keeper import CHECKPOINT
from mobilenets.train.meter import machine_line

ROWS = Path(__file__).parents[1] / "results" / "train.csv"
CURVES = ROWS.parent / "curves"


def unpacked(data: Path, name: str, into: Path) -> Path:
    """The set's folder, made once."""
    packed = next(path for path in (data / "data").glob(f"{name}.tar*"))
    folder = into / name
    if not folder.exists():
        with tarfile.open(packed) as archive:
            archive.extractall(folder, filter="data")
    inner = list(folder.iterdir())
    return inner[0] if len(inner) == 1 and inner[0].is_dir() else folder


def run(folder: Path, out: Path, words: list[str], cache: Path) -> tuple[dict[str, Any], float, bool]:
    """What a training printed as JSON, its wall-clock seconds, and whether it went on from an earlier one."""
    again = ["--resume"] if (out / CHECKPOINT).exists() else []
    command = [
        sys.executable,
        "-m",
        "mobilenets",
        "train",
        str(folder),
        "--out",
        str(out),
        "--json",
        *words,
        *again,
    ]
    begun = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, "MOBILENETS_CACHE": str(cache)}
    )
    return json.loads(done.stdout), time.perf_counter() - begun, bool(again)


def in_bytes(model: Path, folder: Path, into: Path) -> float:
    """Top-1 of the model compiled in int8, on the set's test part."""
    compiling = ["compile", str(model), "--dtype", "int8", "--calibrate", str(folder / "train")]
    made = told([*compiling, "--out", str(into)])
    return float(told(["evaluate", str(into / made["library"]), str(folder / "test")])["top1"])


def curve(name: str, epochs: list[dict[str, Any]]) -> None:
    """The loss, the accuracy on validation pictures and the seconds of each epoch, in a file of that name."""
    CURVES.mkdir(exist_ok=True)
    with (CURVES / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, ["epoch", "loss", "val_accuracy", "seconds"], lineterminator="\n")
        rows.writeheader()
        for one in epochs:
            rows.writerow({**one, "loss": f"{one['loss']:.4f}", "seconds": round(one["seconds"], 1)})


def main() -> None:
    """Each seed, one after the other."""
    asked = argparse.ArgumentParser()
    asked.add_argument("set")
    asked.add_argument("recipe")
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--seeds", default="0")
    asked.add_argument("--out", type=Path)
    asked.add_argument("--int8", action="store_true")
    words = sys.argv[1:]
    own = (
        words.index("--") if "--" in words else len(words)
    )  # argparse wants all that has a place side by side
    given, options = asked.parse_args(words[:own]), words[own + 1 :]
    with tempfile.TemporaryDirectory() as scratch:
        folder = unpacked(given.data, given.set, Path(scratch))
        for seed in map(int, given.seeds.split(",")):
            out = (given.out or Path(scratch)) / f"{given.recipe}-{seed}"
            words = ["--recipe", given.recipe, "--seed", str(seed), *options]
            with tempfile.TemporaryDirectory() as cache:
                found, wall_s, again = run(folder, out, words, Path(cache))
            low, high = found["interval"] or (None, None)
            net = f"{found['net']['name']}-{found['net']['width']:g}"
            curve(f"{given.set}-{given.recipe}-{net}-{seed}", found["epochs"])
            model = out / found["model"]
            keep(
                ROWS,
                {
                    "set": given.set,
                    "recipe": given.recipe,
                    "net": found["net"]["name"],
                    "width": found["net"]["width"],
                    "resolution": found["net"]["resolution"],
                    "params": found["net"]["params"],
                    "seed": seed,
                    "epochs": len(found["epochs"]),
                    "test_accuracy": found["accuracy"]["test"],
                    "test_pictures": found["test_pictures"],
                    "interval_low": low,
                    "interval_high": high,
                    "val_accuracy": found["accuracy"]["val"],
                    "wall_s": round(wall_s, 1),
                    "went_on": again,
                    "epochs_s": round(sum(epoch["seconds"] for epoch in found["epochs"]), 1),
                    "images_per_second": found["images_per_second"],
                    "waiting": found["waiting"],
                    "peak_mb": found["peak_rss_mb"],
                    "machine": machine_line(),
                    "torch": version("torch"),
                    "command": COMMAND,
                    "int8_accuracy": in_bytes(model, folder, out / "bytes") if given.int8 else None,
                },
            )


if __name__ == "__main__":
    main()
