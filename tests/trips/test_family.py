"""Every network of the family, small: trained for an epoch on real pictures, quantised, compiled, verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.compiling import compile_model  # noqa: E402
from mobilenets.infer import artefact  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.training import train  # noqa: E402

from .conftest import Told  # noqa: E402, F401  # the trips' own

TARGETS = ["host", *(["wasm"] if shutil.which("node") else [])]


class Quiet:
    """What hears of progress and keeps it to itself."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...

    def row(self, head: object, cells: object) -> None: ...


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NETS)
def test_every_network_learns_is_quantised_and_compiled(name: str, tiny: Path, tmp_path: Path) -> None:
    options = {"net": name, "width": 0.25, "resolution": 32, "epochs": 1, "batch": 16, "threads": 1}
    run = train(tiny, tmp_path / "out", options, Quiet(), cache=tmp_path / "cache")  # type: ignore[arg-type]  # a reporter
    assert run is not None
    assert np.isfinite(run.epochs[0].loss)
    model = artefact.load(tmp_path / "out" / "model.safetensors")
    assert model.net.name == name
    for target in TARGETS:
        made = compile_model(
            model,
            tmp_path / target,
            Quiet(),
            name="tiny",
            target=target,
            dtype="int8",
            calibrate=tiny / "train",
            images=tiny / "val",
        )
        certificate = json.loads((tmp_path / target / "certificate.json").read_text())
        assert made["dtype"] == certificate["dtype"] == "int8"
        assert certificate["mismatches"] == 0
