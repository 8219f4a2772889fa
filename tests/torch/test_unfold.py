"""Batch norms put back leave the function as it was, with the statistics that numpy measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.infer import tflite  # noqa: E402 - after the line that skips where there is no torch
from mobilenets.infer.fold import fold  # noqa: E402
from mobilenets.infer.image import normalise  # noqa: E402
from mobilenets.infer.recognise import without_norms  # noqa: E402
from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.model.module import Layer, module, random_weights, weights_of  # noqa: E402
from mobilenets.model.unfold import measured, restate, unfold, with_norms  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.head import classify  # noqa: E402
from mobilenets.spec.net import Net, tensors  # noqa: E402
from mobilenets.spec.op import Conv, Depthwise, Pointwise  # noqa: E402

Map = NDArray[np.float32]


def folded(name: str = "v1", resolution: int = 32, seed: int = 0) -> tuple[Net, dict[str, Map]]:
    """A random network whose convolutions have biases in place of norms."""
    draw = np.random.default_rng(seed)
    net = without_norms(classify(zoo.body(name, 0.25, resolution), 5))
    weights = random_weights(net, seed)
    for key, value in weights.items():
        if key.endswith("bias"):
            weights[key] = draw.normal(0, 0.2, value.shape).astype(np.float32)
    return net, weights


def batches(net: Net, *counts: int) -> tuple[Map, list[object]]:
    """Pictures [n, h, w, 3], and the same in batches as torch takes them."""
    x = np.random.default_rng(7).normal(0, 1, (sum(counts), *net.input)).astype(np.float32)
    parts = np.split(x, np.cumsum(counts)[:-1])
    return x, [torch.from_numpy(part).permute(0, 3, 1, 2) for part in parts]


def logits(made: object, x: Map) -> Map:
    with torch.no_grad():
        found = made(torch.from_numpy(x).permute(0, 3, 1, 2))["logits"].numpy()  # type: ignore[operator]
    return np.asarray(found)


def linear(net: Net, weights: dict[str, Map], x: Map) -> dict[str, NDArray[np.float64]]:
    """What each convolution gives before bias and activation, by the walk over the layers before it."""
    from dataclasses import replace

    found = {}
    for index, node in enumerate(net.nodes):
        if isinstance(node.op, Conv | Depthwise | Pointwise):
            bare = replace(node, op=replace(node.op, activation="none", bias=False))
            cut = replace(
                net, nodes=(*net.nodes[:index], bare), outputs=(replace(net.outputs[0], node=node.name),)
            )
            own = {name: weights[name] for name in tensors(cut)}
            found[node.name] = Walk(cut, own)(x, [node.name])[node.name].astype(np.float64)
    return found


@pytest.mark.parametrize("name", zoo.NETS)
def test_a_network_with_its_norms_back_computes_the_same(name: str) -> None:
    net, weights = folded(name, 24)
    x, parts = batches(net, 4, 3)
    fresh = np.random.default_rng(8).normal(0, 1, (3, *net.input)).astype(np.float32)  # not what was measured
    made = unfold(net, weights, parts)
    for some in (x, fresh):
        before = logits(module(net, weights).eval(), some)
        np.testing.assert_allclose(
            logits(made, some), before, rtol=0, atol=1e-5 * max(1, np.abs(before).max())
        )


def test_folding_it_again_gives_the_weights_it_came_from() -> None:
    net, weights = folded()
    _, parts = batches(net, 8)
    made = unfold(net, weights, parts)
    again, own = fold(made.net, weights_of(made))
    assert again == net
    for name, value in weights.items():
        np.testing.assert_allclose(own[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_real_folded_weights_keep_their_function(material: Path) -> None:
    model = tflite.read((material / "weights" / "mobilenet_v1_0.25_128_quant.tflite").read_bytes())
    draw = np.random.default_rng(0)
    coarse = draw.integers(
        0, 256, (12, 8, 8, 3), dtype=np.uint8
    )  # patches of colour, more a picture than noise
    levels = coarse.repeat(16, axis=1).repeat(16, axis=2)
    x = normalise(levels, model.preprocess)
    made = unfold(model.net, dict(model.weights), [torch.from_numpy(x[:8]).permute(0, 3, 1, 2)])
    before = logits(module(model.net, model.weights).eval(), x)
    np.testing.assert_allclose(logits(made, x), before, rtol=0, atol=1e-5 * np.abs(before).max())


def test_measured_statistics_are_numpys_over_all_pictures_and_places() -> None:
    net, weights = folded(resolution=20)
    x, parts = batches(net, 5, 2, 1)  # of unlike size: a mean of the batches' means would be another
    found = measured(module(net, weights).eval(), parts)
    wanted = linear(net, weights, x)
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        mean, variance = (part.numpy() for part in found[name])
        np.testing.assert_allclose(mean, values.mean(axis=(0, 1, 2)), rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(variance, values.var(axis=(0, 1, 2)), rtol=1e-3, atol=1e-6, err_msg=name)


def test_the_norms_of_an_unfolded_network_carry_the_measured_statistics() -> None:
    net, weights = folded(resolution=20)
    x, parts = batches(net, 6)
    made = unfold(net, weights, parts, epsilon=1e-3)
    assert made.net == with_norms(net, 1e-3)
    state = weights_of(made)
    for name, values in linear(net, weights, x).items():
        mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
        for part, value in (
            ("running_mean", mean),
            ("running_var", variance),
            ("weight", np.sqrt(variance + 1e-3)),
            ("bias", mean + weights[f"{name}.bias"]),
        ):
            np.testing.assert_allclose(
                state[f"{name}.norm.{part}"], value, rtol=1e-3, atol=2e-5, err_msg=name
            )


def test_in_training_mode_on_the_measured_pictures_it_computes_the_same_too() -> None:
    # The batch is all that was measured, so its own statistics are the running ones.
    net, weights = folded()
    x, parts = batches(net, 8)
    made = unfold(net, weights, parts)
    before = logits(made, x)
    np.testing.assert_allclose(logits(made.train(), x), before, atol=1e-3 * np.abs(before).max())


def test_a_dead_channel_stays_dead_and_finite() -> None:
    net, weights = folded()
    weights["block3.depthwise.weight"][1] = 0
    x, parts = batches(net, 4)
    made = unfold(net, weights, parts)
    assert np.isfinite(logits(made, x)).all()
    np.testing.assert_allclose(logits(made, x), logits(module(net, weights).eval(), x), atol=1e-5)


def test_a_measurement_leaves_no_watcher_behind_even_when_it_fails() -> None:
    net, weights = folded()
    made = module(net, weights).eval()
    with pytest.raises(RuntimeError):
        measured(made, [torch.zeros(1, 2, 32, 32)])  # two channels
    assert all(part.watcher is None for part in made.modules() if isinstance(part, Layer))


def test_restating_gives_every_norm_the_statistics_of_what_now_reaches_it() -> None:
    net = classify(zoo.v1(0.25, 32), 5)
    weights = random_weights(net, 0)
    x, parts = batches(net, 16)
    made = module(net, weights)
    made.layer("stem").norm.frozen = True  # type: ignore[union-attr]  # the stem has one
    made.eval()
    restate(made, parts)
    assert not made.training
    assert [name for name, part in made.named_modules() if getattr(part, "frozen", False)] == ["stem.norm"]
    # One batch was all: evaluating with the statistics is normalising by the batch.
    with torch.no_grad():
        settled = logits(made, x)
        for part in made.modules():
            if isinstance(part, Layer) and part.norm is not None:
                part.norm.frozen = False
        batchwise = logits(made.train(), x)
    np.testing.assert_allclose(settled, batchwise, atol=1e-3 * np.abs(batchwise).max())
    assert weights_of(made)["stem.norm.running_mean"].any()
    assert (weights_of(made)["stem.weight"] == weights["stem.weight"]).all()
