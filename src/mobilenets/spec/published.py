"""Every known set of weights: its home, its licence, its published score; and what was printed of networks.

Two files are in this package, the others at their homes. A SHA-256 stands here only where a source that can
be cited gives it; None means that the first download is recorded and held to.
"""

from __future__ import annotations

from dataclasses import dataclass

TIMM_SCORES = "timm README, July and August 2024 (https://github.com/huggingface/pytorch-image-models)"
KERAS_SCORES = "https://keras.io/api/applications/"
TIMM_TABLE = (
    "timm results/results-imagenet.csv at 0173a139 (https://github.com/huggingface/pytorch-image-models)"
)
TIMM_V4_SCORES = "timm README, June 2024 (https://github.com/huggingface/pytorch-image-models)"
SLIM = "tensorflow/models, research/slim/nets (mobilenet_v1.md, mobilenet/README.md): ImageNet"
SLIM_LARGER = "tensorflow/models, research/slim/README.md"
V1_PAPER = "arXiv:1704.04861"
V3_PAPER = "arXiv:1905.02244, table 3"
V4_PAPER = "arXiv:2404.10518, table of ImageNet"
MEGVII = "megvii-model/ShuffleNet-Series, README.md (V1 in three groups)"
UNPINNED = "main"
"""The revision of a home of which no source tells one: its first download is recorded and held to."""
PACKAGE = "package:"
"""What the address of a file begins with that comes with this package, in its folder `bodies`."""
HUB = "https://huggingface.co/timm/{repository}/resolve/{revision}/model.safetensors"
KERAS_HOME = "https://storage.googleapis.com/tensorflow/keras-applications/"


@dataclass(frozen=True, slots=True)
class Published:
    """One set of weights. `top1` is a fraction on ImageNet's validation set at `resolution`, None where its
    makers print none; `top1_source` says who measured it. `needs` names a package that reading the file
    takes."""

    name: str
    net: str
    width: float
    resolution: int
    url: str
    licence: str
    top1: float | None
    top1_source: str
    sha256: str | None = None
    needs: str | None = None

    @property
    def packaged(self) -> bool:
        """Whether its file comes with this package."""
        return self.url.startswith(PACKAGE)

    @property
    def file(self) -> str:
        """The file's name in a cache: different for each set, with Keras' own name inside."""
        home, _, name = self.name.partition("/")
        return f"{home}--{self.url.rpartition('/')[2] if self.url.endswith('.h5') else f'{name}.safetensors'}"


def _timm(
    model: str,
    revision: str,
    width: float,
    top1: float,
    *,
    net: str = "v1",
    recipe: str = "ra4_e3600_r224_in1k",
    resolution: int = 224,
    source: str = TIMM_SCORES,
) -> Published:
    repository = f"{model}.{recipe}"
    return Published(
        name=f"timm/{model}",
        net=net,
        width=width,
        resolution=resolution,
        url=HUB.format(repository=repository, revision=revision),
        licence="Apache-2.0",
        top1=top1,
        top1_source=source,
    )


def _keras(
    net: str, width: float, resolution: int, name: str, file: str, top1: float | None = None
) -> Published:
    # Keras prints a score of V1 and one of V2. Its docstrings repeat the papers', of other weights.
    return Published(
        name=f"keras/{name}",
        net=net,
        width=width,
        resolution=resolution,
        url=f"{KERAS_HOME}{file}",
        licence="Apache-2.0",
        top1=top1,
        top1_source="none published for this file" if top1 is None else KERAS_SCORES,
        needs="h5py",
    )


def _keras_v1(text: str, width: float, resolution: int) -> Published:
    name, only = f"mobilenet_{text}_{resolution}", (width, resolution) == (1.0, 224)
    return _keras("v1", width, resolution, name, f"mobilenet/{name}_tf.h5", 0.704 if only else None)


def _keras_v2(width: float, resolution: int) -> Published:
    size, only = f"{width}_{resolution}", (width, resolution) == (1.0, 224)
    file = f"mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{size}.h5"
    return _keras("v2", width, resolution, f"mobilenet_v2_{size}", file, 0.713 if only else None)


def _keras_v3(net: str, width: float) -> Published:
    size = f"{net.removeprefix('v3-').replace('-', '_')}_224_{width}_float"
    name = f"mobilenet_v3_{size}"
    return _keras(net, width, 224, name, f"mobilenet_v3/weights_{name}.h5")


