"""The command line: one function for each command, wings imported by the command that needs them."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from mobilenets import boards, compare, phone, study, training
from mobilenets.bench.options import BenchOptions, BoardOptions
from mobilenets.compile.target import told as targets_told
from mobilenets.console import Reporter, complain, percent, say, say_json, table
from mobilenets.energy import PowerOptions
from mobilenets.export.formats import FORMATS
from mobilenets.flags import JSON, flags
from mobilenets.phone import Calibrate, Dtype, Images
from mobilenets.predicting import PredictOptions, predict
from mobilenets.shown import (
    mistaken,
    show_compiled,
    show_cost,
    show_exported,
    show_race,
    show_run,
)
from mobilenets.spec.option import taken
from mobilenets.spec.recipe import BodyOptions, LearnOptions, MachineOptions

app = typer.Typer(
    name="mobilenets",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(boards.app)
app.add_typer(study.app)
app.add_typer(compare.app)
app.add_typer(training.app)
app.add_typer(phone.app)
MISTAKES: Any = typer.BadParameter.__mro__[2]
"""click's ClickException, which typer carries inside and gives no name of its own."""
Json = Annotated[bool, typer.Option("--json", help=JSON)]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; as many as there are cores unless given.")]


def called(arguments: list[str]) -> int:
    """One command by Typer; its exit code. A line that Typer refuses is answered here."""
    try:
        code = app(arguments or ["--help"], standalone_mode=False)
    except typer.Exit as done:
        return done.exit_code
    except MISTAKES as error:
        complain(f"{error.format_message()} (see `mobilenets {_asked(arguments)}--help`)")
        return 2
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if code == 130:  # what newer typers make of an interrupt, without a word
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _version(asked: bool) -> None:
    if asked:
        from mobilenets import __version__

        say(f"mobilenets {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which this is.")
    ] = False,
) -> None:
    """Small, fast vision models: train them on your own pictures, know what they cost."""


@app.command(epilog="Example: mobilenets cost v1 --width 0.5 --resolution 160")
def cost(
    net: Annotated[str, typer.Argument(help="A name of `mobilenets compare` or `mobilenets models`.")],
    width: Annotated[float, typer.Option(help="Width multiplier.")] = 1.0,
    resolution: Annotated[
        int | None, typer.Option(help="Input side in pixels; the published one unless given.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Classes of the head; the published number unless given.")
    ] = None,
    by_layer: Annotated[bool, typer.Option("--by-layer", help="A row for each layer.")] = False,
    json: Json = False,
) -> None:
    """What a network costs: multiply-accumulates, parameters, bytes, counted exactly from its table."""
    import mobilenets
    from mobilenets.costs.count import as_json

    counted = mobilenets.cost(net, width=width, resolution=resolution, classes=classes)
    if json:
        say_json({"net": net, "width": width} | as_json(counted, by_layer))
        return
    show_cost(counted, f"{net} {width:g}", by_layer)


@app.command(epilog="Example: mobilenets models")
def models(json: Json = False) -> None:
    """Every network and known set of weights: home, licence, published score, whether it is on this disk."""
    from urllib.parse import urlsplit

    from mobilenets.listing import listed

    rows = listed()
    if json:
        say_json({"models": rows})
        return
    table(
        ("name", "home", "licence", "resolution", "MACs", "params", "published top-1", "on this disk"),
        [
            (
                r["name"],
                (urlsplit(r["url"]).hostname or "this package") if r["url"] else "a network of this package",
                r["licence"] or "",
                r["resolution"],
                f"{r['macs'] / 1e6:.0f} M",
                f"{r['params'] / 1e6:.2f} M",
                percent(r["top1"]),
                "yes" if r["on_disk"] else "no" if r["kind"] == "weights" else "",
            )
            for r in rows
        ],
        left=3,
    )


