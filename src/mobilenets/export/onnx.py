"""ONNX, written from the table and run by ONNX Runtime; the facts are its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mobilenets.bench.formats import onnx as plain
from mobilenets.infer.artefact import Artefact


def write(model: Artefact, path: Path, facts: Mapping[str, str]) -> None:
    plain.write(model, path, {output.name: output.node for output in model.net.outputs}, facts)


def answers(path: Path, values: NDArray[np.float32], names: list[str]) -> dict[str, NDArray[np.float32]]:
    """Every output of inputs [n, height, width, 3], one at a time."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    planes = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    rows = [session.run(names, {plain.INPUT: one[None]}) for one in planes]
    return {name: np.concatenate([row[index] for row in rows]) for index, name in enumerate(names)}
