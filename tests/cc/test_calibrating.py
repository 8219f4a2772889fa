"""Calibration runs the float network as C that was built for it, and comes to what numpy's walk comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenets.compiling import compile_model, float_engine
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.calibrate import observe
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.quantise import float_maps, quantise, with_biases
from mobilenets.spec import zoo
from mobilenets.spec.head import classify

from .conftest import filled


@pytest.fixture(scope="module")
def model() -> Artefact:
    return filled(classify(zoo.v1(0.25, 64), 4), labels=("a", "b", "c", "d"))


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    coarse = np.random.default_rng(0).uniform(0, 255, (24, 4, 4, 3))
    return np.asarray(coarse.repeat(16, 1).repeat(16, 2), np.uint8)


def test_what_is_seen_of_compiled_maps_is_what_is_seen_of_the_walks(
    model: Artefact, levels: np.ndarray
) -> None:
    engine = float_engine(model, 2)
    assert engine.maps is not None
    assert engine.told.startswith("compiled C, ")
    folded, zero = with_biases(model), np.full(3, 128, np.float32)
    wanted, found = (observe(folded.net, run, levels, zero, 2) for run in (float_maps(folded), engine.maps))
    for name, spread in wanted.spreads.items():
        other, most = found.spreads[name], float(np.abs(spread.most).max())
        np.testing.assert_allclose(other.most, spread.most, atol=1e-4 * most)
        np.testing.assert_allclose(other.least, spread.least, atol=1e-4 * most)
        assert other.places == spread.places
        # A value at the edge of a bin may fall to either side of it.
        assert np.abs(other.counts - spread.counts).sum() <= 0.01 * spread.counts.sum()
    for name, moments in wanted.moments.items():
        scale = float(np.abs(moments.products).max())
        np.testing.assert_allclose(found.moments[name].products, moments.products, atol=1e-4 * scale)


@pytest.mark.slow
def test_a_model_quantised_by_compiled_maps_is_as_good_as_one_by_the_walk(
    model: Artefact, levels: np.ndarray
) -> None:
    engine = float_engine(model, 1)
    plain, made = quantise(model, levels), quantise(model, levels, maps=engine.maps)
    errors = [one.scores["quantised"]["error"] for one in (plain, made)]
    assert errors[1] <= 1.2 * errors[0] + 1e-5
    frames = list(levels[::2])
    wanted, before, after = (NumpyEngine(one).many(frames)["logits"] for one in (model, plain, made))
    scale = np.abs(wanted).max()
    assert np.abs(after - wanted).mean() <= 1.2 * np.abs(before - wanted).mean() + 1e-3 * scale
    assert (after.argmax(1) == before.argmax(1)).mean() >= 0.9


def test_the_certificate_says_what_ran_the_float_network(
    model: Artefact, levels: np.ndarray, tmp_path: Path
) -> None:
    for number, one in enumerate(levels[:8]):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    facts = compile_model(
        model, tmp_path / "out", lambda *_: None, name="tested", dtype="int8", calibrate=tmp_path
    )
    told = facts["calibration"]
    assert told["float_ran_by"].startswith("compiled C, ")
    assert 0 < told["float_build_s"] < told["seconds"]


@pytest.mark.parametrize("compiler", ["false", "nonesuch"])
def test_where_no_compiler_works_numpy_gives_the_maps(
    model: Artefact, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    engine = float_engine(model, 1)
    assert (engine.maps, engine.told, engine.build_s) == (None, "numpy", None)