@app.command(epilog="Example: mobilenets doctor photos/")
def doctor(
    folder: Annotated[Path, typer.Argument(help="A folder of class folders, a zip of one, or a CSV.")],
    threads: Threads = None,
    json: Json = False,
) -> None:
    """What is wrong with a data set, before it costs an hour."""
    from mobilenets.data.catalog import scan
    from mobilenets.data.crew import cores
    from mobilenets.data.doctor import examine
    from mobilenets.data.survey import looks_of
    from mobilenets.listing import store

    catalog = scan(folder)
    with Reporter() as progress:
        looks = looks_of(catalog, store(), threads or cores(), progress, now=time.time())
        found = examine(catalog, looks)
    if json:
        from mobilenets.data.doctor import as_json

        say_json(as_json(found))
        return
    say(f"{found.images} pictures in {found.classes} classes")
    for problem in found.problems:
        say(f"\n{problem.severity}: {problem.kind} ({len(problem.files)}): {problem.detail}")
        for file in problem.files[:5]:
            say(f"    {file}")
        if len(problem.files) > 5:
            say(f"    … and {len(problem.files) - 5} more (--json lists all)")
        say(f"    → {problem.remedy}")
    if found.shortcuts:
        table(
            ("labels guessed from", "accuracy", "largest class", "so"),
            [
                (g.cue, percent(g.accuracy), percent(g.majority), "leaks" if g.leaks else "")
                for g in found.shortcuts
            ],
        )
    if not found.problems:
        say("nothing wrong was found")


def _retrain(
    folder: Annotated[Path, typer.Argument(help="A folder of class folders, a zip of one, or a CSV.")],
    out: Annotated[Path, typer.Option(help="Where the model, the report and the record go.")],
    sweep: Annotated[
        bool, typer.Option("--sweep", help="A grid of widths and resolutions, compared.")
    ] = False,
    json: Json = False,
    **options: Any,
) -> None:
    """Teach a network your classes: a model file and a report in which every number was measured."""
    from mobilenets.job import as_json, retrain

    with Reporter() as progress:
        run = retrain(
            folder,
            out,
            {**options, "sweep": sweep},
            progress,
            command=shlex.join(["mobilenets", *sys.argv[1:]]),
        )
    if json:
        say_json(as_json(run))
        return
    show_run(run, out)


app.command(
    name="retrain",
    epilog="Example: mobilenets retrain photos/ --out out --width 0.5 --resolution 160 --finetune 5",
)(flags(BodyOptions, LearnOptions, MachineOptions, PowerOptions)(_retrain))


@app.command(epilog="Example: mobilenets demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Where pictures, model and report go.")] = Path("demo"),
    json: Json = False,
) -> None:
    """Road signs drawn here teach the small V1 that comes along: nothing is fetched, nothing is yours."""
    from mobilenets import demo as signs
    from mobilenets.job import as_json, retrain

    if not json:
        say("drawing road signs, then teaching them to the MobileNet V1 0.25 at 128 × 128 of this package")
    with Reporter() as progress:
        folder = signs.pictures(out, lambda done, total: progress("draw", done, total))
        told = shlex.join(["mobilenets", "demo", "--out", str(out)])
        run = retrain(folder, out, signs.OPTIONS, progress, command=told)
    if json:
        say_json(as_json(run))
        return
    show_run(run, out)
    say("it had seen tiny pictures of 200 classes; ImageNet weights (`mobilenets models`) know more: README")


