"""This package's own compiled code, through the engine that `mobilenets.load` gives."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from mobilenets.bench.peers.picture import Picture, Run


def make(source: Path, place: Path, dtype: str) -> None:
    """Compile the model for this machine, as `mobilenets compile` does; a compiled one is taken as it is."""
    given = next(source.glob("given.so"), None)
    if given is not None:
        shutil.copy(given, place / "model.so")
        return
    from mobilenets.compiling import compile_model
    from mobilenets.infer import artefact

    more: dict[str, Any] = {}
    if dtype != "float32":
        if "dtype" not in inspect.signature(compile_model).parameters:
            raise ValueError("int8 is not compiled by this release")
        more = {"dtype": dtype, "calibrate": source / "calibration"}
    model = artefact.load(source / "model.safetensors")
    compile_model(model, place, lambda stage, done, total: None, name="model", **more)


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    from mobilenets.infer.compiled import CompiledEngine

    engine = CompiledEngine(place / "model.so", threads)
    first = engine.model.net.outputs[0].name
    if dtype == "float32":
        values = picture.values
        return lambda: engine.input(values)[first]
    levels = picture.levels
    return lambda: engine.levels(levels)[first]
