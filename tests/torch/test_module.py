"""A network as a torch module computes what the numpy walk computes, under the names of the table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.infer.fold import fold  # noqa: E402 - after the line that skips where there is no torch
from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.model.module import NORM_MOMENTUM, Module, module, random_weights, weights_of  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.head import classify  # noqa: E402
from mobilenets.spec.net import Net, tensors  # noqa: E402
from mobilenets.spec.op import Padding, Shape  # noqa: E402

Map = NDArray[np.float32]
SIZES = (1, 9, 32, 33)


def lively(net: Net, seed: int = 0) -> dict[str, Map]:
    """Random weights whose norms and biases do something."""
    draw = np.random.default_rng(seed)
    made = random_weights(net, seed)
    for name, value in made.items():
        if name.endswith("norm.running_var"):
            made[name] = draw.uniform(0.2, 2, value.shape).astype(np.float32)
        elif name.endswith("norm.weight"):
            made[name] = draw.uniform(0.5, 1.5, value.shape).astype(np.float32)
        elif name.endswith(("bias", "running_mean")):
            made[name] = draw.normal(0, 0.3, value.shape).astype(np.float32)
    return made


def picture(net: Net, count: int = 2, seed: int = 1) -> Map:
    return np.random.default_rng(seed).normal(0, 1, (count, *net.input)).astype(np.float32)


def by_module(made: Module, x: Map, taps: tuple[str, ...] = ()) -> dict[str, Map]:
    with torch.no_grad():
        found = made(torch.from_numpy(x).permute(0, 3, 1, 2), taps)
    return {
        name: value.permute(0, 2, 3, 1).numpy() if value.dim() == 4 else value.numpy()
        for name, value in found.items()
    }


def assert_alike(net: Net, weights: dict[str, Map], x: Map) -> None:
    names = [node.name for node in net.nodes]
    walked = Walk(net, weights)(x, names)
    largest = {"image": 1.0}  # on the way to a node: what an activation cuts has been rounded before
    for node in net.nodes:
        own = float(np.abs(walked[node.name]).max())
        largest[node.name] = max(own, *(largest[name] for name in node.inputs))
    for made in (module(net, weights).eval(), module(*fold(net, weights)).eval()):
        found = by_module(made, x, tuple(names))
        assert set(found) == set(walked)
        for name, value in walked.items():
            np.testing.assert_allclose(
                found[name].reshape(value.shape),
                value,
                rtol=0,
                atol=2e-5 * largest.get(name, max(largest.values())),
                err_msg=name,
            )


@pytest.mark.parametrize("resolution", SIZES)
@pytest.mark.parametrize("name", zoo.NETS)
def test_every_network_of_the_zoo_computes_at_every_node_what_the_walk_computes(
    name: str, resolution: int
) -> None:
    net = classify(zoo.body(name, 0.25, 31 if name in zoo.CONVOLVED and resolution < 31 else resolution), 7)
    assert_alike(net, lively(net), picture(net))


@pytest.mark.parametrize("padding", ["same", "symmetric"])
def test_a_picture_that_is_not_square_is_padded_on_the_right_sides(padding: Padding) -> None:
    net = replace(classify(zoo.v1(0.25, 32, padding=padding), 3), input=Shape(21, 34, 3))
    assert_alike(net, lively(net), picture(net))


@pytest.mark.parametrize("name", zoo.NETS)
def test_names_and_shapes_of_the_state_are_those_of_the_table(name: str) -> None:
    net = classify(zoo.body(name, 0.25, 32), 5)
    for one in (net, fold(net, random_weights(net, 0))[0]):
        assert {n: tuple(v.shape) for n, v in Module(one).state_dict().items()} == tensors(one)


def test_weights_go_in_and_come_out_unchanged_and_are_copies() -> None:
    net = classify(zoo.v1(0.25, 32), 5)
    weights = lively(net)
    made = module(net, weights)
    before = {name: value.copy() for name, value in weights.items()}
    out = weights_of(made)
    assert set(out) == set(weights)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    for name, value in before.items():
        np.testing.assert_array_equal(out[name], value)
        np.testing.assert_array_equal(weights[name], value)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    net = classify(zoo.v1(0.25, 32), 5)
    weights = lively(net)
    weights["stem.weight"] = weights["stem.weight"][:-1]
    with pytest.raises(ValueError, match=r"stem\.weight \[7, 3, 3, 3\]"):
        module(net, weights)


def test_only_outputs_and_taps_are_given_back() -> None:
    net = classify(zoo.v1(0.25, 32), 5)
    found = by_module(module(net, lively(net)).eval(), picture(net), ("stem",))
    assert set(found) == {"logits", "features", "stem"}
    assert found["stem"].shape == (2, 16, 16, 8)
    assert found["features"].shape == (2, 256)


def test_a_tap_keeps_its_value_though_the_next_layer_works_in_place() -> None:
    net = classify(zoo.v1(0.25, 32), 5)
    made = module(net, lively(net)).eval()
    x = picture(net)
    names = tuple(node.name for node in net.nodes)
    together = by_module(made, x, names)
    for name in ("stem", "block1.depthwise", "block13.pointwise"):
        np.testing.assert_array_equal(together[name], by_module(made, x, (name,))[name])


def test_in_training_a_norm_measures_its_batch_and_a_frozen_one_does_not() -> None:
    net = classify(zoo.v1(0.25, 32), 5)
    weights = lively(net)
    x = picture(net, 4)
    made = module(net, weights).train()
    by_module(made, x)
    norm = made.layer("stem").norm
    assert norm is not None
    linear = np.asarray(
        torch.nn.functional.conv2d(
            torch.nn.functional.pad(torch.from_numpy(x).permute(0, 3, 1, 2), (0, 1, 0, 1)),
            torch.from_numpy(weights["stem.weight"]),
            stride=2,
        )
    )
    kept = weights["stem.norm.running_mean"]
    np.testing.assert_allclose(
        norm.running_mean.numpy(),
        (1 - NORM_MOMENTUM) * kept + NORM_MOMENTUM * linear.mean(axis=(0, 2, 3)),
        rtol=1e-4,
        atol=1e-5,
    )
    frozen = module(net, weights).train()
    for node in net.nodes:
        if f"{node.name}.norm.weight" in weights:
            own = frozen.layer(node.name).norm
            assert own is not None
            own.frozen = True
    out = by_module(frozen, x)
    np.testing.assert_array_equal(weights_of(frozen)["stem.norm.running_mean"], kept)
    np.testing.assert_allclose(out["logits"], by_module(frozen.eval(), x)["logits"], rtol=1e-5, atol=1e-6)


def test_gradients_reach_every_weight_through_frozen_norms_as_through_plain_ones() -> None:
    net = classify(zoo.v1(0.25, 32), 3)
    weights = lively(net)
    x = torch.from_numpy(picture(net)).permute(0, 3, 1, 2)

    def slopes(watched: bool) -> dict[str, Map]:
        made = module(net, weights).eval()
        if watched:  # a watcher makes each layer take its norm as a step of its own
            for node in net.nodes:
                if f"{node.name}.weight" in weights:
                    made.layer(node.name).watcher = lambda layer, y: None
        made(x)["logits"].square().sum().backward()
        return {n: p.grad.numpy() for n, p in made.named_parameters() if p.grad is not None}

    folded, plain = slopes(False), slopes(True)
    assert set(folded) == set(plain) == {n for n in tensors(net) if "running" not in n}
    for name, value in plain.items():
        tolerance = 1e-4 * float(np.abs(value).max()) + 1e-7
        np.testing.assert_allclose(folded[name], value, rtol=1e-3, atol=tolerance, err_msg=name)


def test_the_same_seed_draws_the_same_weights_and_another_does_not() -> None:
    net = zoo.v1(0.25, 32)
    one, same, other = (random_weights(net, seed) for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert not (one["stem.weight"] == other["stem.weight"]).any()


def test_random_weights_carry_a_signal_through_every_layer() -> None:
    net = zoo.v1(0.5, 64)
    maps = by_module(
        module(net, random_weights(net, 0)).eval(), picture(net, 4), tuple(n.name for n in net.nodes)
    )
    spread = {name: float(value.std()) for name, value in maps.items()}
    assert min(spread.values()) > 0.005
    assert max(spread.values()) < 6


def test_random_weights_of_v2_carry_a_signal_where_norms_measure_it() -> None:
    net = zoo.v2(0.5, 64)
    maps = by_module(
        module(net, random_weights(net, 0)).train(), picture(net, 4), tuple(n.name for n in net.nodes)
    )
    spread = {name: float(value.std()) for name, value in maps.items()}
    assert min(spread.values()) > 0.05
    assert max(spread.values()) < 3


def test_a_name_that_is_no_layer_is_refused() -> None:
    made = Module(zoo.v1(0.25, 32))
    with pytest.raises(KeyError, match="block1"):
        made.layer("block1")
