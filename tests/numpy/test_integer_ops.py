"""Integers beyond a chain of layers: sums, gates, joins, windows and curves, against plain Python numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.infer.artefact import Artefact, digest, from_bytes, to_bytes
from mobilenets.infer.integer import IntegerLayer, IntegerWalk, activation_of, check, fixed, refuse, rescale
from mobilenets.infer.scale import Scale
from mobilenets.infer.walk import activated, linear, weightless
from mobilenets.spec.net import Net, Node, Output, shapes, weight_shape
from mobilenets.spec.op import (
    Activate,
    Activation,
    Add,
    Concat,
    Conv,
    Linear,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
    around,
)
from mobilenets.spec.preprocess import Preprocess

f32 = np.float32
ACTIVATIONS = st.sampled_from(("none", "relu", "relu6", "hswish", "hsigmoid"))
RECTIFIED = st.sampled_from(("none", "relu", "relu6"))
SCALES = st.builds(Scale, st.floats(1e-3, 0.2), st.integers(0, 255))


def around_it(op: Op, sources: list[Shape]) -> Net:
    """A net in which `y` is this operation on maps `a`, `b` … of these shapes."""
    tall, wide = sources[0][:2]
    nodes = []
    for name, shape in zip("abc", sources, strict=False):
        made = Node(name, Pointwise(out=shape.channels, bias=True), ("image",))
        if shape[:2] != (tall, wide):
            nodes.append(replace(made, name=f"{name}_wide"))
            made = Node(name, Pool(), (f"{name}_wide",))
        nodes.append(made)
    node = Node("y", op, tuple("abc"[: len(sources)]))
    return Net("one", Shape(tall, wide, 3), (*nodes, node), (Output("out", "y", "vector"),))


def curved(v: Any, activation: Activation, step: float) -> Any:
    """The quantity of a real value, before it is cut and rounded."""
    t = min(max(v + f32(3), f32(0)), f32(6))
    return (t if activation == "hsigmoid" else v * t) * f32(1 / (6 * step))


def added(terms: list[int], scales: list[Scale], scale: Scale, activation: Activation) -> int:
    """A sum of maps at one place, in Python's own whole numbers and fractions."""
    ratios = [Fraction(float(f32(own.step / scale.step))) for own in scales[: len(terms)]]
    exponent = 0
    while Fraction(2) ** (exponent + 1) <= max(ratios):
        exponent += 1
    while Fraction(2) ** exponent > max(ratios):
        exponent -= 1
    shift = min(20 - exponent, 30)
    weights = [round(ratio * 2**shift) for ratio in ratios]
    total = sum((term - own.zero) * by for term, own, by in zip(terms, scales, weights, strict=False))
    assert abs(total) + 2 ** (shift - 1) < 2**31
    value = math.floor(Fraction(total, 2**shift) + Fraction(1, 2))
    least = -scale.zero if activation == "none" else 0
    most = 255 - scale.zero
    if activation == "relu6":
        most = min(most, round(6 / scale.step))
    return scale.zero + min(max(value, least), most)


def to_byte(value: Any, scale: Scale, activation: Activation) -> int:
    """One multiplied sum as a byte."""
    least = 0 if activation in ("relu", "relu6", "hsigmoid") else -scale.zero
    most = 255 - scale.zero
    if activation == "relu6":
        most = min(most, round(6 / scale.step))
    return scale.zero + round(float(min(max(value, f32(least)), f32(most))))


