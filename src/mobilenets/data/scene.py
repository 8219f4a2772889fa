"""What stands behind a drawn sign, and what a camera does to both: light, blur, noise."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Levels = NDArray[np.float32]
Colour = tuple[int, int, int]


def background(random: Generator, width: int, height: int) -> Image.Image:
    """An RGB scene of its own: a street, a field, a wall or blurred lights, with clutter."""
    scene = (_street, _field, _wall, _lights)[random.choice(4, p=(0.4, 0.3, 0.18, 0.12))]
    picture = scene(random, width, height)
    _clutter(random, picture)
    grain = texture(random, width, height, float(random.uniform(6, 26)))
    return _image(np.asarray(picture, np.float32) + grain[..., None])


def photographed(random: Generator, picture: Image.Image) -> Image.Image:
    """The scene as a cheap camera gives it: shadow, exposure, colour cast, blur, noise, dark corners."""
    width, height = picture.size
    x, y = np.meshgrid(
        np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    )
    light = np.ones((height, width), np.float32)
    if random.random() < 0.4:  # the edge of a shadow
        angle, place = random.uniform(0, 2 * np.pi), random.uniform(-0.6, 0.6)
        edge = (x * np.cos(angle) + y * np.sin(angle) - place) * random.uniform(2, 30)
        light *= 1 - np.float32(random.uniform(0.2, 0.55)) / (1 + np.exp(-edge.clip(-30, 30)))
    light *= 1 - np.float32(random.uniform(0, 0.25)) * (x * x + y * y) / 2
    levels = np.asarray(picture, np.float32) * light[..., None]
    cast = random.normal(1, 0.07, 3).astype(np.float32)
    night = random.random() < 0.12
    gain = np.float32(random.uniform(0.3, 0.5) if night else random.uniform(0.65, 1.25))
    middle = np.float32(levels.mean())
    contrast = np.float32(random.uniform(0.55, 1.2))
    levels = ((levels - middle) * contrast + middle) * gain * cast
    if random.random() < 0.2:  # haze or backlight
        haze = np.float32(random.uniform(0.1, 0.4))
        levels = levels * (1 - haze) + 225 * haze
    blurred = _image(levels)
    if random.random() < 0.7:
        blurred = blurred.filter(ImageFilter.GaussianBlur(float(random.gamma(1.6, 0.55))))
    if random.random() < 0.2:
        blurred = _dragged(blurred, int(random.integers(2, 6)), bool(random.random() < 0.7))
    noise = random.standard_normal((height, width, 3), np.float32)
    strength = np.float32(random.gamma(2.0, 3.0) * (2.0 if night else 1.0))
    return _image(np.asarray(blurred, np.float32) + noise * strength)


def texture(random: Generator, width: int, height: int, strength: float) -> Levels:
    """Cloudy noise [height, width] around 0, the same at every scale."""
    total = np.zeros((height, width), np.float32)
    for cells, weight in ((3, 1.0), (7, 0.7), (17, 0.5), (45, 0.4), (110, 0.3)):
        grid = random.integers(0, 256, (cells, cells), np.uint8)
        total += np.asarray(
            Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR)
        ) * np.float32(weight)
    return np.asarray((total - total.mean()) * (strength / (float(total.std()) + 1e-6)), np.float32)


def some_colour(random: Generator, low: int = 30, high: int = 226) -> Colour:
    red, green, blue = (int(level) for level in random.integers(low, high, 3))
    return red, green, blue


def _muted(random: Generator) -> Colour:
    """A colour that houses and stones have: mostly grey."""
    grey, tint = random.uniform(70, 200), random.normal(0, 16, 3)
    red, green, blue = (int(np.clip(grey + level, 0, 255)) for level in tint)
    return red, green, blue


def foliage(random: Generator, draw: ImageDraw.ImageDraw, place: tuple[float, float], reach: float) -> None:
    """Leaves around a place, within about `reach` pixels of it."""
    dark = int(random.integers(20, 70))
    for _ in range(int(random.integers(25, 60))):
        x, y = (place[axis] + random.normal(0, reach / 2.2) for axis in (0, 1))
        long, wide = reach * random.uniform(0.08, 0.3), reach * random.uniform(0.06, 0.18)
        shade = int(random.integers(0, 70))
        colour = (dark // 2 + shade // 2, dark + 20 + shade, dark // 3 + shade // 4)
        draw.ellipse((x - long, y - wide, x + long, y + wide), fill=colour)


def _street(random: Generator, width: int, height: int) -> Image.Image:
    picture = _sky(random, width, height)
    draw = ImageDraw.Draw(picture)
    ground = height * random.uniform(0.6, 0.9)
    left = -width * random.uniform(0, 0.3)
    while left < width:
        wide = width * random.uniform(0.2, 0.6)
        top = height * random.uniform(-0.1, 0.5)
        wall = _muted(random)
        draw.rectangle((left, top, left + wide, ground), fill=wall)
        _windows(random, draw, (left, top, left + wide, ground), wall)
        left += wide * random.uniform(0.95, 1.3)
    grey = int(random.integers(60, 140))
    draw.rectangle((0, ground, width, height), fill=(grey, grey, grey + int(random.integers(-8, 12))))
    for _ in range(int(random.integers(0, 4))):
        x, wide = width * random.uniform(-0.1, 1), width * random.uniform(0.15, 0.4)
        tall = wide * random.uniform(0.35, 0.55)
        paint = some_colour(random, 20, 240)
        draw.rounded_rectangle((x, ground - tall * 0.6, x + wide, ground + tall * 0.4), tall / 4, fill=paint)
        draw.ellipse(
            (x + wide * 0.12, ground + tall * 0.2, x + wide * 0.3, ground + tall * 0.6), fill=(25, 25, 28)
        )
        draw.ellipse(
            (x + wide * 0.7, ground + tall * 0.2, x + wide * 0.88, ground + tall * 0.6), fill=(25, 25, 28)
        )
    return picture


def _windows(random: Generator, draw: ImageDraw.ImageDraw, house: tuple[float, ...], wall: Colour) -> None:
    left, top, right, bottom = house
    step_x, step_y = (right - left) / random.integers(2, 6), (bottom - top) / random.integers(2, 6)
    pane = tuple(int(level * random.uniform(0.35, 0.8)) for level in wall)
    y = top + step_y * 0.25
    while y < bottom - step_y * 0.4:
        x = left + step_x * 0.25
        while x < right - step_x * 0.4:
            draw.rectangle((x, y, x + step_x * 0.5, y + step_y * 0.55), fill=pane)
            x += step_x
        y += step_y


def _field(random: Generator, width: int, height: int) -> Image.Image:
    picture = _sky(random, width, height)
    draw = ImageDraw.Draw(picture)
    horizon = height * random.uniform(0.35, 0.8)
    dry = random.uniform(0, 1)
    green = (int(60 + 90 * dry), int(110 + 30 * dry), int(40 + 30 * dry))
    draw.rectangle((0, horizon, width, height), fill=green)
    for _ in range(int(random.integers(2, 9))):
        reach = height * random.uniform(0.08, 0.3)
        foliage(random, draw, (width * random.uniform(0, 1), horizon - reach * 0.5), reach)
    if random.random() < 0.6:
        middle = width * random.uniform(0.2, 0.8)
        road = [(middle, horizon), (middle + 4, horizon), (width * random.uniform(0.6, 1.3), height)]
        draw.polygon([*road, (width * random.uniform(-0.3, 0.4), height)], fill=(98, 98, 102))
    return picture


def _wall(random: Generator, width: int, height: int) -> Image.Image:
    stone = _muted(random)
    picture = Image.new("RGB", (width, height), stone)
    draw = ImageDraw.Draw(picture)
    tall = height / random.uniform(5, 14)
    wide = tall * random.uniform(1.5, 3)
    for row in range(int(height / tall) + 2):
        for column in range(-1, int(width / wide) + 2):
            x, y = (column + 0.5 * (row % 2)) * wide, row * tall
            shade = random.uniform(0.75, 1.15)
            brick = tuple(int(min(255, level * shade)) for level in stone)
            draw.rectangle((x + 1, y + 1, x + wide - 1, y + tall - 1), fill=brick)
    return picture


def _lights(random: Generator, width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (width, height), some_colour(random, 10, 90))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(random.integers(15, 50))):
        x, y, r = width * random.random(), height * random.random(), height * random.uniform(0.02, 0.12)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=some_colour(random, 40, 256))
    return picture.filter(ImageFilter.GaussianBlur(float(random.uniform(2, 7))))


def _sky(random: Generator, width: int, height: int) -> Image.Image:
    blue = random.uniform(0, 1)
    top = np.array([150 - 70 * blue, 165 - 25 * blue, 180 + 50 * blue])
    low = np.array([205, 210, 215]) - random.uniform(0, 30, 3)
    ramp = np.linspace(0, 1, height)[:, None, None]
    return _image(np.broadcast_to(top + (low - top) * ramp, (height, width, 3)).astype(np.float32))


def _clutter(random: Generator, picture: Image.Image) -> None:
    """Posts, wires and boards, in the colours of signs too: a colour alone must not tell the class."""
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    paints = ((178, 24, 32), (20, 70, 160), (235, 190, 30), (240, 240, 240), (30, 30, 30))
    for _ in range(int(random.integers(1, 7))):
        x, y = width * random.random(), height * random.random()
        size = min(width, height) * random.uniform(0.05, 0.25)
        paint = paints[int(random.integers(len(paints)))] if random.random() < 0.6 else some_colour(random)
        match int(random.integers(4)):
            case 0:
                draw.rectangle((x, y, x + size * random.uniform(0.5, 2.5), y + size), fill=paint)
            case 1:
                draw.ellipse((x, y, x + size, y + size), fill=paint)
            case 2:
                draw.line((x, 0, x + random.normal(0, 6), height), fill=paint, width=max(1, int(size / 10)))
            case _:
                draw.polygon(
                    [(x, y), (x + size, y + size * random.normal(0, 0.5)), (x, y + size)], fill=paint
                )


def _dragged(picture: Image.Image, steps: int, sideways: bool) -> Image.Image:
    levels = np.asarray(picture, np.float32)
    moved = [np.roll(levels, k, axis=1 if sideways else 0) for k in range(steps)]
    return _image(np.asarray(np.mean(moved, axis=0), np.float32))


def _image(levels: Levels) -> Image.Image:
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
