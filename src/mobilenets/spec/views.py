"""How far a training picture may stray from what is stored of it, as frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

MOST_OPS = 3
"""Operations of a policy on one picture, at most: each wants numbers of its own to be drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """Two pictures made into one, with both their labels.

    `mixup` (arXiv:1710.09412) and `cutmix` (arXiv:1905.04899) are the α of the Beta distribution that a share
    is drawn from, 0 for none; where both are asked for a picture gets one of them, with even chances.
    `share` of all pictures is mixed.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            _within(f"mix.{name}", getattr(self, name), 0, 100)
        _within("mix.share", self.share, 0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """How far a training picture may stray. Small networks want little of it (arXiv:1704.04861, 3.2).

    A window has at least `least_area` of the stored picture, its proportions change by at most `stretch`,
    and it is resized. With `shift` (for small pictures, such as those of CIFAR) it is cut out instead, of the
    size asked for and with nothing resampled, from the picture with so many pixels of its reflection around
    it; None is for windows. `mirror` is left for right, with even chances.

    `light` (a share of the full scale), `contrast` and `colour` (saturation, and with it hue) are changed by
    at most so much. `policy` operations, three at most, are drawn for each picture from a list
    (arXiv:1909.13719), each by at most `strength`, where 1 is the most. `erase` is the chance of a grey
    rectangle (arXiv:1708.04896).
    """

    least_area: float = 0.35
    stretch: float = 1.5
    shift: int | None = None
    mirror: bool = True
    light: float = 0.1
    contrast: float = 0.1
    colour: float = 0.0
    policy: int = 0
    strength: float = 0.3
    erase: float = 0.0
    mix: Mixing = field(default_factory=Mixing)

    def __post_init__(self) -> None:
        _within("least_area", self.least_area, 0.01, 1)
        _within("stretch", self.stretch, 1, 10)
        _within("policy", self.policy, 0, MOST_OPS)
        for name in ("light", "contrast", "colour", "strength", "erase"):
            _within(name, getattr(self, name), 0, 1)
        if self.shift is not None:
            _within("shift", self.shift, 0, 4096)


def still(views: Views) -> Views:
    """The same way of looking with nothing drawn: what a picture that is judged is seen by.

    All of a picture where there are windows; the middle of it, for draws of ½, where it is shifted.
    """
    return replace(
        Views(least_area=1, stretch=1, mirror=False, light=0, contrast=0),
        shift=None if views.shift is None else 0,
    )


def _within(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"views: {name} must lie in {least:g} … {most:g}, not {value}")
