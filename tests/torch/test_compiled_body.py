"""The frozen body as compiled C: torch's features, and torch itself where nothing can be compiled."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

from mobilenets import compiling
from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.net import tensors
from mobilenets.spec.preprocess import Preprocess
from mobilenets.train.body import TorchEngine
from mobilenets.train.meter import instructions

MANY = 10**9


def silent(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def body(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Artefact:
    monkeypatch.setenv("MOBILENETS_CACHE", str(tmp_path / "cache"))
    net, random = zoo.v1(0.25, 64), np.random.default_rng(0)
    weights = {
        name: (random.uniform(0.5, 1.5, shape) if len(shape) == 1 else random.normal(0, 0.3, shape)).astype(
            np.float32
        )
        for name, shape in tensors(net).items()
    }
    return Artefact(net=net, weights=weights, preprocess=Preprocess(height=64, width=64, geometry="crop"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_a_compiled_body_gives_torchs_features_and_is_built_once(body: Artefact, tmp_path: Path) -> None:
    made = compiling.compiled_body(body, 2, MANY, silent)
    assert made is not None
    levels = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    wanted = TorchEngine(body).prepared(levels)["features"]
    with made.pool() as pool:
        for got in pool.map(made.prepared, [levels] * 6):
            scale = float(np.abs(wanted).max())
            np.testing.assert_allclose(got["features"], wanted, atol=2e-5 * scale)
    libraries = list((tmp_path / "cache").rglob("*.so"))
    assert len(libraries) == 1
    before = libraries[0].stat().st_mtime_ns
    assert compiling.compiled_body(body, 1, 1, silent) is not None  # it is there: any number is worth it
    assert libraries[0].stat().st_mtime_ns == before
    assert [path.name for path in libraries[0].parent.iterdir()] == [libraries[0].name]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_a_rough_body_is_nearly_torchs_and_the_exact_one_is_built_beside_it(
    body: Artefact, tmp_path: Path
) -> None:
    rough = compiling.compiled_body(body, 1, MANY, silent, rough=True)
    exact = compiling.compiled_body(body, 1, 1, silent)  # it is there: any number is worth it
    assert rough is not None
    assert exact is not None
    assert exact.exact
    assert rough.exact == ("avx512_bf16" not in instructions())
    assert len(list((tmp_path / "cache").rglob("*.so"))) == 2 - rough.exact
    levels = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    wanted = TorchEngine(body).prepared(levels)["features"]
    off = [
        float(np.abs(one.prepared(levels)["features"] - wanted).max()) / float(np.abs(wanted).max())
        for one in (exact, rough)
    ]
    assert off[0] <= 2e-5
    assert off[1] <= (2e-5 if rough.exact else 0.05)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
@pytest.mark.skipif("avx512_bf16" not in instructions(), reason="this processor has no bfloat16")
def test_where_the_compiler_knows_no_bfloat16_the_exact_body_serves(
    body: Artefact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    older = tmp_path / "older-cc"
    older.write_text(
        '#!/bin/sh\ngrep -q avx512bf16 *.c && { echo unknown target >&2; exit 1; }\nexec cc "$@"\n'
    )
    older.chmod(0o755)
    monkeypatch.setenv("CC", str(older))
    made = compiling.compiled_body(body, 1, MANY, silent, rough=True)
    assert made is not None
    assert made.exact
    assert len(list((tmp_path / "cache").rglob("*.so"))) == 1


def test_few_pictures_are_not_worth_a_build(body: Artefact, tmp_path: Path) -> None:
    assert compiling.compiled_body(body, 2, 10, silent) is None
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.parametrize("compiler", ["false", "nonesuch"])
def test_where_nothing_can_be_compiled_torch_serves(
    body: Artefact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert compiling.compiled_body(body, 2, MANY, silent) is None
    assert not list((tmp_path / "cache").rglob("*.so"))


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_a_build_that_was_cut_short_is_made_again(body: Artefact, tmp_path: Path) -> None:
    assert compiling.compiled_body(body, 1, MANY, silent) is not None
    library = next((tmp_path / "cache").rglob("*.so"))
    library.unlink()  # not written over: it is open here
    library.write_bytes(b"\x7fELF" + bytes(100))
    levels = np.zeros((1, 64, 64, 3), np.uint8)
    made = compiling.compiled_body(body, 1, MANY, silent)
    assert made is not None
    assert np.isfinite(made.prepared(levels)["features"]).all()