def by_hand(op: Op, maps: list[np.ndarray], scales: list[Scale], scale: Scale) -> np.ndarray:
    """One operation without weights on maps [height, width, channels], one output at a time."""
    x, first = maps[0], scales[0]
    y = shapes(around_it(op, [Shape(*one.shape) for one in maps]))["y"]
    made = np.zeros(tuple(y), np.uint8)
    activation = activation_of(op)
    bends = activation in ("hswish", "hsigmoid")
    unit = 1.0 if bends else scale.step
    if isinstance(op, MaxPool | MeanPool):
        (top, _), (left, _) = around(op, Shape(*x.shape))
    for row, column, channel in np.ndindex(*y):
        match op:
            case Add():
                terms = [int(m[row, column, channel]) for m in maps]
                made[row, column, channel] = added(terms, scales, scale, activation)
                continue
            case Mul():
                gate = int(maps[1][0, 0, channel]) - scales[1].zero
                product = (int(x[row, column, channel]) - first.zero) * gate
                value = f32(product) * (f32(first.step) * f32(scales[1].step) / f32(unit))
            case Activate():
                value = f32(int(x[row, column, channel]) - first.zero) * f32(first.step / unit)
            case MaxPool() | MeanPool():
                seen = [
                    int(x[i, j, channel])
                    for i in range(row * op.stride - top, row * op.stride - top + op.kernel)
                    for j in range(column * op.stride - left, column * op.stride - left + op.kernel)
                    if 0 <= i < x.shape[0] and 0 <= j < x.shape[1]
                ]
                if isinstance(op, MaxPool):
                    made[row, column, channel] = max(seen)
                    continue
                value = f32(sum(seen) - len(seen) * first.zero) * f32(first.step / len(seen) / unit)
            case _:
                raise AssertionError(op)
        bent = curved(value, activation, scale.step) if bends else value
        made[row, column, channel] = to_byte(bent, scale, activation)
    return made


@st.composite
def weightless_ones(draw: st.DrawFn) -> tuple[Op, list[Shape]]:
    shape = Shape(draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 4)))
    window = {
        "kernel": draw(st.integers(1, 3)),
        "stride": draw(st.integers(1, 2)),
        "padding": draw(st.sampled_from(("same", "symmetric"))),
    }
    activation = draw(ACTIVATIONS)
    return draw(
        st.sampled_from(
            (
                (Add(activation=draw(RECTIFIED)), [shape] * draw(st.integers(2, 3))),
                (Mul(), [shape, Shape(1, 1, shape.channels)]),
                (Activate(activation=activation), [shape]),
                (MaxPool(**window), [shape]),  # type: ignore[arg-type]
                (MeanPool(**window), [shape]),  # type: ignore[arg-type]
            )
        )
    )


@given(weightless_ones(), st.lists(SCALES, min_size=4, max_size=4), st.integers(0, 99))
def test_an_operation_without_weights_is_its_definition_to_the_last_bit(
    drawn: tuple[Op, list[Shape]], scales: list[Scale], seed: int
) -> None:
    op, sources = drawn
    net = around_it(op, sources)
    known = dict(zip("abc", scales, strict=False))
    known["y"] = known["a"] if isinstance(op, MaxPool) else scales[3]
    draw = np.random.default_rng(seed)
    maps = [draw.integers(0, 256, (2, *shape), dtype=np.uint8) for shape in sources]
    found = IntegerLayer(net, net.nodes[-1], {}, known)(*maps)
    assert found.dtype == np.uint8
    for number in range(2):
        wanted = by_hand(op, [one[number] for one in maps], scales, known["y"])
        np.testing.assert_array_equal(found[number], wanted)
    # And half a step from what the float walk makes of the same values, what rounding in float32 adds aside.
    reals = [known[name].values(one) for name, one in zip("abc", maps, strict=False)]
    exact = np.clip(weightless(op, reals) / known["y"].step + known["y"].zero, 0, 255)  # type: ignore[arg-type]
    if activation_of(op) != "relu6":  # whose bound is rounded to a byte of its own
        assert np.abs(exact - found).max() < 0.501


@given(st.lists(SCALES, min_size=4, max_size=4), RECTIFIED, st.permutations("abc"), st.integers(0, 99))
def test_maps_add_up_to_the_same_in_any_order(
    scales: list[Scale], activation: Activation, order: list[str], seed: int
) -> None:
    net = around_it(Add(activation=activation), [Shape(3, 3, 2)] * 3)
    node, known = net.nodes[-1], dict(zip("abcy", scales, strict=True))
    maps = dict(
        zip("abc", np.random.default_rng(seed).integers(0, 256, (3, 1, 3, 3, 2), np.uint8), strict=True)
    )
    turned = IntegerLayer(net, replace(node, inputs=tuple(order)), {}, known)(*(maps[name] for name in order))
    np.testing.assert_array_equal(IntegerLayer(net, node, {}, known)(*maps.values()), turned)


