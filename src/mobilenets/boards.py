"""The commands about devices that are not here: which there are, how long they take, what fits them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobilenets.console import say, say_json
from mobilenets.flags import JSON
from mobilenets.shown import show_choice, show_devices, show_forecast, show_targets

app = typer.Typer()
Json = Annotated[bool, typer.Option("--json", help=JSON)]
Named = Annotated[str, typer.Option("--device", help="A name of `mobilenets devices`.")]
Threads = Annotated[int, typer.Option(min=1, help="Of its cores.")]


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
    device: Named,
    dtype: Annotated[str, typer.Option(help="float32 or int8.")] = "float32",
    threads: Threads = 1,
    width: Annotated[float | None, typer.Option(help="Width multiplier of a network.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Input side of a network, pixels.")] = None,
    by_layer: Annotated[bool, typer.Option("--by-layer", help="A row for each layer.")] = False,
    json: Json = False,
) -> None:
    """How long a picture takes on a device that is not here: an estimate, with its interval."""
    from mobilenets.costs import forecast as costs
    from mobilenets.costs.count import cost
    from mobilenets.costs.device import device as named
    from mobilenets.listing import network

    where, net = named(device), network(model, width, resolution)
    found = costs.forecast(cost(net), where, dtype, threads)
    told = f"{net.name} {net.width:g} at {net.resolution}"
    if json:
        say_json({"net": told} | costs.as_json(found, by_layer))
        return
    show_forecast(found, told, where.says, by_layer)


@app.command(epilog="Example: mobilenets choose --device raspberry-pi-4 --latency-ms 30 --size-kb 4000")
def choose(
    device: Named,
    latency_ms: Annotated[float | None, typer.Option(min=0.0, help="Milliseconds for a picture.")] = None,
    size_kb: Annotated[float | None, typer.Option(min=0.0, help="Of weights.")] = None,
    ram_kb: Annotated[float | None, typer.Option(min=0.0, help="Of maps alive together.")] = None,
    energy_mj: Annotated[float | None, typer.Option(min=0.0, help="Millijoules for a picture.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32 or int8; both unless given.")] = None,
    threads: Threads = 1,
    scores: Annotated[
        Path | None, typer.Option(help="sweep.csv of a retraining: its variants, its accuracies.")
    ] = None,
    json: Json = False,
) -> None:
    """The variants that fit a budget on a device, the most accurate first. Latencies are forecasts."""
    from mobilenets.costs.choose import SLIM, Budget, candidates, chosen
    from mobilenets.costs.device import device as named
    from mobilenets.listing import sweep_scores

    where = named(device)
    own, classes = (None, None) if scores is None else sweep_scores(scores)
    asked = ("float32", "int8") if dtype is None else (dtype,)
    budget = Budget(latency_ms=latency_ms, size_kb=size_kb, ram_kb=ram_kb, energy_mj=energy_mj)
    found = (
        candidates(where, asked, threads) if own is None else candidates(where, asked, threads, own, classes)
    )
    fitting, closest = chosen(found, budget)
    source = SLIM if scores is None else str(scores)
    if json:
        rows = [one.as_json() for one in fitting]
        near = None if closest is None else closest.as_json()
        say_json(
            {
                "device": where.name,
                "budget": budget.limits,
                "scores": source,
                "fitting": rows,
                "closest": near,
            }
        )
        return
    show_choice(fitting, closest, budget, where.says, source)
    if fitting:
        say(f"latencies are forecasts, from {fitting[0].forecast.rests_on}")
