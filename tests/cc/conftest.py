"""A C compiler, small networks with random weights, and a way to build them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mobilenets.compile.build import build, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.fold import fold
from mobilenets.infer.integer import Kept, activation_of
from mobilenets.infer.scale import Scale
from mobilenets.infer.walk import Walk
from mobilenets.spec.head import HEAD
from mobilenets.spec.net import Net, shapes, tensors, weight_shape
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


def in_bytes(model: Artefact, seed: int = 0, asymmetric: bool = False) -> Artefact:
    """The network of a model with random bytes for weights, and scales that keep its activations in range."""
    random = np.random.default_rng(seed)
    net, _ = fold(model.net, model.weights)
    known = shapes(net)
    parts: dict[str, NDArray[Any]] = {}
    scales: dict[str, Scale] = {}
    alike = {name: name for name in known}  # of what has one scale, the first
    for node in net.nodes:
        if isinstance(node.op, Kept):
            for name in [name for name, first in alike.items() if first in {alike[i] for i in node.inputs}]:
                alike[name] = alike[node.name]
    read = {name for node in net.nodes for name in node.inputs}
    drawn: dict[str, Scale] = {}
    for node in net.nodes:
        activation = activation_of(node.op)
        wanted = node.name in read or activation != "none" or isinstance(node.op, Kept)
        if not wanted and random.random() < 0.5:
            continue
        step = float(random.uniform(0.01, 0.1))
        scale = Scale(step, 0 if activation not in ("none", "hswish") else int(random.integers(256)))
        scales[node.name] = drawn.setdefault(alike[node.name], scale)
    for node in net.nodes:
        weight = weight_shape(node.op, known[node.inputs[0]])
        if weight is None:
            continue
        least = 0 if asymmetric else -127
        parts[f"{node.name}.weight"] = random.integers(least, 128, weight, dtype=np.int8)
        if asymmetric:
            parts[f"{node.name}.zero"] = np.full(weight[0], random.integers(0, 128), np.int32)
        terms = int(np.prod(weight[1:]))
        before = scales.get(node.inputs[0], Scale(1.0, 0)).step
        after = scales.get(node.name, Scale(1.0, 0)).step
        if activation_of(node.op) in ("hswish", "hsigmoid"):
            after = 0.03
        spread = random.uniform(0.3, 3, weight[0]) / (70 * np.sqrt(terms))
        parts[f"{node.name}.step"] = (spread * after / before).astype(np.float32)
        parts[f"{node.name}.bias"] = random.integers(-9000, 9000, weight[0], dtype=np.int32)
    return replace(model, net=net, weights=parts, scales=scales)


def taught(model: Artefact, seed: int = 0) -> Artefact:
    """A model in bytes with a head in float32, drawn at random."""
    random, scales = np.random.default_rng(seed), {**model.scales}
    scales.pop(HEAD, None)
    weights = {name: value for name, value in model.weights.items() if not name.startswith(f"{HEAD}.")}
    shape = model.weights[f"{HEAD}.weight"].shape
    weights[f"{HEAD}.weight"] = random.normal(0, 1, shape).astype(np.float32)
    weights[f"{HEAD}.bias"] = random.normal(0, 1, shape[0]).astype(np.float32)
    return replace(model, weights=weights, scales=scales)


def agrees(engine: Any, model: Artefact, seed: int = 0) -> None:
    """On a random input, by every instruction set: within rounding in float32, bit for bit in bytes."""
    shape, random = tuple(model.net.input), np.random.default_rng(seed)
    x = random.normal(0, 1, shape).astype(np.float32)
    levels = random.integers(0, 256, shape, dtype=np.uint8)
    if model.scales:
        wanted, most, run = NumpyEngine(model)(levels), 0.0, lambda: engine(levels)
    else:
        found = Walk(model.net, model.weights)(x[None])
        wanted, most, run = {name: v[0] for name, v in found.items()}, RELATIVE, lambda: engine.input(x)
    assert engine.isas
    for name in engine.isas:
        engine.use(name)
        for _ in range(2):  # the second time nothing of the first must be left
            got = run()
            assert set(got) == set(wanted)
            for output, value in wanted.items():
                assert got[output].shape == value.shape
                scale = float(np.abs(value).max()) or 1.0
                assert float(np.abs(got[output] - value).max()) <= most * scale, (name, output)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., CompiledEngine]:
    """Builds a model for this machine and opens it."""
    numbers = iter(range(1000))

    def make(model: Artefact, threads: int = 1, scratch: int | None = None) -> CompiledEngine:
        place = tmp_path / f"built{next(numbers)}"
        place.mkdir()
        chosen = family(TARGETS["host"], model.dtype)
        chosen = chosen if scratch is None else replace(chosen, scratch_bytes=scratch)
        source = compiled(model, "tested", chosen)
        write(source, place)
        return CompiledEngine(build(source, TARGETS["host"], place).file, threads)

    return make
