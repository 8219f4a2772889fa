"""The networks of inverted residuals: MobileNet V2, V3 and V4, the way the papers print their tables."""

from __future__ import annotations

from mobilenets.spec.building import Builder, Rounding, check, rounded
from mobilenets.spec.net import Net
from mobilenets.spec.op import Activation, Add, Mul, Padding, Pool

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
V3_STEM = 16
V3Row = tuple[int, int, int, bool, Activation, int]
# MobileNetV3, arXiv:1905.02244, tables 1 and 2: (kernel, expanded, channels, gate, activation, stride) of
# each bottleneck at width 1, then channels of the last convolution and of the vector after the pool.
V3_LARGE: tuple[V3Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hswish", 2),
    (3, 200, 80, False, "hswish", 1),
    (3, 184, 80, False, "hswish", 1),
    (3, 184, 80, False, "hswish", 1),
    (3, 480, 112, True, "hswish", 1),
    (3, 672, 112, True, "hswish", 1),
    (5, 672, 160, True, "hswish", 2),
    (5, 960, 160, True, "hswish", 1),
    (5, 960, 160, True, "hswish", 1),
)
V3_SMALL: tuple[V3Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hswish", 2),
    (5, 240, 40, True, "hswish", 1),
    (5, 240, 40, True, "hswish", 1),
    (5, 120, 48, True, "hswish", 1),
    (5, 144, 48, True, "hswish", 1),
    (5, 288, 96, True, "hswish", 2),
    (5, 576, 96, True, "hswish", 1),
    (5, 576, 96, True, "hswish", 1),
)
V3_LARGE_LAST = (960, 1280)
V3_SMALL_LAST = (576, 1024)
# MobileNetV4, arXiv:2404.10518, tables of MNv4-Conv-S and -Conv-M: convolutions as (kernel, channels,
# stride); fused bottlenecks, expanded by a full convolution, as (kernel, expansion, channels, stride);
# universal ones as (first depthwise kernel, middle one, expansion, channels, stride), 0 for no such layer.
V4_SMALL = (
    *((3, 32, 2), (1, 32, 1), (3, 96, 2), (1, 64, 1)),
    (5, 5, 3, 96, 2),
    *((0, 3, 2, 96, 1),) * 4,
    (3, 0, 4, 96, 1),
    (3, 3, 6, 128, 2),
    (5, 5, 4, 128, 1),
    (0, 5, 4, 128, 1),
    (0, 5, 3, 128, 1),
    *((0, 3, 4, 128, 1),) * 2,
)
V4_MEDIUM = (
    (3, 4, 48, 2),
    (3, 5, 4, 80, 2),
    (3, 3, 2, 80, 1),
    (3, 5, 6, 160, 2),
    *((3, 3, 4, 160, 1),) * 2,
    (3, 5, 4, 160, 1),
    (3, 3, 4, 160, 1),
    (3, 0, 4, 160, 1),
    (0, 0, 2, 160, 1),
    (3, 0, 4, 160, 1),
    (5, 5, 6, 256, 2),
    (5, 5, 4, 256, 1),
    *((3, 5, 4, 256, 1),) * 2,
    (0, 0, 4, 256, 1),
    (3, 0, 4, 256, 1),
    (3, 5, 2, 256, 1),
    (5, 5, 4, 256, 1),
    *((0, 0, 4, 256, 1),) * 2,
    (5, 0, 2, 256, 1),
)
V4_STEM = 32
V4_LAST = (960, 1280)


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
    check(width, resolution, "0.35, 0.5, 0.75, 1.0 and 1.4", "96 to 224")
    made = Builder(resolution, epsilon=epsilon, padding=padding)
    made.conv("stem", rounded(V2_STEM, width, rounding), 3, 2, activation)
    index = 0
    for expansion, channels, repeats, first in V2_ROWS:
        for stride in (first, *(1,) * (repeats - 1)):
            index += 1
            before, out = made.channels, rounded(channels, width, rounding)
            source, block = made.last, f"block{index}"
            if expansion > 1:
                made.pointwise(f"{block}.expand", expansion * before, activation)
            made.depthwise(f"{block}.depthwise", 3, stride, activation)
            made.pointwise(f"{block}.project", out)
            if stride == 1 and out == before:
                made.add(f"{block}.add", Add(), source, made.last)
    made.pointwise("last.pointwise", max(V2_LAST, rounded(V2_LAST, width, rounding)), activation)
    return made.body("v2", width, rounding)


