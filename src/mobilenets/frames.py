"""Frames to try a network on: a user's pictures, or road signs drawn here."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np

from mobilenets.data.signs import FACES, sign
from mobilenets.infer.image import ImageError, decode
from mobilenets.infer.resize import Frame
from mobilenets.pictures import pictures

FRAMES = 16
SIDES = (160, 480)


def frames(images: Path | None) -> tuple[list[Frame], str]:
    """At most FRAMES of the pictures, or as many drawn ones, and what they are in words.

    A bad picture among good ones is left out: it says nothing of a network. Raises ValueError where none
    is good.
    """
    if images is None:
        drawn = [
            sign(name, np.random.default_rng(number), SIDES)
            for number, name in zip(range(FRAMES), cycle(FACES), strict=False)
        ]
        return [decode(data) for data in drawn], f"{FRAMES} road signs drawn by this package"
    found: list[Frame] = []
    for _, data in pictures([str(images)]):
        if isinstance(data, str):
            raise ValueError(f"{images}: {data}")
        try:
            found.append(decode(data()))
        except (ImageError, OSError):
            continue
        if len(found) == FRAMES:
            break
    if not found:
        raise ValueError(f"{images}: none of its pictures can be read; see `mobilenets doctor`")
    return found, f"{len(found)} picture{'s' * (len(found) > 1)} of {images}"
