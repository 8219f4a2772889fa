"""A body in torch, fast forward: batch norms folded, channels last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.infer.image import normalise, prepare
from mobilenets.infer.resize import Frame
from mobilenets.model.module import module, placed

BATCH = 16
"""Pictures at a time on a CPU: from 16 on, torch gives pointwise convolutions of one thread to oneDNN."""
GPU_BATCH = 128


class TorchEngine:
    """An `Engine` (see `infer.engine`) in torch, float32, on one device."""

    def __init__(self, model: Artefact, device: str = "cpu", streams: int = 1) -> None:
        """`streams` batches may run at once, each on one thread.

        On a CPU threads that never wait for one another are as fast as two on each layer when the machine is
        idle, and several times faster when it is not.
        """
        net, weights = fold(model.net, model.weights)
        self.device = torch.device(device)
        self.streams = streams if self.device.type == "cpu" else 1
        self.batch = BATCH if self.device.type == "cpu" else GPU_BATCH
        self.told = f"torch, {device}"
        self.exact, self.resizes = True, 0
        self._preprocess = model.preprocess
        made = module(net, weights).eval().requires_grad_(False)
        self._module = placed(made, self.device)

    def pool(self) -> ThreadPoolExecutor:
        """Threads to call `prepared` from, which never wait for one another inside a layer."""
        return one_thread_each(self.streams)

    def __call__(self, frame: Frame) -> dict[str, NDArray[np.float32]]:
        return {name: value[0] for name, value in self.many([frame]).items()}

    def many(self, frames: Sequence[Frame]) -> dict[str, NDArray[np.float32]]:
        """Outputs of several frames of any size, each with a leading axis."""
        return self.prepared(np.stack([prepare(frame, self._preprocess) for frame in frames]))

    def prepared(self, levels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Outputs for levels [n, height, width, 3] that `infer.image.prepare` has made."""
        # NHWC in numpy is channels_last in torch: the permuted view needs no copy.
        x = torch.from_numpy(normalise(levels, self._preprocess)).permute(0, 3, 1, 2).to(self.device)
        # cuDNN would round to TF32: other logits than the numpy walk's, other features than a CPU's.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return {name: value.float().cpu().numpy() for name, value in self._module(x).items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works on one thread here, and afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread_each(streams: int) -> ThreadPoolExecutor:
    """Threads for torch that never wait for one another inside a layer."""
    return ThreadPoolExecutor(streams, initializer=torch.set_num_threads, initargs=(1,))


def pick_device(asked: str) -> str:
    """The device by name. Raises ValueError where this machine or this torch has none."""
    if asked == "cpu":
        return asked
    if asked == "cuda" and torch.cuda.is_available():
        return asked
    if asked == "mps" and torch.backends.mps.is_available():
        return asked
    if asked in ("cuda", "mps"):
        raise ValueError(
            f"--device {asked}: this torch ({torch.__version__}) finds none here; use --device cpu"
        )
    raise ValueError(f"--device {asked}: unknown; known: cpu, cuda, mps")
