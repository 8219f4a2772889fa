"""Integer networks compute what their definition says, number by number, and travel in files unharmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.infer.artefact import Artefact, ArtefactError, digest, from_bytes, to_bytes
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import normalise
from mobilenets.infer.integer import MOST_BIAS, IntegerWalk, check, dequantised, image_zero
from mobilenets.infer.scale import Scale
from mobilenets.infer.sealed import pack, unpack
from mobilenets.infer.walk import Walk
from mobilenets.spec.net import Net, Node, Output, shapes, weight_shape
from mobilenets.spec.op import Activate, Conv, Dense, Depthwise, Op, Pointwise, Pool, Shape, pads
from mobilenets.spec.preprocess import Preprocess


def chain(height: int, width: int, *ops: Op) -> Net:
    """These operations one after the other, named a, b, c …; its output is a vector `out`."""
    names = ["image", *"abcdefgh"[: len(ops)]]
    nodes = tuple(Node(name, op, (before,)) for before, name, op in zip(names, names[1:], ops, strict=False))
    return Net("chain", Shape(height, width, 3), nodes, (Output("out", names[len(ops)], "vector"),))


def drawn(
    net: Net, seed: int = 0, *, zeros: bool = False, scaled_last: bool = False
) -> tuple[dict[str, Any], dict[str, Scale]]:
    """Tensors and scales of every sign, such that maps are neither all 0 nor all 255."""
    draw = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    scales: dict[str, Scale] = {}
    known = shapes(net)
    for node in net.nodes:
        weight = weight_shape(node.op, known[node.inputs[0]])
        if weight is not None:
            terms = int(np.prod(weight[1:]))
            tensors[f"{node.name}.weight"] = draw.integers(-127, 128, weight).astype(np.int8)
            source = scales[node.inputs[0]].step if node.inputs[0] in scales else 1.0
            step = draw.uniform(0.5, 1.5, weight[0]) * 3 / (source * 127 * 128 * np.sqrt(terms))
            tensors[f"{node.name}.step"] = step.astype(np.float32)
            tensors[f"{node.name}.bias"] = draw.integers(-9999, 10000, weight[0]).astype(np.int32)
            if zeros:
                tensors[f"{node.name}.zero"] = draw.integers(-128, 128, weight[0]).astype(np.int32)
        if node is not net.nodes[-1] or scaled_last:
            scales[node.name] = Scale(float(draw.uniform(0.01, 0.05)), int(draw.integers(0, 200)))
    return tensors, scales


PRE = Preprocess(height=5, width=4, mean=(120.2, 0.0, 300.0), std=(60.0, 255.0, 1.0))


def by_hand(
    net: Net, tensors: dict[str, Any], scales: dict[str, Scale], pre: Preprocess, picture: np.ndarray
) -> dict[str, np.ndarray]:
    """The definition at the top of infer/integer.py in Python's own whole numbers, one output at a time."""
    values: dict[str, np.ndarray] = {"image": picture}
    for node in net.nodes:
        source, op = node.inputs[0], node.op
        x = values[source]
        zero = image_zero(pre) if source == "image" else (scales[source].zero,) * x.shape[2]
        step = np.float32(1.0 if source == "image" else scales[source].step)
        y = shapes(net)[node.name]
        scale = scales.get(node.name)
        made = np.zeros(tuple(y), np.float32 if scale is None else np.uint8)
        kernel = op.kernel if isinstance(op, Conv | Depthwise) else 1
        stride = op.stride if isinstance(op, Conv | Depthwise) else 1
        top, left = (
            (pads(x.shape[0], kernel, stride, op.padding)[0], pads(x.shape[1], kernel, stride, op.padding)[0])
            if isinstance(op, Conv | Depthwise)
            else (0, 0)
        )
        for row, column, channel in np.ndindex(*y):
            if isinstance(op, Pool):
                total = sum(int(v) - zero[channel] for v in x[:, :, channel].ravel())
                own = float(scales[source].step) / (x.shape[0] * x.shape[1])
            else:
                weight = tensors[f"{node.name}.weight"].reshape(y.channels, -1, kernel, kernel)
                middle = int(tensors[f"{node.name}.zero"][channel]) if f"{node.name}.zero" in tensors else 0
                total = int(tensors[f"{node.name}.bias"][channel])
                for term in range(weight.shape[1]):
                    seen = channel if isinstance(op, Depthwise) else term
                    for i, j in np.ndindex(kernel, kernel):
                        at = row * stride + i - top, column * stride + j - left
                        if 0 <= at[0] < x.shape[0] and 0 <= at[1] < x.shape[1]:
                            a = int(x[at[0], at[1], seen]) - zero[seen]
                            total += a * (int(weight[channel, term, i, j]) - middle)
                own = step * tensors[f"{node.name}.step"][channel]
            if scale is None:
                made[row, column, channel] = np.float32(total) * np.float32(own)
                continue
            activation = "none" if isinstance(op, Pool | Dense) else op.activation
            least = -scale.zero if activation == "none" else 0
            most = 255 - scale.zero
            if activation == "relu6":
                most = min(most, round(6 / scale.step))
            by = np.float32(scale.step) if isinstance(own, np.float32) else scale.step
            scaled = np.float32(total) * np.float32(own / by)
            made[row, column, channel] = scale.zero + int(np.rint(min(max(scaled, least), most)))
        values[node.name] = made
    return values


