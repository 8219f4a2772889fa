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
    """The model of `source` at `path`; int8: uint8 maps, int8 weights with a scale a channel, min-max.

    int8 takes bytes, and `input.bin` beside it is the picture in them: quantising is no part of a call.
    """
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
    scale, zero = _takes_bytes(path)
    levels = np.clip(np.rint(values[:1] / np.float32(scale) + np.float32(zero)), 0, 255).astype(np.uint8)
    (path.parent / "input.bin").write_bytes(levels.tobytes())


def _takes_bytes(path: Path) -> tuple[float, int]:
    """Leave out the first step of a graph, which makes bytes of float32; its scale and zero point."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(str(path))
    graph = model.graph
    first = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == plain.INPUT)
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    scale, zero = float(known[first.input[1]]), int(known[first.input[2]])
    graph.node.remove(first)
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == first.output[0]:
                node.input[index] = plain.INPUT
    shape = [one.dim_value for one in graph.input[0].type.tensor_type.shape.dim]
    graph.input[0].CopyFrom(helper.make_tensor_value_info(plain.INPUT, TensorProto.UINT8, shape))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return scale, zero
