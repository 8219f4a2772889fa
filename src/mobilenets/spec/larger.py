"""Networks that small ones are compared with, to be counted: nobody trains or compiles them here.

Side heads and local response normalisation, which has no weights, are left out.
"""

from __future__ import annotations

from mobilenets.spec.building import Builder, check, rounded
from mobilenets.spec.net import Net
from mobilenets.spec.op import Activate, Activation, Add, Concat, MaxPool, MeanPool, Mul, Padding, Pool

# VGG, arXiv:1409.1556, table 1, D: (channels, convolutions) before each pool.
VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
# GoogLeNet, arXiv:1409.4842, table 1: 1 × 1, 3 × 3 reduced and made, 5 × 5 reduced and made, projection.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
# ResNet, arXiv:1512.03385, table 1: (narrow channels, blocks) of each stage of ResNet-50.
RESNET_50 = ((64, 3), (128, 4), (256, 6), (512, 3))
# EfficientNet, arXiv:1905.11946, table 1: (expansion, kernel, channels, blocks, stride of the first).
EFFICIENTNET_B0 = (
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
)


def alexnet(width: float = 1.0, resolution: int = 227) -> Net:
    """AlexNet (Krizhevsky, Sutskever and Hinton, 2012), both halves of it, with the groups they make."""
    made = _begun(width, resolution, None, "valid")
    made.conv("conv1", _wide(96, width), 11, 4, "relu")
    made.add("pool1", MaxPool(kernel=3, stride=2, padding="valid"))
    made.conv("conv2", _wide(256, width), 5, 1, "relu", padding="symmetric", groups=2)
    made.add("pool2", MaxPool(kernel=3, stride=2, padding="valid"))
    made.conv("conv3", _wide(384, width), 3, 1, "relu", padding="symmetric")
    made.conv("conv4", _wide(384, width), 3, 1, "relu", padding="symmetric", groups=2)
    made.conv("conv5", _wide(256, width), 3, 1, "relu", padding="symmetric", groups=2)
    made.add("pool5", MaxPool(kernel=3, stride=2, padding="valid"))
    return _dense(made, "alexnet", width)


def vgg16(width: float = 1.0, resolution: int = 224) -> Net:
    """VGG-16 (arXiv:1409.1556, table 1, D)."""
    made = _begun(width, resolution, None, "same")
    for stage, (channels, convolutions) in enumerate(VGG16, 1):
        for index in range(1, convolutions + 1):
            made.conv(f"conv{stage}_{index}", _wide(channels, width), 3, 1, "relu")
        made.add(f"pool{stage}", MaxPool(kernel=2, stride=2, padding="valid"))
    return _dense(made, "vgg16", width)


def googlenet(width: float = 1.0, resolution: int = 224) -> Net:
    """GoogLeNet (arXiv:1409.4842, table 1), without batch norm, as it was published."""
    made = _begun(width, resolution, None, "same")
    made.conv("conv1", _wide(64, width), 7, 2, "relu")
    made.add("pool1", MaxPool(kernel=3, stride=2))
    made.pointwise("conv2.reduce", _wide(64, width), "relu")
    made.conv("conv2.conv", _wide(192, width), 3, 1, "relu")
    made.add("pool2", MaxPool(kernel=3, stride=2))
    for name, channels in INCEPTIONS.items():
        one, reduced3, three, reduced5, five, projected = (_wide(each, width) for each in channels)
        block, source = f"inception{name}", made.last
        ends = [made.pointwise(f"{block}.one", one, "relu", source=source)]
        made.pointwise(f"{block}.reduce3", reduced3, "relu", source=source)
        ends.append(made.conv(f"{block}.three", three, 3, 1, "relu"))
        made.pointwise(f"{block}.reduce5", reduced5, "relu", source=source)
        ends.append(made.conv(f"{block}.five", five, 5, 1, "relu"))
        made.add(f"{block}.pool", MaxPool(kernel=3), source)
        ends.append(made.pointwise(f"{block}.projected", projected, "relu"))
        made.add(f"{block}.joined", Concat(), *ends)
        if name in ("3b", "4e"):
            made.add(f"pool{name[0]}", MaxPool(kernel=3, stride=2))
    return made.body("googlenet", width)


