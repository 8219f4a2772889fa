"""Core ML by coremltools, an ML program in float32; the facts are its metadata. Apple's systems run it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilenets.infer.artefact import Artefact

INPUT = "image"
NEEDLESS = "executorch_debug_handle_mapping.json"
"""What coremltools adds for a debugger of another runtime."""


def write(model: Artefact, path: Path, facts: Mapping[str, str]) -> None:
    import coremltools
    import torch

    from mobilenets.bench.formats.torch import whole

    shape = (1, 3, *model.net.input[:2])
    exported: Any = torch.export.export(whole(model), (torch.zeros(shape),))
    made = coremltools.convert(
        exported.run_decompositions({}),  # coremltools reads the dialect that comes of it
        inputs=[coremltools.TensorType(name=INPUT, shape=shape)],
        outputs=[coremltools.TensorType(name=output.name) for output in model.net.outputs],
        convert_to="mlprogram",
        compute_precision=coremltools.precision.FLOAT32,
    )
    made.user_defined_metadata.update(facts)
    made.save(str(path))
    (path / NEEDLESS).unlink(missing_ok=True)
    for place in path.rglob("*"):  # coremltools keeps others from reading what it wrote
        os.chmod(place, 0o755 if place.is_dir() else 0o644)