@given(st.lists(st.floats(1e-45, 1e6), min_size=1, max_size=3), st.integers(-1, 1))
def test_no_sum_of_maps_leaves_32_bits(ratios: list[float], side: int) -> None:
    weights, shift = fixed(np.array(ratios, np.float32))
    assert 1 <= shift <= 30
    assert weights.min() >= 0
    assert weights.max() <= 1 << 21
    if max(ratios) >= 2.0**-10:
        assert weights.max() >= 1 << 20
    assert abs(side * 255 * int(weights.sum())) + (1 << shift - 1) < 1 << 31


def test_halves_of_a_sum_of_maps_go_up() -> None:
    net = around_it(Add(), [Shape(1, 1, 4)] * 2)
    known = {"a": Scale(0.5, 2), "b": Scale(1.0, 0), "y": Scale(1.0, 100)}
    a = np.array([0, 1, 2, 3], np.uint8).reshape(1, 1, 1, 4)  # −1, −½, 0, ½
    found = IntegerLayer(net, net.nodes[-1], {}, known)(a, np.full_like(a, 7))
    assert found.ravel().tolist() == [106, 107, 107, 108]


@pytest.mark.parametrize("activation", ["hswish", "hsigmoid", "relu6"])
def test_a_curve_of_bytes_rises_as_its_real_one_does(activation: Activation) -> None:
    net = around_it(Activate(activation=activation), [Shape(1, 1, 256)])
    scales = {"a": Scale(0.05, 128), "y": Scale(0.03, 13)}
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256)
    found = IntegerLayer(net, net.nodes[-1], {}, scales)(every)
    wanted = activated(scales["a"].values(every), activation)
    assert np.abs(scales["y"].values(found) - wanted).max() < 0.501 * 0.03


def joined() -> Net:
    """Two layers joined, dealt out, cut and pooled; another in groups; a gate."""
    nodes = (
        Node("a", Conv(out=4, kernel=3, bias=True, activation="hswish"), ("image",)),
        Node("b", Pointwise(out=2, bias=True, activation="relu"), ("a",)),
        Node("c", Concat(), ("a", "b")),
        Node("d", Shuffle(groups=2), ("c",)),
        Node("e", Slice(begin=1, end=5), ("d",)),
        Node("f", MaxPool(kernel=2, stride=2), ("e",)),
        Node("g", Conv(out=6, kernel=3, groups=2, bias=True, activation="relu6"), ("f",)),
        Node("h", Pool(), ("g",)),
        Node("i", Pointwise(out=6, groups=3, bias=True, activation="hsigmoid"), ("h",)),
        Node("j", Mul(), ("g", "i")),
        Node("k", MeanPool(kernel=3, stride=1), ("j",)),
        Node("l", Add(activation="relu6"), ("k", "g", "j")),
    )
    return Net("joined", Shape(5, 6, 3), nodes, (Output("out", "l", "vector"),))


NET = joined()
PRE = Preprocess(height=5, width=6)
KEPT = {"a": Scale(0.02, 20), "g": Scale(0.03, 0), "h": Scale(0.02, 0), "i": Scale(1 / 255, 0)}
KNOWN = KEPT | dict.fromkeys("bcdef", KEPT["a"]) | {name: Scale(0.025, 9) for name in "jkl"}


