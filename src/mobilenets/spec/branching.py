"""Small networks whose blocks branch: SqueezeNet and ShuffleNet, the way the papers print their tables."""

from __future__ import annotations

from mobilenets.spec.building import Builder, check, rounded
from mobilenets.spec.net import Net
from mobilenets.spec.op import Add, Concat, MaxPool, MeanPool, Shuffle, Slice

# SqueezeNet, arXiv:1602.07360, table 1: channels (squeezed, expanded by each of two kernels) of fire2 to 9.
FIRES = (
    *((16, 64), (16, 64), (32, 128), (32, 128)),
    *((48, 192), (48, 192), (64, 256), (64, 256)),
)
# Version 1.0 pools after the stem, fire4 and fire8; 1.1 (github.com/forresti/SqueezeNet) after the stem,
# fire3 and fire5, and begins with 64 filters of 3 × 3 in place of 96 of 7 × 7.
SQUEEZENETS = {"squeezenet-1.0": (96, 7, (4, 8)), "squeezenet-1.1": (64, 3, (3, 5))}
# ShuffleNet V1, arXiv:1707.01083, table 1: channels of stage 2 by the number of groups; later stages double.
SHUFFLENET_V1 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
SHUFFLENET_STEM = 24
# Of V1 the stem's channels follow from its table 2: they alone give the multiply-accumulates that it prints.
SHUFFLENET_V1_STEMS = {0.25: 12, 0.5: 12, 1.0: 24, 1.5: 24, 2.0: 48}
UNITS = (4, 8, 4)
"""Of stages 2 to 4, the first of each with a stride of 2 (both papers)."""
# ShuffleNet V2, arXiv:1807.11164, table 5: channels of stages 2 to 4 and of the last layer, by width.
SHUFFLENET_V2 = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}


def squeezenet(name: str, width: float, resolution: int) -> Net:
    """A SqueezeNet's body without bypasses, of biases and no batch norm; its classifier is `head.convolved`.

    Windows of its pools that hang over the edge count ("ceil", as in Caffe).
    """
    check(width, resolution, "1.0", "224 to 227")
    stem, kernel, pooled = SQUEEZENETS[name]
    made = Builder(resolution, epsilon=None, padding="symmetric")
    made.conv("stem", rounded(stem, width, "slim"), kernel, 2, "relu", padding="valid")
    made.add("stem_pool", MaxPool(kernel=3, stride=2, padding="ceil"))
    for number, (squeezed, expanded) in enumerate(FIRES, 2):
        fire, wide = f"fire{number}", rounded(expanded, width, "slim")
        source = made.pointwise(f"{fire}.squeeze", rounded(squeezed, width, "slim"), "relu")
        one = made.pointwise(f"{fire}.expand1", wide, "relu", source=source)
        three = made.conv(f"{fire}.expand3", wide, 3, 1, "relu", source=source)
        made.add(f"{fire}.joined", Concat(), one, three)
        if number in pooled:
            made.add(f"{fire}.pool", MaxPool(kernel=3, stride=2, padding="ceil"))
    return made.body(name, width, "slim")


def squeezenet_1_0(width: float = 1.0, resolution: int = 224) -> Net:
    """SqueezeNet 1.0."""
    return squeezenet("squeezenet-1.0", width, resolution)


def squeezenet_1_1(width: float = 1.0, resolution: int = 224) -> Net:
    """SqueezeNet 1.1: as accurate in 2.4 times fewer multiply-accumulates."""
    return squeezenet("squeezenet-1.1", width, resolution)


def shufflenet_v1(width: float = 1.0, resolution: int = 224, *, groups: int = 3) -> Net:
    """The body of a ShuffleNet V1 (arXiv:1707.01083, table 1).

    A unit narrows to a quarter in groups, deals its channels out, filters, widens in groups; what came in is
    added, or, at stride 2, its means of 3 × 3 are joined. The first of all narrows in one group. Means are
    not below 0, so that the rectifier after such a join stands before it here.
    """
    check(width, resolution, "0.25, 0.5, 1.0, 1.5 and 2.0", "224")
    if groups not in SHUFFLENET_V1:
        raise ValueError(f"groups must be one of {', '.join(map(str, SHUFFLENET_V1))}, not {groups}")
    made = Builder(resolution, epsilon=1e-5, padding="symmetric")
    stem = SHUFFLENET_V1_STEMS.get(width) or _multiple(SHUFFLENET_STEM * width, groups)
    made.conv("stem", stem, 3, 2, "relu")
    made.add("stem_pool", MaxPool(kernel=3, stride=2, padding="symmetric"))
    for stage, units in enumerate(UNITS, 2):
        out = _multiple(SHUFFLENET_V1[groups] * 2 ** (stage - 2) * width, 4 * groups)
        for unit in range(1, units + 1):
            name, source, before = f"stage{stage}.unit{unit}", made.last, made.channels
            stride, first = (2 if unit == 1 else 1), (stage, unit) == (2, 1)
            made.pointwise(f"{name}.reduce", out // 4, "relu", groups=1 if first else groups)
            made.add(f"{name}.shuffle", Shuffle(groups=groups))
            made.depthwise(f"{name}.depthwise", 3, stride)
            if stride == 1:
                widened = made.pointwise(f"{name}.expand", out, groups=groups)
                made.add(f"{name}.add", Add(activation="relu"), source, widened)
                continue
            widened = made.pointwise(f"{name}.expand", out - before, "relu", groups=groups)
            means = made.add(f"{name}.pool", MeanPool(kernel=3, stride=2, padding="symmetric"), source)
            made.add(f"{name}.joined", Concat(), means, widened)
    return made.body("shufflenet-v1", width)


def shufflenet_v2(width: float = 1.0, resolution: int = 224) -> Net:
    """The body of a ShuffleNet V2 (arXiv:1807.11164, table 5).

    A unit leaves half of its channels as they are and filters the others; one of stride 2 filters all, twice.
    Then channels are dealt out. Widths that the paper has not scale those of width 1 to even numbers.
    """
    check(width, resolution, ", ".join(map(str, SHUFFLENET_V2)), "224")
    *stages, last = SHUFFLENET_V2.get(width) or [_even(one * width) for one in SHUFFLENET_V2[1.0]]
    made = Builder(resolution, epsilon=1e-5, padding="symmetric")
    made.conv("stem", SHUFFLENET_STEM, 3, 2, "relu")
    made.add("stem_pool", MaxPool(kernel=3, stride=2, padding="symmetric"))
    for stage, (out, units) in enumerate(zip(stages, UNITS, strict=True), 2):
        for unit in range(1, units + 1):
            name, source = f"stage{stage}.unit{unit}", made.last
            stride, half = (2 if unit == 1 else 1), out // 2
            if stride == 2:
                made.depthwise(f"{name}.left.depthwise", 3, 2)
                left = made.pointwise(f"{name}.left.pointwise", half, "relu")
                made.last = source
            else:
                left = made.add(f"{name}.left", Slice(begin=0, end=half), source)
                made.add(f"{name}.right", Slice(begin=half, end=out), source)
            made.pointwise(f"{name}.reduce", half, "relu")
            made.depthwise(f"{name}.depthwise", 3, stride)
            right = made.pointwise(f"{name}.expand", half, "relu")
            made.add(f"{name}.joined", Concat(), left, right)
            made.add(f"{name}.shuffle", Shuffle(groups=2))
    made.pointwise("last.pointwise", last, "relu")
    return made.body("shufflenet-v2", width)


def _even(channels: float) -> int:
    return _multiple(channels, 2)


def _multiple(channels: float, of: int) -> int:
    return max(of, round(channels / of) * of)
