"""A network as plain layers of torch computes what the walk computes, in a row or as a graph."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.bench.formats.torch import layers  # noqa: E402 - after the line that skips without torch
from mobilenets.bench.subject import random_weights  # noqa: E402
from mobilenets.infer.artefact import Artefact  # noqa: E402
from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.net import Net, Node, Output  # noqa: E402
from mobilenets.spec.op import Add, Pointwise, Pool, Shape  # noqa: E402
from mobilenets.spec.preprocess import Preprocess  # noqa: E402


def assert_alike(net: Net) -> torch.nn.Module:
    x = np.random.default_rng(0).normal(0, 1, (3, *net.input)).astype(np.float32)
    weights = random_weights(net, 0, x)
    height, width = net.input[:2]
    made = layers(Artefact(net, weights, Preprocess(height=height, width=width)))
    with torch.inference_mode():
        found = made(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    wanted = Walk(net, weights)(x)[net.outputs[0].name]
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, atol=1e-4 * float(np.abs(wanted).max()))
    return made


@pytest.mark.parametrize("name", zoo.NETS)
def test_every_network_of_the_zoo_computes_what_the_walk_computes(name: str) -> None:
    made = assert_alike(zoo.net(name, 0.35, 33, 7))
    assert isinstance(made, torch.nn.Sequential) == name.startswith("v1")


def test_the_image_may_be_added_and_a_map_more_than_once() -> None:
    nodes = (
        Node("a", Pointwise(out=3, activation="relu"), ("image",)),
        Node("b", Add(), ("a", "image", "a")),
        Node("c", Pool(), ("b",)),
        Node("d", Add(), ("c", "c")),
    )
    assert_alike(Net("sums", Shape(5, 6, 3), nodes, (Output("out", "d", "vector"),)))
