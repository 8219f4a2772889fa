"""Every network of the family, small: an epoch on real pictures, then bytes, then code for two targets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.compiling import compile_model
from mobilenets.infer import artefact
from mobilenets.spec import zoo
from mobilenets.training import train

from .conftest import Told  # noqa: F401  # the trips' own

TARGETS = ("host", "wasm")


@pytest.fixture(scope="module")
def few(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen of the pictures, to calibrate and to verify on."""
    folder = tmp_path_factory.mktemp("few")
    for file in sorted((tiny / "train").glob("*/*"))[::6]:
        (folder / file.parent.name).mkdir(exist_ok=True)
        shutil.copy(file, folder / file.parent.name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.NETS if not name.startswith("v1")])
def test_every_network_learns_is_quantised_and_compiled(
    name: str, tiny: Path, few: Path, quiet: Any, tmp_path: Path
) -> None:
    options = {"net": name, "width": 0.25, "resolution": 32, "epochs": 1, "batch": 16, "threads": 1}
    run = train(tiny, tmp_path / "out", options, quiet, cache=tmp_path / "cache")
    assert run is not None
    assert np.isfinite(run.epochs[0].loss)
    model = artefact.load(tmp_path / "out" / "model.safetensors")
    assert model.net.name == name
    for target in TARGETS:
        if target == "wasm" and shutil.which("node") is None:
            pytest.skip("what was compiled for the web runs in Node, which is not here")
        made = compile_model(
            model,
            tmp_path / target,
            quiet,
            name="tiny",
            target=target,
            dtype="int8",
            calibrate=few,
            images=few,
        )
        assert made["dtype"] == "int8"
        assert made["frames"] > 0
        assert not made["unverified"]
        assert all(one["largest"] == 0 for one in made["largest_error"].values()), made["largest_error"]
