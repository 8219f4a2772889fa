"""The same trips from Python, as the README shows them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mobilenets

RETRAIN = """
import json, sys
import mobilenets
folder, out, weights = sys.argv[1:]
seen = set()
run = mobilenets.retrain(folder, out, weights=weights, seed=0, unknown=True,
                         progress=lambda stage, done, total: seen.add(stage))
said = {"digest": run.digest, "test": run.accuracy["test"], "model": str(run.model), "seen": sorted(seen)}
print(json.dumps(said))
"""


def test_the_public_names_are_these() -> None:
    assert mobilenets.__all__ == ["__version__", "cost", "evaluate", "load", "retrain"]


def test_a_cost_is_counted_by_name() -> None:
    assert round(mobilenets.cost("v1").macs / 1e6) == 569
    assert mobilenets.cost("v1", width=0.5, resolution=160, classes=3).params < 900_000
    with pytest.raises(ValueError, match="v1-shallow"):
        mobilenets.cost("v7")


def test_a_model_answers_a_path_bytes_a_pillow_image_and_an_array_alike(taught: Any) -> None:
    model = mobilenets.load(taught.model)
    path = sorted((taught.folder / "crab").iterdir())[0]
    answer = model(path)
    assert answer.label in (*model.labels, "unknown")
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    for other in (str(path), path.read_bytes(), picture, np.asarray(picture)):
        assert model(other).predictions == answer.predictions
    assert [p.score for p in answer.predictions] == sorted(
        (p.score for p in answer.predictions), reverse=True
    )
    assert len(model(path, top=2).predictions) == 2
    features = model.features(path)
    assert features.shape == (256,)
    assert features.dtype == np.float32


def test_an_evaluation_is_that_of_the_command_line(taught: Any) -> None:
    found = mobilenets.evaluate(taught.model, taught.out / "split.csv")
    assert found.top1 == taught.facts["accuracy"]["test"]
    assert found.confusion.sum() == found.n == 20
    assert mobilenets.evaluate(mobilenets.load(taught.model), taught.out / "split.csv").top1 == found.top1


@pytest.mark.slow
def test_a_retraining_is_that_of_the_command_line(
    taught: Any, body25: Path, surroundings: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RETRAIN, str(taught.folder), str(tmp_path / "out"), str(body25)],
        capture_output=True,
        env=surroundings,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["digest"] == taught.facts["digest"]
    assert said["test"] == taught.facts["accuracy"]["test"]
    assert {"scan", "features", "fit"} <= set(said["seen"])
    assert Path(said["model"]).read_bytes() == taught.model.read_bytes()


def test_unknown_options_are_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ValueError, match="widht"):
        mobilenets.retrain(tmp_path, tmp_path / "out", widht=0.5)
