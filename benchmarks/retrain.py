"""`mobilenets retrain` as a user runs it, timed from outside: cold cache, warm cache, beside plain torch.

    python benchmarks/retrain.py SET --data FOLDER --weights FILE [--seeds 0,1,2] [--cold-only]
    [--one-cache] [--against-plain] [--cheats] [-- OPTIONS]

FOLDER has `data/SET.tar` (benchmarks/prepare.py makes it); OPTIONS go to `mobilenets retrain` as they are.
For each seed: one run with an empty cache, then, unless --cold-only, one that finds it filled; with
--against-plain the plain script runs between them, so that both are timed in the same minutes. Each run is a
process; seconds are wall-clock from its start to its end. Rows are added to results/retrain.csv as they come.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rows import keep

from mobilenets.train.meter import machine_line

FIELDS = (
    *(
        "set",
        "configuration",
        "seed",
        "cache",
        "test_accuracy",
        "test_pictures",
        "interval_low",
        "interval_high",
    ),
    *("top5", "val_accuracy", "wall_s", "features_s", "fit_s", "finetune_s", "peak_mb", "images_used"),
    *("float32_bytes", "int8_bytes"),
    *("machine", "torch", "command"),
)
# Rows are read on other machines: where data and weights lie on this one is left out.
PLACES = {"--data": "DATA", "--weights": "DATA/weights/", "--imagenet": "DATA/weights/"}


def _repeatable(arguments: list[str]) -> str:
    """The command with DATA in place of this machine's folders, without where its results went."""
    told = ["python"]
    words = iter(arguments)
    for word in words:
        if word in ("--keep", "--out"):
            next(words, "")
        elif word in PLACES:
            value = Path(next(words, "")).name if word != "--data" else next(words, "")[:0]
            told += [word, PLACES[word] + value]
        else:
            told.append(word)
    return shlex.join(told)


COMMAND = _repeatable(sys.argv)
PLAIN = Path(__file__).parent / "plain_torch.py"


def run(command: list[str], cache: Path) -> tuple[dict[str, Any], float]:
    """What a command printed as JSON, and its wall-clock seconds."""
    begun = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, env={**os.environ, "MOBILENETS_CACHE": str(cache)}
    )
    return json.loads(done.stdout), time.perf_counter() - begun


def row(
    name: str, configuration: str, seed: int, cache: str, told: dict[str, Any], wall_s: float
) -> dict[str, Any]:
    """A line of the results; what a run does not tell stays empty."""
    low, high = told.get("interval") or ("", "")
    seconds = told["seconds"]
    return {
        "set": name,
        "configuration": ", ".join(
            (configuration, *([f"body by {told['engine']}"] if told.get("engine") else []))
        ),
        "seed": seed,
        "cache": cache,
        "test_accuracy": _round(
            told["accuracy"]["test"] if isinstance(told["accuracy"], dict) else told["accuracy"]
        ),
        "test_pictures": told.get("test_pictures", ""),
        "interval_low": _round(low),
        "interval_high": _round(high),
        "top5": _round(told.get("top5", "")),
        "val_accuracy": _round(told["accuracy"]["val"] if isinstance(told["accuracy"], dict) else ""),
        "wall_s": round(wall_s, 1),
        "features_s": round(seconds["features"], 1),
        "fit_s": round(seconds.get("fit", seconds["total"] - seconds["features"]), 1),
        "finetune_s": round(seconds.get("finetune", 0.0), 1),
        "peak_mb": told.get("peak_rss_mb", ""),
        "images_used": told.get("images", {}).get("used", ""),
        "float32_bytes": told.get("net", {}).get("file_bytes", ""),
        "int8_bytes": told.get("net", {}).get("int8_bytes", ""),
        "machine": machine_line(),
        "torch": version("torch"),
        "command": COMMAND,
    }


def guessed(name: str, guess: dict[str, Any], images: int, wall_s: float) -> dict[str, Any]:
    """A line for what `doctor` guesses labels by without a look at the pictures, cross-validated."""
    return dict.fromkeys(FIELDS, "") | {
        "set": name,
        "configuration": f"cheat: {guess['cue']}",
        "cache": "none",
        "test_accuracy": _round(guess["accuracy"]),
        "test_pictures": guess["n"],
        "interval_low": _round(guess["interval"][0]),
        "interval_high": _round(guess["interval"][1]),
        "wall_s": round(wall_s, 1),
        "images_used": images,
        "machine": machine_line(),
        "command": COMMAND,
    }


def _round(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", help="caltech101, road-or-not, …")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--cold-only", action="store_true", help="fine-tuning takes as long a second time")
    parser.add_argument("--one-cache", action="store_true", help="for all seeds: only the first is cold")
    parser.add_argument("--against-plain", action="store_true")
    parser.add_argument("--cheats", action="store_true", help="what labels are guessed by without a look")
    parser.add_argument("--keep", type=Path, help="copy each model and report into this folder")
    parser.add_argument("--out", type=Path, default=Path("results/retrain.csv"))
    given = sys.argv[1:]
    own = given.index("--") if "--" in given else len(given)  # argparse takes no list after an option
    args, options = parser.parse_args(given[:own]), given[own + 1 :]
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(args.data / "data" / f"{args.set}.tar") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
            archive.extractall(scratch)
        folder = Path(scratch) / args.set
        retrain = [sys.executable, "-m", "mobilenets", "retrain", str(folder)]
        retrain += ["--weights", str(args.weights), "--json"]
        told_options = " ".join(options if "--finetune" in options else ["features alone", *options])
        if args.cheats:
            cheat = [sys.executable, "-m", "mobilenets", "doctor", str(folder), "--json"]
            found, wall_s = run(cheat, Path(scratch) / "cache")
            for guess in found["shortcuts"]:
                keep(args.out, guessed(args.set, guess, found["images"], wall_s))
        for seed in (int(text) for text in args.seeds.split(",")):
            cache = Path(scratch) / ("cache" if args.one_cache else f"cache{seed}")
            out, filled = Path(scratch) / f"out{seed}", "warm" if cache.exists() else "cold"
            command = [*retrain, "--out", str(out), "--seed", str(seed), *options]
            keep(args.out, row(args.set, told_options, seed, filled, *run(command, cache)))
            for workers in (0, 2) if args.against_plain else ():
                plain = [sys.executable, str(PLAIN), str(folder), "--weights", str(args.weights)]
                plain += ["--seed", str(seed), "--loader-workers", str(workers)]
                name = "plain torch script" + (f", DataLoader of {workers}" if workers else "")
                keep(args.out, row(args.set, name, seed, "none", *run(plain, cache)))
            if not args.cold_only:
                keep(args.out, row(args.set, told_options, seed, "warm", *run(command, cache)))
            if args.keep is not None:
                shutil.copytree(out, args.keep / f"{args.set}-{seed}", dirs_exist_ok=True)


if __name__ == "__main__":
    main()
