"""ncnn, from files written in its own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.bench.peers.picture import Picture, Run


def make(source: Path, place: Path, dtype: str) -> None:
    from mobilenets.bench.formats import ncnn as written
    from mobilenets.infer import artefact
    from mobilenets.infer.image import normalise

    model = artefact.load(source / "model.safetensors")
    calibration = None
    if dtype == "int8":
        calibration = normalise(np.load(source / "calibration.npy"), model.preprocess)
    last = written.write(model, place, calibration)
    (place / "output").write_text(last, encoding="ascii")


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    """An extractor for each picture, as ncnn asks for; half precision off, so that float32 is that."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads, net.opt.use_vulkan_compute = threads, False
    for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{half}", False)
    if net.load_param(str(place / "model.param")) or net.load_model(str(place / "model.bin")):
        raise RuntimeError("ncnn cannot read the model that was written for it")
    last = (place / "output").read_text(encoding="ascii")
    planes = picture.planes[0]
    x = ncnn.Mat(planes).clone()  # a Mat holds no reference to the array that it was made of

    def once() -> Any:
        extractor = net.create_extractor()
        extractor.input("image", x)
        _, y = extractor.extract(last)
        return np.array(y)

    return once
