"""`mobilenets study` on Caltech-101, with weights of four widths: a published study's table.

    python benchmarks/study.py --data DATA [-- OPTIONS]

DATA has `data/caltech101.tar` (benchmarks/prepare.py makes it) and `weights/`; OPTIONS go to
`mobilenets study` as they are. Rows are added to results/study.csv, the picture becomes docs/study.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from rows import keep

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="a folder to keep; with it a run that was cut off can go on")
    given = sys.argv[1:]
    own = given.index("--") if "--" in given else len(given)  # argparse takes no list after an option
    args, options = parser.parse_args(given[:own]), given[own + 1 :]
    with tempfile.TemporaryDirectory() as scratch:
        place = args.out or Path(scratch)
        folder, out = place / "caltech101", place / "study"
        if not folder.exists():
            with tarfile.open(args.data / "data" / "caltech101.tar") as archive:
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
                archive.extractall(place)
        command = [sys.executable, "-m", "mobilenets", "study", str(folder), "--weights"]
        command += [str(args.data / "weights"), "--out", str(out), "--json", *options]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        told = shlex.join(["python", "benchmarks/study.py", "--data", "DATA", *given[own:]])
        kept = {"machine": found["machine"], "date": found["date"], "command": told}
        with (out / "study.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                keep(ROOT / "results" / "study.csv", {"set": "caltech101", **row, **kept})
        shutil.copy(out / "study.png", ROOT / "docs" / "study.png")


if __name__ == "__main__":
    main()
