"""How the benchmarks ask a command, and where they keep what they measured."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Print a row and add it to a CSV file; a new one begins with the row's keys.

    Raises ValueError for a key that the file has no column for.
    """
    print("  ".join(f"{key}={value}" for key, value in row.items() if key != "command"), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = list(row)
    if path.exists():
        with path.open(newline="") as file:
            columns = next(csv.reader(file))
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def told(words: Sequence[object]) -> dict[str, Any]:
    """What a command of `mobilenets` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "mobilenets", *map(str, words), "--json"], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]