def _own(width: float, resolution: int) -> Published:
    name = f"v1-{width:g}-{resolution}"
    return Published(
        name=f"mobilenets/{name}",
        net="v1",
        width=width,
        resolution=resolution,
        url=f"{PACKAGE}{name}.safetensors",
        licence="Apache-2.0",
        top1=None,
        top1_source="a body without ImageNet's classes; docs/recipes.md says what it is worth",
    )


PUBLISHED: tuple[Published, ...] = (
    _timm("mobilenetv1_100", "636812647d7a669e4ce6d6d367f27c8ee71155f6", 1.0, 0.75382),
    _timm("mobilenetv1_100h", "4e5c43a75f7228dba980b456f80de3611a7bf819", 1.0, 0.75662),
    _timm("mobilenetv1_125", "c59613f4f7c8154cc48d2c1c1d02007751309983", 1.25, 0.76924),
    _timm(
        *("mobilenetv2_100", "f3ff81ba89de0bc46b546568ebeab2edef6b9d49", 1.0, 0.72976),
        net="v2",
        recipe="ra_in1k",
        source=TIMM_TABLE,
    ),
    _timm("mobilenetv2_140", UNPINNED, 1.4, 0.7652, net="v2", recipe="ra_in1k", source=TIMM_TABLE),
    _timm("mobilenetv2_050", UNPINNED, 0.5, 0.6595, net="v2", recipe="lamb_in1k", source=TIMM_TABLE),
    _timm(
        *("mobilenetv3_large_100", "6bb94b5210be33364f802aa99ef7109990a86c5f", 1.0, 0.75766),
        net="v3-large",
        recipe="ra_in1k",
        source=TIMM_TABLE,
    ),
    *(
        _timm(name, UNPINNED, width, top1, net="v3-small", recipe="lamb_in1k", source=TIMM_TABLE)
        for name, width, top1 in (
            ("mobilenetv3_small_100", 1.0, 0.67656),
            ("mobilenetv3_small_075", 0.75, 0.65234),
        )
    ),
    _timm(
        *("mobilenetv4_conv_small", "62da402ab468e9f1581764050d6be51fda8a35f0", 1.0, 0.73756),
        net="v4-conv-small",
        recipe="e2400_r224_in1k",
        source=TIMM_V4_SCORES,
    ),
    _timm(
        *("mobilenetv4_conv_medium", "d0d670186c88bde4016f9a23e22bf8ed02f41d05", 1.0, 0.79928),
        net="v4-conv-medium",
        recipe="e500_r256_in1k",
        resolution=256,
        source=TIMM_V4_SCORES,
    ),
    *(
        _keras_v1(text, width, resolution)
        for text, width in (("1_0", 1.0), ("7_5", 0.75), ("5_0", 0.5), ("2_5", 0.25))
        for resolution in (224, 192, 160, 128)
    ),
    *(
        _keras_v2(width, resolution)
        for width in (1.4, 1.3, 1.0, 0.75, 0.5, 0.35)
        for resolution in ((224, 192, 160, 128, 96) if width <= 1 else (224,))
    ),
    *(
        _keras_v3(f"{net}{form}", width)
        for net in ("v3-large", "v3-small")
        for form, width in (("", 1.0), ("", 0.75), ("-minimalistic", 1.0))
    ),
    _own(0.25, 128),
    _own(0.5, 128),
)


def by_name(name: str) -> Published:
    """The set called `name`. Raises KeyError with the nearest names."""
    for entry in PUBLISHED:
        if entry.name == name:
            return entry
    raise KeyError(f"no weights are called {name!r}; known: {', '.join(entry.name for entry in PUBLISHED)}")


def for_net(net: str, width: float, resolution: int) -> list[Published]:
    """Sets that fit a network of this width, the nearest resolution first, the better score first among
    equals; those of this package stand in for these, and are not among them.

    timm's `100h` is left out: it has a layer that `v1` has not.
    """
    fits = [e for e in PUBLISHED if e.net == net and e.width == width and not e.packaged]
    fits = [e for e in fits if not e.name.endswith("100h")]
    return sorted(fits, key=lambda e: (abs(e.resolution - resolution), -(e.top1 or 0.0)))


def stand_in(net: str, width: float | None) -> Published | None:
    """The set of this package for a network of this width, the widest for None; None without one."""
    fits = [e for e in PUBLISHED if e.packaged and e.net == net and width in (None, e.width)]
    return max(fits, key=lambda e: e.width, default=None)


