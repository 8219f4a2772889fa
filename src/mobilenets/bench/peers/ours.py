"""This package's own compiled code, through the engine that `mobilenets.load` gives."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenets.bench.peers.picture import Picture, Run

if TYPE_CHECKING:
    from mobilenets.infer.artefact import Artefact


def make(source: Path, place: Path, dtype: str) -> None:
    """Compile the model for this machine, as `mobilenets compile` does; a compiled one is taken as it is."""
    given = next(source.glob("given.so"), None)
    if given is not None:
        shutil.copy(given, place / "model.so")
        return
    from mobilenets.compiling import compile_model

    model, calibrate = given_model(source, dtype)
    told = dict[str, Any](dtype=dtype, calibrate=calibrate)
    compile_model(model, place, lambda stage, done, total: None, name="model", **told)


def given_model(source: Path, dtype: str) -> tuple[Artefact, Path | None]:
    """The model to compile for `dtype`, and the pictures to quantise it on where it has no integers."""
    from mobilenets.infer import artefact
    from mobilenets.infer.ready import load

    model = artefact.load(source / "model.safetensors")
    if dtype != "int8":
        return model, None
    kept = next((load(file, integers=True).artefact for file in sorted(source.glob("given.*"))), model)
    return (kept, None) if kept.scales else (model, source / "calibration")


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    from mobilenets.infer.compiled import CompiledEngine

    engine = CompiledEngine(place / "model.so", threads)
    first = engine.model.net.outputs[0].name
    if dtype == "float32":
        values = picture.values
        return lambda: engine.input(values)[first]
    levels = picture.levels
    return lambda: engine.levels(levels)[first]
