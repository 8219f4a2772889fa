"""The networks by name, written once, the way the papers print their tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mobilenets.spec import head
from mobilenets.spec.net import Net, Node, Output
from mobilenets.spec.op import Activation, Add, BatchNorm, Conv, Depthwise, Padding, Pointwise, Pool, Shape

Rounding = Literal["slim", "keras", "divisible"]

# MobileNets, arXiv:1704.04861, table 1: (channels, stride) of each separable block after the stem of 32.
V1_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
# The same table without the five 14 × 14 × 512 blocks (its section 4.1, "shallow").
V1_SHALLOW_BLOCKS = V1_BLOCKS[:6] + V1_BLOCKS[11:]
# A published CIFAR-10 study's table: stride 1 down to the last block, on 28 × 28 crops.
V1_CIFAR_BLOCKS = ((64, 1), (128, 1), (256, 1), *((512, 1),) * 6, (1024, 1), (1024, 2))
V1_STEM = 32
# MobileNetV2, arXiv:1801.04381, table 2: (expansion, channels, repeats, stride of the first) of each row of
# bottlenecks between a stem of 32 and the last layer.
V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
V2_STEM = 32
V2_LAST = 1280


def rounded(channels: int, width: float, rule: Rounding) -> int:
    """Channels times the width multiplier, rounded as the source of the weights rounds.

    `slim` truncates but keeps 8 (TensorFlow's slim/nets/mobilenet_v1.py), `keras` truncates
    (keras.applications.mobilenet), `divisible` goes to the nearest multiple of 8 that loses at most a tenth
    (timm, and the V2 paper's code).
    """
    scaled = channels * width
    match rule:
        case "slim":
            return max(int(scaled), 8)
        case "keras":
            return max(int(scaled), 1)
        case "divisible":
            near = max(8, int(scaled + 4) // 8 * 8)
            return near + 8 if near < 0.9 * scaled else near
    raise ValueError(f"unknown rounding rule {rule!r}; known: slim, keras, divisible")


def v1(
    width: float = 1.0,
    resolution: int = 224,
    *,
    blocks: tuple[tuple[int, int], ...] = V1_BLOCKS,
    name: str = "v1",
    full: bool = False,
    last: bool = False,
    rounding: Rounding = "slim",
    padding: Padding = "same",
    activation: Activation = "relu6",
    epsilon: float = 1e-3,
) -> Net:
    """The body of a MobileNet V1 (arXiv:1704.04861, table 1); put a head on it with `head.classify`.

    `full` has one full 3 × 3 convolution where the paper's table 4 replaces each separable block; `last` adds
    a pointwise layer before the pool (timm's `100h`). ValueError for a width or resolution that can't be.
    """
    _check(width, resolution, "0.25, 0.5, 0.75 and 1.0", "128 to 224")
    norm = BatchNorm(epsilon=epsilon)

    def conv(channels: int, stride: int) -> Conv:
        return Conv(out=channels, stride=stride, padding=padding, norm=norm, activation=activation)

    def pointwise(channels: int) -> Pointwise:
        return Pointwise(out=channels, norm=norm, activation=activation)

    nodes = [Node("stem", conv(rounded(V1_STEM, width, rounding), 2), ("image",))]

    def add(node_name: str, op: Conv | Depthwise | Pointwise | Pool) -> None:
        nodes.append(Node(node_name, op, (nodes[-1].name,)))

    for index, (channels, stride) in enumerate(blocks, 1):
        out = rounded(channels, width, rounding)
        if full:
            add(f"block{index}.conv", conv(out, stride))
            continue
        add(
            f"block{index}.depthwise",
            Depthwise(stride=stride, padding=padding, norm=norm, activation=activation),
        )
        add(f"block{index}.pointwise", pointwise(out))
    if last:
        add("last.pointwise", pointwise(max(1024, rounded(1024, width, rounding))))
    add("pool", Pool())
    return Net(
        name=name,
        input=Shape(resolution, resolution, 3),
        nodes=tuple(nodes),
        outputs=(Output("features", "pool", "vector"),),
        width=width,
        rounding=rounding,
    )


def v1_full(width: float = 1.0, resolution: int = 224) -> Net:
    """The full-convolution MobileNet, the paper's table 4, "Conv MobileNet"."""
    return v1(width, resolution, name="v1-full", full=True)


def v1_shallow(width: float = 1.0, resolution: int = 224) -> Net:
    """The shallow MobileNet, the paper's table 5."""
    return v1(width, resolution, name="v1-shallow", blocks=V1_SHALLOW_BLOCKS)


def v1_cifar(width: float = 1.0, resolution: int = 28) -> Net:
    """The CIFAR MobileNet: eleven separable blocks on 28 × 28 crops of 32 × 32 pictures."""
    return v1(width, resolution, name="v1-cifar", blocks=V1_CIFAR_BLOCKS)


def v2(
    width: float = 1.0,
    resolution: int = 224,
    *,
    rounding: Rounding = "divisible",
    padding: Padding = "same",
    activation: Activation = "relu6",
    epsilon: float = 1e-3,
) -> Net:
    """The body of a MobileNet V2 (arXiv:1801.04381, table 2); put a head on it with `head.classify`.

    Each block expands, filters and projects without an activation; where it keeps its map's shape the map is
    added. The last layer is widened with `width` and never narrowed (its section 4). ValueError for a width
    or resolution that can't be.
    """
    _check(width, resolution, "0.35, 0.5, 0.75, 1.0 and 1.4", "96 to 224")
    norm = BatchNorm(epsilon=epsilon)
    stem = Conv(
        out=rounded(V2_STEM, width, rounding), stride=2, padding=padding, norm=norm, activation=activation
    )
    nodes = [Node("stem", stem, ("image",))]

    def add(node_name: str, op: Depthwise | Pointwise | Pool) -> None:
        nodes.append(Node(node_name, op, (nodes[-1].name,)))

    before, index = stem.out, 0
    for expansion, channels, repeats, first in V2_ROWS:
        out = rounded(channels, width, rounding)
        for stride in (first, *(1,) * (repeats - 1)):
            index += 1
            source, block = nodes[-1].name, f"block{index}"
            if expansion > 1:
                add(f"{block}.expand", Pointwise(out=expansion * before, norm=norm, activation=activation))
            filters = Depthwise(stride=stride, padding=padding, norm=norm, activation=activation)
            add(f"{block}.depthwise", filters)
            add(f"{block}.project", Pointwise(out=out, norm=norm))
            if stride == 1 and out == before:
                nodes.append(Node(f"{block}.add", Add(), (source, nodes[-1].name)))
            before = out
    last = max(V2_LAST, rounded(V2_LAST, width, rounding))
    add("last.pointwise", Pointwise(out=last, norm=norm, activation=activation))
    add("pool", Pool())
    return Net(
        name="v2",
        input=Shape(resolution, resolution, 3),
        nodes=tuple(nodes),
        outputs=(Output("features", "pool", "vector"),),
        width=width,
        rounding=rounding,
    )


def _check(width: float, resolution: int, widths: str, resolutions: str) -> None:
    if not 0 < width <= 8:
        raise ValueError(f"width must lie in (0, 8], not {width}; the papers use {widths}")
    if not 1 <= resolution <= 4096:
        raise ValueError(
            f"resolution must lie in 1…4096 pixels, not {resolution}; the papers use {resolutions}"
        )


NETS: dict[str, Callable[[float, int], Net]] = {
    "v1": v1,
    "v1-full": v1_full,
    "v1-shallow": v1_shallow,
    "v1-cifar": v1_cifar,
    "v2": v2,
}
DEFAULTS: dict[str, tuple[int, int]] = {
    "v1": (224, 1000),
    "v1-full": (224, 1000),
    "v1-shallow": (224, 1000),
    "v1-cifar": (28, 10),
    "v2": (224, 1000),
}
"""The resolution and the number of classes each network was published with."""


def body(name: str, width: float = 1.0, resolution: int | None = None) -> Net:
    """The body called `name`; ValueError lists the names there are."""
    if name not in NETS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETS)}")
    return NETS[name](width, DEFAULTS[name][0] if resolution is None else resolution)


def net(name: str, width: float = 1.0, resolution: int | None = None, classes: int | None = None) -> Net:
    """The classifier called `name`, with the published resolution and classes unless told otherwise."""
    made = body(name, width, resolution)
    return head.classify(made, DEFAULTS[name][1] if classes is None else classes)


def published(name: str, net_name: str, width: float, resolution: int) -> Net:
    """The classifier that weights of this name fill: timm's have layers and roundings of their own."""
    if name.startswith("timm/"):
        own = v1(
            width,
            resolution,
            last=name.endswith("100h"),
            rounding="divisible",
            padding="symmetric",
            epsilon=1e-5,
        )
        return head.classify(own, DEFAULTS["v1"][1])
    return net(net_name, width, resolution)