@dataclass(frozen=True, slots=True)
class Score:
    """What was printed of a network, weights or none: top-1 on one crop of ImageNet's validation pictures.

    `top1` is a fraction, in float32; `int8` that of what the same source quantised. None is where no figure
    was found that is surely of this network.
    """

    net: str
    width: float
    resolution: int
    top1: float | None
    source: str
    int8: float | None = None


# Top-1 from the resolutions of the first line down, of the source `SLIM`.
_RESOLUTIONS = (224, 192, 160, 128, 96)
_V1 = {
    1.0: (0.709, 0.700, 0.680, 0.652),
    0.75: (0.684, 0.672, 0.653, 0.621),
    0.5: (0.633, 0.617, 0.591, 0.563),
    0.25: (0.498, 0.477, 0.455, 0.415),
}
_V1_INT8 = {
    1.0: (0.697, 0.690, 0.673, 0.640),
    0.75: (0.679, 0.662, 0.639, 0.598),
    0.5: (0.622, 0.604, 0.577, 0.549),
    0.25: (0.482, 0.458, 0.435, 0.399),
}
_V2 = {
    1.4: (0.750,),
    1.3: (0.744,),
    1.0: (0.718, 0.707, 0.688, 0.653, 0.603),
    0.75: (0.698, 0.687, 0.664, 0.632, 0.588),
    0.5: (0.654, 0.639, 0.610, 0.577, 0.512),
    0.35: (0.603, 0.582, 0.557, 0.508, 0.455),
}
SCORES: tuple[Score, ...] = (
    *(
        Score("v1", width, side, top1, SLIM, int8)
        for width, row in _V1.items()
        for side, top1, int8 in zip(_RESOLUTIONS, row, _V1_INT8[width], strict=False)
    ),
    Score("v1-full", 1.0, 224, 0.717, f"{V1_PAPER}, table 4"),
    Score("v1-shallow", 1.0, 224, 0.653, f"{V1_PAPER}, table 5"),
    *(
        Score("v2", width, side, top1, SLIM)
        for width, row in _V2.items()
        for side, top1 in zip(_RESOLUTIONS, row, strict=False)
    ),
    Score("v3-large", 1.0, 224, 0.752, f"{V3_PAPER}; int8: {SLIM}", 0.739),
    Score("v3-large", 0.75, 224, 0.733, V3_PAPER),
    # Slim's table has another V3 small, of 66 million multiply-accumulates and 2.9 million parameters.
    Score("v3-small", 1.0, 224, 0.674, V3_PAPER),
    Score("v3-small", 0.75, 224, 0.654, V3_PAPER),
    Score("v3-large-minimalistic", 1.0, 224, 0.723, SLIM, 0.713),
    # Printed with 65 million multiply-accumulates and 2.0 million parameters; we count 52 and 2.04.
    Score("v3-small-minimalistic", 1.0, 224, 0.619, SLIM),
    Score("v4-conv-small", 1.0, 224, 0.738, V4_PAPER),
    Score("v4-conv-medium", 1.0, 256, 0.799, V4_PAPER),
    Score("squeezenet-1.0", 1.0, 224, 0.575, "arXiv:1602.07360, table 2"),
    Score("squeezenet-1.1", 1.0, 224, 0.58178, "torchvision, SqueezeNet1_1_Weights"),
    Score("shufflenet-v1", 0.25, 224, None, "no figure was found of this width in three groups"),
    *(
        Score(net, width, 224, top1, MEGVII)
        for net, row in (
            ("shufflenet-v1", {0.5: 0.573, 1.0: 0.678, 1.5: 0.716, 2.0: 0.741}),
            ("shufflenet-v2", {0.5: 0.611, 1.0: 0.694, 1.5: 0.726, 2.0: 0.750}),
        )
        for width, top1 in row.items()
    ),
    Score("alexnet", 1.0, 227, 0.572, f"{V1_PAPER}, table 9"),
    Score("vgg16", 1.0, 224, 0.715, SLIM_LARGER),
    Score("googlenet", 1.0, 224, 0.698, SLIM_LARGER),
    Score("inception-v3", 1.0, 299, 0.780, SLIM_LARGER),
    Score("xception", 1.0, 299, 0.790, "arXiv:1610.02357, table 1"),
    Score("resnet-50", 1.0, 224, 0.752, SLIM_LARGER),
    Score("efficientnet-b0", 1.0, 224, 0.771, KERAS_SCORES),
)
"""Of each network of the zoo the sizes that figures were printed of, the largest first."""
