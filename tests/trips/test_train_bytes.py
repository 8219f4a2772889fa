"""Learning on in bytes: a trained model in, an int8 one out, whose compiled code says what training said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.compiling import compile_model
from mobilenets.infer import artefact
from mobilenets.infer.image import decode
from mobilenets.infer.ready import load
from mobilenets.training import train

SMALL = {"net": "v3-small", "width": 0.35, "resolution": 32, "batch": 16, "threads": 1}


Trained = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(quiet: Any) -> Trained:
    """A training of a folder, into a folder, with a cache of pictures."""

    def run(folder: Path, out: Path, cache: Path, **options: Any) -> Any:
        return train(folder, out, options, quiet, cache=cache)

    return run


@pytest.fixture(scope="module")
def floats(tiny: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A trained model, and the cache of its pictures."""
    place = tmp_path_factory.mktemp("floats")
    trained(tiny, place / "out", place / "cache", **SMALL, epochs=4)
    return place / "out" / "model.safetensors", place / "cache"


def test_compiled_bytes_say_what_training_said(
    tiny: Path, trained: Trained, floats: tuple[Path, Path], quiet: Any, tmp_path: Path
) -> None:
    weights, cache = floats
    run = trained(
        tiny, tmp_path / "out", cache, qat=True, weights=str(weights), epochs=1, batch=16, threads=1
    )
    model = artefact.load(tmp_path / "out" / "model.safetensors")
    assert model.dtype == "int8"
    assert model.labels == artefact.load(weights).labels
    compile_model(model, tmp_path / "code", quiet, name="tiny", target="host")
    ready = load(next((tmp_path / "code").glob("*.so")))
    frames = [decode((tiny / file).read_bytes(), model.preprocess) for file in run.test.files]
    said = ready.logits(frames).argmax(axis=1)
    assert len(said) >= 20
    assert (said == run.test.scores.argmax(axis=1)).mean() >= 0.995
    assert np.mean(said == run.test.truth) == run.accuracy["test"]


def test_one_picture_judges_and_what_was_set_aside_stays_so(
    tiny: Path, trained: Trained, quiet: Any, tmp_path: Path
) -> None:
    """Of a folder without parts: the split of the float model is taken over, another seed refused."""
    folder = shutil.copytree(tiny / "train", tmp_path / "folder")
    words: dict[str, Any] = {"epochs": 1, "batch": 16, "threads": 1}
    first = trained(folder, tmp_path / "first", tmp_path / "cache", **SMALL, epochs=1, split="90/9/1", seed=3)
    weights = str(tmp_path / "first" / "model.safetensors")
    with pytest.raises(ValueError, match=r"was trained with --seed 3, .* give --seed 3"):
        trained(folder, tmp_path / "other", tmp_path / "cache", qat=True, weights=weights, **words)
    run = trained(folder, tmp_path / "out", tmp_path / "cache", qat=True, weights=weights, seed=3, **words)
    assert run.test.files == first.test.files
    assert run.counts == first.counts


def test_what_cannot_learn_on_in_bytes_is_refused(
    tiny: Path, trained: Trained, floats: tuple[Path, Path], tmp_path: Path
) -> None:
    weights, cache = floats
    with pytest.raises(ValueError, match="learns on from a trained model of these classes"):
        trained(tiny, tmp_path / "random", cache, qat=True)
    model = artefact.load(weights)
    other = tmp_path / "other.safetensors"
    artefact.save(
        artefact.Artefact(
            model.net, model.weights, model.preprocess, labels=tuple(f"{name} too" for name in model.labels)
        ),
        other,
    )
    with pytest.raises(ValueError, match="knows 3 classes, the folder has 3, or they are others"):
        trained(tiny, tmp_path / "classes", cache, qat=True, weights=str(other))
