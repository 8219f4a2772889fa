"""What the package costs without its extras: seconds of import, seconds and peak memory of a prediction.

    python benchmarks/lean.py --data FOLDER [--runs 15] [--out results/lean.csv]

Makes a virtual environment with the package and nothing but what it requires (no torch), and runs each
command as a process of its own, the commands taking turns. Seconds of import are those of a process that
imports less those of one that does not; memory is the largest resident set. FOLDER has
`data/imagenet-500.tar` and `weights/*.tflite`. Medians are written, with the tenth and ninetieth percentile.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import tarfile
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
from rows import keep

from mobilenets.train.meter import machine_line

ROOT = Path(__file__).parents[1]
WEIGHTS = "mobilenet_v1_1.0_224_quant.tflite"


def ran(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and the largest resident set in MB of one process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit {process.returncode}")
    return seconds, used.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "lean.csv")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        venv.create(place / "venv", with_pip=True)
        python = str(place / "venv" / "bin" / "python")
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*install, str(ROOT)], check=True)
        with tarfile.open(args.data / "data" / "imagenet-500.tar") as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
            archive.extractall(place)
        pictures = sorted(str(file) for file in (place / "imagenet-500").rglob("*.webp"))
        predict = [
            python,
            "-m",
            "mobilenets",
            "predict",
            str(args.data / "weights" / WEIGHTS),
            pictures[0],
            "--json",
        ]
        commands = {
            "python that does nothing": [python, "-c", "pass"],
            "import mobilenets": [python, "-c", "import mobilenets"],
            "mobilenets cost v1": [python, "-m", "mobilenets", "cost", "v1", "--json"],
            "mobilenets predict, one picture": predict,
        }
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(args.runs):
            for name, command in commands.items():
                rows[name].append(ran(command))
        empty = np.array(rows["python that does nothing"])[:, 0]
        written = []
        for name, values in rows.items():
            seconds, megabytes = np.array(values).T
            if name == "import mobilenets":
                seconds = seconds - empty
            written.append((name, seconds, "s"))
            if name.startswith("mobilenets"):
                written.append((name, megabytes, "MB at most in memory"))
    for name, series, unit in written:
        low, middle, high = (f"{value:.3f}" for value in np.percentile(series, (10, 50, 90)))
        row = {"what": name, "median": middle, "p10": low, "p90": high, "unit": unit, "runs": args.runs}
        row |= {"python": platform.python_version(), "machine": machine_line()}
        keep(args.out, row | {"command": f"python benchmarks/lean.py --data DATA --runs {args.runs}"})


if __name__ == "__main__":
    main()
