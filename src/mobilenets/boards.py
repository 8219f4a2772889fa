"""The commands about devices that are not here: which there are, how long they take, what fits them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobilenets.console import say_json
from mobilenets.flags import JSON
from mobilenets.shown import show_choice, show_devices, show_forecast, show_targets

app = typer.Typer()
OURS = "ours"
Json = Annotated[bool, typer.Option("--json", help=JSON)]
Named = Annotated[str, typer.Option("--device", help="A name of `mobilenets devices`.")]
Threads = Annotated[int, typer.Option(min=1, help="Of its cores.")]
Rows = Annotated[
    list[Path] | None,
    typer.Option("--rows", help="rows.csv of `mobilenets bench --out`, measured there; may be given again."),
]
Runtime = Annotated[
    str | None, typer.Option(help=f"Of the rows, the engine that counts; {OURS} unless given.")
]


@app.command(epilog="Example: mobilenets devices")
def devices(json: Json = False) -> None:
    """What code is built for; boards, phones and parts by name: what is known of each, and from where."""
    from mobilenets.listing import listed_devices, listed_targets

    rows, targets = listed_devices(), listed_targets()
    if json:
        say_json({"targets": targets, "devices": rows})
        return
    show_targets(targets)
    show_devices(rows)


@app.command(epilog="Example: mobilenets forecast v1 --device raspberry-pi-4 --threads 4 --dtype int8")
def forecast(
    model: Annotated[str, typer.Argument(help="A model file, or a network's name.")],
    device: Annotated[
        str | None,
        typer.Option(help="A name of `mobilenets devices`; without one, the machine that --rows are of."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or int8, float16 for some; the file's own, or float32, unless given."),
    ] = None,
    threads: Threads = 1,
    width: Annotated[float | None, typer.Option(help="Width multiplier of a network.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Input side of a network, pixels.")] = None,
    rows: Rows = None,
    runtime: Runtime = None,
    by_layer: Annotated[bool, typer.Option("--by-layer", help="A row for each layer.")] = False,
    json: Json = False,
) -> None:
    """How long a picture takes on a device that is not here, or by rows that were measured: an estimate."""
    from dataclasses import replace

    from mobilenets.costs import forecast as costs
    from mobilenets.costs.count import cost
    from mobilenets.costs.device import device as named
    from mobilenets.listing import network

    of_rows(runtime, rows)
    if device is None and not rows:
        raise ValueError(
            "--device NAME says of what (`mobilenets devices`), or --rows what was measured here"
        )
    where = None if device is None else named(device)
    net, own_dtype = network(model, width, resolution)
    dtype = dtype or own_dtype
    if where is not None and not rows:
        found = costs.forecast(cost(net), where, dtype, threads)
    else:
        from mobilenets import measured

        read = measured.read(rows or [])
        where, known = measured.factors(read, dtype, threads, runtime or OURS, where)
        found = costs.forecast(cost(net), where, dtype, threads, known)
        there = measured.took(read, threads, runtime or OURS).get(
            ((net.name, net.width, net.resolution), dtype)
        )
        if there is not None:
            found = replace(found, notes=(*found.notes, f"measured, by the rows: {there:.4g} ms"))
    if json:
        say_json({"net": net.called} | costs.as_json(found, by_layer))
        return
    show_forecast(found, net.called, where.says, by_layer)


@app.command(epilog="Example: mobilenets choose --device raspberry-pi-4 --latency-ms 30 --size-kb 4000")
def choose(
    device: Named,
    latency_ms: Annotated[float | None, typer.Option(help="Milliseconds for a picture.")] = None,
    size_kb: Annotated[float | None, typer.Option(help="Of weights.")] = None,
    ram_kb: Annotated[float | None, typer.Option(help="Of maps alive together.")] = None,
    energy_mj: Annotated[float | None, typer.Option(help="Millijoules for a picture.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or int8; both unless given.")] = None,
    threads: Threads = 1,
    scores: Annotated[
        Path | None, typer.Option(help="sweep.csv of a retraining: its variants, its accuracies.")
    ] = None,
    rows: Rows = None,
    runtime: Runtime = None,
    json: Json = False,
) -> None:
    """The variants that fit a budget on a device, the most accurate first, by forecasts or measured rows.

    The memories of a microcontroller are limits of themselves.
    """
    from mobilenets.choosing import chosen
    from mobilenets.costs.choose import Budget

    of_rows(runtime, rows)
    asked = Budget(latency_ms=latency_ms, size_kb=size_kb, ram_kb=ram_kb, energy_mj=energy_mj)
    found = chosen(device, asked, dtype, threads, scores, rows or [], runtime or OURS)
    if json:
        say_json(found.as_json())
        return
    show_choice(found)


def of_rows(runtime: str | None, rows: list[Path] | None) -> None:
    """Raises ValueError for a runtime where no rows are: a forecast's is that of its figures."""
    if runtime is not None and not rows:
        raise ValueError(f"--runtime {runtime}: is of measured rows; give them with --rows")
