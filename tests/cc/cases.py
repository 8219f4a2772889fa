"""The networks that every target is tried on: of the zoo, and any chain of layers."""

from __future__ import annotations

from functools import cache

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net, Node, Output, shape_after
from mobilenets.spec.op import (
    Activate,
    Add,
    Concat,
    Conv,
    Dense,
    Depthwise,
    MaxPool,
    MeanPool,
    Mul,
    Op,
    Pointwise,
    Pool,
    Shape,
    Shuffle,
    Slice,
)

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
FAMILY = [zoo.net(name, 0.25, 65, 5) for name in zoo.NETS if not name.startswith("v1")]
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


@st.composite
def graphs(draw: st.DrawFn) -> Net:
    """Layers on small maps, some in groups, that are summed up, gated, joined, cut, dealt out and pooled."""
    known = {"image": Shape(draw(st.integers(7, 19)), draw(st.integers(7, 19)), 3)}
    activation = st.sampled_from(("none", "relu", "relu6", "hswish", "hsigmoid"))
    padding = st.sampled_from(("same", "symmetric", "ceil"))
    nodes: list[Node] = []

    def add(name: str, op: Op, *sources: str) -> str:
        known[name] = shape_after(op, [known[source] for source in sources])
        nodes.append(Node(name, op, sources))
        return name

    last = add("stem", Conv(out=draw(st.integers(1, 40)), bias=True, activation=draw(activation)), "image")
    for index in range(draw(st.integers(1, 5))):
        x = known[last]
        kernel, groups = draw(st.sampled_from((2, 3, 5))), draw(st.sampled_from(divisors(x.channels)))
        slides = {"kernel": kernel, "stride": draw(st.integers(1, 2)), "padding": draw(padding)}
        bent, out = {"bias": True, "activation": draw(activation)}, draw(st.integers(1, 40))
        alike = [name for name, shape in known.items() if shape == x and name != "image"]
        beside = [name for name, shape in known.items() if shape[:2] == x[:2] and name != "image"]
        begin = draw(st.integers(0, x.channels - 1))
        name = f"layer{index}"
        match draw(
            st.sampled_from(
                ("pointwise", "conv", "depthwise", "sum", "gate", "join", "cut", "deal", "pool", "bend")
            )
        ):
            case "pointwise":
                last = add(name, Pointwise(out=groups * out, groups=groups, **bent), last)
                if draw(st.booleans()) and known[last] == x:
                    last = add(f"{name}_sum", Add(), alike[0], last)
            case "conv" if min(x[:2]) >= kernel:
                last = add(name, Conv(out=groups * out, groups=groups, **slides, **bent), last)
            case "depthwise" if min(x[:2]) >= kernel:
                last = add(name, Depthwise(**slides, **bent), last)
            case "sum":
                projected = add(f"{name}_projected", Pointwise(out=x.channels, bias=True), last)
                others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))
                last = add(name, Add(activation=draw(activation)), *others, projected)
            case "gate":
                add(f"{name}_mean", Pool(), last)
                gate = Pointwise(out=x.channels, bias=True, activation="hsigmoid")
                last = add(name, Mul(), last, add(f"{name}_gate", gate, f"{name}_mean"))
            case "join":
                others = draw(st.lists(st.sampled_from(beside), min_size=1, max_size=2))
                last = add(name, Concat(), last, *others)
            case "bend":
                last = add(name, Activate(activation=draw(activation)), last)
            case "cut":
                last = add(name, Slice(begin=begin, end=draw(st.integers(begin + 1, x.channels))), last)
            case "deal":
                last = add(name, Shuffle(groups=groups), last)
            case "pool" if min(x[:2]) >= kernel:
                last = add(name, draw(st.sampled_from((MaxPool, MeanPool)))(**slides), last)
    shown = draw(st.sets(st.sampled_from([node.name for node in nodes]), max_size=2))
    add("head", Dense(out=draw(st.integers(1, 40))), add("pool", Pool(), last))
    outputs = [Output("logits", "head", "classes"), Output("features", "pool", "vector")]
    outputs += [Output(f"map of {name}", name, "vector") for name in sorted(shown)]
    return Net("graph", known["image"], tuple(nodes), tuple(outputs))


def divisors(count: int) -> list[int]:
    return [one for one in range(1, 9) if count % one == 0]


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