def tensors_of(net: Net, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    made: dict[str, Any] = {}
    for node in net.nodes:
        shape = weight_shape(node.op, shapes(net)[node.inputs[0]])
        if shape is not None:
            made[f"{node.name}.weight"] = draw.integers(-127, 128, shape).astype(np.int8)
            made[f"{node.name}.step"] = draw.uniform(1e-4, 3e-4, shape[0]).astype(np.float32)
            made[f"{node.name}.bias"] = draw.integers(-999, 1000, shape[0]).astype(np.int32)
    return made


def test_what_is_moved_keeps_its_bytes_and_maps_read_later_are_kept() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    walk = IntegerWalk(NET, tensors_of(NET), KNOWN, PRE)
    found = walk(levels, "abcdefghijkl")
    assert walk(levels)["out"].tobytes() == found["l"].tobytes()
    assert len(np.unique(found["l"])) > 8
    both = np.concatenate([found["a"], found["b"]], axis=3)
    np.testing.assert_array_equal(found["c"], both)
    np.testing.assert_array_equal(found["d"], both[..., [0, 3, 1, 4, 2, 5]])
    np.testing.assert_array_equal(found["e"], found["d"][..., 1:5])


def test_groups_are_layers_side_by_side() -> None:
    tensors, node = tensors_of(NET), NET.nodes[6]
    maps = np.random.default_rng(1).integers(0, 256, (2, 3, 3, 4), dtype=np.uint8)
    found = IntegerLayer(NET, node, tensors, KNOWN)(maps)
    alone = replace(node, op=replace(node.op, out=3, groups=1))  # type: ignore[call-arg]
    assert isinstance(alone.op, Linear)
    for number in range(2):
        own = {f"g.{part}": tensors[f"g.{part}"][3 * number : 3 * number + 3] for part in ("weight", "step")}
        kernel = own["g.weight"].astype(np.float64).transpose(2, 3, 1, 0).reshape(-1, 3)
        part = maps[..., 2 * number : 2 * number + 2].astype(np.float64) - KNOWN["f"].zero
        sums = linear(alone.op, part, kernel) + tensors["g.bias"][3 * number : 3 * number + 3]
        wanted = rescale(NET, alone, own, KNOWN)(sums)
        np.testing.assert_array_equal(found[..., 3 * number : 3 * number + 3], wanted)


def test_a_model_that_branches_comes_back_as_it_was_written() -> None:
    model = Artefact(NET, tensors_of(NET), PRE, scales=KNOWN)
    again = from_bytes(to_bytes(model))
    assert digest(again) == digest(model)
    levels = np.random.default_rng(2).integers(0, 256, (1, 5, 6, 3), dtype=np.uint8)
    outs = [IntegerWalk(m.net, m.weights, m.scales, PRE)(levels)["out"] for m in (model, again)]
    np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c": Scale(0.02, 21)}, "^c: gives the bytes of a as they are, and its scale is another"),
        ({"b": Scale(0.021, 20)}, "^c: gives the bytes of b"),
        ({"f": Scale(0.02, 0)}, "^f: gives the bytes of e"),
        ({"l": None}, "l has no scale, and an activation wants one"),
        (
            {"l": Scale(1e-30, 0)},
            r"^l: reads a map whose step is .* times that of its sum, not below 2\*\*20",
        ),
        ({"j": Scale(1e-40, 0)}, "^j: a step of 1e-40, which float32 cannot hold"),
        ({"j": Scale(1e-30, 0)}, "^j: a multiplier of .* does not lie between"),
        ({"i": Scale(1e-30, 0)}, "^i: a multiplier of .* does not lie between"),
    ],
)
def test_scales_that_no_integers_are_defined_for_are_refused(changes: Any, reason: str) -> None:
    scales = {name: value for name, value in (KNOWN | changes).items() if value is not None}
    with pytest.raises(ValueError, match=reason):
        check(NET, tensors_of(NET), scales)


@pytest.mark.parametrize("op", [MaxPool(kernel=2), Slice(begin=0, end=1), Pointwise(out=3, groups=3)])
def test_the_image_has_a_zero_for_each_colour_and_is_read_by_whole_layers_alone(op: Op) -> None:
    net = Net("first", Shape(4, 4, 3), (Node("a", op, ("image",)),), (Output("out", "a", "vector"),))
    with pytest.raises(ValueError, match=r"^a: no integers are defined for this layer on the image itself"):
        check(net, tensors_of(net), {"a": Scale(0.1, 0)})


