"""A network as ONNX in float32, or in int8 as QDQ by ONNX Runtime's quantiser."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.bench.formats import onnx as plain
from mobilenets.infer import artefact
from mobilenets.infer.image import normalise


def write(source: Path, path: Path, dtype: str) -> None:
    """The model of `source` at `path`; int8: uint8 maps, int8 weights with a scale a channel, min-max."""
    model = artefact.load(source / "model.safetensors")
    if dtype == "float32":
        plain.write(model, path)
        return
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader
    from onnxruntime.quantization.shape_inference import quant_pre_process

    levels = np.load(source / "calibration.npy")
    values = normalise(levels, model.preprocess).transpose(0, 3, 1, 2)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # what the quantiser asks for
        def __init__(self) -> None:
            self._rows = iter([{plain.INPUT: np.ascontiguousarray(one[None])} for one in values])

        def get_next(self) -> Any:
            return next(self._rows, None)

    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        written, ready = Path(place) / "plain.onnx", Path(place) / "ready.onnx"
        plain.write(model, written)
        quant_pre_process(str(written), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