@st.composite
def networks(draw: st.DrawFn) -> Net:
    ops: list[Op] = []
    activations = st.sampled_from(("none", "relu", "relu6"))
    if draw(st.booleans()):
        ops.append(Pointwise(out=draw(st.integers(1, 5)), bias=True, activation=draw(activations)))
    for _ in range(draw(st.integers(0 if ops else 1, 2))):
        common: dict[str, Any] = {
            "kernel": draw(st.sampled_from((1, 2, 3))),
            "stride": draw(st.integers(1, 2)),
            "padding": draw(st.sampled_from(("same", "symmetric"))),
            "bias": True,
            "activation": draw(activations),
        }
        conv = not ops or draw(st.booleans())
        ops.append(Conv(out=draw(st.integers(1, 4)), **common) if conv else Depthwise(**common))
    ops.append(Pool())
    if draw(st.booleans()):
        ops.append(Dense(out=draw(st.integers(1, 4))))
    return chain(draw(st.integers(1, 5)), draw(st.integers(1, 5)), *ops)


@given(networks(), st.integers(0, 9), st.booleans(), st.booleans())
def test_every_map_is_the_definitions_to_the_last_bit(net: Net, seed: int, zeros: bool, last: bool) -> None:
    pre = replace(PRE, height=net.input.height, width=net.input.width)
    tensors, scales = drawn(net, seed, zeros=zeros, scaled_last=last)
    pictures = np.random.default_rng(seed).integers(0, 256, (2, *net.input), dtype=np.uint8)
    names = [node.name for node in net.nodes]
    found = IntegerWalk(net, tensors, scales, pre)(pictures, names)
    for number, picture in enumerate(pictures):
        wanted = by_hand(net, tensors, scales, pre, picture)
        for name in names:
            assert found[name].dtype == wanted[name].dtype
            np.testing.assert_array_equal(found[name][number], wanted[name], err_msg=name)


def test_sums_beyond_what_float32_holds_are_exact() -> None:
    net = chain(1, 1, Pointwise(out=600, bias=True, activation="relu"), Pointwise(out=2, bias=True))
    tensors, scales = drawn(net, 3)
    tensors["a.bias"][:] = 10**6
    tensors["b.weight"][:] = 127
    tensors["b.weight"][0, ::2] = -127
    tensors["b.bias"][:] = MOST_BIAS, -MOST_BIAS
    scales["a"] = Scale(0.01, 0)
    pre = Preprocess(height=1, width=1)
    picture = np.full((1, 1, 1, 3), 255, np.uint8)
    found = IntegerWalk(net, tensors, scales, pre)(picture)["out"][0]
    np.testing.assert_array_equal(found, by_hand(net, tensors, scales, pre, picture[0])["b"].ravel())


def test_halves_go_to_the_even_neighbour() -> None:
    net = chain(1, 1, Pointwise(out=1, bias=True), Pool())
    tensors = {
        "a.weight": np.array([1, 0, 0], np.int8).reshape(1, 3, 1, 1),
        "a.step": np.ones(1, np.float32),
        "a.bias": np.zeros(1, np.int32),
    }
    scales = {"a": Scale(2.0, 0), "b": Scale(2.0, 0)}
    walk = IntegerWalk(net, tensors, scales, Preprocess(height=1, width=1, mean=(0, 0, 0)))
    levels = np.zeros((8, 1, 1, 3), np.uint8)
    levels[:, 0, 0, 0] = range(8)
    assert walk(levels)["out"].ravel().tolist() == [0, 0, 1, 2, 2, 2, 3, 4]


@given(networks(), st.integers(0, 9), st.booleans())
def test_in_float32_it_is_the_same_but_for_the_rounding_of_maps(net: Net, seed: int, zeros: bool) -> None:
    first = chain(net.input.height, net.input.width, net.nodes[0].op)
    pre = Preprocess(height=first.input.height, width=first.input.width, mean=(3, 128, 250), std=(9, 60, 255))
    tensors, _ = drawn(first, seed, zeros=zeros)
    op = first.nodes[0].op
    linear = replace(first, nodes=(replace(first.nodes[0], op=replace(op, activation="none")),))  # type: ignore[arg-type]
    weights = dequantised(linear, tensors, {}, pre)
    pictures = np.random.default_rng(seed).integers(0, 256, (2, *first.input), dtype=np.uint8)
    ours = IntegerWalk(linear, tensors, {}, pre)(pictures)["out"]
    floats = Walk(linear, weights)(normalise(pictures, pre))["out"]
    np.testing.assert_allclose(ours, floats, rtol=1e-4, atol=1e-4 * np.abs(ours).max())


