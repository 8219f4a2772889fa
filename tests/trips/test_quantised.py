"""A quantised model is a model: asked, judged, looked into, and learnt from like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mobilenets
from mobilenets.data.calibration import listed, pictures
from mobilenets.infer import adopt, artefact
from mobilenets.infer.quantise import quantise
from mobilenets.infer.ready import load

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def quantised(taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The taught model in integers."""
    model = artefact.load(taught.model)
    path = tmp_path_factory.mktemp("quantised") / "model.safetensors"
    artefact.save(quantise(model, pictures(listed(taught.folder), model.preprocess, most=48).levels), path)
    return path


def test_its_file_is_a_quarter_and_says_what_it_is(taught: Any, quantised: Path, ask: Ask) -> None:
    assert quantised.stat().st_size < 0.4 * taught.model.stat().st_size
    facts = ask("info", quantised, "--json").facts
    assert facts["dtype"] == "int8"
    assert facts["scores"]["quantised"]["error"] < 0.05
    assert facts["recipe"]["quantised"]["pictures"] == 36
    assert "test" in str(facts["scores"]["float32"])
    assert ask("info", taught.model, "--json").facts["dtype"] == "float32"
    assert "int8" in ask("info", quantised).out


def test_it_answers_nearly_as_before(taught: Any, quantised: Path, ask: Ask) -> None:
    plain = ask("evaluate", taught.model, taught.out / "split.csv", "--json").facts
    whole = ask("evaluate", quantised, taught.out / "split.csv", "--json").facts
    assert whole["n"] == plain["n"]
    assert abs(whole["top1"] - plain["top1"]) <= 0.05
    picture = sorted((taught.folder / "crab").iterdir())[0]
    before = ask("predict", taught.model, picture, "--json").facts["results"][0]["predictions"]
    after = ask("predict", quantised, picture, "--json").facts["results"][0]["predictions"]
    assert after[0]["label"] == before[0]["label"]
    features = mobilenets.load(quantised).features(picture)
    wanted = mobilenets.load(taught.model).features(picture)
    assert np.corrcoef(features, wanted)[0, 1] > 0.99


@pytest.mark.slow
def test_a_body_of_it_can_be_retrained_in_float32(
    taught: Any, quantised: Path, ask: Ask, tmp_path: Path
) -> None:
    told = ask("retrain", taught.folder, "--out", tmp_path / "out", "--weights", quantised, "--json").facts
    assert told["accuracy"]["test"] >= taught.facts["accuracy"]["test"] - 0.1
    assert artefact.load(tmp_path / "out" / "model.safetensors").dtype == "float32"


def test_a_tflite_file_runs_in_its_own_integers_where_asked(body25: Path, taught: Any) -> None:
    picture = sorted((taught.folder / "crab").iterdir())[0]
    whole, plain = load(body25, integers=True), load(body25)
    assert (whole.artefact.dtype, plain.artefact.dtype) == ("int8", "float32")
    assert whole(picture).label == plain(picture).label
    assert np.corrcoef(whole.features(picture), plain.features(picture))[0, 1] > 0.98
    assert adopt.in_floats(whole.artefact).dtype == "float32"
