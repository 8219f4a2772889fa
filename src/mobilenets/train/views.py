"""Views of training pictures, made of whole batches: drawn from a hash, resampled, recoloured, mixed."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilenets.spec.views import MOST_OPS, Views
from mobilenets.train.policy import GREY, followed, jittered, recoloured, turned
from mobilenets.train.window import cut, resampled, shifts, windows

WINDOW, PLACE, MIRROR, JITTER = slice(0, 4), slice(2, 4), 4, slice(5, 9)
ERASE, ERASE_AREA, ERASE_PROPORTIONS, ERASE_TOP, ERASE_LEFT = range(9, 14)
MIX, MIX_KIND, MIX_SHARE, MIX_TOP, MIX_LEFT = range(14, 19)
POLICY = 19
DRAWS = POLICY + 2 * MOST_OPS
"""Columns of draws that a view and its mixing need."""
ERASED_AREA, ERASED_STRETCH = (0.02, 0.25), 3.0
AT_ONCE_BYTES = 3 << 20
"""Of pictures that go through all steps together on a CPU: they stay in its cache."""
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def draws(seed: int, which: NDArray[np.int64], view: int, count: int) -> Tensor:
    """float32 [n, count], uniform in [0, 1): a hash of seed, picture, view and column, and of nothing else.

    SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), keyed by its own
    finaliser.
    """
    key = _hashed(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    key = _hashed(key ^ np.uint64(view & 0xFFFFFFFFFFFFFFFF))
    key = _hashed(key ^ which.astype(np.uint64))
    steps = np.arange(count, dtype=np.uint64) * np.uint64(GOLDEN)
    bits = _hashed(key[:, None] + steps) >> np.uint64(40)  # as many as a float32 holds
    return torch.from_numpy(bits.astype(np.float32) * np.float32(2**-24))


def _hashed(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(GOLDEN)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(FIRST)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(SECOND)
    return value ^ (value >> np.uint64(31))


def viewed(levels: Tensor, drawn: Tensor, views: Views, size: tuple[int, int]) -> Tensor:
    """Views of uint8 [n, H, W, 3] as float32 [n, 3, *size], channels last in memory, in levels 0 … 255.

    `drawn` is [n, ≥ DRAWS] of `draws`. Raises ValueError where `shift` asks for more than is stored.
    """
    drawn = drawn.cpu()  # what is drawn is small, and is looked at so that only what is called for is done
    count = len(levels)
    changes = followed(jittered(drawn[:, JITTER], views), drawn[:, POLICY:], views)
    sides = (levels.shape[1], levels.shape[2])
    if views.shift is None:
        place, look = windows(drawn[:, WINDOW], views.least_area, views.stretch, sides), resampled
    else:
        place, look = shifts(drawn[:, PLACE], views.shift, sides, size), cut
    mirrored = (drawn[:, MIRROR] < 0.5) & views.mirror
    made = torch.empty((count, *size, 3), dtype=torch.float32, device=levels.device)
    step = max(1, AT_ONCE_BYTES // (12 * size[0] * size[1]) if levels.device.type == "cpu" else count)
    for first in range(0, count, step):
        part = slice(first, first + step)
        x = made[part]
        look(levels[part], place[part], mirrored[part], x)
        turned(x, changes.shape[part])
        recoloured(x, changes.of(part))
        if views.erase:
            _erased(x, drawn[part], views.erase)
    return made.permute(0, 3, 1, 2)


def _erased(x: Tensor, drawn: Tensor, chance: float) -> None:
    """A grey rectangle in some of float32 [n, h, w, 3] (arXiv:1708.04896)."""
    some = (drawn[:, ERASE] < chance).nonzero()[:, 0]
    if not len(some):
        return
    own = drawn[some]
    area = ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * own[:, ERASE_AREA]
    turn = ((2 * own[:, ERASE_PROPORTIONS] - 1) * (log(ERASED_STRETCH) / 2)).exp()
    box = _box(area.sqrt() * turn, area.sqrt() / turn, own[:, ERASE_TOP], own[:, ERASE_LEFT], x.shape[1:3])
    index, lines, grey = some.to(x.device), x.flatten(2), torch.tensor(GREY, device=x.device)
    rows, columns = (part.to(x.device) for part in _inside(box, x.shape[1:3]))
    lines.index_copy_(0, index, lines.index_select(0, index).lerp_(grey, rows * columns))


def _box(tall: Tensor, wide: Tensor, top: Tensor, left: Tensor, size: Sequence[int]) -> Tensor:
    """int64 [n, 4], (top, left, height, width) in pixels, from shares of the sides and of the room left."""
    sides = [(share * side).round().clamp(0, side) for share, side in zip((tall, wide), size, strict=True)]
    place = [
        (u * (whole - side + 1)).floor() for u, whole, side in zip((top, left), size, sides, strict=True)
    ]
    return torch.stack([*place, *sides], 1).long()


def _inside(box: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """float32 [n, h, 1] and [n, 1, 3 w]: 1 for what of each axis lies in the box. Lines have three numbers to
    a pixel, so that they are long."""
    rows, columns = torch.arange(size[0]), torch.arange(size[1]).repeat_interleave(3)
    top, left, tall, wide = (part[:, None] for part in box.unbind(1))
    inside = ((rows >= top) & (rows < top + tall), (columns >= left) & (columns < left + wide))
    return inside[0][:, :, None].float(), inside[1][:, None].float()


def mixed(x: Tensor, targets: Tensor, drawn: Tensor, views: Views) -> tuple[Tensor, Tensor]:
    """Each picture of float32 [n, 3, h, w] mixed with the one before it in the batch, and its target too.

    `targets` is float [n, classes]. By mixup a picture keeps a share of each level, by cutmix all but a box,
    whose share of the area its target gives up.
    """
    mix = views.mix
    if not (mix.mixup or mix.cutmix) or not mix.share or len(x) < 2:
        return x, targets
    drawn = drawn.cpu()
    chosen = drawn[:, MIX] < mix.share
    boxed = drawn[:, MIX_KIND] < (0.5 if mix.mixup and mix.cutmix else float(mix.cutmix > 0))
    keep = torch.where(boxed, _beta(drawn[:, MIX_SHARE], mix.cutmix), _beta(drawn[:, MIX_SHARE], mix.mixup))
    keep = torch.where(chosen, keep, 1.0)
    levels = x.permute(0, 2, 3, 1).flatten(2)  # [n, h, 3 w]: a view, where channels lie last
    weight = torch.where(boxed, 1.0, keep)[:, None, None].to(x.device)
    if (chosen & boxed).any():
        side = torch.where(boxed, 1 - keep, 0.0).sqrt()
        box = _box(side, side, drawn[:, MIX_TOP], drawn[:, MIX_LEFT], x.shape[2:])
        keep = torch.where(boxed, 1 - box[:, 2] * box[:, 3] / (x.shape[2] * x.shape[3]), keep)
        rows, columns = (part.to(x.device) for part in _inside(box, x.shape[2:]))
        weight = torch.addcmul(weight, rows, columns, value=-1)
    made = torch.lerp(levels.roll(1, 0), levels, weight)
    share = keep[:, None].to(targets)
    made = made.view(len(x), x.shape[2], x.shape[3], 3).permute(0, 3, 1, 2)
    return made, torch.lerp(targets.roll(1, 0), targets, share)


def normalised(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(level − mean) / std for float32 [n, 3, h, w]: what `infer.image.normalise` gives, to the last bit.

    Done by lines of pixels, where channels lie last: a seventh of the time that three numbers at a time take.
    """
    height, width = x.shape[2:]
    shift, scale = (torch.tensor(value, device=x.device).repeat(width) for value in (mean, std))
    lines = (x.permute(0, 2, 3, 1).flatten(2) - shift).div_(scale)
    return lines.view(len(x), height, width, 3).permute(0, 3, 1, 2)


def _beta(drawn: Tensor, alpha: float) -> Tensor:
    """Uniform draws [n] as draws of Beta(α, α); ones where α is 0."""
    if not alpha:
        return torch.ones_like(drawn)
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, alpha, drawn.double().numpy())).float()