def inception_v3(width: float = 1.0, resolution: int = 299) -> Net:
    """Inception V3 (arXiv:1512.00567, table 1 and figures 5 to 7; filters of TensorFlow's research/slim)."""
    made = _begun(width, resolution, 1e-3, "same")

    def conv(name: str, out: int, tall: int, wide: int = 0, *, stride: int = 1, source: str = "") -> str:
        out = _wide(out, width)
        if tall == (wide or tall) == 1:
            return made.pointwise(name, out, "relu", source=source)
        padding: Padding = "valid" if stride == 2 or name in ("conv2a", "conv4a") else "same"
        return made.conv(name, out, tall, stride, "relu", padding=padding, source=source, across=wide or None)

    conv("conv1a", 32, 3, stride=2)
    conv("conv2a", 32, 3)
    conv("conv2b", 64, 3)
    made.add("pool3a", MaxPool(kernel=3, stride=2, padding="valid"))
    conv("conv3b", 80, 1)
    conv("conv4a", 192, 3)
    made.add("pool5a", MaxPool(kernel=3, stride=2, padding="valid"))
    for name, projected in (("5b", 32), ("5c", 64), ("5d", 64)):
        source, ends = made.last, []
        ends.append(conv(f"mixed{name}.one", 64, 1, source=source))
        conv(f"mixed{name}.reduce5", 48, 1, source=source)
        ends.append(conv(f"mixed{name}.five", 64, 5))
        conv(f"mixed{name}.reduce3", 64, 1, source=source)
        conv(f"mixed{name}.three_a", 96, 3)
        ends.append(conv(f"mixed{name}.three_b", 96, 3))
        made.add(f"mixed{name}.pool", MeanPool(kernel=3), source)
        ends.append(conv(f"mixed{name}.projected", projected, 1))
        made.add(f"mixed{name}.joined", Concat(), *ends)
    source = made.last
    ends = [conv("mixed6a.three", 384, 3, stride=2, source=source)]
    conv("mixed6a.reduce", 64, 1, source=source)
    conv("mixed6a.three_a", 96, 3)
    ends.append(conv("mixed6a.three_b", 96, 3, stride=2))
    ends.append(made.add("mixed6a.pool", MaxPool(kernel=3, stride=2, padding="valid"), source))
    made.add("mixed6a.joined", Concat(), *ends)
    for name, inner in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        source = made.last
        ends = [conv(f"mixed{name}.one", 192, 1, source=source)]
        conv(f"mixed{name}.reduce7", inner, 1, source=source)
        conv(f"mixed{name}.seven_a", inner, 1, 7)
        ends.append(conv(f"mixed{name}.seven_b", 192, 7, 1))
        conv(f"mixed{name}.reduce", inner, 1, source=source)
        for letter, tall, wide in (("a", 7, 1), ("b", 1, 7), ("c", 7, 1)):
            conv(f"mixed{name}.deep_{letter}", inner, tall, wide)
        ends.append(conv(f"mixed{name}.deep_d", 192, 1, 7))
        made.add(f"mixed{name}.pool", MeanPool(kernel=3), source)
        ends.append(conv(f"mixed{name}.projected", 192, 1))
        made.add(f"mixed{name}.joined", Concat(), *ends)
    source = made.last
    conv("mixed7a.reduce3", 192, 1, source=source)
    ends = [conv("mixed7a.three", 320, 3, stride=2)]
    conv("mixed7a.reduce7", 192, 1, source=source)
    conv("mixed7a.seven_a", 192, 1, 7)
    conv("mixed7a.seven_b", 192, 7, 1)
    ends.append(conv("mixed7a.seven_c", 192, 3, stride=2))
    ends.append(made.add("mixed7a.pool", MaxPool(kernel=3, stride=2, padding="valid"), source))
    made.add("mixed7a.joined", Concat(), *ends)
    for name in ("7b", "7c"):
        source = made.last
        ends = [conv(f"mixed{name}.one", 320, 1, source=source)]
        split = conv(f"mixed{name}.reduce3", 384, 1, source=source)
        ends += [
            conv(f"mixed{name}.wide", 384, 1, 3, source=split),
            conv(f"mixed{name}.tall", 384, 3, 1, source=split),
        ]
        conv(f"mixed{name}.reduce", 448, 1, source=source)
        split = conv(f"mixed{name}.three", 384, 3)
        ends += [
            conv(f"mixed{name}.deep_wide", 384, 1, 3, source=split),
            conv(f"mixed{name}.deep_tall", 384, 3, 1, source=split),
        ]
        made.add(f"mixed{name}.pool", MeanPool(kernel=3), source)
        ends.append(conv(f"mixed{name}.projected", 192, 1))
        made.add(f"mixed{name}.joined", Concat(), *ends)
    return made.body("inception-v3", width)


