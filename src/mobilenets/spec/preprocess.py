"""How a picture becomes a network's input, as data that travels inside every model file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Geometry = Literal["crop", "stretch", "letterbox"]
LEAST_STD = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """EXIF turn, RGB, geometry, antialiased triangle resize, then (pixel − mean) / std.

    `crop` takes the centred square of `fraction` × the short side, `stretch` takes all of the picture and
    gives up its proportions, `letterbox` keeps all of it and its proportions and fills with `fill`. `mean`
    and `std` are in pixel levels, 0 to 255.
    """

    height: int
    width: int
    geometry: Geometry = "crop"
    fraction: float = 0.875
    fill: int = 128
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)

    def __post_init__(self) -> None:
        if not (1 <= self.height <= 4096 and 1 <= self.width <= 4096):
            raise ValueError(f"preprocessing to {self.height} × {self.width}: sides must lie in 1…4096")
        if self.geometry not in ("crop", "stretch", "letterbox"):
            raise ValueError(f"unknown geometry {self.geometry!r}; known: crop, stretch, letterbox")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"the crop's fraction must lie in (0, 1], not {self.fraction}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"the letterbox's fill must lie in 0…255, not {self.fill}")
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) >= LEAST_STD:
            raise ValueError(f"mean and std must be three numbers each, std at least {LEAST_STD}")


SLIM = Preprocess(height=224, width=224)
"""TensorFlow slim's and Keras' V1: pixels to −1…1, centre crop of 0.875."""

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
"""Of ImageNet's pixels, red, green, blue, in levels: what torchvision and most of timm normalise with."""


def box(pre: Preprocess, height: int, width: int) -> tuple[int, int, int, int]:
    """The part of a height × width picture that is read, as (top, left, height, width), in whole pixels."""
    if pre.geometry != "crop":
        return 0, 0, height, width
    short = min(height, width)
    aspect = pre.height / pre.width
    # The largest centred window of the target's proportions, times the fraction.
    tall = min(height, round(width * aspect)) if aspect != 1 else short
    wide = min(width, round(height / aspect)) if aspect != 1 else short
    tall = max(1, int(tall * pre.fraction + 0.5))
    wide = max(1, int(wide * pre.fraction + 0.5))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


def fitted(pre: Preprocess, height: int, width: int) -> tuple[int, int, int, int]:
    """Where the read part lies in the target, (top, left, height, width): all of it but for a letterbox."""
    if pre.geometry != "letterbox":
        return 0, 0, pre.height, pre.width
    if height * pre.width >= width * pre.height:
        tall, wide = pre.height, max(1, (2 * width * pre.height + height) // (2 * height))
    else:
        tall, wide = max(1, (2 * height * pre.width + width) // (2 * width)), pre.width
    return (pre.height - tall) // 2, (pre.width - wide) // 2, tall, wide
