"""Shapes follow from ops, and a network goes to JSON and back unchanged or is refused with a reason."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.spec import zoo
from mobilenets.spec.building import Rounding
from mobilenets.spec.codec import net_from_json, net_to_json, preprocess_from_json, preprocess_to_json
from mobilenets.spec.head import classify, headless
from mobilenets.spec.net import Net, Node, Output, at_resolution, shapes, tensors
from mobilenets.spec.op import (
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
    slid,
)
from mobilenets.spec.preprocess import Preprocess, box, fitted

SIZES = st.integers(1, 40)
KERNELS = st.integers(1, 9)
STRIDES = st.integers(1, 5)
PADDINGS: st.SearchStrategy[Padding] = st.sampled_from(("same", "symmetric"))
ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(("none", "relu", "relu6"))


def places(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Counted one by one: every start from which the whole kernel lies on the padded axis."""
    axis = size + before + after
    return sum(1 for start in range(0, axis, stride) if start + kernel <= axis)


@given(SIZES, KERNELS, STRIDES, PADDINGS)
def test_a_kernel_takes_as_many_places_as_a_loop_counts(
    size: int, kernel: int, stride: int, padding: Padding
) -> None:
    before, after = pads(size, kernel, stride, padding)
    assert slid(size, kernel, stride, padding) == places(size, kernel, stride, before, after)


