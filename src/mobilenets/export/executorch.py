"""ExecuTorch, lowered to XNNPACK and run by its runtime; each fact is a method that gives it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact


def write(model: Artefact, path: Path, facts: Mapping[str, str]) -> None:
    """The input is laid out as a tensor is unless told otherwise: an app that knows no more feeds it so."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from mobilenets.bench.formats.torch import whole

    sample = torch.zeros(1, 3, *model.net.input[:2])
    exported = torch.export.export(whole(model), (sample,))
    lowered = to_edge_transform_and_lower(
        exported, partitioner=[XnnpackPartitioner()], constant_methods=dict(facts)
    )
    path.write_bytes(lowered.to_executorch().buffer)


def answers(path: Path, values: NDArray[np.float32], names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Every output of inputs [n, height, width, 3], one at a time."""
    import torch
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(path)
    method = program.load_method("forward")
    if method is None:
        raise RuntimeError("ExecuTorch finds no method `forward` in what it wrote")
    planes = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    rows = [[y.numpy().copy() for y in method.execute([torch.from_numpy(one[None])])] for one in planes]
    return {name: np.concatenate([row[index] for row in rows]) for index, name in enumerate(names)}
