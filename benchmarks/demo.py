"""`mobilenets demo` as a user runs it, timed from outside, drawing and all.

    python benchmarks/demo.py

Adds a row to results/demo.csv; seconds are wall-clock from the process' start to its end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from rows import keep

from mobilenets.train.meter import machine_line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("results/demo.csv"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "mobilenets", "demo", "--out", scratch, "--json"]
        begun = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        wall_s = time.perf_counter() - begun
    found = json.loads(done.stdout)
    keep(
        args.out,
        {
            "test_accuracy": round(found["accuracy"]["test"], 4),
            "test_pictures": found["test_pictures"],
            "interval_low": round(found["interval"][0], 4),
            "interval_high": round(found["interval"][1], 4),
            "wall_s": round(wall_s, 1),
            "finetune_s": found["seconds"]["finetune"],
            "peak_mb": found["peak_rss_mb"],
            "machine": machine_line(),
            "torch": version("torch"),
            "command": "python benchmarks/demo.py",
        },
    )


if __name__ == "__main__":
    main()
