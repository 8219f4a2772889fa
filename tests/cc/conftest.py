"""A C compiler, small networks with random weights, and a way to build them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.compile.build import build, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.walk import Walk
from mobilenets.spec.net import Net, tensors
from mobilenets.spec.preprocess import Preprocess

HOST = family(TARGETS["host"])
RELATIVE = 2e-5
"""What float32 in another order may differ by, in parts of the largest value."""

if shutil.which("cc") is None and shutil.which("gcc") is None:
    pytest.skip("no C compiler on this machine", allow_module_level=True)


def filled(net: Net, seed: int = 0, geometry: str = "stretch", labels: tuple[str, ...] = ()) -> Artefact:
    """A model with random weights of a size that keeps activations near one."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in tensors(net).items():
        if name.endswith("running_var"):
            values = random.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = random.normal(0, 0.1, shape) + name.endswith("norm.weight")
        else:
            values = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        weights[name] = values.astype(np.float32)
    pre = Preprocess(height=net.input.height, width=net.input.width, geometry=geometry)  # type: ignore[arg-type]
    return Artefact(net=net, weights=weights, preprocess=pre, labels=labels)


def agrees(engine: Any, model: Artefact, seed: int = 0) -> None:
    shape = tuple(model.net.input)
    x = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    wanted = Walk(model.net, model.weights)(x[None])
    assert engine.isas
    for name in engine.isas:
        engine.use(name)
        for _ in range(2):  # the second time nothing of the first must be left
            got = engine.input(x)
            assert set(got) == set(wanted)
            for output, value in wanted.items():
                assert got[output].shape == value[0].shape
                scale = float(np.abs(value).max()) or 1.0
                assert float(np.abs(got[output] - value[0]).max()) <= RELATIVE * scale, (name, output)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., CompiledEngine]:
    """Builds a model for this machine and opens it."""
    numbers = iter(range(1000))

    def make(model: Artefact, threads: int = 1) -> CompiledEngine:
        place = tmp_path / f"built{next(numbers)}"
        place.mkdir()
        source = compiled(model, "tested", HOST)
        write(source, place)
        return CompiledEngine(build(source, TARGETS["host"], place).file, threads)

    return make