def v3(
    name: str,
    rows: tuple[V3Row, ...],
    last: tuple[int, int],
    width: float,
    resolution: int,
    *,
    minimalistic: bool = False,
    padding: Padding = "same",
    epsilon: float = 1e-3,
) -> Net:
    """The body of a MobileNet V3 (arXiv:1905.02244, tables 1 and 2), of its rows.

    A gate is a mean, a layer of a quarter of the channels, one of all with a hard sigmoid, and a product. The
    features are the vector after the layer behind the pool, which `width` widens and never narrows. A
    `minimalistic` one has no gates, no hard swish and no kernel of 5 (TensorFlow's research/slim/nets).
    """
    check(width, resolution, "0.75 and 1.0", "96 to 256")
    made = Builder(resolution, epsilon=epsilon, padding=padding)
    steep: Activation = "relu" if minimalistic else "hswish"
    made.conv("stem", rounded(V3_STEM, width, "divisible"), 3, 2, steep)
    before_at_one = V3_STEM
    for index, (kernel, expanded, channels, gate, activation, stride) in enumerate(rows, 1):
        block, source, before = f"block{index}", made.last, made.channels
        own: Activation = "relu" if minimalistic else activation
        inner, out = (
            rounded(before * expanded / before_at_one, 1, "divisible"),
            rounded(channels, width, "divisible"),
        )
        if expanded > before_at_one:
            made.pointwise(f"{block}.expand", inner, own)
        made.depthwise(f"{block}.depthwise", 3 if minimalistic else kernel, stride, own)
        if gate and not minimalistic:
            filtered = made.last
            made.add(f"{block}.gate.pool", Pool())
            made.pointwise(f"{block}.gate.reduce", rounded(inner / 4, 1, "divisible"), "relu", norm=False)
            made.pointwise(f"{block}.gate.expand", inner, "hsigmoid", norm=False)
            made.add(f"{block}.gate.product", Mul(), filtered, made.last)
        made.pointwise(f"{block}.project", out)
        if stride == 1 and out == before:
            made.add(f"{block}.add", Add(), source, made.last)
        before_at_one = channels
    made.pointwise("last.pointwise", rounded(last[0], width, "divisible"), steep)
    made.add("pool", Pool())
    made.pointwise("last.vector", rounded(last[1], max(width, 1), "divisible"), steep, norm=False)
    return made.body(name, width)


def v3_large(width: float = 1.0, resolution: int = 224) -> Net:
    """MobileNet V3-Large."""
    return v3("v3-large", V3_LARGE, V3_LARGE_LAST, width, resolution)


def v3_small(width: float = 1.0, resolution: int = 224) -> Net:
    """MobileNet V3-Small."""
    return v3("v3-small", V3_SMALL, V3_SMALL_LAST, width, resolution)


def v3_large_minimalistic(width: float = 1.0, resolution: int = 224) -> Net:
    """MobileNet V3-Large for processors to which gates and hard swishes cost too much."""
    name = "v3-large-minimalistic"
    return v3(name, V3_LARGE, V3_LARGE_LAST, width, resolution, minimalistic=True)


def v3_small_minimalistic(width: float = 1.0, resolution: int = 224) -> Net:
    """MobileNet V3-Small for processors to which gates and hard swishes cost too much."""
    name = "v3-small-minimalistic"
    return v3(name, V3_SMALL, V3_SMALL_LAST, width, resolution, minimalistic=True)


def v4(
    name: str,
    rows: tuple[tuple[int, ...], ...],
    width: float,
    resolution: int,
    *,
    padding: Padding = "same",
    epsilon: float = 1e-3,
) -> Net:
    """The body of a convolutional MobileNet V4 (arXiv:2404.10518), of its rows.

    The stride of a bottleneck is the middle depthwise layer's, or the first's where there is no middle one.
    """
    check(width, resolution, "1.0", "224 to 384")
    made = Builder(resolution, epsilon=epsilon, padding=padding)
    made.conv("stem", rounded(V4_STEM, width, "divisible"), 3, 2, "relu")
    for index, row in enumerate(rows, 1):
        block, source, before = f"block{index}", made.last, made.channels
        *_, channels, stride = row
        out = rounded(channels, width, "divisible")
        if len(row) == 3:
            if row[0] == 1:
                made.pointwise(f"{block}.pointwise", out, "relu")
            else:
                made.conv(f"{block}.conv", out, row[0], stride, "relu")
            continue
        inner = rounded(before * row[-3], 1, "divisible")
        if len(row) == 4:
            made.conv(f"{block}.conv", inner, row[0], stride, "relu")
        else:
            first, middle = row[:2]
            if first:
                made.depthwise(f"{block}.first", first, 1 if middle else stride)
            made.pointwise(f"{block}.expand", inner, "relu")
            if middle:
                made.depthwise(f"{block}.depthwise", middle, stride, "relu")
        made.pointwise(f"{block}.project", out)
        if stride == 1 and out == before:
            made.add(f"{block}.add", Add(), source, made.last)
    made.pointwise("last.pointwise", rounded(V4_LAST[0], width, "divisible"), "relu")
    made.add("pool", Pool())
    made.pointwise("last.vector", rounded(V4_LAST[1], max(width, 1), "divisible"), "relu")
    return made.body(name, width)


def v4_conv_small(width: float = 1.0, resolution: int = 224) -> Net:
    """MobileNet V4, convolutional, small."""
    return v4("v4-conv-small", V4_SMALL, width, resolution)


def v4_conv_medium(width: float = 1.0, resolution: int = 256) -> Net:
    """MobileNet V4, convolutional, medium."""
    return v4("v4-conv-medium", V4_MEDIUM, width, resolution)
