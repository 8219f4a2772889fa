"""Engines called from C: a program for each that answers and takes turns as the Python worker does."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mobilenets.bench import making
from mobilenets.bench.engines import Engine, native_of

LIBRARIES = {"onnxruntime": "capi/libonnxruntime.so*", "openvino": "libs/libopenvino_c.so*"}
"""Where a wheel keeps the library with its C interface."""


def words(engine: Engine, place: Path, source: Path, threads: int) -> tuple[str, ...]:
    """The command that runs `engine` on its file in `place`; empty where its package has no C library."""
    if engine.native == "ours":
        given = source / ("values.bin" if engine.dtype == "float32" else "levels.bin")
        own = [str(place / "model.so")]
    else:
        package = find_spec(engine.native)
        if package is None or package.origin is None:
            return ()
        library = next(Path(package.origin).parent.glob(LIBRARIES[engine.native]), None)
        if library is None:
            return ()
        given = source / "planes.bin" if engine.dtype == "float32" else place / "input.bin"
        model = next(file for file in sorted(place.iterdir()) if file.suffix in (".onnx", ".xml"))
        own = [str(library), str(model)]
    program = making.made(native_of(engine), source) / "program"
    return (str(program), str(threads), engine.dtype, str(given), *own)