@given(SIZES, KERNELS, STRIDES)
def test_same_padding_gives_one_place_for_each_stride_begun_with_the_fewest_zeros(
    size: int, kernel: int, stride: int
) -> None:
    before, after = pads(size, kernel, stride, "same")
    wanted = -(-size // stride)
    assert slid(size, kernel, stride, "same") == wanted
    assert after - before in (0, 1)  # TensorFlow's odd zero goes below and right
    if before + after:
        fewer = places(size, kernel, stride, before, after - 1)
        assert fewer < wanted


@given(SIZES, st.sampled_from((1, 3, 5, 7)))
def test_at_stride_1_an_odd_kernel_keeps_the_size_under_either_padding(size: int, kernel: int) -> None:
    assert slid(size, kernel, 1, "same") == slid(size, kernel, 1, "symmetric") == size


@pytest.mark.parametrize(("size", "same", "symmetric"), [(224, (0, 1), (1, 1)), (225, (1, 1), (1, 1))])
def test_the_two_paddings_differ_by_a_pixel_at_stride_2_on_even_sizes(
    size: int, same: tuple[int, int], symmetric: tuple[int, int]
) -> None:
    assert pads(size, 3, 2, "same") == same
    assert pads(size, 3, 2, "symmetric") == symmetric
    assert slid(size, 3, 2, "same") == slid(size, 3, 2, "symmetric")


ALL = [
    zoo.net(name, width, resolution)
    for name, (published, _) in zoo.DEFAULTS.items()
    for width in (0.25, 0.75, 1.0, 1.5)
    for resolution in (published, 33 if name in zoo.CONVOLVED else 1, 97)
]


@pytest.mark.parametrize("net", ALL, ids=lambda net: f"{net.name}-{net.width}-{net.resolution}")
def test_every_net_of_the_zoo_comes_back_from_json_as_it_was(net: Net) -> None:
    text = json.dumps(net_to_json(net))
    again = net_from_json(json.loads(text))
    assert again == net
    assert json.dumps(net_to_json(again)) == text


@given(
    st.sampled_from(("slim", "keras", "divisible")),
    PADDINGS,
    ACTIVATIONS,
    st.floats(1e-6, 0.1),
    st.floats(0.01, 2),
    st.integers(1, 64),
    st.booleans(),
)
def test_any_v1_comes_back_from_json_as_it_was(
    rounding: Rounding,
    padding: Padding,
    activation: Activation,
    epsilon: float,
    width: float,
    resolution: int,
    last: bool,
) -> None:
    net = zoo.v1(
        width,
        resolution,
        rounding=rounding,
        padding=padding,
        activation=activation,
        epsilon=epsilon,
        last=last,
    )
    assert net_from_json(json.loads(json.dumps(net_to_json(net)))) == net


@given(
    st.sampled_from(("slim", "keras", "divisible")),
    PADDINGS,
    ACTIVATIONS,
    st.floats(0.01, 2),
    st.integers(1, 64),
)
def test_any_v2_comes_back_from_json_and_adds_where_a_block_keeps_its_shape(
    rounding: Rounding, padding: Padding, activation: Activation, width: float, resolution: int
) -> None:
    net = zoo.v2(width, resolution, rounding=rounding, padding=padding, activation=activation)
    assert net_from_json(json.loads(json.dumps(net_to_json(net)))) == net
    known, ops = shapes(net), {node.name: node for node in net.nodes}
    before = "stem"
    for index in range(1, 18):
        block = f"block{index}"
        stride = ops[f"{block}.depthwise"].op.stride  # type: ignore[union-attr]  # a depthwise has one
        kept = stride == 1 and known[before] == known[f"{block}.project"]
        assert (f"{block}.add" in ops) == kept
        if kept:
            assert ops[f"{block}.add"].inputs == (before, f"{block}.project")
        before = f"{block}.add" if kept else f"{block}.project"
    assert ops["last.pointwise"].inputs == (before,)


def test_weights_keep_their_shapes_at_another_resolution() -> None:
    net = zoo.net("v1", 0.25, 224)
    assert tensors(at_resolution(net, 96, 160)) == tensors(net)
    assert shapes(at_resolution(net, 96, 160))["block13.pointwise"] == (3, 5, 256)


def test_a_body_is_what_is_left_when_its_head_is_taken_off() -> None:
    body = zoo.body("v1", 0.5, 128)
    assert headless(classify(body, 7)) == body
    assert tensors(classify(body, 7)).keys() - tensors(body).keys() == {"head.weight", "head.bias"}
    with pytest.raises(ValueError, match="at least one class"):
        classify(body, 0)


def small() -> dict[str, Any]:
    """A small net's JSON, to be damaged."""
    return net_to_json(zoo.net("v1", 0.25, 32, 4))


def _node(index: int, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda top: top["nodes"][index].update(values)


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown key": (lambda top: top.update(extra=1), "unknown.*extra"),
    "missing key": (lambda top: top.pop("rounding"), "missing.*rounding"),
    "unknown node key": (_node(0, dilation=2), "unknown.*dilation"),
    "missing node key": (lambda top: top["nodes"][0].pop("stride"), "missing.*stride"),
    "unknown op": (_node(0, op="lstm"), "no such operation"),
    "op that is a list": (_node(0, op=["conv"]), "no such operation"),
    "op that is a table": (_node(0, op={}), "no such operation"),
    "node that is a text": (lambda top: top["nodes"].append("conv"), "no such operation"),
    "unknown activation": (_node(0, activation="gelu"), "activation"),
    "unknown padding": (_node(0, padding="reflect"), "padding"),
    "norm that is a number": (_node(0, norm=3), "norm"),
    "unknown key in a norm": (_node(0, norm={"epsilon": 1e-3, "momentum": 0.9}), "unknown.*momentum"),
    "epsilon not a number": (_node(0, norm={"epsilon": float("nan")}), "epsilon"),
    "bias that is a number": (_node(0, bias=1), "bias"),
    "stride 0": (_node(0, stride=0), "stride"),
    "kernel 65": (_node(0, kernel=65), "kernel"),
    "half a channel": (_node(0, out=1.5), "out"),
    "yes as a count": (_node(0, out=True), "out"),
    "no channels": (_node(0, out=0), "out"),
    "a billion channels": (_node(0, out=10**9), "out"),
    "absurd map": (lambda top: (top.update(input=[4096, 4096, 3]), _node(2, out=1 << 16)(top)), "map of"),
    "absurd input": (lambda top: top.update(input=[10**6, 32, 3]), "input"),
    "negative input": (lambda top: top.update(input=[-1, 32, 3]), "input"),
    "two-sided input": (lambda top: top.update(input=[32, 3]), "two|2 numbers"),
    "too many nodes": (lambda top: top.update(nodes=top["nodes"] * 200), "nodes, more than"),
    "nodes that are a table": (lambda top: top.update(nodes={}), "not a list"),
    "a node read before it is made": (_node(1, inputs=["block2.depthwise"]), "does not come before"),
    "a node that reads itself": (_node(1, inputs=["block1.depthwise"]), "does not come before"),
    "two nodes of one name": (_node(2, name="stem"), "two nodes"),
    "a node called image": (_node(0, name="image"), "two nodes"),
    "a node inside another": (_node(2, name="stem.norm"), "lies inside"),
    "a node with a line in its name": (_node(0, name="stem\nx"), "no node's name"),
    "a node with no name": (_node(0, name=""), "name"),
    "no input": (_node(1, inputs=[]), "one input"),
    "two inputs": (_node(2, inputs=["stem", "block1.depthwise"]), "one input"),
    "unknown key in a sum": (_node(-1, op="add", inputs=["stem"]), "unknown.*out"),
    "dense on a map": (_node(-1, inputs=["stem"]), "wants a vector"),
    "output of no node": (lambda top: top["outputs"][0].update(node="tail"), "no node"),
    "two outputs of one name": (lambda top: top["outputs"][0].update(name="features"), "one name"),
    "unknown decoding": (lambda top: top["outputs"][0].update(decode="boxes"), "decoded as"),
    "width not a number": (lambda top: top.update(width=float("inf")), "width"),
    "a very long name": (lambda top: top.update(name="v" * 1000), "short text"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_network_is_refused_with_the_reason(damage: str) -> None:
    top = copy.deepcopy(small())
    net_from_json(top)
    change, reason = DAMAGE[damage]
    change(top)
    with pytest.raises(ValueError, match=reason) as error:
        net_from_json(top)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, 3, "net", [], {}, [[]]])
def test_what_is_no_table_is_no_network(value: object) -> None:
    with pytest.raises(ValueError, match=r"not an object|missing"):
        net_from_json(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_whatever_stands_in_a_field_a_network_is_read_or_refused(data: st.DataObject) -> None:
    top = copy.deepcopy(small())
    places_ = [top, *top["nodes"], *top["outputs"], top["nodes"][0]["norm"]]
    place = data.draw(st.sampled_from(places_))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(JSON)
    try:
        net = net_from_json(top)
    except ValueError:
        return
    assert net_from_json(net_to_json(net)) == net


PREPROCESS = st.builds(
    Preprocess,
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    geometry=st.sampled_from(("crop", "stretch", "letterbox")),
    fraction=st.floats(0.01, 1),
    fill=st.integers(0, 255),
    mean=st.tuples(*[st.floats(-300, 300)] * 3),
    std=st.tuples(*[st.floats(1e-3, 300)] * 3),
)


@given(PREPROCESS)
def test_preprocessing_comes_back_from_json_as_it_was(pre: Preprocess) -> None:
    assert preprocess_from_json(json.loads(json.dumps(preprocess_to_json(pre)))) == pre


@given(PREPROCESS, st.integers(1, 5000), st.integers(1, 5000))
def test_what_is_read_lies_in_the_picture_and_where_it_goes_lies_in_the_target(
    pre: Preprocess, height: int, width: int
) -> None:
    top, left, tall, wide = box(pre, height, width)
    assert tall >= 1
    assert wide >= 1
    assert 0 <= top <= height - tall
    assert 0 <= left <= width - wide
    assert abs(2 * top + tall - height) <= 1  # centred, to the half pixel
    y, x, high, broad = fitted(pre, tall, wide)
    assert high >= 1
    assert broad >= 1
    assert 0 <= y <= pre.height - high
    assert 0 <= x <= pre.width - broad
    assert pre.geometry == "letterbox" or (high, broad) == (pre.height, pre.width)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("geometry", "squash"),
        ("geometry", ["crop"]),
        ("fraction", 0),
        ("fraction", 1.01),
        ("height", 0),
        ("width", 5000),
        ("fill", 256),
        ("std", [0, 1, 1]),
        ("std", [1e-300, 1, 1]),
        ("mean", [1, 2]),
        ("mean", "black"),
        ("filter", "cubic"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key if key != "filter" else "unknown"):
        preprocess_from_json({**preprocess_to_json(Preprocess(height=8, width=8)), key: value})


def test_ops_of_a_network_keep_every_field_through_json() -> None:
    nodes = (
        Node("a", Conv(out=5, kernel=5, stride=3, padding="symmetric", bias=True), ("image",)),
        Node("b", Depthwise(kernel=2, norm=BatchNorm(epsilon=0.5), activation="relu"), ("a",)),
        Node("c", Pointwise(out=7, bias=True, activation="relu6"), ("b",)),
        Node("d", Pool(), ("c",)),
        Node("e", Dense(out=2, bias=False), ("d",)),
        Node("f", Dense(out=2), ("d",)),
        Node("g", Add(), ("e", "f", "e")),
    )
    net = Net("odd", Shape(11, 13, 3), nodes, (Output("out", "g", "vector"),), 0.3, "keras")
    assert net_from_json(json.loads(json.dumps(net_to_json(net)))) == net
    assert shapes(net)["b"] == (4, 5, 5)
    assert shapes(net)["g"] == (1, 1, 2)
    assert {name.partition(".")[0] for name in tensors(net)} == set("abcef")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (("a",), "sum takes two inputs or more, not 1"),
        ((), "sum takes two inputs or more, not 0"),
        (("a", "b"), r"sum adds maps of one shape; a is \(4, 6, 5\), b is \(4, 6, 7\)"),
        (
            ("a", "a", "image"),
            r"sum adds maps of one shape; a is \(4, 6, 5\), a is \(4, 6, 5\), image is \(4, 6, 3\)",
        ),
        (("a", "sum"), "sum reads 'sum', which does not come before it"),
    ],
)
def test_a_sum_of_maps_that_cannot_be_is_refused_by_name(inputs: tuple[str, ...], reason: str) -> None:
    nodes = (
        Node("a", Pointwise(out=5), ("image",)),
        Node("b", Pointwise(out=7), ("a",)),
        Node("sum", Add(), inputs),
    )
    with pytest.raises(ValueError, match=f"^odd: {reason}"):
        Net("odd", Shape(4, 6, 3), nodes, (Output("out", "sum", "vector"),))


@pytest.mark.parametrize("width", [0, -1, 9, float("nan")])
def test_a_width_that_cannot_be_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="width must lie in"):
        zoo.net("v1", width)


@pytest.mark.parametrize("resolution", [0, -5, 5000])
def test_a_resolution_that_cannot_be_is_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match="resolution must lie in"):
        zoo.net("v1", 1.0, resolution)


def test_an_unknown_network_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="v1, v1-full, v1-shallow, v1-cifar, v2"):
        zoo.net("v9")


def test_an_unknown_output_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(KeyError, match="logits, features"):
        zoo.net("v1").output("boxes")


def test_a_net_cannot_be_changed_into_one_that_does_not_hold_together() -> None:
    net = zoo.net("v1", 0.25, 32, 4)
    with pytest.raises(ValueError, match="does not come before"):
        replace(net, nodes=net.nodes[1:])
