"""ExecuTorch with its XNNPACK backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.bench.peers.picture import Picture, Run

FILE = "model.pte"


def make(source: Path, place: Path, dtype: str) -> None:
    """The exported, for int8 first quantised, and lowered layers."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from mobilenets.bench.formats.torch import layers
    from mobilenets.infer import artefact
    from mobilenets.infer.image import normalise

    model = artefact.load(source / "model.safetensors")
    values = normalise(np.load(source / "calibration.npy"), model.preprocess)
    pictures = [torch.from_numpy(np.ascontiguousarray(one.transpose(2, 0, 1)[None])) for one in values]
    sample = (pictures[0].to(memory_format=torch.channels_last),)
    module: Any = layers(model)
    if dtype == "int8":
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        quantiser = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(torch.export.export(module, sample).module(), quantiser)
        for one in pictures:
            prepared(one)
        module = convert_pt2e(prepared)
    exported = torch.export.export(module, sample)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    (place / FILE).write_bytes(lowered.to_executorch().buffer)


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    import torch
    from executorch.extension.pybindings import portable_lib

    portable_lib._unsafe_reset_threadpool(threads)
    module = portable_lib._load_for_executorch(str(place / FILE))
    x = [torch.from_numpy(picture.planes).contiguous(memory_format=torch.channels_last)]

    def once() -> Any:
        return module.forward(x)[0].numpy()

    return once