def xception(width: float = 1.0, resolution: int = 299) -> Net:
    """Xception (arXiv:1610.02357, figure 5)."""
    made = _begun(width, resolution, 1e-3, "same")

    def separable(name: str, out: int, before: bool, after: Activation = "none") -> str:
        if before:
            made.add(f"{name}.relu", Activate(activation="relu"))
        made.depthwise(f"{name}.depthwise", norm=False)
        return made.pointwise(f"{name}.pointwise", _wide(out, width), after)

    made.conv("conv1", _wide(32, width), 3, 2, "relu", padding="valid")
    made.conv("conv2", _wide(64, width), 3, 1, "relu", padding="valid")
    for index, channels in enumerate((128, 256, 728, 1024), 1):
        block, source = f"down{index}", made.last
        separable(f"{block}.first", 728 if channels == 1024 else channels, before=index > 1)
        separable(f"{block}.second", channels, before=True)
        inner = made.add(f"{block}.pool", MaxPool(kernel=3, stride=2))
        beside = made.conv(f"{block}.beside", _wide(channels, width), 1, 2, source=source)
        made.add(f"{block}.add", Add(), inner, beside)
        if index == 3:
            for number in range(1, 9):
                source = made.last
                for each in ("first", "second", "third"):
                    separable(f"middle{number}.{each}", 728, before=True)
                made.add(f"middle{number}.add", Add(), source, made.last)
    separable("last.first", 1536, False, "relu")
    separable("last.second", 2048, False, "relu")
    return made.body("xception", width)


def resnet_50(width: float = 1.0, resolution: int = 224) -> Net:
    """ResNet-50 (arXiv:1512.03385, table 1), strides in the first layer of a block, as it was published."""
    made = _begun(width, resolution, 1e-5, "symmetric")
    made.conv("conv1", _wide(64, width), 7, 2, "relu")
    made.add("pool1", MaxPool(kernel=3, stride=2, padding="symmetric"))
    for stage, (narrow, blocks) in enumerate(RESNET_50, 2):
        for index in range(1, blocks + 1):
            block, source = f"stage{stage}.block{index}", made.last
            stride = 2 if index == 1 and stage > 2 else 1
            made.conv(f"{block}.reduce", _wide(narrow, width), 1, stride, "relu")
            made.conv(f"{block}.conv", _wide(narrow, width), 3, 1, "relu")
            inner = made.pointwise(f"{block}.expand", _wide(4 * narrow, width))
            if index == 1:
                source = made.conv(f"{block}.beside", _wide(4 * narrow, width), 1, stride, source=source)
            made.add(f"{block}.add", Add(activation="relu"), source, inner)
    return made.body("resnet-50", width)


def efficientnet_b0(width: float = 1.0, resolution: int = 224) -> Net:
    """EfficientNet-B0 (arXiv:1905.11946, table 1); gates narrow to a quarter of what comes into a block."""
    made = _begun(width, resolution, 1e-3, "same")
    made.conv("stem", rounded(32, width, "divisible"), 3, 2, "swish")
    for stage, (expansion, kernel, channels, blocks, first) in enumerate(EFFICIENTNET_B0, 2):
        for index in range(1, blocks + 1):
            block, source, before = f"stage{stage}.block{index}", made.last, made.channels
            stride, out = (first if index == 1 else 1), rounded(channels, width, "divisible")
            if expansion > 1:
                made.pointwise(f"{block}.expand", expansion * before, "swish")
            filtered = made.depthwise(f"{block}.depthwise", kernel, stride, "swish")
            made.add(f"{block}.gate.pool", Pool())
            made.pointwise(f"{block}.gate.reduce", max(1, before // 4), "swish", norm=False)
            made.pointwise(f"{block}.gate.expand", expansion * before, "sigmoid", norm=False)
            made.add(f"{block}.gate.product", Mul(), filtered, made.last)
            made.pointwise(f"{block}.project", out)
            if stride == 1 and out == before:
                made.add(f"{block}.add", Add(), source, made.last)
    made.pointwise("last.pointwise", rounded(1280, width, "divisible"), "swish")
    return made.body("efficientnet-b0", width)


def _begun(width: float, resolution: int, epsilon: float | None, padding: Padding) -> Builder:
    check(width, resolution, "1.0", "224 to 299")
    return Builder(resolution, epsilon=epsilon, padding=padding)


def _wide(channels: int, width: float) -> int:
    return channels if width == 1 else rounded(channels, width, "divisible")


def _dense(made: Builder, name: str, width: float) -> Net:
    """Two dense layers of 4096, the first over the whole map: as convolutions, which compute the same."""
    made.conv("dense6", _wide(4096, width), made.shape.height, 1, "relu", padding="valid")
    made.pointwise("dense7", _wide(4096, width), "relu")
    return made.body(name, width)
