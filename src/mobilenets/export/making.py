"""The process in which a file is written and tried: exporters speak to the screen and hold gigabytes."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.making import last_line
from mobilenets.bench.worker import die_with_parent
from mobilenets.export.facts import facts
from mobilenets.export.formats import Format
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact

LIMIT_S = 900
MODEL, VALUES, ANSWERS, ERROR = "model.safetensors", "values.npy", "answers.npz", "error.txt"


def made(
    form: Format, model: Artefact, values: NDArray[np.float32], path: Path, place: Path
) -> dict[str, NDArray[np.float32]] | None:
    """Write `model` to `path`; every output of inputs [n, height, width, 3], None where nothing runs it here.

    `place` is a folder for what the process is given and gives. Raises RuntimeError where it fails.
    """
    artefact.save(model, place / MODEL)
    np.save(place / VALUES, values)
    job = {"name": form.name, "path": str(path), "place": str(place)}
    # -P: an onnx.py where the user stands is not the package of that name.
    words = [sys.executable, "-P", "-m", "mobilenets.export.making", json.dumps(job)]
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=LIMIT_S, check=False, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{form.exporter} was not done within {LIMIT_S} s") from error
    if done.returncode:
        error_file = place / ERROR
        said = error_file.read_text(encoding="utf-8") if error_file.exists() else last_line(done.stderr)
        raise RuntimeError(f"{form.exporter} failed: {said or f'it ended with {done.returncode}'}")
    if form.runtime is None:
        return None
    with np.load(place / ANSWERS) as found:
        return {name: found[name] for name in found.files}


def main() -> None:
    from mobilenets.export.formats import FORMATS

    die_with_parent()
    job = json.loads(sys.argv[1])
    form, path, place = FORMATS[job["name"]], Path(job["path"]), Path(job["place"])
    exporter = import_module(f"mobilenets.export.{form.module}")
    model = artefact.load(place / MODEL)
    try:
        exporter.write(model, path, facts(model, form.layout))
        if form.runtime is not None:
            names = [output.name for output in model.net.outputs]
            np.savez(place / ANSWERS, **exporter.answers(path, np.load(place / VALUES), names))
    except Exception as error:  # an exporter may raise anything; its last line on stderr may be another's
        told = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which
            told += f": {path.parent}"
        (place / ERROR).write_text(told, encoding="utf-8", errors="backslashreplace")
        sys.exit(1)


if __name__ == "__main__":
    main()
