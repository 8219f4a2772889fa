"""What is kept of a race in a folder: rows added to a CSV, the last race as JSON, a picture and a page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilenets.infer.sealed import write_whole
from mobilenets.spec.text import json_text


def flat(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows that stand alone: what was raced, the row, where, when and by which command."""
    model = found["model"]
    return [
        {"model": model["name"], "weights": model["weights"], "macs": model["macs"]}
        | row
        | {"machine": found["machine"], "date": found["date"], "command": found["command"]}
        for row in found["rows"]
    ]


def write(found: Mapping[str, Any], folder: Path) -> None:
    """rows.csv grows; rows.json, race.png and race.html are of this race; pictures need matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    append(folder / "rows.csv", flat(found))
    write_whole(folder / "rows.json", (json_text(found, indent=1) + "\n").encode())
    if not found["rows"]:
        return
    from mobilenets.report import race

    write_whole(folder / "race.png", race.picture(found))
    write_whole(folder / "race.html", race.page(found).encode("utf-8", "replace"))


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a CSV whose first line names the columns; ValueError for a row with another column."""
    if not rows:
        return
    columns = list(rows[0])
    new = not path.exists()
    if not new:
        with path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file), columns)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)
