"""Every known set of weights: its home, its licence, and the score that was published for it.

Two files are in this package. A SHA-256 stands here only where a source that can be cited gives it; None
means that the first download is recorded and held to.
"""

from __future__ import annotations

from dataclasses import dataclass

TIMM_SCORES = "timm README, July and August 2024 (https://github.com/huggingface/pytorch-image-models)"
KERAS_SCORES = "https://keras.io/api/applications/"
TIMM_TABLE = (
    "timm results/results-imagenet.csv at 0173a139 (https://github.com/huggingface/pytorch-image-models)"
)
TIMM_V4_SCORES = "timm README, June 2024 (https://github.com/huggingface/pytorch-image-models)"
UNPINNED = "main"
"""The revision of a home of which no source tells one: its first download is recorded and held to."""
PACKAGE = "package:"
"""What the address of a file begins with that comes with this package, in its folder `bodies`."""
HUB = "https://huggingface.co/timm/{repository}/resolve/{revision}/model.safetensors"
KERAS_HOME = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet/"


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
        return f"{self.name.partition('/')[0]}--{self.name.partition('/')[2]}{self._suffix}"

    @property
    def _suffix(self) -> str:
        return "_tf.h5" if self.url.endswith(".h5") else ".safetensors"


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


def _keras(text: str, width: float, resolution: int) -> Published:
    # Keras prints one score for the sixteen; its docstring repeats the paper's, which other weights reached.
    only = (width, resolution) == (1.0, 224)
    return Published(
        name=f"keras/mobilenet_{text}_{resolution}",
        net="v1",
        width=width,
        resolution=resolution,
        url=f"{KERAS_HOME}mobilenet_{text}_{resolution}_tf.h5",
        licence="Apache-2.0",
        top1=0.704 if only else None,
        top1_source=KERAS_SCORES if only else "none published for this file",
        needs="h5py",
    )


def _own(width: float, resolution: int) -> Published:
    name = f"v1-{width:g}-{resolution}"
    return Published(
        name=f"mobilenets/{name}",
        net="v1",
        width=width,
        resolution=resolution,
        url=f"{PACKAGE}{name}.safetensors",
        licence="apache-2.0",
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
        _keras(text, width, resolution)
        for text, width in (("1_0", 1.0), ("7_5", 0.75), ("5_0", 0.5), ("2_5", 0.25))
        for resolution in (224, 192, 160, 128)
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
