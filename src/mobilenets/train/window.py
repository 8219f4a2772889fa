"""The part of a stored picture that is seen, resampled to a size or cut out as it is: batches at a time."""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn import functional


def windows(drawn: Tensor, least_area: float, stretch: float, sides: tuple[int, int]) -> Tensor:
    """int64 [n, 4], (top, left, height, width) within `sides`, from draws [n, 4] of area, proportions, place.

    Areas are even between `least_area` and all of it, to whole pixels upwards, proportions as even as fits.
    """
    area, proportions, top, left = drawn.double().unbind(1)
    side = (least_area + (1 - least_area) * area).sqrt()
    # Beyond this a side would be longer than the picture's.
    most = torch.minimum(-side.log(), torch.full_like(side, log(stretch) / 2))
    turn = ((2 * proportions - 1) * most).exp()
    tall = (sides[0] * side * turn).ceil().clamp(1, sides[0])
    wide = (sides[1] * side / turn).ceil().clamp(1, sides[1])
    place = (top * (sides[0] - tall + 1)).floor(), (left * (sides[1] - wide + 1)).floor()
    return torch.stack([*place, tall, wide], 1).long()


def shifts(drawn: Tensor, border: int, sides: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """int64 [n, 2], (top, left) of windows of `size` in pictures with a `border`, from draws [n, 2].

    Draws of ½ give the middle, rounded as `spec.preprocess.box` does. Raises ValueError where they do not
    fit, or the border is no reflection.
    """
    room = [have + 2 * border - want for have, want in zip(sides, size, strict=True)]
    if min(room) < 0 or border >= min(sides):
        raise ValueError(
            f"views: windows of {size[0]} × {size[1]} are not to be had by shifts of {sides[0]} × {sides[1]} "
            f"pixels and {border} of their reflection; store larger pictures, or leave out shift"
        )
    steps = (drawn.double() * (torch.tensor(room) + 1)).ceil() - 1
    return steps.clamp_(min=0).long() - border


def cut(levels: Tensor, place: Tensor, mirrored: Tensor, into: Tensor) -> None:
    """Windows at `place` [n, 2] of uint8 [n, H, W, 3] and its reflection into float32 [n, h, w, 3]."""
    count, tall, wide, _ = levels.shape
    rows, columns = (
        torch.arange(into.shape[1]).expand(count, -1),
        torch.arange(into.shape[2]).expand(count, -1),
    )
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows, columns = _reflected(rows + place[:, :1], tall), _reflected(columns + place[:, 1:], wide)
    rows += tall * torch.arange(count)[:, None]
    pixels = (wide * rows[:, :, None] + columns[:, None]).flatten().to(levels.device)
    into.copy_(levels.reshape(-1, 3).index_select(0, pixels).view(into.shape))


def _reflected(index: Tensor, samples: int) -> Tensor:
    return samples - 1 - (samples - 1 - index.abs()).abs()


def resampled(levels: Tensor, place: Tensor, mirrored: Tensor, into: Tensor) -> None:
    """Windows at `place` [n, 4] of uint8 [n, H, W, 3], resized as `infer/resize.py` does and mirrored where
    told, written to float32 [n, h, w, 3].

    On a CPU picture by picture with torch's integer kernel, which takes a tenth of the time of products of
    matrices; elsewhere by two products of the batch. Both lie within a level of the definition.
    """
    size = (into.shape[1], into.shape[2])
    if levels.device.type != "cpu":
        into.copy_(_by_products(levels, place, mirrored, size))
        return
    flat = levels.permute(0, 3, 1, 2)
    turns = mirrored.tolist()
    for number, (top, left, tall, wide) in enumerate(place.tolist()):
        window = flat[number : number + 1, :, top : top + tall, left : left + wide]
        made = functional.interpolate(window, size, mode="bilinear", antialias=True)
        if turns[number]:
            made = made.flip(3)
        into[number].copy_(made[0].permute(1, 2, 0))


def _by_products(levels: Tensor, place: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Tensor:
    """float32 [n, h, w, 3] by two products with a triangle filter for each picture and axis."""
    count, tall, wide, _ = levels.shape
    place, mirrored = place.to(levels.device), mirrored.to(levels.device)
    down = _filter(place[:, 0], place[:, 2], tall, size[0])
    across = _filter(place[:, 1], place[:, 3], wide, size[1])
    across = torch.where(mirrored[:, None, None], across.flip(1), across)
    # [n, H, 3, W]: the first product then has long rows, and the second reads what the first wrote.
    planes = levels.permute(0, 1, 3, 2).to(torch.float32, memory_format=torch.contiguous_format)
    seen = torch.bmm(down, planes.view(count, tall, 3 * wide)).view(count, 3 * size[0], wide)
    made = torch.bmm(seen, across.transpose(1, 2)).view(count, size[0], 3, size[1])
    return made.permute(0, 1, 3, 2)


def _filter(start: Tensor, extent: Tensor, samples: int, places: int) -> Tensor:
    """float32 [n, places, samples]: weights of the samples start … start + extent − 1 in each place."""
    step = extent / places
    centre = start[:, None] + (torch.arange(places, device=start.device) + 0.5) * step[:, None]
    sample = torch.arange(samples, device=start.device)
    weight = 1 - (sample + 0.5 - centre[:, :, None]).abs() / step.clamp(min=1)[:, None, None]
    inside = (sample >= start[:, None]) & (sample < (start + extent)[:, None])
    weight = torch.where(inside[:, None], weight.clamp(min=0), torch.zeros_like(weight))
    return weight / weight.sum(2, keepdim=True)
