"""torch without a compiler: plain layers, norms folded, channels last, in inference mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.peers.picture import Picture, Run


def make(source: Path, place: Path, dtype: str) -> None:
    """There is nothing to make: the model file is read."""
    if not (source / "model.safetensors").exists():
        raise ValueError("no weights")


def runner(place: Path, dtype: str, threads: int, picture: Picture) -> Run:
    import torch

    from mobilenets.bench.formats.torch import layers
    from mobilenets.infer import artefact

    torch.set_num_threads(threads)
    model = layers(artefact.load(picture.source / "model.safetensors"))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # of no stub
    x = torch.from_numpy(picture.planes).contiguous(memory_format=torch.channels_last)

    def once() -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model(x).numpy()
            return found

    return once
