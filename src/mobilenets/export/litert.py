"""LiteRT through litert-torch, fed NHWC, run by its interpreter; the facts are an entry of its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.spec.text import json_text

SIGNATURE, INPUT = "serving_default", "image"
METADATA = "mobilenets"


def write(model: Artefact, path: Path, facts: Mapping[str, str]) -> None:
    import litert_torch
    import torch
    from torch import Tensor, nn

    from mobilenets.bench.formats.torch import whole

    class Named(nn.Module):
        """Outputs by name, of a picture as TensorFlow lays it out."""

        def __init__(self) -> None:
            super().__init__()
            self.whole = whole(model)
            self.names = [output.name for output in model.net.outputs]

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            return dict(zip(self.names, self.whole(image.permute(0, 3, 1, 2)), strict=True))

    sample = {INPUT: torch.zeros(1, *model.net.input)}
    litert_torch.signature(SIGNATURE, Named().eval(), sample_kwargs=sample).convert().export(str(path))
    _add(path, json_text(dict(facts)).encode())


def answers(path: Path, values: NDArray[np.float32], names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Every output of inputs [n, height, width, 3], one at a time."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_path=str(path)).get_signature_runner(SIGNATURE)
    rows = [run(**{INPUT: one[None]}) for one in values]
    return {name: np.concatenate([row[name] for row in rows]) for name in names}


def _add(path: Path, content: bytes) -> None:
    """An entry of metadata, which litert-torch has no call for."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model: Any = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(content, np.uint8)
    entry.name, entry.buffer = METADATA.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
