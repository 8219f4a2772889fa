"""A C compiler, small networks with random weights, and a way to build them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from mobilenets.compile import isa
from mobilenets.compile.build import TARGETS, build, write
from mobilenets.compile.source import compiled
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.fold import fold
from mobilenets.infer.integer import Scale
from mobilenets.spec.net import Net, Node, Output, shapes, tensors, weight_shape
from mobilenets.spec.op import Conv, Dense, Depthwise, Op, Pointwise, Pool, Shape
from mobilenets.spec.preprocess import Preprocess

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
    read = {name for node in net.nodes for name in node.inputs}
    for node in net.nodes:
        relu = not isinstance(node.op, Pool | Dense) and node.op.activation != "none"
        if node.name in read or random.random() < 0.5:
            scales[node.name] = Scale(
                float(random.uniform(0.01, 0.1)), 0 if relu else int(random.integers(256))
            )
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
        spread = random.uniform(0.3, 3, weight[0]) / (70 * np.sqrt(terms))
        parts[f"{node.name}.step"] = (spread * after / before).astype(np.float32)
        parts[f"{node.name}.bias"] = random.integers(-9000, 9000, weight[0], dtype=np.int32)
    return replace(model, net=net, weights=parts, scales=scales)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., CompiledEngine]:
    """Builds a model for this machine and opens it."""
    numbers = iter(range(1000))

    def make(model: Artefact, threads: int = 1) -> CompiledEngine:
        place = tmp_path / f"built{next(numbers)}"
        place.mkdir()
        source = compiled(model, "tested", isa.X86_BYTES if model.scales else isa.X86)
        write(source, place)
        return CompiledEngine(build(source, TARGETS["host"], place).file, threads)

    return make


@st.composite
def networks(draw: st.DrawFn) -> Net:
    """Chains of any layers on small maps of any shape."""
    shape = Shape(draw(st.integers(1, 19)), draw(st.integers(1, 19)), 3)
    activation = st.sampled_from(("none", "relu", "relu6"))
    padding = st.sampled_from(("same", "symmetric"))
    nodes: list[Node] = []
    before = "image"
    for index in range(draw(st.integers(1, 5))):
        kinds = ["conv", "pointwise"] + ["depthwise"] * 2 * (index > 0)
        out, kernel = draw(st.integers(1, 70)), draw(st.sampled_from((1, 3, 5)))
        stride = draw(st.integers(1, min(2, kernel)))
        rest = {"kernel": kernel, "stride": stride, "padding": draw(padding), "activation": draw(activation)}
        op: Op
        match draw(st.sampled_from(kinds)):
            case "conv":
                op = Conv(out=out, bias=draw(st.booleans()), **rest)
            case "depthwise":
                op = Depthwise(bias=draw(st.booleans()), **rest)
            case _:
                op = Pointwise(out=out, bias=draw(st.booleans()), activation=draw(activation))
        nodes.append(Node(f"layer{index}", op, (before,)))
        before = f"layer{index}"
    nodes += [Node("pool", Pool(), (before,)), Node("head", Dense(out=draw(st.integers(1, 70))), ("pool",))]
    outputs = (Output("logits", "head", "classes"), Output("features", "pool", "vector"))
    return Net("drawn", shape, tuple(nodes), outputs)
