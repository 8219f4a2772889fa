"""The command `compare`: the networks of the field in one table, and accuracy against what they cost."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mobilenets.boards import OURS, Json, Rows, Runtime, Threads, of_rows
from mobilenets.console import Reporter, say, say_json, table

app = typer.Typer()


@app.command(epilog="Example: mobilenets compare v1 v2 v3 --device raspberry-pi-4 --threads 4 --out field")
def compare(
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks, or beginnings of their names; all unless given.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the table, its picture and a page go.")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="A name of `mobilenets devices`; without one, the machine that --rows are of."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of latencies: float32 or int8, float16 for some.")] = "float32",
    threads: Threads = 1,
    rows: Rows = None,
    runtime: Runtime = None,
    sort: Annotated[str, typer.Option(help="By macs, accuracy, params, latency or name.")] = "macs",
    json: Json = False,
) -> None:
    """The field in one table: published accuracy, cost, sizes, and how long a picture takes on a device."""
    from mobilenets import comparing
    from mobilenets.report.compare import LEFT, cells, head, numbered

    of_rows(runtime, rows)
    clock = comparing.Clock(device, dtype, threads, tuple(rows or ()), runtime or OURS)
    with Reporter() as progress:
        told = shlex.join(["mobilenets", *sys.argv[1:]])
        found = comparing.compare(names or (), clock, sort, progress, out=out, command=told)
    if json:
        say_json(found)
        return
    table(head(found, full=False), [cells(row, found, full=False) for row in found["rows"]], left=LEFT)
    for text in [*numbered(found), *found["notes"]]:
        say(text)
    if out is not None:
        say(f"written: {', '.join(str(out / name) for name in found['files'])}")
