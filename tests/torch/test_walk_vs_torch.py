"""torch's own convolutions agree with the numpy walk on random networks, degenerate sizes among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from grown import Growing  # noqa: E402
from torch.nn import functional  # noqa: E402 - after the line that skips where there is no torch

from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.net import Net, Output, tensors  # noqa: E402
from mobilenets.spec.op import (  # noqa: E402
    Activate,
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Depthwise,
    Linear,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Padding,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    pads,
)

Map = NDArray[np.float32]
PADDINGS: st.SearchStrategy[Padding] = st.sampled_from(("same", "symmetric", "ceil"))
ACTIVATED: dict[Activation, Any] = {
    "none": lambda y: y,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "hswish": functional.hardswish,
    "hsigmoid": functional.hardsigmoid,
    "swish": functional.silu,
    "sigmoid": torch.sigmoid,
}
ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(list(ACTIVATED))
POOLED: st.SearchStrategy[Padding] = st.sampled_from(("same", "symmetric", "ceil"))
NORMS = st.none() | st.builds(BatchNorm, epsilon=st.floats(1e-5, 0.1))
LAYERS = st.one_of(
    st.builds(
        Conv,
        out=st.integers(1, 6),
        kernel=st.integers(1, 5),
        across=st.none() | st.integers(1, 5),
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
    st.builds(MaxPool, kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=POOLED),
    st.builds(MeanPool, kernel=st.integers(1, 4), stride=st.integers(1, 3), padding=POOLED),
    st.builds(Activate, activation=ACTIVATIONS),
)


@st.composite
def nets(draw: st.DrawFn) -> Net:
    """One to five layers on 1 × 1 up to 17 × 17 pixels, some in groups, some summed up, gated, joined, cut or
    dealt out, some closed by a pool and a dense layer."""
    ops = [*draw(st.lists(LAYERS, min_size=1, max_size=5))]
    if draw(st.booleans()):
        ops += [Pool(), Dense(out=draw(st.integers(1, 4)), bias=draw(st.booleans()))]
    size = Shape(draw(st.integers(1, 17)), draw(st.integers(1, 17)), draw(st.integers(1, 4)))
    grown = Growing(size, image_mixes=True, most_summed=3)
    for index, op in enumerate(ops):
        if grown.layer(draw, index, op):
            grown.branch(draw, index, ACTIVATIONS)
    assume(grown.nodes)
    return Net("random", size, tuple(grown.nodes), (Output("out", grown.last, "vector"),))


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
        if not isinstance(op, Linear):
            values[node.name] = without_weights(op, [values[name] for name in node.inputs])
            continue
        weight, bias = own[f"{node.name}.weight"], own.get(f"{node.name}.bias")
        if isinstance(op, Dense):
            values[node.name] = functional.linear(y.flatten(1), weight, bias)[..., None, None]
            continue
        if not isinstance(op, Pointwise):
            tall, wide = weight.shape[2:]
            rows, columns = (
                pads(side, kernel, op.stride, op.padding)
                for side, kernel in zip(y.shape[2:], (tall, wide), strict=True)
            )
            y = functional.pad(y, (*columns, *rows))
        stride = 1 if isinstance(op, Pointwise) else op.stride
        groups = y.shape[1] if isinstance(op, Depthwise) else op.groups
        y = functional.conv2d(y, weight, bias, stride, 0, 1, groups)
        if op.norm is not None:
            gamma, beta, mean, variance = (
                own[f"{node.name}.norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
            )
            y = functional.batch_norm(y, mean, variance, gamma, beta, False, 0.1, op.norm.epsilon)
        values[node.name] = ACTIVATED[op.activation](y)
    return {name: value.permute(0, 2, 3, 1).numpy() for name, value in values.items() if name != "image"}


def without_weights(op: Op, given: list[Any]) -> Any:
    """By torch's own words for it; pools by unfolding windows."""
    y = given[0]
    match op:
        case Add():
            return ACTIVATED[op.activation](torch.stack(given).sum(0))
        case Mul():
            return torch.einsum("nchw,nc->nchw", y, given[1][:, :, 0, 0])
        case Pool():
            return functional.adaptive_avg_pool2d(y, 1)
        case Concat():
            return torch.cat(given, 1)
        case Slice():
            return torch.narrow(y, 1, op.begin, op.end - op.begin)
        case Shuffle():
            return functional.channel_shuffle(y, op.groups)
        case Activate():
            return ACTIVATED[op.activation](y)
        case MaxPool() | MeanPool():
            rows, columns = (pads(side, op.kernel, op.stride, op.padding) for side in y.shape[2:])
            framed = functional.pad(y, (*columns, *rows), value=torch.nan)
            seen = framed.unfold(2, op.kernel, op.stride).unfold(3, op.kernel, op.stride).flatten(-2)
            return seen.nanmean(-1) if isinstance(op, MeanPool) else seen.nan_to_num(-torch.inf).amax(-1)
    raise AssertionError(op)


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
