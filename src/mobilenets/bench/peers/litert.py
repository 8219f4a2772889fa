"""LiteRT with its XNNPACK delegate, fed NHWC; int8 by its own quantiser, and the file that was given."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.peers.picture import Picture, Run

FILE = "model.tflite"


def make(source: Path, place: Path, dtype: str) -> None:
    """The file that was given for `int8-given`, and where it is of float32; else one that is written."""
    from mobilenets.bench.formats import tflite
    from mobilenets.infer import artefact

    given = source / "given.tflite"
    if dtype == "int8-given" or (dtype == "float32" and given.exists() and _takes_floats(given)):
        shutil.copy(given, place / FILE)
        return
    model = artefact.load(source / "model.safetensors")
    if dtype == "float32":
        tflite.write(model, place / FILE)
        return
    from ai_edge_quantizer import quantizer, recipe

    from mobilenets.infer.image import normalise

    plain = place / "plain.tflite"
    tflite.write(model, plain)
    values = normalise(np.load(source / "calibration.npy"), model.preprocess)
    made = quantizer.Quantizer(str(plain), recipe.static_wi8_ai8())
    found = made.calibrate({tflite.SIGNATURE: [{tflite.INPUT: one[None]} for one in values]})
    made.quantize(found).export_model(str(place / FILE), overwrite=True)
    plain.unlink()


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    """The input is written once: the delegate leaves it as it is."""
    interpreter = _interpreter(place / FILE, threads)
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(given["index"], _quantised(picture.values[None], given))
    invoke, output = interpreter.invoke, interpreter.tensor(made["index"])
    scale, zero = made["quantization"]

    if made["dtype"] is np.float32:

        def once() -> Any:
            invoke()
            return output().copy()

    else:

        def once() -> Any:
            invoke()
            return (output().astype(np.float32) - np.float32(zero)) * np.float32(scale)

    return once


def _quantised(values: NDArray[np.float32], given: Any) -> NDArray[Any]:
    if given["dtype"] is np.float32:
        return values
    scale, zero = given["quantization"]
    limits = np.iinfo(given["dtype"])
    whole = np.clip(np.rint(values / scale + zero), limits.min, limits.max)
    return np.asarray(whole, given["dtype"])


def _interpreter(path: Path, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_path=str(path), num_threads=threads)


def _takes_floats(path: Path) -> bool:
    return _interpreter(path, 1).get_input_details()[0]["dtype"] is np.float32
