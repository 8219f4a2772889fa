"""What happens to a view's colours and shape: jitter and a policy's operations, each picture its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import gcd, pi, radians

import torch
from torch import Tensor
from torch.nn import functional

from mobilenets.spec.views import Views

OPS = (
    *("nothing", "shear-x", "shear-y", "move-x", "move-y", "turn"),
    *("light", "contrast", "colour", "sharpness", "posterise", "solarise", "autocontrast"),
)
"""RandAugment's list (arXiv:1909.13719) without equalising, no matrix and no curve of few numbers."""
SHEAR, MOVE, TURN = 0.3, 0.45, radians(30)
FACTOR, BITS = 0.9, 4.0
"""The most that each does, at strength 1: a share of a side, an angle, 1 ± a factor, bits dropped."""
HUE = pi / 4
GREY = 127.5
PIXELS = 8
"""Pixels in a row of a product with a colour matrix: rows of three numbers take five times as long."""
YIQ = ((0.299, 0.596, 0.211), (0.587, -0.274, -0.523), (0.114, -0.322, 0.312))
"""Red, green and blue (rows) to luminance and two axes of colour: what hue turns and saturation scales."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What happens to each picture, in order: shape, contrast, colours, levels, sharpness.

    `shape` [n, 3, 3] leads from a view's places to where they are looked up, in half sides from the middle.
    `colour` [n, 4, 4] is multiplied by (red, green, blue, 1) as a row. The others are [n]: whether levels are
    spread, how much of the detail is added, levels in a step, the level from which all is inverted.
    """

    shape: Tensor
    colour: Tensor
    spread: Tensor
    sharpness: Tensor
    step: Tensor
    threshold: Tensor

    def of(self, part: slice) -> Changes:
        return Changes(*(getattr(self, name.name)[part] for name in fields(self)))


def jittered(drawn: Tensor, views: Views) -> Changes:
    """Light, contrast, saturation and hue by draws [n, 4] of them; nothing else."""
    light, contrast, saturation, hue = (2 * drawn - 1).unbind(1)
    count = len(drawn)
    colour = _gained(1 + views.contrast * contrast, 255 * views.light * light)
    if views.colour:
        colour = _tinted(1 + views.colour * saturation, HUE * views.colour * hue) @ colour
    return Changes(
        shape=torch.eye(3).repeat(count, 1, 1),
        colour=colour,
        spread=torch.zeros(count, dtype=torch.bool),
        sharpness=torch.zeros(count),
        step=torch.ones(count),
        threshold=torch.full((count,), 256.0),
    )


def followed(changes: Changes, drawn: Tensor, views: Views) -> Changes:
    """And then a policy's operations, by draws [n, 2 × operations] of which and how much."""
    for number in range(views.policy):
        which = (drawn[:, 2 * number] * len(OPS)).long()
        how = (2 * drawn[:, 2 * number + 1] - 1) * views.strength
        changes = _one_more(changes, which, how)
    return changes


def _one_more(changes: Changes, which: Tensor, how: Tensor) -> Changes:
    nothing, one = torch.zeros_like(how), torch.ones_like(how)

    def where(name: str, value: Tensor, otherwise: Tensor = nothing) -> Tensor:
        return torch.where(which == OPS.index(name), value, otherwise)

    angle = where("turn", how * TURN)
    across = [angle.cos(), where("shear-x", how * SHEAR) - angle.sin(), where("move-x", 2 * MOVE * how)]
    down = [where("shear-y", how * SHEAR) + angle.sin(), angle.cos(), where("move-y", 2 * MOVE * how)]
    shape = torch.stack([*across, *down, nothing, nothing, one], 1).view(-1, 3, 3)
    factor = 1 + FACTOR * how
    # Light as others have it is a gain, for which black stays black.
    gain = where("light", factor, where("contrast", factor, one))
    colour = _gained(gain, where("light", GREY * (gain - 1)))
    tint = _tinted(where("colour", factor, one), nothing)
    return Changes(
        shape=changes.shape @ shape,
        colour=changes.colour @ torch.where((which == OPS.index("colour"))[:, None, None], tint, colour),
        spread=changes.spread | (which == OPS.index("autocontrast")),
        sharpness=changes.sharpness + where("sharpness", FACTOR * how),
        step=torch.maximum(changes.step, where("posterise", 2 ** (BITS * how.abs()), one)),
        threshold=torch.minimum(changes.threshold, where("solarise", 256 * (1 - how.abs()), 256 * one)),
    )


def _gained(gain: Tensor, shift: Tensor) -> Tensor:
    """[n, 4, 4]: levels further from grey by a gain, and all of them shifted."""
    made = gain[:, None, None] * torch.eye(4)
    made[:, 3, :3] = (GREY * (1 - gain) + shift)[:, None]
    made[:, 3, 3] = 1
    return made


def _tinted(saturation: Tensor, angle: Tensor) -> Tensor:
    """[n, 4, 4]: colours turned about grey and taken further from it; luminance stays."""
    there = torch.tensor(YIQ)
    cosine, sine = saturation * angle.cos(), saturation * angle.sin()
    turn = torch.eye(3).repeat(len(angle), 1, 1)
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, sine, -sine, cosine
    made = torch.eye(4).repeat(len(angle), 1, 1)
    made[:, :3, :3] = there @ turn @ torch.linalg.inv(there)
    return made


