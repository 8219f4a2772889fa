"""The networks by name, written once, the way the papers print their tables."""

from __future__ import annotations

from collections.abc import Callable

from mobilenets.spec import head
from mobilenets.spec.branching import shufflenet_v1, shufflenet_v2, squeezenet_1_0, squeezenet_1_1
from mobilenets.spec.building import Builder, Rounding, as_pytorch, check, rounded
from mobilenets.spec.inverted import (
    v2,
    v3_large,
    v3_large_minimalistic,
    v3_small,
    v3_small_minimalistic,
    v4_conv_medium,
    v4_conv_small,
)
from mobilenets.spec.larger import (
    alexnet,
    efficientnet_b0,
    googlenet,
    inception_v3,
    resnet_50,
    vgg16,
    xception,
)
from mobilenets.spec.net import Net
from mobilenets.spec.op import Activation, Padding

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
    check(width, resolution, "0.25, 0.5, 0.75 and 1.0", "128 to 224")
    made = Builder(resolution, epsilon=epsilon, padding=padding)
    made.conv("stem", rounded(V1_STEM, width, rounding), 3, 2, activation)
    for index, (channels, stride) in enumerate(blocks, 1):
        out = rounded(channels, width, rounding)
        if full:
            made.conv(f"block{index}.conv", out, 3, stride, activation)
            continue
        made.depthwise(f"block{index}.depthwise", 3, stride, activation)
        made.pointwise(f"block{index}.pointwise", out, activation)
    if last:
        made.pointwise("last.pointwise", max(1024, rounded(1024, width, rounding)), activation)
    return made.body(name, width, rounding)


def v1_full(width: float = 1.0, resolution: int = 224) -> Net:
    """The full-convolution MobileNet, the paper's table 4, "Conv MobileNet"."""
    return v1(width, resolution, name="v1-full", full=True)


def v1_shallow(width: float = 1.0, resolution: int = 224) -> Net:
    """The shallow MobileNet, the paper's table 5."""
    return v1(width, resolution, name="v1-shallow", blocks=V1_SHALLOW_BLOCKS)


def v1_cifar(width: float = 1.0, resolution: int = 28) -> Net:
    """The CIFAR MobileNet: eleven separable blocks on 28 × 28 crops of 32 × 32 pictures."""
    return v1(width, resolution, name="v1-cifar", blocks=V1_CIFAR_BLOCKS)


NETS: dict[str, Callable[[float, int], Net]] = {
    "v1": v1,
    "v1-full": v1_full,
    "v1-shallow": v1_shallow,
    "v1-cifar": v1_cifar,
    "v2": v2,
    "v3-large": v3_large,
    "v3-small": v3_small,
    "v3-large-minimalistic": v3_large_minimalistic,
    "v3-small-minimalistic": v3_small_minimalistic,
    "v4-conv-small": v4_conv_small,
    "v4-conv-medium": v4_conv_medium,
    "squeezenet-1.0": squeezenet_1_0,
    "squeezenet-1.1": squeezenet_1_1,
    "shufflenet-v1": shufflenet_v1,
    "shufflenet-v2": shufflenet_v2,
}
DEFAULTS: dict[str, tuple[int, int]] = {
    "v1": (224, 1000),
    "v1-full": (224, 1000),
    "v1-shallow": (224, 1000),
    "v1-cifar": (28, 10),
    "v2": (224, 1000),
    "v3-large": (224, 1000),
    "v3-small": (224, 1000),
    "v3-large-minimalistic": (224, 1000),
    "v3-small-minimalistic": (224, 1000),
    "v4-conv-small": (224, 1000),
    "v4-conv-medium": (256, 1000),
    "squeezenet-1.0": (224, 1000),
    "squeezenet-1.1": (224, 1000),
    "shufflenet-v1": (224, 1000),
    "shufflenet-v2": (224, 1000),
}
"""The resolution and the number of classes each network was published with."""
COUNTED: dict[str, tuple[Callable[[float, int], Net], int]] = {
    "alexnet": (alexnet, 227),
    "vgg16": (vgg16, 224),
    "googlenet": (googlenet, 224),
    "inception-v3": (inception_v3, 299),
    "xception": (xception, 299),
    "resnet-50": (resnet_50, 224),
    "efficientnet-b0": (efficientnet_b0, 224),
}
"""Networks that are counted and no more, with the resolution they were published with."""
IMAGENET_CLASSES = 1000
CONVOLVED = ("squeezenet-1.0", "squeezenet-1.1")
"""Networks whose published classifier is a convolution before the pool."""


def body(name: str, width: float = 1.0, resolution: int | None = None) -> Net:
    """The body called `name`; ValueError lists the names there are."""
    if name in COUNTED:
        raise ValueError(f"{name} is counted and no more; others are {', '.join(NETS)}")
    return _body(name, width, resolution)


def net(name: str, width: float = 1.0, resolution: int | None = None, classes: int | None = None) -> Net:
    """The classifier called `name`, with the published resolution and classes unless told otherwise."""
    made = _body(name, width, resolution)
    if classes is None:
        classes = DEFAULTS[name][1] if name in DEFAULTS else IMAGENET_CLASSES
    return (head.convolved if name in CONVOLVED else head.classify)(made, classes)


def _body(name: str, width: float, resolution: int | None) -> Net:
    known = {**NETS, **{name: make for name, (make, _) in COUNTED.items()}}
    if name not in known:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETS)}")
    published = DEFAULTS[name][0] if name in DEFAULTS else COUNTED[name][1]
    return known[name](width, published if resolution is None else resolution)


def published(name: str, net_name: str, width: float, resolution: int) -> Net:
    """The classifier that weights of this name fill: timm's have layers and roundings of their own."""
    if name.startswith("timm/"):
        own = timm(net_name, width, resolution, last=name.endswith("100h"))
        return head.classify(own, DEFAULTS[net_name][1])
    return net(net_name, width, resolution)


def timm(name: str, width: float, resolution: int, *, last: bool = False) -> Net:
    """The body called `name` as timm builds it; `last` as for `v1`."""
    if name == "v1":
        return as_pytorch(v1(width, resolution, last=last, rounding="divisible"))
    return as_pytorch(body(name, width, resolution))
