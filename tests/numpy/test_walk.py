"""The numpy walk computes what can be worked out by hand, and folding leaves the function unchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.infer import walk
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.decode import answer, softmax
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.fold import fold
from mobilenets.infer.walk import Map, Walk
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, Node, Output, shape_after, shapes, tensors
from mobilenets.spec.op import (
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
    around,
    pads,
)
from mobilenets.spec.preprocess import Preprocess


def chain(size: tuple[int, int, int], *ops: Op) -> Net:
    """A network of these operations, one after the other, named a, b, c …"""
    names = ["image", *"abcdefgh"[: len(ops)]]
    nodes = tuple(Node(name, op, (before,)) for before, name, op in zip(names, names[1:], ops, strict=False))
    return Net("chain", Shape(*size), nodes, (Output("out", names[len(ops)], "vector"),))


DEEP = 60
"""Nodes of a network in which nearly dead channels, one after the other, leave what floats can hold."""


def drawn(net: Net, seed: int = 0) -> dict[str, Map]:
    """Weights of every sign; variances positive, one channel of each norm nearly dead."""
    draw = np.random.default_rng(seed)
    made = {}
    for name, shape in tensors(net).items():
        value = draw.normal(0, 1 / np.sqrt(max(np.prod(shape[1:]), 1)), shape).astype(np.float32)
        if name.endswith("running_var"):
            value = np.abs(value) + np.float32(0.05)
            value[0] = 1e-12 if len(net.nodes) < DEEP else 0.05
        made[name] = value
    return made


def image(net: Net, count: int = 1, seed: int = 1) -> Map:
    return np.random.default_rng(seed).normal(0, 1, (count, *net.input)).astype(np.float32)


RAMP = np.arange(1, 10, dtype=np.float32).reshape(1, 3, 3, 1)


@pytest.mark.parametrize(
    ("stride", "padding", "expected"),
    [
        # A kernel of ones sums the 3 × 3 window around each pixel of 1…9.
        (1, "same", [[12, 21, 16], [27, 45, 33], [24, 39, 28]]),
        (1, "symmetric", [[12, 21, 16], [27, 45, 33], [24, 39, 28]]),
        (2, "same", [[12, 16], [24, 28]]),
        (3, "same", [[45]]),  # one window, nothing padded
        (3, "symmetric", [[12]]),  # one window, around the first pixel
    ],
)
@pytest.mark.parametrize("kind", [Conv, Depthwise])
def test_a_kernel_of_ones_sums_its_window(
    kind: type, stride: int, padding: Padding, expected: list[list[float]]
) -> None:
    op = (
        Conv(out=1, stride=stride, padding=padding)
        if kind is Conv
        else Depthwise(stride=stride, padding=padding)
    )
    net = chain((3, 3, 1), op)
    made = Walk(net, {"a.weight": np.ones((1, 1, 3, 3), np.float32)})(RAMP)["out"]
    assert made.reshape(len(expected), -1).tolist() == expected


def test_at_stride_2_on_an_even_size_same_pads_below_and_right_only() -> None:
    x = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    weight = {"a.weight": np.ones((1, 1, 3, 3), np.float32)}
    same = Walk(chain((4, 4, 1), Conv(out=1, stride=2)), weight)(x)["out"]
    symmetric = Walk(chain((4, 4, 1), Conv(out=1, stride=2, padding="symmetric")), weight)(x)["out"]
    assert same[0, :, :, 0].tolist() == [[45, 39], [66, 50]]
    assert symmetric[0, :, :, 0].tolist() == [[10, 24], [51, 90]]


def test_a_pointwise_mixes_channels_and_a_depthwise_never_does() -> None:
    x = np.array([1, 10], np.float32).reshape(1, 1, 1, 2)
    mixed = Walk(
        chain((1, 1, 2), Pointwise(out=3, bias=True)),
        {
            "a.weight": np.array([[1, 0], [0, 1], [1, 1]], np.float32).reshape(3, 2, 1, 1),
            "a.bias": np.array([0, 0, 100], np.float32),
        },
    )(x)["out"]
    assert mixed.tolist() == [[1, 10, 111]]
    apart = Walk(
        chain((1, 1, 2), Depthwise(kernel=1)),
        {"a.weight": np.array([2, 3], np.float32).reshape(2, 1, 1, 1)},
    )(x)["out"]
    assert apart.tolist() == [[2, 30]]


@pytest.mark.parametrize(("activation", "expected"), [("none", -3), ("relu", 0), ("relu6", 0)])
def test_activations_cut_below_zero(activation: str, expected: float) -> None:
    net = chain((1, 1, 1), Pointwise(out=1, activation=activation))  # type: ignore[arg-type]
    weight = {"a.weight": np.full((1, 1, 1, 1), -3, np.float32)}
    assert Walk(net, weight)(np.ones((1, 1, 1, 1), np.float32))["out"].tolist() == [[expected]]


@pytest.mark.parametrize(("activation", "expected"), [("none", 9), ("relu", 9), ("relu6", 6)])
def test_relu6_cuts_above_six(activation: str, expected: float) -> None:
    net = chain((1, 1, 1), Pointwise(out=1, activation=activation))  # type: ignore[arg-type]
    weight = {"a.weight": np.full((1, 1, 1, 1), 9, np.float32)}
    assert Walk(net, weight)(np.ones((1, 1, 1, 1), np.float32))["out"].tolist() == [[expected]]


def test_a_norm_subtracts_the_mean_and_divides_by_the_root_of_variance_and_epsilon() -> None:
    net = chain((1, 1, 1), Pointwise(out=1, norm=BatchNorm(epsilon=1)))
    weights = {
        "a.weight": np.full((1, 1, 1, 1), 10, np.float32),
        "a.norm.weight": np.array([4], np.float32),
        "a.norm.bias": np.array([0.5], np.float32),
        "a.norm.running_mean": np.array([2], np.float32),
        "a.norm.running_var": np.array([3], np.float32),
    }
    # (10 − 2) · 4 / √(3 + 1) + 0.5
    assert Walk(net, weights)(np.ones((1, 1, 1, 1), np.float32))["out"].tolist() == [[16.5]]


def test_a_pool_is_the_mean_of_the_map_and_a_dense_layer_a_matrix() -> None:
    net = chain((3, 3, 1), Pool(), Dense(out=2))
    weights = {
        "b.weight": np.array([[1], [-2]], np.float32),
        "b.bias": np.array([0, 0.5], np.float32),
    }
    assert Walk(net, weights)(RAMP)["out"].tolist() == [[5, -9.5]]


def test_a_sum_adds_value_by_value_as_often_as_a_map_is_named() -> None:
    nodes = (
        Node("a", Pointwise(out=1, activation="relu6"), ("image",)),
        Node("b", Add(), ("a", "image", "a")),
        Node("c", Add(), ("b", "b")),
    )
    net = Net("sums", Shape(3, 3, 1), nodes, (Output("out", "c", "vector"),))
    x = RAMP.copy()
    found = Walk(net, {"a.weight": np.full((1, 1, 1, 1), 2, np.float32)})(x, taps=("a", "b", "image"))
    assert found["a"].ravel().tolist() == [2, 4, 6, 6, 6, 6, 6, 6, 6]
    assert found["b"].ravel().tolist() == [5, 10, 15, 16, 17, 18, 19, 20, 21]
    assert found["out"].ravel().tolist() == [10, 20, 30, 32, 34, 36, 38, 40, 42]
    np.testing.assert_array_equal(found["image"], RAMP)


def loop(x: Map, weight: Map, op: Conv | Depthwise) -> Map:
    """A convolution by its definition, in float64: every output, every window, every channel."""
    (top, below), (left, right) = (pads(side, op.kernel, op.stride, op.padding) for side in x.shape[1:3])
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, below), (left, right), (0, 0)))
    tall = (padded.shape[1] - op.kernel) // op.stride + 1
    wide = (padded.shape[2] - op.kernel) // op.stride + 1
    y = np.zeros((len(x), tall, wide, weight.shape[0]))
    for i in range(tall):
        for j in range(wide):
            rows, columns = i * op.stride, j * op.stride
            window = padded[:, rows : rows + op.kernel, columns : columns + op.kernel]
            for out in range(weight.shape[0]):
                kernel = weight[out].transpose(1, 2, 0)
                part = window[..., out : out + 1] if isinstance(op, Depthwise) else window
                y[:, i, j, out] = (part * kernel).sum(axis=(1, 2, 3))
    return y


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(("same", "symmetric")),
    st.booleans(),
    st.integers(0, 999),
)
def test_the_walk_equals_a_loop_over_every_window(
    height: int, width: int, channels: int, kernel: int, stride: int, padding: Padding, deep: bool, seed: int
) -> None:
    op: Conv | Depthwise = (
        Depthwise(kernel=kernel, stride=stride, padding=padding)
        if deep
        else Conv(out=3, kernel=kernel, stride=stride, padding=padding)
    )
    net = chain((height, width, channels), op)
    weights = drawn(net, seed)
    x = image(net, 2, seed)
    made = Walk(net, weights)(x, taps=("a",))["a"]
    np.testing.assert_allclose(made, loop(x, weights["a.weight"], op), rtol=0, atol=2e-5)


def test_stripes_of_any_height_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    net = chain((23, 17, 5), Depthwise(stride=2))
    weights, x = drawn(net), image(net, 2)
    whole = Walk(net, weights)(x)["out"]
    for size in (1, 1000, 3000):
        monkeypatch.setattr(walk, "STRIPE_BYTES", size)
        assert Walk(net, weights)(x)["out"].tobytes() == whole.tobytes()


NETS = [zoo.net(name, 0.25, 33 if name != "v1-cifar" else 9, 5) for name in zoo.NETS]


def steep(net: Net) -> int:
    """How many times more rounding there may be than in a chain: gates multiply what it did to their sums."""
    return 10 if any(isinstance(node.op, Mul) for node in net.nodes) else 1


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_a_picture_alone_answers_as_in_a_batch(net: Net) -> None:
    walked = Walk(net, drawn(net))
    x = image(net, 3)
    together = walked(x)["logits"]
    alone = np.concatenate([walked(one[None])["logits"] for one in x])
    np.testing.assert_allclose(together, alone, rtol=1e-5 * steep(net), atol=1e-5)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_folding_leaves_the_function_and_takes_every_norm_away(net: Net) -> None:
    weights = drawn(net)
    folded, lighter = fold(net, weights)
    assert set(lighter) == set(tensors(folded))
    assert not any("norm" in name for name in lighter)
    assert fold(folded, lighter)[0] == folded
    x = image(net, 2)
    known = shapes(net)
    values = {"image": x.astype(np.float64)}
    for node in net.nodes:  # the norms kept, in float64
        values[node.name] = slow(node, [values[name] for name in node.inputs], weights)
        assert values[node.name].shape[1:] == known[node.name]
    made = Walk(folded, lighter)(x, taps=[node.name for node in net.nodes])
    for node in net.nodes:
        expected = values[node.name]
        np.testing.assert_allclose(
            made[node.name], expected, rtol=0, atol=1e-4 * steep(net) * max(np.abs(expected).max(), 1)
        )


def slow(node: Node, given: list[Map], weights: dict[str, Map]) -> Map:
    """One node by its definition, batch norm as a step of its own."""
    op, x = node.op, given[0]
    if not isinstance(op, Linear):
        return weightless(op, given)
    weight = weights[f"{node.name}.weight"].astype(np.float64)
    if isinstance(op, Conv | Depthwise):
        y = loop(x, weight, op)
    else:
        groups = op.groups if isinstance(op, Pointwise) else 1
        parts = zip(np.split(x, groups, axis=3), np.split(weight, groups), strict=True)
        y = np.concatenate([part @ own.reshape(len(own), -1).T for part, own in parts], axis=3)
    if f"{node.name}.bias" in weights:
        y += weights[f"{node.name}.bias"]
    if isinstance(op, Dense):
        return y
    if op.norm is not None:
        gamma, beta, mean, variance = (
            weights[f"{node.name}.norm.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        y = (y - mean) / np.sqrt(variance + op.norm.epsilon) * gamma + beta
    return bent(y, op.activation)


def bent(y: Map, activation: Activation) -> Map:
    """An activation by its definition."""
    gate = np.clip(y + 3, 0, 6) / 6
    found = {
        "none": y,
        "relu": np.fmax(y, 0),
        "relu6": np.clip(y, 0, 6),
        "hsigmoid": gate,
        "hswish": y * gate,
    }
    return found[activation]


def weightless(op: Op, given: list[Map]) -> Map:
    """An operation without weights by its definition, pixel by pixel where it slides."""
    x = given[0]
    match op:
        case Add():
            return bent(np.sum(given, axis=0), op.activation)
        case Mul():
            return np.einsum("nhwc,nc->nhwc", x, given[1][:, 0, 0])
        case Pool():
            return x.mean(axis=(1, 2), keepdims=True)
        case Concat():
            return np.concatenate(given, axis=-1)
        case Slice():
            return x[..., op.begin : op.end]
        case Shuffle():
            count = x.shape[3]
            return x[..., [(to % op.groups) * (count // op.groups) + to // op.groups for to in range(count)]]
        case MaxPool() | MeanPool():
            (above, _), (beside, _) = around(op, Shape(*x.shape[1:]))
            made = np.empty((len(x), *shape_after(op, [Shape(*x.shape[1:])])))
            for row, column in np.ndindex(made.shape[1:3]):
                top, left = row * op.stride - above, column * op.stride - beside
                seen = x[:, max(top, 0) : top + op.kernel, max(left, 0) : left + op.kernel]
                made[:, row, column] = (np.max if isinstance(op, MaxPool) else np.mean)(seen, axis=(1, 2))
            return made
    raise AssertionError(op)


def test_names_that_begin_alike_keep_their_own_weights_when_folded() -> None:
    nodes = (
        Node("ab", Pointwise(out=3, norm=BatchNorm()), ("image",)),
        Node("a", Pointwise(out=2), ("ab",)),
        Node("b", Pointwise(out=2, norm=BatchNorm()), ("a",)),
    )
    net = Net("alike", Shape(2, 2, 3), nodes, (Output("out", "b", "vector"),))
    folded, lighter = fold(net, drawn(net))
    assert set(lighter) == set(tensors(folded))


def test_taps_give_any_node_and_leave_the_outputs_as_they_were() -> None:
    net = NETS[0]
    walked, x = Walk(net, drawn(net)), image(net)
    tapped = walked(x, taps=["stem", "pool", "block3.depthwise"])
    assert tapped["stem"].shape == (1, 17, 17, 8)
    assert tapped["logits"].tobytes() == walked(x)["logits"].tobytes()
    assert tapped["pool"].reshape(1, -1).tobytes() == tapped["features"].tobytes()


def test_the_walk_leaves_its_input_as_it_was() -> None:
    net = chain((4, 4, 3), Depthwise(kernel=1, activation="relu6"))
    x = image(net)
    before = x.copy()
    Walk(net, drawn(net))(x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((1, 4, 4, 3), np.float64),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((1, 5, 4, 3), np.float32),
        np.zeros((1, 3, 4, 4), np.float32),
    ],
)
def test_an_input_of_another_kind_is_refused_with_what_is_wanted(x: Map) -> None:
    net = chain((4, 4, 3), Pointwise(out=1))
    with pytest.raises(ValueError, match=r"float32 \[n, 4, 4, 3\]"):
        Walk(net, drawn(net))(x)


def test_weights_that_do_not_fit_are_all_listed() -> None:
    net = chain((4, 4, 3), Pointwise(out=2, bias=True), Pool(), Dense(out=2))
    weights = drawn(net)
    del weights["c.bias"]
    weights |= {"d.weight": np.zeros(1, np.float32), "a.bias": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"missing: c\.bias; extra: d\.weight; wrong shape: a\.bias \[3\]"):
        Walk(net, weights)


def test_the_numpy_engine_takes_frames_of_any_size_and_gives_every_output() -> None:
    net = zoo.net("v1", 0.25, 32, 4)
    model = Artefact(net=net, weights=drawn(net), preprocess=Preprocess(height=32, width=32))
    engine = NumpyEngine(model)
    draw = np.random.default_rng(0)
    frames = [draw.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in ((1, 1), (50, 20), (32, 32))]
    many = engine.many(frames)
    assert {name: value.shape for name, value in many.items()} == {"logits": (3, 4), "features": (3, 256)}
    for index, frame in enumerate(frames):
        np.testing.assert_allclose(engine(frame)["logits"], many["logits"][index], rtol=1e-4, atol=1e-5)


@given(st.lists(st.floats(-500, 500, width=32), min_size=1, max_size=9))
def test_a_softmax_sums_to_one_and_keeps_the_order(logits: list[float]) -> None:
    values = np.array(logits, np.float32)
    scores = softmax(values)
    assert scores.dtype == np.float32
    assert scores.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(scores[np.argsort(values)]) >= 0).all()


def test_an_answer_is_the_best_labels_in_order_and_unknown_below_the_threshold() -> None:
    logits = np.log(np.array([0.2, 0.5, 0.2, 0.1], np.float32)) + 3
    told = answer(logits, "abcd", 3, None)
    assert [p.label for p in told.predictions] == ["b", "a", "c"]  # the earlier label first among equals
    assert told.unknown is None
    assert told.label == "b"
    assert told.score == pytest.approx(0.5)
    assert told.logit == logits[1]
    assert answer(logits, "abcd", 1, told.logit + 0.1).label == "unknown"
    assert answer(logits, "abcd", 1, told.logit - 0.1).label == "b"
    assert answer(logits - 3, "abcd", 1, told.logit - 0.1).unknown  # the same scores, but like no class
    assert len(answer(logits, "abcd", 99, None).predictions) == 4


def test_an_output_that_is_a_map_stays_a_map() -> None:
    net = chain((4, 6, 3), Pointwise(out=2))
    assert Walk(net, drawn(net))(image(net, 2))["out"].shape == (2, 4, 6, 2)
    assert Walk(replace(net, input=Shape(1, 1, 3)), drawn(net))(np.zeros((2, 1, 1, 3), np.float32))[
        "out"
    ].shape == (2, 2)