def turned(x: Tensor, shape: Tensor) -> None:
    """Each picture of float32 [n, h, w, 3] as its `shape` says, what lies beyond its edge reflected."""
    some = (shape != torch.eye(3)).flatten(1).any(1).nonzero()[:, 0]
    if not len(some):
        return
    _, height, width, _ = x.shape
    looked = shape[some, :2]
    looked[:, 0, 1] *= height / width  # of half sides, which differ where the view is no square
    looked[:, 1, 0] *= width / height
    index = some.to(x.device)
    seen = x.index_select(0, index).permute(0, 3, 1, 2)
    grid = _grid(looked.to(x.device), height, width)
    seen = functional.grid_sample(seen, grid, padding_mode="reflection", align_corners=False)
    x.index_copy_(0, index, seen.permute(0, 2, 3, 1))


def _grid(looked: Tensor, height: int, width: int) -> Tensor:
    """[n, height, width, 2]: torch's `affine_grid`, by sums of a row and a column instead of a product, in a
    tenth of its time."""
    across, down = ((2 * torch.arange(side, device=looked.device) + 1) / side - 1 for side in (width, height))
    rows = looked[:, :, 1:2] * down + looked[:, :, 2:]
    columns = looked[:, :, :1] * across
    grid = looked.new_empty(len(looked), height, width, 2)
    for axis in (0, 1):
        torch.add(rows[:, axis, :, None], columns[:, axis, None], out=grid[..., axis])
    return grid


def recoloured(x: Tensor, changes: Changes) -> None:
    """float32 [n, h, w, 3] in levels, changed where it lies."""
    _each(x, changes.spread, _spread)
    _coloured(x, changes.colour)
    _each(x, changes.step > 1, _posterised, changes.step)
    _each(x, changes.threshold < 256, _solarised, changes.threshold)
    _each(x, changes.sharpness != 0, _sharpened, changes.sharpness)


def _each(x: Tensor, some: Tensor, work: Callable[..., Tensor], *amounts: Tensor) -> None:
    """`work` of the pictures that `some` [n] names, with their amounts [n] as [n, 1, 1, 1]."""
    chosen = some.nonzero()[:, 0]
    if len(chosen):
        own = [amount[chosen].view(-1, 1, 1, 1).to(x.device) for amount in amounts]
        index = chosen.to(x.device)
        x.index_copy_(0, index, work(x.index_select(0, index), *own))


def _coloured(x: Tensor, colour: Tensor) -> None:
    if torch.equal(colour, torch.eye(4).expand_as(colour)):
        return
    gain, shift = colour[:, 0, 0], colour[:, 3, 0]
    alike = _gained(gain, shift - GREY * (1 - gain))
    mixed = (colour - alike).abs().flatten(1).amax(1) > 1e-6
    some = mixed.nonzero()[:, 0]
    if len(some) < len(x):
        own = [
            torch.where(mixed, otherwise, value).view(-1, 1, 1, 1).to(x.device)
            for value, otherwise in ((gain, 1.0), (shift, 0.0))
        ]
        x.mul_(own[0]).add_(own[1])
    if len(some) == len(x):
        x.copy_(_multiplied(x, colour.to(x.device)))
    elif len(some):
        index = some.to(x.device)
        x.index_copy_(0, index, _multiplied(x.index_select(0, index), colour[some].to(x.device)))
    x.clamp_(0, 255)


def _multiplied(x: Tensor, colour: Tensor) -> Tensor:
    count, height, width, _ = x.shape
    pixels = gcd(height * width, PIXELS)
    eye = torch.eye(pixels, device=x.device)
    wide = torch.einsum("pq,nij->npiqj", eye, colour[:, :3, :3]).reshape(count, 3 * pixels, 3 * pixels)
    shift = colour[:, 3:, :3].repeat(1, 1, pixels)
    return torch.baddbmm(shift, x.view(count, -1, 3 * pixels), wide).view(x.shape)


def _spread(x: Tensor) -> Tensor:
    # Over one axis at a time: over both at once a pixel of three is all that is looked at together.
    least, most = x.amin(1, keepdim=True).amin(2, keepdim=True), x.amax(1, keepdim=True).amax(2, keepdim=True)
    gain = (255 / (most - least).clamp(min=1)).repeat(1, 1, x.shape[2], 1).flatten(2)
    return (x.flatten(2) - least.repeat(1, 1, x.shape[2], 1).flatten(2)).mul_(gain).view(x.shape)


def _posterised(x: Tensor, step: Tensor) -> Tensor:
    return ((x / step).floor_() + 0.5).mul_(step).sub_(0.5).clamp_(0, 255)


def _solarised(x: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(x < threshold, x, 255 - x)


def _sharpened(x: Tensor, amount: Tensor) -> Tensor:
    """More, or less, of what tells a pixel from a mean of 3 × 3 with five shares of its own; edges stay."""
    if min(x.shape[1:3]) < 3:
        return x
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    inner = x[:, 1:-1, 1:-1]
    smooth = (rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * inner) / 13
    made = x.clone()
    made[:, 1:-1, 1:-1] = (inner + amount * (inner - smooth)).clamp_(0, 255)
    return made