@pytest.mark.parametrize(
    ("op", "inputs", "reason"),
    [
        (Add(activation="hswish"), "ab", "a sum that ends in hswish"),
        (Add(activation="hsigmoid"), "abc", "a sum that ends in hsigmoid"),
        (Add(), "abca", "a sum of 4 maps"),
    ],
)
def test_sums_that_no_integers_are_defined_for_are_refused(op: Add, inputs: str, reason: str) -> None:
    net = around_it(op, [Shape(2, 2, 1)] * 3)
    node = replace(net.nodes[-1], inputs=tuple(inputs))
    with pytest.raises(ValueError, match=f"^y: no integers are defined for {reason}, only of two or three"):
        refuse(replace(net, nodes=(*net.nodes[:-1], node)))


def test_a_sum_of_maps_wants_a_scale() -> None:
    net = around_it(Add(), [Shape(2, 2, 1)] * 2)
    with pytest.raises(ValueError, match="y has no scale, and a sum of maps wants one"):
        check(net, tensors_of(net), {"a": Scale(0.1, 0), "b": Scale(0.1, 0)})


def summing(schema: Any, flatbuffers: Any, scales: list[Scale], fused: int, signed: bool) -> bytes:
    """A file of one sum, of two maps that hold every pair of bytes."""
    model, graph, operator = schema.ModelT(), schema.SubGraphT(), schema.OperatorT()
    graph.tensors = []
    for scale in scales:
        tensor, quantised = schema.TensorT(), schema.QuantizationParametersT()
        tensor.shape, tensor.buffer = [1, 256, 256, 1], 0
        tensor.type = schema.TensorType.INT8 if signed else schema.TensorType.UINT8
        quantised.scale, quantised.zeroPoint = [scale.step], [scale.zero - 128 * signed]
        tensor.quantization = quantised
        graph.tensors.append(tensor)
    operator.inputs, operator.outputs = [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    operator.builtinOptions.fusedActivationFunction = fused
    graph.operators, graph.inputs, graph.outputs = [operator], [0, 1], [2]
    code = schema.OperatorCodeT()
    code.version = 1 + signed
    model.version, model.buffers = 3, [schema.BufferT()]
    model.subgraphs, model.operatorCodes = [graph], [code]
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_every_pair_of_bytes_adds_up_to_the_interpreters_byte() -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="needs ai-edge-litert")
    flatbuffers = pytest.importorskip("flatbuffers", reason="needs flatbuffers")
    draw = np.random.default_rng(0)
    pairs = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij")).astype(np.uint8)
    a, b = pairs.reshape(2, 1, 256, 256, 1)
    kinds: list[tuple[Activation, int]] = [("none", 0), ("relu", 1), ("relu6", 3)]
    for number in range(24):
        step = float(f32(np.exp(draw.uniform(-5, -1))))
        # As the interpreter allows: a ratio of steps from 2⁻¹⁰ to 2⁸; and halves, which are frequent.
        ratios = (0.5, 1.0) if number % 4 == 0 else 2.0 ** draw.uniform(-9.9, 7.9, 2)
        scales = [
            *(Scale(float(f32(ratio * step)), int(draw.integers(0, 256))) for ratio in ratios),
            Scale(step, int(draw.integers(0, 256))),
        ]
        (activation, fused), signed = kinds[number % 3], bool(number % 2)
        made = interpreter.Interpreter(
            model_content=summing(schema, flatbuffers, scales, fused, signed),
            experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN,  # with XNNPACK, as it comes
        )
        made.allocate_tensors()
        for place, x in zip(made.get_input_details(), (a, b), strict=True):
            made.set_tensor(place["index"], (x.astype(np.int16) - 128).astype(np.int8) if signed else x)
        made.invoke()
        wanted = made.get_tensor(made.get_output_details()[0]["index"]).astype(int) + 128 * signed
        net = around_it(Add(activation=activation), [Shape(256, 256, 1)] * 2)
        found = IntegerLayer(net, net.nodes[-1], {}, dict(zip("aby", scales, strict=True)))(a, b)
        np.testing.assert_array_equal(found, wanted)
