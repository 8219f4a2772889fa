"""A model is compared with the numpy walk before it is written, or it is not written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.data.catalog import scan  # noqa: E402 - after the line that skips
from mobilenets.infer.artefact import Artefact  # noqa: E402
from mobilenets.infer.engine import NumpyEngine  # noqa: E402
from mobilenets.infer.image import decode  # noqa: E402
from mobilenets.model.module import random_weights  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.head import classify  # noqa: E402
from mobilenets.spec.preprocess import Preprocess  # noqa: E402
from mobilenets.train.judge import verify  # noqa: E402
from mobilenets.train.material import Material  # noqa: E402


def test_a_model_is_refused_where_it_differs_is_no_number_or_cannot_be_compared(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        levels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(levels).save(path)
    net = classify(zoo.body("v1", 0.25, 32), 2)
    model = Artefact(net, random_weights(net, 0), Preprocess(height=32, width=32), labels=("a", "b"))
    catalog = scan(tmp_path)
    truth, engine = np.array([0, 0, 1, 1]), NumpyEngine(model)
    material = Material(catalog, ("a", "b"), ("",) * 4, truth, np.array(["train"] * 4), 0, ())
    values = np.stack([engine(decode(catalog.read(item)))["features"] for item in catalog.items])
    assert verify(model, material, values, 2) < 1e-4
    with pytest.raises(RuntimeError, match="differ by"):
        verify(model, material, values + 1, 2)
    with pytest.raises(RuntimeError, match="differ by nan"):
        verify(model, material, values * np.float32([[1], [1], [np.nan], [1]]), 2)
    (tmp_path / "a" / "0.png").unlink()
    assert verify(model, material, values, 2) < 1e-4
    for item in catalog.items[1:]:
        (tmp_path / item.file).unlink()
    with pytest.raises(RuntimeError, match="no picture can be read any more"):
        verify(model, material, values, 2)
