"""Every network of the zoo quantises, on drawn road signs, and answers much as it does in float32."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from mobilenets.data.signs import FACES, sign
from mobilenets.infer.artefact import Artefact, from_bytes, to_bytes
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.integer import IntegerWalk, Kept, activation_of, dequantised
from mobilenets.infer.quantise import quantise
from mobilenets.infer.scale import MOST
from mobilenets.infer.walk import Walk, activated, laid_out, linear, weightless
from mobilenets.spec import zoo
from mobilenets.spec.net import Net, tensors
from mobilenets.spec.op import Add, Concat, Dense, Linear
from mobilenets.spec.preprocess import Preprocess

CLASSES, SIDE, LEARNED, JUDGED = 5, 32, 16, 8
PRE = Preprocess(height=SIDE, width=SIDE, geometry="stretch", mean=(128, 128, 128))
"""Of a mean that is a level: what lies around the image is the same in integers and in floats."""


@cache
def pictures() -> np.ndarray:
    random = np.random.default_rng(7)
    names = sorted(FACES)
    return np.stack(
        [prepare(decode(sign(names[i % len(names)], random)), PRE) for i in range(LEARNED + JUDGED)]
    )


def awake(net: Net, levels: np.ndarray, seed: int = 0) -> Artefact:
    """Random weights under norms that know how large a map is: none is dead and none runs away.

    Norms that knew each channel would blow up what rounding did to those that hardly change, as training
    does not let them.
    """
    draw = np.random.default_rng(seed)
    weights: dict[str, Any] = {}
    for name, shape in tensors(net).items():
        spread = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        value = draw.normal(float(name.endswith("norm.weight")), spread, shape)
        weights[name] = (np.abs(value) if name.endswith("norm.weight") else value).astype(np.float32)
    values: dict[str, Any] = {"image": normalise(levels, PRE)}
    for node in net.nodes:
        given = [values[name] for name in node.inputs]
        if not isinstance(node.op, Linear):
            values[node.name] = weightless(node.op, given)
            continue
        y = linear(node.op, given[0], laid_out(node, weights[f"{node.name}.weight"]))
        if f"{node.name}.bias" in weights:
            y = y + weights[f"{node.name}.bias"]
        if not isinstance(node.op, Dense):
            if node.op.norm is not None:
                mean, variance = np.zeros(y.shape[-1]), np.full(y.shape[-1], y.var())
                own = {"running_mean": mean, "running_var": variance}
                weights |= {
                    f"{node.name}.norm.{part}": value.astype(np.float32) for part, value in own.items()
                }
                gain, shift = (weights[f"{node.name}.norm.{part}"] for part in ("weight", "bias"))
                y = y / np.sqrt(y.var() + node.op.norm.epsilon) * gain + shift
            y = activated(y.astype(np.float32), node.op.activation)
        values[node.name] = y
    return Artefact(net, weights, PRE)


def by_node(made: Artefact, levels: np.ndarray) -> dict[str, float]:
    """How many steps each node's bytes are from what the float walk makes of the bytes it read, at most."""
    walk = IntegerWalk(made.net, made.weights, made.scales, made.preprocess)
    found = walk(levels, [node.name for node in made.net.nodes])
    floats = dequantised(made.net, made.weights, made.scales, made.preprocess)
    values: dict[str, Any] = {"image": normalise(levels, made.preprocess)}
    apart: dict[str, float] = {}
    for node in made.net.nodes:
        given = [values[name] for name in node.inputs]
        if isinstance(node.op, Linear):
            y = linear(node.op, given[0], laid_out(node, floats[f"{node.name}.weight"]))
            y = activated(y + floats[f"{node.name}.bias"], activation_of(node.op))
        else:
            y = weightless(node.op, given)
        scale = made.scales.get(node.name)
        if scale is None:
            apart[node.name] = float(np.abs(found[node.name] - y).max() / np.abs(y).max())
            continue
        values[node.name] = scale.values(found[node.name])
        held = np.clip(y / scale.step + scale.zero, 0, MOST)
        apart[node.name] = float(np.abs(held - found[node.name]).max())
    return apart


@cache
def quantised(name: str) -> tuple[Artefact, Artefact]:
    net = zoo.net(name, 0.25, SIDE, CLASSES)
    model = awake(net, pictures()[:LEARNED])
    return model, from_bytes(to_bytes(quantise(model, pictures()[:LEARNED], threads=2)))


QUICK = ("v2", "v3-small", "v4-conv-small", "squeezenet-1.1", "shufflenet-v1", "shufflenet-v2")
EVERY = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in zoo.NETS]


@pytest.mark.parametrize("name", EVERY)
def test_each_node_is_half_a_step_from_the_float_walk_at_most(name: str) -> None:
    _, made = quantised(name)
    for node, apart in by_node(made, pictures()[LEARNED : LEARNED + 2]).items():
        assert apart < 0.51, node


@pytest.mark.parametrize("name", EVERY)
def test_a_network_answers_in_bytes_much_as_in_float32(name: str) -> None:
    model, made = quantised(name)
    judged = pictures()[LEARNED:]
    wanted = Walk(model.net, model.weights)(normalise(judged, PRE))
    found = IntegerWalk(made.net, made.weights, made.scales, PRE)(judged)
    for output in made.net.outputs:
        scale = made.scales.get(output.node)
        ours = found[output.name] if scale is None else scale.values(found[output.name])
        theirs = wanted[output.name]
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.95, output.name
        # And in what sets one picture apart from another.
        apart = np.corrcoef((theirs - theirs.mean(0)).ravel(), (ours - ours.mean(0)).ravel())[0, 1]
        assert apart > 0.75, output.name


@pytest.mark.parametrize("name", ["squeezenet-1.1", "shufflenet-v1", "shufflenet-v2"])
def test_what_is_joined_has_one_scale(name: str) -> None:
    _, made = quantised(name)
    joined = [node for node in made.net.nodes if isinstance(node.op, Kept)]
    assert any(isinstance(node.op, Concat) for node in joined)
    for node in joined:
        assert {made.scales[source] for source in node.inputs} == {made.scales[node.name]}


def test_bottlenecks_without_an_activation_have_zeros_in_the_middle() -> None:
    _, made = quantised("v2")
    values = IntegerWalk(made.net, made.weights, made.scales, PRE)
    linear_ones = [node.name for node in made.net.nodes if node.name.endswith((".project", ".add"))]
    assert any(isinstance(node.op, Add) for node in made.net.nodes)
    assert all(64 < made.scales[name].zero < 192 for name in linear_ones)
    found = values(pictures()[LEARNED:], linear_ones)
    for name in linear_ones:
        below = (found[name] < made.scales[name].zero).mean()
        assert 0.2 < below < 0.8, name
