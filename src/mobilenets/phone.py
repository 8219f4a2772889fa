"""The command `app`: a camera app of models, as a folder, served from here, or as an Android package."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from mobilenets.console import Reporter, say, say_json, size
from mobilenets.flags import JSON

app = typer.Typer()
PORT = 8000
Dtype = Annotated[
    str | None, typer.Option(help="float32 or int8; the model's own unless given.", show_default=False)
]
Calibrate = Annotated[
    Path | None, typer.Option(help="Pictures such as it will see, to quantise a float32 model on.")
]
Images = Annotated[Path | None, typer.Option(help="Pictures to verify on; frames drawn here unless given.")]


@app.command(
    name="app",
    epilog="Example: mobilenets app out/model.safetensors --dtype int8 --calibrate photos/ --out app --serve",
)
def app_(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="A model file; several of the same classes, of which each device takes the largest it has "
            "the speed for; or the folder of an app, to serve or to pack it.",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Where the app goes.")] = None,
    title: Annotated[
        str | None,
        typer.Option(help="Its name; of its classes or its file unless given."),
    ] = None,
    dtype: Dtype = None,
    calibrate: Calibrate = None,
    images: Images = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve it from here until Ctrl+C.")] = False,
    lan: Annotated[
        bool, typer.Option("--lan", help="To the network too, by https with a certificate made here.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --serve; 0 takes any that is free.")] = PORT,
    apk: Annotated[Path | None, typer.Option(help="An Android package of it, by Debian's tools.")] = None,
    json: Annotated[bool, typer.Option("--json", help=JSON)] = False,
) -> None:
    """A camera app of a model, that any phone or laptop opens, installs and runs offline."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # calibration has threads of its own
    from mobilenets.app.making import make_app, told_of
    from mobilenets.infer.ready import load

    if lan and not serve:
        raise ValueError("--lan goes with --serve")
    whole = len(models) == 1 and told_of(Path(models[0])) is not None
    if whole and (out or title or dtype or calibrate or images):
        raise ValueError(f"{models[0]}: an app already; --serve and --apk are for it, nothing else")
    if not (whole or out or serve or apk):
        raise ValueError("--out FOLDER for the app, --serve to try it, or --apk FILE")
    if apk is not None:
        from mobilenets.app.package import equipped, package

        equipped()
    if serve:
        from mobilenets.app.serving import ready, serving

        ready(port, lan=lan)
    made: dict[str, Any] = {}
    with ExitStack() as after, Reporter() as progress:
        folder = Path(models[0]) if whole else out
        if folder is None:
            folder = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="mobilenets-"))) / "app"
        if not whole:
            given = []
            for name in models:
                found = load(name, progress.download, integers=dtype == "int8" and calibrate is None)
                given.append((Path(name).stem, found.artefact))
            made = make_app(
                given,
                folder,
                progress,
                title=title,
                dtype=dtype,
                calibrate=calibrate,
                images=images,
            )
        if apk is not None:
            made["apk"] = package(folder, apk, progress)
        if json:
            say_json(made)
        else:
            show_app(made, out)
        if serve:
            serving(folder, port, say, lan=lan)


def show_app(made: dict[str, Any], out: Path | None) -> None:
    """What was written, how large it is, how it was verified, and what to do with it."""
    if "files" in made:
        where = f"{out}: " if out else ""
        say(
            f"{where}{made['title']}, {size(made['bytes'])} on disk, {size(made['code_bytes'])} of it code; "
            f"{size(made['gzip_bytes'])} over the wire"
        )
        for name, builds in made["certificates"].items():
            for target, one in builds.items():
                if target == "calibration":
                    say(f"{name}: quantised on {one['pictures']} pictures")
                elif one["verified_on"]:
                    worst = max(error["relative"] for error in one["largest_error"].values())
                    said = "equal to the reference bit for bit" if not worst else f"largest error {worst:.1e}"
                    say(f"{name}, {one['dtype']}, {target}: {said}, on {one['verified_on']}")
                else:
                    say(f"{name}, {target}: built but not verified: {one['unverified']}")
        if out:
            say(
                "put the folder on any web server with https, or try it here: mobilenets app "
                + f"{out} --serve"
            )
    if "apk" in made:
        package = made["apk"]
        say(f"{package['file']}: {size(package['bytes'])}, signed and verified; it was not run on a phone")