NET = chain(
    5, 4, Conv(out=4, stride=2, bias=True, activation="relu6"), Depthwise(bias=True), Pool(), Dense(out=3)
)
TENSORS, SCALES = drawn(NET, zeros=True)
MODEL = Artefact(NET, TENSORS, PRE, scales=SCALES, source={"from": "nowhere"}, recipe={"seed": 1})
BYTES = to_bytes(MODEL)


def test_a_quantised_model_comes_back_as_it_was_written() -> None:
    again = from_bytes(BYTES)
    assert again.dtype == "int8"
    assert again.scales == MODEL.scales
    assert again.weights.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert again.weights[name].dtype == value.dtype
        np.testing.assert_array_equal(again.weights[name], value)
    assert to_bytes(again) == BYTES
    assert digest(again) == digest(MODEL)
    frame = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(NumpyEngine(again)(frame)["out"], NumpyEngine(MODEL)(frame)["out"])


def test_the_digest_changes_with_a_scale_and_with_a_zero() -> None:
    other = replace(MODEL, scales=SCALES | {"a": Scale(SCALES["a"].step * 2, SCALES["a"].zero)})
    assert digest(other) != digest(MODEL)
    moved = replace(MODEL, weights=TENSORS | {"a.zero": TENSORS["a.zero"] ^ 1})
    assert digest(moved) != digest(MODEL)


def _scales(**changes: Any) -> Callable[[dict[str, Any]], object]:
    def change(meta: dict[str, Any]) -> None:
        meta["scales"] = {k: v for k, v in (meta["scales"] | changes).items() if v is not None}

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_scales(b=None), "b has no scale, and is read by others"),
        (_scales(z=[1.0, 0]), "z, which is no node"),
        (_scales(a=[0.0, 0]), "step 0.0"),
        (_scales(a=[-1.0, 0]), "step -1.0"),
        (_scales(a=[1.0, 256]), "zero 256"),
        (_scales(a=[1.0, -1]), "zero -1"),
        (_scales(a=[1.0, 0.5]), "no table of a step and a zero"),
        (_scales(a=[1.0, True]), "no table of a step and a zero"),
        (_scales(a=[1.0]), "no table of a step and a zero"),
        (_scales(a="1"), "no table of a step and a zero"),
        (lambda meta: meta.update(scales=[1, 2]), "no table of a step and a zero"),
        (lambda meta: meta.pop("scales"), r"is (int8|int32), not float32"),
        (lambda meta: meta.update(scales={}), r"is (int8|int32), not float32"),
    ],
)
def test_scales_that_were_tampered_with_are_refused(change: Callable[[Any], object], reason: str) -> None:
    meta, kept = unpack(BYTES)
    change(meta)
    with pytest.raises(ArtefactError, match=reason):
        from_bytes(pack(meta, kept))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"a.bias": None}, "a.bias is missing"),
        ({"c.weight": np.zeros(3, np.int8)}, "c.weight is extra"),
        ({"a.weight": TENSORS["a.weight"].astype(np.float32)}, "a.weight: is float32"),
        ({"a.bias": TENSORS["a.bias"][:2]}, r"a.bias: is int32 \[2\]"),
        ({"a.step": np.zeros(4, np.float32)}, "a.step: holds a step"),
        ({"a.step": np.full(4, np.nan, np.float32)}, "a.step: holds a step"),
        ({"a.bias": np.full(4, -MOST_BIAS - 1, np.int32)}, "a.bias: holds a bias"),
        ({"a.zero": np.full(4, 128, np.int32)}, "a.zero: holds a zero"),
    ],
)
def test_tensors_that_are_not_those_of_the_integers_are_refused(changes: dict[str, Any], reason: str) -> None:
    tensors = {name: value for name, value in (TENSORS | changes).items() if value is not None}
    with pytest.raises(ValueError, match=reason):
        check(NET, tensors, SCALES)
    with pytest.raises(ValueError, match=reason):
        to_bytes(replace(MODEL, weights=tensors))


def test_steps_whose_product_is_infinite_are_refused() -> None:
    large = {**SCALES, "a": replace(SCALES["a"], step=1e30)}
    with pytest.raises(ValueError, match=r"^b: so large are the steps of what it reads"):
        check(NET, TENSORS | {"b.step": np.full(4, 3e38, np.float32)}, large)


def test_what_has_no_integers_is_refused_by_name() -> None:
    smooth = replace(NET, nodes=(*NET.nodes, Node("smooth", Activate(activation="swish"), ("a",))))
    with pytest.raises(ValueError, match=r"^smooth: swish is .* cannot be quantised; hswish can$"):
        check(smooth, TENSORS, SCALES)
    wide = chain(200, 200, Pointwise(out=1, bias=True), Pool())
    with pytest.raises(ValueError, match="40000 terms"):
        check(wide, *drawn(wide))
    first = chain(4, 4, Depthwise(bias=True))
    with pytest.raises(ValueError, match="on the image itself"):
        check(first, *drawn(first))
    with pytest.raises(ValueError, match="takes uint8"):
        IntegerWalk(NET, TENSORS, SCALES, PRE)(np.zeros((1, 5, 4, 3), np.float32))  # type: ignore[arg-type]
