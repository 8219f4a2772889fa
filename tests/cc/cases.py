"""The networks that every target is tried on: of the zoo, and any chain of layers."""

from __future__ import annotations

from functools import cache

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net, Node, Output
from mobilenets.spec.op import Conv, Dense, Depthwise, Op, Pointwise, Pool, Shape

from .conftest import filled

ZOO = [
    classify(zoo.v1(0.25, 96), 10),
    classify(zoo.v1(0.25, 97, padding="symmetric"), 3),  # odd sides, the other padding
    classify(zoo.v1(0.3, 65, rounding="keras"), 1001),  # channels that no vector divides
    classify(zoo.v1(1.0, 32), 5),
    zoo.v1(0.25, 33),  # a body alone
    zoo.v1(0.01, 20, rounding="keras"),  # one channel to a layer
    classify(zoo.v1(0.25, 1), 2),  # one pixel
    classify(zoo.v1_full(0.125, 64), 7),
    classify(zoo.v1_shallow(0.5, 64), 12),
    zoo.net("v1-cifar", 0.5),
]
SMALL = [ZOO[1], ZOO[2], ZOO[5], ZOO[6]]


@st.composite
def networks(draw: st.DrawFn) -> Net:
    """Chains of any layers on small maps of any shape, some of which are outputs."""
    shape = Shape(draw(st.integers(1, 19)), draw(st.integers(1, 19)), 3)
    activation = st.sampled_from(("none", "relu", "relu6"))
    padding = st.sampled_from(("same", "symmetric"))
    nodes: list[Node] = []
    before = "image"
    for index in range(draw(st.integers(1, 5))):
        kinds = ["conv", "pointwise"] + ["depthwise"] * 2 * (index > 0)
        out, kernel = draw(st.integers(1, 70)), draw(st.sampled_from((1, 3, 5)))
        stride = draw(st.integers(1, min(2, kernel)))
        rest = {"kernel": kernel, "stride": stride, "padding": draw(padding), "activation": draw(activation)}
        op: Op
        match draw(st.sampled_from(kinds)):
            case "conv":
                op = Conv(out=out, bias=draw(st.booleans()), **rest)
            case "depthwise":
                op = Depthwise(bias=draw(st.booleans()), **rest)
            case _:
                op = Pointwise(out=out, bias=draw(st.booleans()), activation=draw(activation))
        nodes.append(Node(f"layer{index}", op, (before,)))
        before = f"layer{index}"
    shown = draw(st.sets(st.sampled_from([node.name for node in nodes]), max_size=2))
    nodes += [Node("pool", Pool(), (before,)), Node("head", Dense(out=draw(st.integers(1, 70))), ("pool",))]
    outputs = [Output("logits", "head", "classes"), Output("features", "pool", "vector")]
    outputs += [Output(f"map of {name}", name, "vector") for name in sorted(shown)]
    return Net("drawn", shape, tuple(nodes), tuple(outputs))


@cache
def drawn(count: int) -> list[Artefact]:
    """Models that hypothesis draws, all at once, so that they can be built side by side."""
    found: list[Artefact] = []

    @settings(
        max_examples=count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
        phases=[Phase.generate],
    )
    @given(net=networks(), seed=st.integers(0, 99))
    def draw(net: Net, seed: int) -> None:
        found.append(filled(net, seed))

    draw()
    return found
