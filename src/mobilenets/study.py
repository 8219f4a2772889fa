"""The command `study`: a published study's table, measured here and forecast for its devices."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mobilenets.console import Reporter, say, say_json, table
from mobilenets.costs.study import StudyOptions
from mobilenets.flags import JSON, flags
from mobilenets.spec.option import taken

app = typer.Typer()


def _study(
    folder: Annotated[Path, typer.Argument(help="A folder of class folders, a zip of one, or a CSV.")],
    out: Annotated[Path, typer.Option(help="Where the table, its picture and each retraining go.")],
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
    **options: Any,
) -> None:
    """Retrain at several widths, cold, as a published study did, and forecast it for the study's devices."""
    from mobilenets.report.study import HEAD, cells
    from mobilenets.studying import study

    with Reporter() as progress:
        told = shlex.join(["mobilenets", *sys.argv[1:]])
        found = study(folder, out, taken(StudyOptions, options), progress, command=told)
    if json:
        say_json(found)
        return
    table(HEAD, [cells(row) for row in found["rows"]], left=2, title=f"Retrained on {found['folder']}")
    for note in found["notes"]:
        say(f"note: {note}")
    if found["assumed"]:
        say("what forecasts rest on, and the source of each figure, stand below the table")
    say(f"table   {out / 'study.md'}, {out / 'study.csv'}")
    say(f"picture {out / 'study.png'}")


app.command(
    name="study", epilog="Example: mobilenets study photos/ --weights weights/ --out study --watts 15"
)(flags(StudyOptions)(_study))
