"""What is kept of a race in a folder: rows added to a CSV, the last race as JSON, a picture and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilenets.infer.sealed import write_whole
from mobilenets.spec.text import json_text


def flat(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows that stand alone: what was raced, the row, where, when and by which command."""
    model = found["model"]
    net = {name: model[name] for name in ("net", "width", "resolution")}
    place = {name: found[name] for name in ("machine", "host", "device", "date", "command")}
    return [
        {"model": model["name"], **net, "weights": model["weights"], "macs": model["macs"]} | row | place
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
    """Add rows to a CSV whose first line names the columns, all or none; it gets those that it lacks."""
    if not rows:
        return
    old: list[dict[str, Any]] = []
    columns: list[str] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            old, columns = list(reader), list(reader.fieldnames or ())
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys([*columns, *rows[0]])), lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows([*old, *rows])
    write_whole(path, text.getvalue().encode("utf-8", "surrogateescape"))
