"""Quantising loses little, says how much, never chooses what is worse, and holds with the oddest networks."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from functools import cache, reduce
from itertools import product
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.infer import adopt, rounding, spare
from mobilenets.infer.artefact import Artefact, from_bytes, to_bytes
from mobilenets.infer.calibrate import BINS, Spread, moments_of, observe, spread
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.fold import fold
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.integer import MOST_BIAS
from mobilenets.infer.quantise import CHANGES, float_maps, quantise, with_biases
from mobilenets.infer.rounding import Rounded, expected_error, nearest, second_order
from mobilenets.infer.trial import Choice, Material, built
from mobilenets.infer.walk import Walk
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, Node, Output, tensors
from mobilenets.spec.op import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dense,
    Depthwise,
    MaxPool,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
)
from mobilenets.spec.preprocess import Preprocess


def covariances(rows: int, terms: int, seed: int) -> np.ndarray:
    """Of windows that share most of what they do, as neighbouring pixels do; some terms never change."""
    draw = np.random.default_rng(seed)
    windows = draw.normal(0, 1, (rows, 40, 1)) + draw.normal(0, 0.2, (rows, 40, terms))
    windows[:, :, draw.random(terms) < 0.2] = 0
    return np.asarray(windows.transpose(0, 2, 1) @ windows / 40)


@given(st.integers(1, 6), st.integers(1, 12), st.booleans(), st.integers(0, 99))
def test_rounding_by_the_windows_is_never_worse_than_to_the_nearest(
    rows: int, terms: int, shared: bool, seed: int
) -> None:
    weight = np.random.default_rng(seed).normal(0, 1, (rows, terms))
    covariance = covariances(1 if shared else rows, terms, seed)
    damped = rounding._damped(covariance)
    least = np.zeros(rows)
    found, plain = second_order(weight, least, covariance), nearest(weight, least)
    assert (expected_error(weight, found, damped) <= expected_error(weight, plain, damped) + 1e-15).all()
    assert np.abs(found.whole).max() <= 127
    assert found.step.dtype == np.float32


def test_the_search_finds_the_best_of_all_roundings_up_and_down() -> None:
    weight = np.random.default_rng(0).normal(0, 1, (3, 4))
    covariance = rounding._damped(covariances(3, 4, 0))
    step = (np.abs(weight).max(1) / 9).astype(np.float32)
    found = rounding._Search(covariance).rounded(weight, step)
    floor = np.floor(weight / step[:, None].astype(float))
    for row in range(3):
        every = [
            Rounded(floor[row : row + 1] + np.array([ups]), step[row : row + 1])  # type: ignore[arg-type]
            for ups in product((0, 1), repeat=4)
        ]
        one = slice(row, row + 1)
        costs = [expected_error(weight[one], each, covariance[one])[0] for each in every]
        mine = expected_error(weight[one], Rounded(found[one], step[one]), covariance[one])[0]
        assert mine == pytest.approx(min(costs))


def test_inputs_that_hardly_vary_leave_weights_at_their_nearest() -> None:
    """Rounding of float32 sums makes of them a covariance by which errors seem to pay."""
    rows, terms = 4, 960
    draw = np.random.default_rng(0)
    windows = draw.normal(1000, 1, (1, 2000, terms)).astype(np.float32)
    covariance = moments_of(windows).covariance
    assert np.linalg.eigvalsh(covariance[0]).min() < 0
    weight = draw.normal(0, 1, (rows, terms))
    least = np.zeros(rows)
    found = second_order(weight, least, covariance)
    np.testing.assert_array_equal(found.whole, nearest(weight, least).whole)


def test_terms_that_cancel_keep_what_they_leave() -> None:
    """Two taps of ±30 on pixels that are nearly equal: their difference counts, not their size."""
    weight = np.array([[30.0, -29.9, 0.31]])
    windows = np.random.default_rng(0).normal(0, 1, (1, 500, 1)).repeat(3, 2)
    covariance = windows.transpose(0, 2, 1) @ windows / 500
    least = np.zeros(1)
    plain = expected_error(weight, nearest(weight, least), covariance)
    found = expected_error(weight, second_order(weight, least, covariance), covariance)
    assert found < plain / 5


def test_moments_and_spreads_are_those_of_all_windows_together() -> None:
    draw = np.random.default_rng(0)
    parts = [draw.normal(2, 1, (3, 50, 4)).astype(np.float32) for _ in range(3)]
    moments = reduce(add, map(moments_of, parts))
    whole = np.concatenate(parts, 1)
    np.testing.assert_allclose(moments.mean, whole.mean(1), rtol=1e-5)
    for group in range(3):
        np.testing.assert_allclose(moments.covariance[group], np.cov(whole[group].T, bias=True), atol=1e-4)
    seen: Spread | None = None
    for number, top in enumerate((1, 5, 40)):
        seen = spread(seen, draw.uniform(0, top, (2, 4, 4, 3)).astype(np.float32), number)
    assert seen is not None
    assert seen.counts.shape == (3, BINS)
    assert seen.counts.sum() == seen.places * 3 == 3 * 3 * 2 * 16
    assert seen.top >= seen.most.max() > 30


def test_ranges_cut_less_the_more_they_are_asked_to_keep() -> None:
    values = np.random.default_rng(0).exponential(1, (64, 16, 16, 2)).astype(np.float32)
    seen = spread(None, values, 0)
    assert (seen.limits("min-max") == seen.most).all()
    assert (seen.limits("percentile") < seen.most).all()
    assert (seen.limits("mse") < seen.most).all()
    # What `mse` chooses loses less, rounded and cut, than twice or half the range.
    best = seen.limits("mse")[0]

    def lost(limit: float) -> float:
        step = limit / 255
        return float(((np.clip(np.rint(values[..., 0] / step), 0, 255) * step - values[..., 0]) ** 2).mean())

    assert lost(best) < min(lost(best * 1.5), lost(best / 1.5))


NORM = BatchNorm()
SMALL = Net(
    "small",
    Shape(12, 10, 3),
    (
        Node("stem", Conv(out=6, stride=2, norm=NORM, activation="relu6"), ("image",)),
        Node("depthwise", Depthwise(norm=NORM, activation="relu6"), ("stem",)),
        Node("pointwise", Pointwise(out=8, norm=NORM, activation="relu6"), ("depthwise",)),
        Node("pool", Pool(), ("pointwise",)),
        Node("head", Dense(out=4), ("pool",)),
    ),
    (Output("logits", "head", "classes"), Output("features", "pool", "vector")),
)


def small(seed: int = 0, net: Net = SMALL, **changes: Any) -> Artefact:
    draw = np.random.default_rng(seed)
    weights: dict[str, Any] = {}
    for name, shape in tensors(net).items():
        value = draw.normal(0, 1.5 / np.sqrt(max(np.prod(shape[1:]), 1)), shape)
        weights[name] = (
            np.abs(value) + 0.3 if name.endswith(("running_var", "norm.weight")) else value
        ).astype(np.float32)
    weights |= {name: np.asarray(value, np.float32) for name, value in changes.items()}
    pre = Preprocess(height=net.input.height, width=net.input.width, geometry="stretch")
    return Artefact(net, weights, pre)


def levels(net: Net, count: int, seed: int = 0) -> np.ndarray:
    """Pictures with large shapes in them, as photographs have."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 3, 3, 3))
    fine = coarse.repeat(-(-net.input.height // 3), 1).repeat(-(-net.input.width // 3), 2)
    return np.asarray(fine[:, : net.input.height, : net.input.width], np.uint8)


def both(model: Artefact, made: Artefact, pictures: np.ndarray, name: str = "logits") -> tuple[Any, Any]:
    frames = list(pictures)
    return NumpyEngine(model).many(frames)[name], NumpyEngine(made).many(frames)[name]


@pytest.mark.parametrize("seed", range(3))
def test_a_small_network_gives_nearly_the_same_logits(seed: int) -> None:
    model = small(seed)
    made = quantise(model, levels(SMALL, 24, seed))
    assert made.dtype == "int8"
    assert "head" not in made.scales
    wanted, found = both(model, made, levels(SMALL, 16, 50 + seed))
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()
    assert from_bytes(to_bytes(made)).scores == made.scores


def test_the_same_pictures_give_the_same_bytes_and_all_that_was_tried_is_told() -> None:
    model = replace(small(), scores={"test": 0.5}, recipe={"seed": 3})
    seen: list[tuple[str, int, int]] = []
    made = quantise(model, levels(SMALL, 12), progress=lambda *told: seen.append(told))
    assert to_bytes(made) == to_bytes(quantise(model, levels(SMALL, 12), threads=3))
    told = made.scores["quantised"]
    assert len(told["tried"]) == len(CHANGES) + 1
    assert told["error"] == min(told["tried"].values())
    assert told["held_out"] == 3
    assert made.recipe["quantised"]["pictures"] == 9
    assert made.recipe["seed"] == 3
    assert made.scores["float32"] == {"test": 0.5}
    assert seen[0][1:] == (0, len(CHANGES) + 1)
    assert seen[-1][1:] == (len(CHANGES) + 1,) * 2


def test_a_body_alone_is_judged_by_its_features_which_are_bytes() -> None:
    net = replace(SMALL, nodes=SMALL.nodes[:-1], outputs=SMALL.outputs[1:])
    model = small(net=net)
    made = quantise(model, levels(net, 16))
    assert "pool" in made.scales
    assert "square" in made.scores["quantised"]["criterion"]
    wanted, found = both(model, made, levels(net, 8, 9), "features")
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()


DEAD = {
    "no variance": {"stem.norm.running_var": [1e-12, 1, 1, 1, 1, 1], "stem.norm.bias": [5, 0, 0, 0, 0, 0]},
    "no gain": {"depthwise.norm.weight": [0, 1, 1, 1, 0, 1], "depthwise.norm.bias": [-1, 0, 0, 0, 2, 0]},
    "no gain anywhere": {"pointwise.norm.weight": np.zeros(8), "pointwise.norm.bias": np.full(8, 0.5)},
    "hardly any gain and a large bias": {
        "pointwise.norm.weight": np.full(8, 1e-9),
        "pointwise.norm.bias": np.linspace(-3, 3, 8),
    },
    "a bias that nothing passes": {"stem.norm.bias": np.full(6, -1e4)},
    "weights of nothing": {"head.weight": np.zeros((4, 8)), "stem.weight": np.zeros((6, 3, 3, 3))},
}


@pytest.mark.parametrize("what", DEAD)
def test_dead_channels_do_no_harm(what: str) -> None:
    model = small(**DEAD[what])
    made = quantise(model, levels(SMALL, 12))
    for name, value in made.weights.items():
        if name.endswith(".bias"):
            assert np.abs(value.astype(np.int64)).max() <= MOST_BIAS
    wanted, found = both(model, made, levels(SMALL, 8, 9))
    assert np.abs(found - wanted).max() <= 0.1 * np.abs(wanted).max() + 1e-6


@pytest.mark.parametrize(
    "pictures",
    [
        levels(SMALL, 1),
        np.full((1, 12, 10, 3), 128, np.uint8),
        np.zeros((5, 12, 10, 3), np.uint8),
        np.repeat(levels(SMALL, 6)[..., :1], 3, 3),
    ],
    ids=["one", "one of one grey", "all black", "grey"],
)
def test_poor_pictures_give_a_model_that_is_right_on_them(pictures: np.ndarray) -> None:
    model = small()
    wanted, found = both(model, quantise(model, pictures), pictures)
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max() + 1e-3


def test_networks_of_one_channel_and_one_pixel_are_quantised() -> None:
    net = zoo.net("v1-cifar", 0.01, 8, 2)
    made = quantise(small(net=net), levels(net, 6))
    assert np.isfinite(both(small(net=net), made, levels(net, 2))[1]).all()
    one = replace(SMALL, input=Shape(1, 1, 3))
    made = quantise(small(net=one), levels(one, 6))
    assert np.isfinite(both(small(net=one), made, levels(one, 2))[1]).all()


def test_layers_without_bias_or_activation_get_a_bias_and_a_zero() -> None:
    nodes = (
        Node("a", Conv(out=5), ("image",)),
        Node("b", Depthwise(), ("a",)),
        Node("c", Pointwise(out=4), ("b",)),
        Node("pool", Pool(), ("c",)),
    )
    net = Net("signed", Shape(9, 9, 3), nodes, (Output("features", "pool", "vector"),))
    model = small(net=net)
    made = quantise(model, levels(net, 12))
    assert all(0 < made.scales[name].zero < 255 for name in "abc")
    wanted, found = both(model, made, levels(net, 8, 3), "features")
    assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_what_cannot_be_quantised_is_refused() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        quantise(small(), levels(SMALL, 0))
    with pytest.raises(ValueError, match="quantised already"):
        quantise(quantise(small(), levels(SMALL, 2)), levels(SMALL, 2))
    stem = replace(SMALL.nodes[0], op=replace(SMALL.nodes[0].op, activation="sigmoid"))  # type: ignore[call-arg]
    smooth = replace(SMALL, nodes=(stem, *SMALL.nodes[1:]))
    with pytest.raises(ValueError, match=r"^stem: sigmoid is .* cannot be quantised; hsigmoid can$"):
        quantise(small(net=smooth), levels(smooth, 2))


def test_another_engine_may_run_the_float_network() -> None:
    model = small()
    asked: list[tuple[int, tuple[str, ...]]] = []
    walk = Walk(model.net, model.weights)

    def maps(part: np.ndarray, names: Any) -> Any:
        asked.append((len(part), tuple(names)))
        return walk(normalise(part, model.preprocess), names)

    made = quantise(model, levels(SMALL, 12), maps=maps)
    assert to_bytes(made) == to_bytes(quantise(model, levels(SMALL, 12)))
    assert {names for _, names in asked} == {(), tuple(node.name for node in SMALL.nodes)}
    assert sum(count for count, names in asked if names) == 9


def test_a_spare_channel_copies_the_dearest_and_leaves_the_function_alone() -> None:
    model = with_biases(
        small(**{"depthwise.norm.weight": [0, 1, 1, 1, 1, 1], "depthwise.norm.bias": [-1, 1, 1, 1, 1, 1]})
    )
    pictures = levels(SMALL, 16)
    zero = np.full(3, 128, np.float32)
    seen = observe(model.net, float_maps(model), pictures, zero)
    assert seen.spreads["depthwise"].most[0] == 0
    found = spare.copies(model.net, model.weights, seen.spreads)["depthwise"]
    dearest = int(found.of[0])
    assert dearest != 0
    assert found.of.tolist() == [dearest, 1, 2, 3, 4, 5]
    assert found.share[[0, dearest]].tolist() == [0.5, 0.5]
    assert found.offset[[0, dearest]].tolist() == [-0.25, 0.25]
    material = Material(model, pictures, seen)
    plain = built(material, Choice(corrected=True))
    copied = built(material, Choice(corrected=True, spare=True))
    floats = [
        Walk(m.net, adopt.in_floats(m).weights)(normalise(pictures, m.preprocess)) for m in (plain, copied)
    ]
    wanted = Walk(model.net, model.weights)(normalise(pictures, model.preprocess))["logits"]
    for one in floats:
        assert np.abs(one["logits"] - wanted).max() < 0.05 * np.abs(wanted).max()


def test_noise_gains_are_what_small_errors_do() -> None:
    net, weights = fold(SMALL, small(4).weights)
    model = Artefact(net, weights, small().preprocess)
    pictures = levels(SMALL, 12)
    seen = observe(net, float_maps(model), pictures, np.full(3, 128, np.float32))
    gains = spare.noise_gains(net, weights, seen.spreads)
    # The last map before the mean: an error of one place counts one over the places squared, once for
    # itself and for what the head makes of it.
    places = 6 * 5
    squares = (weights["head.weight"].astype(float) ** 2).sum(0)
    np.testing.assert_allclose(gains["pointwise"], (1 + squares) / places, rtol=1e-6)


def test_noise_gains_go_through_joins_cuts_shuffles_groups_and_sums() -> None:
    nodes = (
        Node("a", Pointwise(out=4, bias=True), ("image",)),
        Node("b", Pointwise(out=4, groups=2, bias=True), ("a",)),
        Node("c", Concat(), ("a", "b")),
        Node("d", Shuffle(groups=2), ("c",)),
        Node("e", Slice(begin=1, end=7), ("d",)),
        Node("f", Pointwise(out=6, groups=3, bias=True), ("e",)),
        Node("g", Add(), ("f", "e")),
        Node("h", MaxPool(kernel=1), ("g",)),
    )
    net = Net("branching", Shape(1, 1, 3), nodes, (Output("features", "h", "vector"),))
    model = small(net=net)
    pictures = levels(net, 4)
    seen = observe(net, float_maps(model), pictures, np.full(3, 128, np.float32))
    gains = spare.noise_gains(net, model.weights, seen.spreads)
    x = normalise(pictures[:1], model.preprocess)
    plain = Walk(net, model.weights)(x)["features"].astype(float)
    for channel in range(6):
        bias = model.weights["f.bias"].copy()
        bias[channel] += 1
        moved = Walk(net, {**model.weights, "f.bias": bias})(x)["features"]
        assert gains["f"][channel] == pytest.approx(((moved - plain) ** 2).sum(), rel=1e-4)
    # Dealt out, channel 0 of `c` is 0 of `d`, 4 is 1, 1 is 2 … From `b` an error comes to `g` by the
    # sum itself, and through the layer in groups of two before it.
    squares = (model.weights["f.weight"].reshape(3, 2, 2).astype(float) ** 2).sum(1).ravel()
    at_e = 1 + squares
    at_c = np.concatenate([[0], at_e, [0]])[[0, 2, 4, 6, 1, 3, 5, 7]]
    np.testing.assert_allclose(gains["b"], at_c[4:], rtol=1e-6)


# On real weights and pictures.

FLOAT = "mobilenet_v1_0.25_224_float"


@cache
def _pictures(material: Path, count: int) -> np.ndarray:
    pre = adopt.read(material / "weights" / f"{FLOAT}.tflite").preprocess
    with tarfile.open(material / "data" / "imagenet-500.tar") as tar:
        members = sorted((m for m in tar.getmembers() if m.isfile()), key=lambda m: m.name)
        chosen = members[:: len(members) // count][:count]
        return np.stack([prepare(decode(tar.extractfile(m).read()), pre) for m in chosen])  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_float_file_keeps_its_answers(material: Path) -> None:
    model = adopt.read(material / "weights" / f"{FLOAT}.tflite")
    pictures = _pictures(material, 160)
    learn, judge = pictures[::2], pictures[1::2]
    made = quantise(model, learn)
    tried = made.scores["quantised"]["tried"]
    assert min(tried.values()) < tried["min-max, nearest"] / 8
    still = replace(model.preprocess, geometry="stretch")
    wanted, found = both(replace(model, preprocess=still), replace(made, preprocess=still), judge)
    assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.85
    assert np.abs(wanted - found).mean() < 0.25


@pytest.mark.slow
def test_spare_channels_and_turns_pay_on_the_float_file(material: Path) -> None:
    model = with_biases(adopt.read(material / "weights" / f"{FLOAT}.tflite"))
    pictures = _pictures(material, 160)
    learn, judge = pictures[:64:2], pictures[1:64:2]
    observed = observe(model.net, float_maps(model), learn, np.full(3, 128, np.float32))
    held = Material(model, learn, observed)
    still = replace(model.preprocess, geometry="stretch")

    def error(**changes: Any) -> float:
        made = built(held, Choice(rounding="second-order", corrected=True, equalised="depthwise", **changes))
        wanted, found = both(replace(model, preprocess=still), replace(made, preprocess=still), judge)
        return float(((wanted - found) ** 2).mean())

    plain = error()
    assert error(spare=True) < plain
    assert error(in_turn=True) < plain
