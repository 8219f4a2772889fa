"""torch's own convolutions agree with the numpy walk on random networks, degenerate sizes among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.nn import functional  # noqa: E402 - after the line that skips where there is no torch

from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.net import Net, Node, Output, shape_after, tensors  # noqa: E402
from mobilenets.spec.op import (  # noqa: E402
    Activation,
    Add,
    BatchNorm,
    Conv,
    Dense,
    Depthwise,
    Padding,
    Pointwise,
    Pool,
    Shape,
    pads,
)

Map = NDArray[np.float32]
PADDINGS: st.SearchStrategy[Padding] = st.sampled_from(("same", "symmetric"))
ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(("none", "relu", "relu6"))
NORMS = st.none() | st.builds(BatchNorm, epsilon=st.floats(1e-5, 0.1))
LAYERS = st.one_of(
    st.builds(
        Conv,
        out=st.integers(1, 6),
        kernel=st.integers(1, 5),
        stride=st.integers(1, 3),
        padding=PADDINGS,
        norm=NORMS,
        bias=st.booleans(),
        activation=ACTIVATIONS,
    ),
    st.builds(
        Depthwise,
        kernel=st.integers(1, 5),
        stride=st.integers(1, 3),
        padding=PADDINGS,
        norm=NORMS,
        bias=st.booleans(),
        activation=ACTIVATIONS,
    ),
    st.builds(Pointwise, out=st.integers(1, 6), norm=NORMS, bias=st.booleans(), activation=ACTIVATIONS),
)


@st.composite
def nets(draw: st.DrawFn) -> Net:
    """One to five layers on 1 × 1 up to 17 × 17 pixels, some summed up, some closed by a pool and a dense
    layer."""
    ops = [*draw(st.lists(LAYERS, min_size=1, max_size=5))]
    if draw(st.booleans()):
        ops += [Pool(), Dense(out=draw(st.integers(1, 4)), bias=draw(st.booleans()))]
    size = Shape(draw(st.integers(1, 17)), draw(st.integers(1, 17)), draw(st.integers(1, 4)))
    nodes: list[Node] = []
    known, last = {"image": size}, "image"
    for index, op in enumerate(ops):
        nodes.append(Node(f"n{index}", op, (last,)))
        last = nodes[-1].name
        known[last] = shape_after(op, known[nodes[-1].inputs[0]])
        alike = [name for name, shape in known.items() if shape == known[last]]
        if draw(st.booleans()):
            others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=3))
            nodes.append(Node(f"sum{index}", Add(), (last, *others)))
            last = nodes[-1].name
            known[last] = known[nodes[-1].inputs[0]]
    return Net("random", size, tuple(nodes), (Output("out", last, "vector"),))


def drawn(net: Net, seed: int) -> dict[str, Map]:
    draw = np.random.default_rng(seed)
    return {
        name: np.abs(draw.normal(0, 1, shape)).astype(np.float32) + np.float32(0.1)
        if name.endswith("running_var")
        else draw.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape).astype(np.float32)
        for name, shape in tensors(net).items()
    }


def by_torch(net: Net, weights: dict[str, Map], x: Map) -> dict[str, Map]:
    """Every node's value by torch.nn.functional in float64; maps back as [n, h, w, c]."""
    own = {name: torch.from_numpy(value).double() for name, value in weights.items()}
    values = {"image": torch.from_numpy(x).double().permute(0, 3, 1, 2)}
    for node in net.nodes:
        op, y = node.op, values[node.inputs[0]]
        if isinstance(op, Add):
            values[node.name] = torch.stack([values[name] for name in node.inputs]).sum(0)
            continue
        if isinstance(op, Pool):
            values[node.name] = functional.adaptive_avg_pool2d(y, 1)
            continue
        weight, bias = own[f"{node.name}.weight"], own.get(f"{node.name}.bias")
        if isinstance(op, Dense):
            values[node.name] = functional.linear(y.flatten(1), weight, bias)[..., None, None]
            continue
        if not isinstance(op, Pointwise):
            rows = pads(y.shape[2], op.kernel, op.stride, op.padding)
            columns = pads(y.shape[3], op.kernel, op.stride, op.padding)
            y = functional.pad(y, (*columns, *rows))
        stride = 1 if isinstance(op, Pointwise) else op.stride
        groups = y.shape[1] if isinstance(op, Depthwise) else 1
        y = functional.conv2d(y, weight, bias, stride, 0, 1, groups)
        if op.norm is not None:
            gamma, beta, mean, variance = (
                own[f"{node.name}.norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
            )
            y = functional.batch_norm(y, mean, variance, gamma, beta, False, 0.1, op.norm.epsilon)
        values[node.name] = {"none": lambda v: v, "relu": functional.relu, "relu6": functional.relu6}[
            op.activation
        ](y)
    return {name: value.permute(0, 2, 3, 1).numpy() for name, value in values.items() if name != "image"}


def assert_alike(net: Net, weights: dict[str, Map], x: Map) -> None:
    theirs = by_torch(net, weights, x)
    ours = Walk(net, weights)(x, taps=list(theirs))
    for name, value in theirs.items():
        tolerance = 2e-5 * max(float(np.abs(value).max()), 1.0)
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=tolerance, err_msg=name)


@given(nets(), st.integers(0, 9999), st.integers(1, 3))
def test_random_networks_compute_what_torch_computes(net: Net, seed: int, count: int) -> None:
    x = np.random.default_rng(seed).normal(0, 1, (count, *net.input)).astype(np.float32)
    assert_alike(net, drawn(net, seed), x)


@pytest.mark.parametrize("padding", ["same", "symmetric"])
@pytest.mark.parametrize(
    ("name", "resolution"), [("v1", 33), ("v1", 1), ("v1-full", 33), ("v1-cifar", 9), ("v2", 33), ("v2", 1)]
)
def test_networks_of_the_zoo_compute_what_torch_computes(
    name: str, resolution: int, padding: Padding
) -> None:
    net = zoo.net(name, 0.25, resolution, 7)
    if name in ("v1", "v2"):
        from mobilenets.spec.head import classify

        made = zoo.v1 if name == "v1" else zoo.v2
        net = classify(made(0.25, resolution, padding=padding), 7)
    x = np.random.default_rng(5).normal(0, 1, (2, *net.input)).astype(np.float32)
    assert_alike(net, drawn(net, 3), x)
