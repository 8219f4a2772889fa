"""torch without a compiler: the model floor's module, norms folded, channels last, in inference mode."""

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

    from mobilenets.infer import artefact
    from mobilenets.infer.fold import fold
    from mobilenets.model.module import Module

    torch.set_num_threads(threads)
    model = artefact.load(picture.source / "model.safetensors")
    net, weights = fold(model.net, model.weights)
    module = Module(net)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # of no stub
    x = torch.from_numpy(picture.planes).contiguous(memory_format=torch.channels_last)
    first = net.outputs[0].name

    def once() -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = module(x)[first].numpy()
            return found

    return once
