"""A head in float32 on a body of bytes: its sums, number by number, its file, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mobilenets.infer.adopt import in_floats
from mobilenets.infer.artefact import Artefact, ArtefactError, digest, from_bytes, to_bytes
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import normalise
from mobilenets.infer.scale import Scale
from mobilenets.infer.walk import Walk
from mobilenets.spec.net import Net, Node, Output
from mobilenets.spec.op import Conv, Dense, Pool, Shape
from mobilenets.spec.preprocess import Preprocess

DRAW = np.random.default_rng(5)
NODES = (
    Node("a", Conv(out=6, stride=2, bias=True, activation="relu6"), ("image",)),
    Node("b", Pool(), ("a",)),
    Node("head", Dense(out=3), ("b",)),
)
OUTPUTS = (Output("logits", "head", "classes"), Output("features", "b", "vector"))
NET = Net("taught", Shape(9, 8, 3), NODES, OUTPUTS)
TENSORS: dict[str, Any] = {
    "a.weight": DRAW.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8),
    "a.step": DRAW.uniform(1e-5, 3e-5, 6).astype(np.float32),
    "a.bias": DRAW.integers(-9999, 9999, 6).astype(np.int32),
    "head.weight": DRAW.normal(0, 1, (3, 6)).astype(np.float32),
    "head.bias": DRAW.normal(0, 1, 3).astype(np.float32),
}
SCALES = {"a": Scale(0.02, 3), "b": Scale(0.013, 7)}
PRE = Preprocess(height=9, width=8)
MODEL = Artefact(net=NET, weights=TENSORS, scales=SCALES, preprocess=PRE, labels=("x", "y", "z"))
FRAME = np.random.default_rng(1).integers(0, 256, (30, 20, 3), dtype=np.uint8)


def test_sums_are_taken_channel_by_channel_and_round_each_by_itself() -> None:
    found = NumpyEngine(MODEL)(FRAME)
    values = np.rint(found["features"] / np.float32(0.013)).astype(int)  # bytes less their zero
    for row, bias, logit in zip(TENSORS["head.weight"], TENSORS["head.bias"], found["logits"], strict=True):
        total = np.float32(0)
        for weight, value in zip(row, values, strict=True):
            total = np.float32(total + np.float32(weight * np.float32(value)))
        assert np.float32(np.float32(total * np.float32(0.013)) + bias) == logit


def test_its_file_comes_back_as_it_was_written_and_its_digest_knows_the_head() -> None:
    again = from_bytes(to_bytes(MODEL))
    assert again.dtype == "int8"
    assert again.weights["head.weight"].dtype == np.float32
    np.testing.assert_array_equal(NumpyEngine(again)(FRAME)["logits"], NumpyEngine(MODEL)(FRAME)["logits"])
    assert digest(again) == digest(MODEL)
    moved = replace(MODEL, weights=TENSORS | {"head.bias": TENSORS["head.bias"] + 1})
    assert digest(moved) != digest(MODEL)


def test_in_float32_it_is_the_same_but_for_the_rounding_of_maps() -> None:
    model = in_floats(MODEL)
    assert not model.scales
    np.testing.assert_array_equal(model.weights["head.weight"], TENSORS["head.weight"])
    levels = np.random.default_rng(2).integers(0, 256, (4, 9, 8, 3), dtype=np.uint8)
    floats = Walk(model.net, model.weights)(normalise(levels, PRE))["logits"]
    bytes_ = NumpyEngine(MODEL).prepared(levels)["logits"]
    assert np.abs(floats - bytes_).max() < 0.1 * np.abs(floats).max()


@pytest.mark.parametrize(
    ("tensors", "scales", "reason"),
    [
        ({"head.bias": None}, {}, "head.bias is missing"),
        ({"head.step": np.ones(3, np.float32)}, {}, "head.step is extra"),
        ({"head.bias": np.zeros(3, np.int32)}, {}, "head.bias: is int32"),
        ({"head.weight": np.zeros((3, 5), np.float32)}, {}, r"head.weight: is float32 \[3, 5\]"),
        ({"head.weight": np.full((3, 6), np.inf, np.float32)}, {}, "head.weight: holds values"),
        ({"head.bias": np.full(3, np.nan, np.float32)}, {}, "head.bias: holds values"),
        ({}, {"head": Scale(1.0, 0)}, "head: weights in float32, which only a network's last layer"),
        ({"a.weight": TENSORS["a.weight"].astype(np.float32)}, {}, "a.weight: is float32"),
    ],
)
def test_what_does_not_hold_together_is_refused_by_name(
    tensors: dict[str, Any], scales: dict[str, Scale], reason: str
) -> None:
    own = {name: value for name, value in (TENSORS | tensors).items() if value is not None}
    with pytest.raises((ValueError, ArtefactError), match=reason):
        to_bytes(replace(MODEL, weights=own, scales=SCALES | scales))


def test_one_on_the_image_or_before_another_layer_is_refused() -> None:
    alone = Net("alone", Shape(1, 1, 3), (Node("head", Dense(out=2), ("image",)),), (OUTPUTS[0],))
    own = {"head.weight": np.ones((2, 3), np.float32), "head.bias": np.zeros(2, np.float32)}
    far = Artefact(
        net=alone, weights=own, scales={"b": Scale(1.0, 0)}, preprocess=Preprocess(height=1, width=1)
    )
    with pytest.raises(ValueError, match="it reads no bytes that have a scale"):
        to_bytes(far)
    more = replace(NET, nodes=(*NODES, Node("last", Dense(out=2), ("head",))))
    with pytest.raises(ValueError, match="which only a network's last layer has"):
        to_bytes(replace(MODEL, net=more))
