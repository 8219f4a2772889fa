"""What runs on a board: two static programs with the network within, one that answers, one that is timed."""

from __future__ import annotations

import shutil
import tempfile
from importlib.resources import files
from pathlib import Path

from mobilenets.bench.peers.ours import given_model

ANSWERS, TURNS, WEIGHTS, MODEL = "answers", "turns", "model.weights", "model.safetensors"
SENT = (ANSWERS, TURNS, WEIGHTS)
"""What a board gets; the model itself stays here for the reference."""


def make(source: Path, place: Path, dtype: str) -> None:
    """Build for `dtype`, a type and a target such as int8-aarch64, as `mobilenets compile` builds."""
    from mobilenets.compile.build import program, static_program, write
    from mobilenets.compile.source import compiled
    from mobilenets.compile.target import TARGETS, family
    from mobilenets.compiling import typed
    from mobilenets.infer import artefact

    kind, _, name = dtype.partition("-")
    model, calibrate = given_model(source, kind)
    model, _ = typed(model, kind, calibrate, lambda stage, done, total: None)
    target = TARGETS[name]
    code = compiled(model, "model", family(target, kind))
    with tempfile.TemporaryDirectory(prefix="mobilenets-") as made:
        folder = Path(made)
        write(code, folder)
        for file in ("turns.h", "turns.c", "board.c"):
            text = files("mobilenets.bench.native").joinpath(file).read_bytes()
            (folder / file).write_bytes(text)
        program(code, target, folder, folder)
        static_program(code, target, folder, ("turns.c", "board.c"), folder / TURNS)
        shutil.copy(folder / "program", place / ANSWERS)
        for file in (TURNS, WEIGHTS):
            shutil.copy(folder / file, place / file)
    artefact.save(model, place / MODEL)
