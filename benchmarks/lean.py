"""What the package costs without its extras: seconds of import, seconds and peak memory of predictions.

    python benchmarks/lean.py --data FOLDER [--runs 15] [--out results/lean.csv]

Makes a virtual environment with the package and nothing but what it requires (no torch), and runs each
command as a process of its own, the commands taking turns. Seconds of import are those of a process that
imports less those of one that does not; memory is the largest resident set. FOLDER has
`data/imagenet-500.tar` and `weights/*.tflite`. "Over the interpreter" is less the median of a
Python that does nothing. Medians are written, with the tenth and ninetieth percentile. Needs a C compiler.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

import numpy as np
from PIL import Image
from rows import keep

from mobilenets.train.meter import machine_line

ROOT = Path(__file__).parents[1]
WEIGHTS = "mobilenet_v1_1.0_224_quant.tflite"
STARTER = """
import os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
begun = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, used = os.wait4(process, 0)
print(time.perf_counter() - begun, used.ru_maxrss, os.waitstatus_to_exitcode(status))
"""
"""Starts a command from a small process: a child's largest resident set begins with its parent's."""
COMPILED = {
    "V1 1.0/224 float32": (WEIGHTS, "float32"),
    "V1 1.0/224 int8": (WEIGHTS, "int8"),
    "V1 0.25/128 float32": ("mobilenet_v1_0.25_128_quant.tflite", "float32"),
    "V1 0.25/128 int8": ("mobilenet_v1_0.25_128_quant.tflite", "int8"),
}
"""Models whose cold start is told."""


def ran(command: list[str]) -> tuple[float, float]:
    """Wall-clock seconds and the largest resident set in MB of one process."""
    started = [sys.executable, "-ISc", STARTER, *command]
    seconds, kilobytes, code = subprocess.run(started, check=True, stdout=subprocess.PIPE).stdout.split()
    if int(code):
        raise SystemExit(f"{' '.join(command)}: exit {int(code)}")
    return float(seconds), int(kilobytes) * 1024 / 1e6


def asked_compiled(script: str, data: Path, place: Path, picture: str) -> dict[str, list[str]]:
    """A command for each compiled model, in words and as JSON: one JPEG, read as a user's would be."""
    jpeg = str(place / "picture.jpg")
    Image.open(picture).convert("RGB").save(jpeg, quality=90)
    commands = {}
    for number, (name, (weights, dtype)) in enumerate(COMPILED.items()):
        out = place / f"compiled{number}"
        made = [
            "compile",
            str(data / "weights" / weights),
            "--dtype",
            dtype,
            "--name",
            "v1",
            "--out",
            str(out),
        ]
        subprocess.run([script, *made, "--json"], check=True, stdout=subprocess.DEVNULL)
        command = [script, "predict", str(out / "v1.so"), jpeg]
        commands[f"mobilenets predict, compiled {name}"] = command
        commands[f"mobilenets predict --json, compiled {name}"] = [*command, "--json"]
    return commands


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
            "python that imports numpy": [python, "-c", "import numpy"],
            "import mobilenets": [python, "-c", "import mobilenets"],
            "mobilenets cost v1": [python, "-m", "mobilenets", "cost", "v1", "--json"],
            "mobilenets predict, one picture": predict,
        }
        script = str(place / "venv" / "bin" / "mobilenets")
        commands |= asked_compiled(script, args.data, place, pictures[0])
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(args.runs):
            for name, command in commands.items():
                rows[name].append(ran(command))
        empty, bare = np.median(rows["python that does nothing"], axis=0)
        written = []
        for name, values in rows.items():
            seconds, megabytes = np.array(values).T
            if name == "import mobilenets":
                seconds = seconds - empty
            written.append((name, seconds, "s"))
            if name.startswith(("mobilenets", "python")):
                written.append((name, megabytes, "MB at most in memory"))
            if "compiled" in name or "numpy" in name:
                written.append((name, seconds - empty, "s over the interpreter"))
                written.append((name, megabytes - bare, "MB over the interpreter"))
    for name, series, unit in written:
        low, middle, high = (f"{value:.3f}" for value in np.percentile(series, (10, 50, 90)))
        row = {"what": name, "median": middle, "p10": low, "p90": high, "unit": unit, "runs": args.runs}
        row |= {"python": platform.python_version(), "machine": machine_line()}
        keep(args.out, row | {"command": f"python benchmarks/lean.py --data DATA --runs {args.runs}"})


if __name__ == "__main__":
    main()