@app.command(epilog="Example: mobilenets evaluate out/model.safetensors more-photos/")
def evaluate(
    model: Annotated[str, typer.Argument(help="A model file, or a name of `mobilenets models`.")],
    folder: Annotated[Path, typer.Argument(help="Labelled pictures: a folder, a zip or a CSV.")],
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Score a model on labelled pictures it has not seen."""
    # Each picture has a thread of its own; more of them in one product would only wait for one another.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import mobilenets
    from mobilenets.data.evaluate import as_json
    from mobilenets.infer.ready import load

    with Reporter() as progress:
        ready = load(model, progress.download)
        found = mobilenets.evaluate(ready, folder, threads=threads, progress=progress)
    if json:
        say_json(as_json(found))
        return
    low, high = found.interval
    five = f", top-5 {percent(found.top5)}" if len(found.labels) > 5 else ""
    say(f"top-1 {percent(found.top1)} ({percent(low)} to {percent(high)} with 95 %){five}, n = {found.n}")
    say(
        f"calibration error {percent(found.calibration_error)}"
        + (f", answered unknown {percent(found.unknown)}" if found.unknown is not None else "")
    )
    if found.part is not None:
        say(f"on the data set's own {found.part} part")
    for aside in found.set_aside[:5]:
        say(f"set aside: {aside.file}: {aside.reason}")
    worst = sorted(found.per_class.items(), key=lambda item: item[1])[:20]
    table(
        ("class (worst first)", "accuracy", "n", "taken for"),
        [(label, percent(share), *mistaken(found, label)) for label, share in worst],
    )


def _predict(**options: Any) -> None:
    """Ask a model about pictures. A bad one is named and the others answered; a path that is none gives 2."""
    raise typer.Exit(predict(taken(PredictOptions, options)))


app.command(name="predict", epilog="Example: mobilenets predict out/model.safetensors photo.jpg --top 3")(
    flags(PredictOptions)(_predict)
)


@app.command(epilog="Example: mobilenets info out/model.safetensors")
def info(
    model: Annotated[str, typer.Argument(help="A model file, or a name of `mobilenets models`.")],
    json: Json = False,
) -> None:
    """What is inside a model file."""
    from mobilenets.infer.ready import load
    from mobilenets.listing import described
    from mobilenets.report.markup import readable

    with Reporter() as progress:
        facts = described(load(model, progress.download).artefact)
    if json:
        say_json(facts)
        return
    for name, value in facts.items():
        say(f"{name:14} {readable(value)}")


@app.command(name="compile", epilog="Example: mobilenets compile out/model.safetensors --out compiled")
def compile_(
    model: Annotated[str, typer.Argument(help="A model file, or a name of `mobilenets models`.")],
    out: Annotated[Path, typer.Option(help="Where C, weights, library and certificate go.")],
    target: Annotated[str, typer.Option(help=f"What it is built for: {targets_told()}.")] = "host",
    dtype: Dtype = None,
    calibrate: Calibrate = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads it is verified with; each use of it chooses its own.")
    ] = 1,
    images: Images = None,
    headless: Annotated[bool, typer.Option("--headless", help="Features only, no classes.")] = False,
    name: Annotated[str | None, typer.Option(help="Its name in C; the file's unless given.")] = None,
    json: Json = False,
) -> None:
    """Turn a model into C that was written for it alone, and a library that is verified against numpy."""
    # Calibration has a thread for each part of the pictures; see `evaluate`.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from mobilenets.compiling import compile_model, named
    from mobilenets.infer.ready import load

    with Reporter() as progress:
        ready = load(model, progress.download, integers=dtype == "int8" and calibrate is None)
        made = compile_model(
            ready.artefact,
            out,
            progress,
            name=name or named(model),
            target=target,
            dtype=dtype,
            calibrate=calibrate,
            threads=threads,
            images=images,
            headless=headless,
        )
    if json:
        say_json(made)
        return
    show_compiled(made, out)


@app.command(epilog="Example: mobilenets export out/model.safetensors --to onnx --out model.onnx")
def export(
    model: Annotated[str, typer.Argument(help="A model file, or a name of `mobilenets models`.")],
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(FORMATS)}.")],
    out: Annotated[Path, typer.Option(help="The file, or a folder for it.")],
    images: Images = None,
    json: Json = False,
) -> None:
    """Write a model as another runtime's file, in float32, and let that runtime answer as numpy does."""
    from mobilenets.exporting import export_model
    from mobilenets.infer.ready import load

    with Reporter() as progress:
        ready = load(model, progress.download)
        told = export_model(ready.artefact, model, out, progress, to=to, images=images)
    if json:
        say_json(told)
        return
    show_exported(told)


def _bench(
    model: Annotated[str, typer.Argument(help="A model file, a compiled one, or a network such as v1.")],
    out: Annotated[Path | None, typer.Option(help="Where rows, plots and a page go.")] = None,
    json: Json = False,
    **options: Any,
) -> None:
    """Race a model's compiled code against the runtimes installed here, in turns, each at its best."""
    from mobilenets.bench.command import bench

    with Reporter() as progress:
        told = shlex.join(["mobilenets", *sys.argv[1:]])
        where, power = taken(BoardOptions, options), taken(PowerOptions, options)
        found = bench(
            model, taken(BenchOptions, options), out, progress, command=told, board=where, power=power
        )
    if json:
        say_json(found)
        return
    show_race(found)


app.command(name="bench", epilog="Example: mobilenets bench v1 --width 0.25 --resolution 128 --threads 1,2")(
    flags(BenchOptions, BoardOptions, PowerOptions)(_bench)
)


def _asked(arguments: list[str]) -> str:
    rooms = [app, *(group.typer_instance for group in app.registered_groups)]
    known = {
        command.name or (command.callback.__name__ if command.callback else "")
        for room in rooms
        if room is not None
        for command in room.registered_commands
    }
    return f"{arguments[0]} " if arguments and arguments[0] in known else ""
