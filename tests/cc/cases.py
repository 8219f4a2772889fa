"""The networks that every target is tried on: of the zoo, and any chain of layers."""

from __future__ import annotations

from collections.abc import Callable
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


def everything() -> Net:
    """A net that has each kind of step, on pixels of few channels and of many, some of them outputs."""
    hswish, hsigmoid = {"bias": True, "activation": "hswish"}, {"bias": True, "activation": "hsigmoid"}
    plain, relu = {"bias": True}, {"bias": True, "activation": "relu"}
    layers: list[tuple[str, Op, tuple[str, ...]]] = [
        ("stem", Conv(out=24, stride=2, **hswish), ("image",)),
        ("greatest", MaxPool(kernel=3, stride=2), ("stem",)),
        ("expand", Pointwise(out=88, **hswish), ("greatest",)),
        ("depthwise", Depthwise(kernel=5, **relu), ("expand",)),
        ("mean", Pool(), ("depthwise",)),
        ("reduce", Pointwise(out=8, **relu), ("mean",)),
        ("gate", Pointwise(out=88, **hsigmoid), ("reduce",)),
        ("gated", Mul(), ("depthwise", "gate")),
        ("project", Pointwise(out=24, **plain), ("gated",)),
        ("sum", Add(), ("greatest", "project")),
        ("again", Depthwise(**hswish), ("sum",)),
        ("project2", Pointwise(out=24, groups=3, **plain), ("again",)),
        ("sum2", Add(activation="relu"), ("project2", "sum")),
        ("sum3", Add(activation="relu6"), ("sum2", "sum", "stem2")),
        ("joined", Concat(), ("sum3", "sum", "sum2")),
        ("dealt", Shuffle(groups=3), ("joined",)),
        ("left", Slice(begin=0, end=41), ("dealt",)),
        ("right", Slice(begin=41, end=72), ("dealt",)),
        ("means", MeanPool(kernel=3, stride=2, padding="symmetric"), ("left",)),
        ("means2", MeanPool(kernel=2, stride=2, padding="same"), ("right",)),
        ("both", Concat(), ("means", "means2")),
        ("bent", Activate(activation="hswish"), ("both",)),
        ("grouped", Conv(out=16, groups=2, stride=2, **relu), ("bent",)),
        ("pool", Pool(), ("grouped",)),
        ("head", Dense(out=5), ("pool",)),
    ]
    layers.insert(10, ("stem2", Conv(out=24, stride=2, **plain), ("stem",)))
    outputs = [("logits", "head", "classes"), ("features", "pool", "vector"), ("joined", "joined", "vector")]
    outputs += [("left", "left", "vector"), ("means", "means", "vector"), ("gate", "gate", "vector")]
    nodes = tuple(Node(name, op, inputs) for name, op, inputs in layers)
    return Net("everything", Shape(30, 26, 3), nodes, tuple(Output(*one) for one in outputs))


EVERYTHING = everything()
BLOCKS = Net(
    "blocks",
    Shape(30, 22, 3),
    (
        Node("stem", Conv(out=12, stride=2, bias=True, activation="relu6"), ("image",)),
        Node("expand", Pointwise(out=40, bias=True, activation="relu6"), ("stem",)),
        Node("depthwise", Depthwise(bias=True, activation="relu6"), ("expand",)),
        Node("project", Pointwise(out=20, bias=True), ("depthwise",)),
        Node("expand2", Pointwise(out=70, bias=True, activation="relu6"), ("project",)),
        Node("depthwise2", Depthwise(kernel=5, stride=2, bias=True, activation="relu6"), ("expand2",)),
        Node("project2", Pointwise(out=24, bias=True), ("depthwise2",)),
        Node("pool", Pool(), ("project2",)),
    ),
    (Output("features", "pool", "vector"),),
)
"""Two blocks of the second MobileNet's kind, without a sum."""
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
    """Layers on small maps, some in groups, that are summed up, gated, joined, cut, dealt out and pooled.

    Sums end as integers know them to: with relu, relu6 or nothing.
    """
    known = {"image": Shape(draw(st.integers(7, 19)), draw(st.integers(7, 19)), 3)}
    rectified = st.sampled_from(("none", "relu", "relu6"))
    activation = rectified | st.sampled_from(("hswish", "hsigmoid"))
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
                last = add(name, Add(activation=draw(rectified)), *others, projected)
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


@st.composite
def inverted(draw: st.DrawFn) -> Net:
    """Blocks of the second MobileNet's kind, of any kernel, stride and padding, on maps of many sizes.

    The first may read the image's own layer, with none between that widens it.
    """
    known = {"image": Shape(draw(st.integers(9, 60)), draw(st.integers(9, 60)), 3)}
    activation = st.sampled_from(("none", "relu", "relu6", "hswish"))
    nodes: list[Node] = []

    def add(name: str, op: Op, *sources: str) -> str:
        known[name] = shape_after(op, [known[source] for source in sources])
        nodes.append(Node(name, op, sources))
        return name

    kernel = draw(st.sampled_from((1, 2, 3, 5)))
    last = "image"
    if plain := draw(st.booleans()):
        stem = Conv(
            out=draw(st.integers(1, 40)),
            kernel=kernel,
            stride=draw(st.integers(1, min(2, kernel))),
            padding=draw(st.sampled_from(("same", "symmetric"))),
            bias=True,
            activation=draw(activation),
        )
        last = add("stem", stem if kernel > 1 else Pointwise(out=stem.out, bias=True), last)
    else:
        last = add("stem", Conv(out=draw(st.integers(1, 24)), stride=2, bias=True), last)
    for block in range(draw(st.integers(1, 3))):
        begun = last
        kernel, out = draw(st.sampled_from((1, 2, 3, 5, 7))), draw(st.integers(1, 40))
        stride = draw(st.integers(1, min(2, kernel)))
        padding = draw(st.sampled_from(("same", "symmetric")))
        if block or not plain:
            wide = Pointwise(out=draw(st.integers(1, 70)), bias=True, activation=draw(activation))
            last = add(f"expand{block}", wide, last)
        rest = {"bias": True, "activation": draw(activation)}
        middle = Depthwise(kernel=kernel, stride=stride, padding=padding, **rest)
        last = add(f"depthwise{block}", middle, last)
        again = draw(st.booleans()) and known[last][:2] == known[begun][:2]
        last = add(f"project{block}", Pointwise(out=known[begun].channels if again else out, bias=True), last)
        if again:
            last = add(f"sum{block}", Add(), begun, last)
    add("head", Dense(out=4), add("pool", Pool(), last))
    outputs = Output("logits", "head", "classes"), Output("map", last, "vector")
    return Net("inverted", known["image"], tuple(nodes), outputs)


def divisors(count: int) -> list[int]:
    return [one for one in range(1, 9) if count % one == 0]


@cache
def drawn(count: int, kind: Callable[[], st.SearchStrategy[Net]] = networks) -> list[Artefact]:
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
    @given(net=kind(), seed=st.integers(0, 99))
    def draw(net: Net, seed: int) -> None:
        found.append(filled(net, seed))

    draw()
    return found
