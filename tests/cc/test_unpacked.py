"""Tensors are found again in the weights that were packed of them, whatever the network and its type."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mobilenets.compile.source import passes
from mobilenets.compile.target import TARGETS, family
from mobilenets.compile.unpacked import copies
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.fold import fold
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net

from .conftest import filled, in_bytes, taught

NETS = [
    classify(zoo.v1(0.5, 128), 2),
    classify(zoo.v1(0.3, 65, rounding="keras"), 7),  # channels that no panel divides
    zoo.net("v2", 0.35, 96, 5),
    zoo.net("v3-small", 0.5, 96, 5),
    zoo.net("squeezenet-1.1", 0.5, 96, 5),
    zoo.net("v4-conv-small", 0.5, 96, 5),
]


def folded(net: Net) -> Artefact:
    model = filled(net)
    net, weights = fold(model.net, model.weights)
    return replace(model, net=net, weights=weights)


@pytest.mark.parametrize("target", ["wasm", "host"])
@pytest.mark.parametrize("net", NETS, ids=lambda net: f"{net.name}-{net.width:g}")
def test_all_weights_in_float32_are_found(net: Net, target: str) -> None:
    model = folded(net)
    chosen = family(TARGETS[target])
    found, rest = copies(model, chosen)
    assert rest == {}
    packed = np.frombuffer(passes(model, chosen).packed.values, np.uint8)
    for name, value in model.weights.items():
        made = np.full(value.nbytes, 7, np.uint8)
        for one in found[name]:
            one(packed, made)
        assert made.tobytes() == np.ascontiguousarray(value).tobytes(), name


@pytest.mark.parametrize("net", NETS, ids=lambda net: f"{net.name}-{net.width:g}")
def test_of_bytes_for_browsers_all_but_the_images_layer_and_small_tensors_are_found(net: Net) -> None:
    model = in_bytes(folded(net))
    found, rest = copies(model, family(TARGETS["wasm"], "int8"))
    assert {name for name in rest if name.endswith(".weight")} <= {f"{net.nodes[0].name}.weight"}
    packed = np.frombuffer(passes(model, family(TARGETS["wasm"], "int8")).packed.values, np.uint8)
    for name, own in found.items():
        made = np.full(model.weights[name].nbytes, 7, np.uint8)
        for one in own:
            one(packed, made)
        assert made.tobytes() == model.weights[name].tobytes(), name


def test_a_taught_head_is_told_beside_the_weights() -> None:
    model = taught(in_bytes(folded(NETS[0])))
    _, rest = copies(model, family(TARGETS["wasm"], "int8"))
    assert {"head.weight", "head.bias"} <= set(rest)
    assert sum(value.nbytes for value in rest.values()) < 0.06 * sum(v.nbytes for v in model.weights.values())
