"""OpenVINO: its own format made once; int8 from the QDQ graph of ONNX Runtime or by NNCF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.bench.peers.picture import Picture, Run

FILE = "model.xml"


def make(source: Path, place: Path, dtype: str) -> None:
    """The model as OpenVINO saves it, weights in full; `dtype` is float32, int8-qdq or int8-nncf."""
    import openvino

    from mobilenets.bench.formats import qdq

    plain = place / "plain.onnx"
    qdq.write(source, plain, "int8" if dtype == "int8-qdq" else "float32")
    model = openvino.Core().read_model(str(plain))
    if dtype == "int8-nncf":
        model = _nncf(source, place, model)
    openvino.save_model(model, str(place / FILE), compress_to_fp16=False)
    del model
    plain.unlink()


def _nncf(source: Path, place: Path, model: Any) -> Any:
    import nncf
    import openvino
    from openvino.preprocess import PrePostProcessor

    from mobilenets.infer import artefact
    from mobilenets.infer.image import normalise

    levels = np.load(source / "calibration.npy")
    pre = artefact.load(source / "model.safetensors").preprocess
    values = np.ascontiguousarray(normalise(levels, pre).transpose(0, 3, 1, 2))
    made = nncf.quantize(
        model,
        nncf.Dataset([one[None] for one in values]),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(values),
        fast_bias_correction=True,
    )
    (place / "input.bin").write_bytes(levels[0].transpose(2, 0, 1).tobytes())
    steps = PrePostProcessor(made)
    steps.input().tensor().set_element_type(openvino.Type.u8)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().tensor().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean([*pre.mean]).scale([*pre.std])
    return steps.build()


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    """One stream for latency. Without the precision hint float32 would be bfloat16 where there is one; the
    layers of an int8 model that have no bytes may."""
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        **({"INFERENCE_PRECISION_HINT": "f32"} if dtype == "float32" else {}),
    }
    request = core.compile_model(str(place / FILE), "CPU", settings).create_infer_request()
    x = picture.planes if dtype == "float32" else picture.bytes_in(place)
    request.set_input_tensor(openvino.Tensor(x))
    infer, output = request.infer, request.get_output_tensor

    def once() -> Any:
        infer(share_outputs=True, decode_strings=False)
        return output().data

    return once
