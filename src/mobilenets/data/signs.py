"""A small image set of road signs, drawn: eleven classes in scenes of their own, the same for a seed."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.random import PCG64, Generator
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFont

from mobilenets.data.scene import Colour, background, foliage, photographed, some_colour, texture

FACE = 320
RED, BLUE, YELLOW, WHITE, BLACK = (190, 22, 34), (10, 74, 160), (247, 190, 20), (244, 244, 240), (22, 22, 24)
Point = tuple[float, float]


def render(
    out: Path,
    per_class: int = 60,
    seed: int = 0,
    size: tuple[int, int] = (120, 240),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Draw the set as JPEG files `out/CLASS/0000.jpg` …, sides between the two of `size`; gives their paths.

    Sides and quality are chosen alike for every class, so that they tell nothing. Raises ValueError where the
    numbers make no set, OSError where a file cannot be written.
    """
    if per_class < 1 or not 48 <= size[0] <= size[1] <= 4096:
        raise ValueError(
            f"{per_class} pictures a class of {size[0]} to {size[1]} pixels: at least 1, of 48 to 4096"
        )
    made = []
    for number, name in enumerate(FACES):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            path = folder / f"{index:04}.jpg"
            path.write_bytes(sign(name, Generator(PCG64([seed, number, index])), size))
            made.append(path)
            progress(len(made), per_class * len(FACES))
    return made


def sign(name: str, random: Generator, size: tuple[int, int] = (120, 240)) -> bytes:
    """One JPEG of a scene with the sign of class `name` in it."""
    width, height = (int(side) for side in random.integers(size[0], size[1] + 1, 2))
    picture = background(random, width, height)
    across = min(width, height) * float(np.clip(random.normal(0.76, 0.09), 0.5, 0.94))
    centre = (
        width / 2 + random.normal(0, 0.5) * (width - across) / 2.4,
        height / 2 + random.normal(-0.15, 0.5) * (height - across) / 2.4,
    )
    centre = (float(np.clip(centre[0], across * 0.4, width - across * 0.4)),
              float(np.clip(centre[1], across * 0.4, height - across * 0.4)))  # fmt: skip
    _post(random, picture, centre, across)
    _put(random, picture, _worn(random, _face(name)), centre, across)
    if random.random() < 0.25:
        _cover(random, picture, centre, across)
    buffer = io.BytesIO()
    quality = int(random.integers(55, 93))
    photographed(random, picture).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _post(random: Generator, picture: Image.Image, centre: Point, across: float) -> None:
    draw = ImageDraw.Draw(picture)
    wide = max(2, int(across * random.uniform(0.05, 0.1)))
    grey = int(random.integers(70, 170))
    lean = random.normal(0, 0.03) * picture.height
    draw.line((centre, (centre[0] + lean, picture.height)), fill=(grey, grey, grey + 4), width=wide)
    if random.random() < 0.25:  # a plate below
        plate = across * random.uniform(0.25, 0.4)
        x, y = centre[0], centre[1] + across * random.uniform(0.7, 0.85)
        draw.rectangle((x - plate, y - plate / 2, x + plate, y + plate / 2), fill=WHITE, outline=BLACK)


def _put(random: Generator, picture: Image.Image, face: Image.Image, centre: Point, across: float) -> None:
    """Paste the face seen from the side: turned, and its corners drawn in or out."""
    turn = np.deg2rad(random.normal(0, 7))
    half = across / 2
    squeeze = (1 - abs(random.normal(0, 0.14)), 1 - abs(random.normal(0, 0.06)))
    corners = []
    for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        a, b = (
            (x * squeeze[0] + random.normal(0, 0.06)) * half,
            (y * squeeze[1] + random.normal(0, 0.06)) * half,
        )
        corners.append(
            (centre[0] + a * np.cos(turn) - b * np.sin(turn), centre[1] + a * np.sin(turn) + b * np.cos(turn))
        )
    small = face.resize((max(16, int(across * 1.25)),) * 2, Image.Resampling.LANCZOS)
    side = small.width
    seen = small.transform(
        picture.size,
        Image.Transform.PERSPECTIVE,
        _homography(corners, [(0, 0), (0, side), (side, side), (side, 0)]),
        Image.Resampling.BICUBIC,
    )
    picture.paste(seen.convert("RGB"), (0, 0), seen.getchannel("A"))


def _homography(seen: list[Point], source: list[Point]) -> list[float]:
    """The eight numbers with which Pillow finds the source place of each seen place."""
    rows, right = [], []
    for (x, y), (u, v) in zip(seen, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return [float(value) for value in np.linalg.solve(np.array(rows), np.array(right))]


def _worn(random: Generator, face: Image.Image) -> Image.Image:
    """Faded, dirty, stickered, as signs are."""
    colours = ImageEnhance.Color(face.convert("RGB")).enhance(float(random.uniform(0.55, 1.15)))
    draw = ImageDraw.Draw(colours)
    if random.random() < 0.2:
        x, y = random.uniform(0.2, 0.7, 2) * FACE
        wide, tall = random.uniform(0.06, 0.2, 2) * FACE
        draw.rectangle((x, y, x + wide, y + tall), fill=some_colour(random))
    if random.random() < 0.25:
        for _ in range(int(random.integers(1, 5))):
            ends = random.uniform(0, FACE, 4)
            draw.line(
                tuple(float(end) for end in ends),
                fill=some_colour(random, 60, 200),
                width=int(random.integers(2, 7)),
            )
    dirt = texture(random, FACE // 4, FACE // 4, float(random.uniform(2, 16)))
    spots = Image.fromarray(np.clip(128 + dirt, 0, 255).astype(np.uint8)).resize((FACE, FACE))
    dirty = ImageChops.overlay(colours, spots.convert("RGB"))
    dirty.putalpha(face.getchannel("A"))
    return dirty


def _cover(random: Generator, picture: Image.Image, centre: Point, across: float) -> None:
    """Hide a part near the edge: a branch, a post or a board."""
    draw = ImageDraw.Draw(picture)
    angle = random.uniform(0, 2 * np.pi)
    away = across * random.uniform(0.35, 0.5)
    place = (centre[0] + away * float(np.cos(angle)), centre[1] + away * float(np.sin(angle)))
    match int(random.integers(3)):
        case 0 | 1:
            foliage(random, draw, place, across * float(random.uniform(0.2, 0.4)))
        case _:
            x, wide = place[0], across * float(random.uniform(0.06, 0.14))
            draw.rectangle((x - wide, 0, x + wide, picture.height), fill=some_colour(random, 40, 160))


@cache
def _face(name: str) -> Image.Image:
    face = Image.new("RGBA", (FACE, FACE), (0, 0, 0, 0))
    FACES[name](ImageDraw.Draw(face))
    return face


def _ring(draw: ImageDraw.ImageDraw, rim: Colour, inside: Colour, share: float = 0.13) -> None:
    draw.ellipse((2, 2, FACE - 2, FACE - 2), fill=rim)
    inset = FACE * share
    draw.ellipse((inset, inset, FACE - inset, FACE - inset), fill=inside)


def _polygon(
    draw: ImageDraw.ImageDraw, sides: int, turn: float, radius: float, fill: Colour, down: float = 0
) -> None:
    angles = np.deg2rad(turn) + 2 * np.pi * np.arange(sides) / sides
    middle = FACE / 2
    places = [(middle + radius * np.cos(a), middle + down + radius * np.sin(a)) for a in angles]
    draw.polygon(places, fill=fill)


def _written(draw: ImageDraw.ImageDraw, text: str, size: float, fill: Colour) -> None:
    font = ImageFont.load_default(size=size)
    draw.text(
        (FACE / 2, FACE / 2), text, fill, font, anchor="mm", stroke_width=int(size / 22), stroke_fill=fill
    )


def _stop(draw: ImageDraw.ImageDraw) -> None:
    _polygon(draw, 8, 22.5, FACE * 0.52, WHITE)
    _polygon(draw, 8, 22.5, FACE * 0.49, RED)
    _written(draw, "STOP", FACE * 0.3, WHITE)


def _yield(draw: ImageDraw.ImageDraw) -> None:
    _polygon(draw, 3, 90, FACE * 0.57, RED, -FACE * 0.1)
    _polygon(draw, 3, 90, FACE * 0.33, WHITE, -FACE * 0.1)


def _no_entry(draw: ImageDraw.ImageDraw) -> None:
    _ring(draw, WHITE, RED, 0.02)
    draw.rectangle((FACE * 0.16, FACE * 0.41, FACE * 0.84, FACE * 0.59), fill=WHITE)


def _limit(speed: str) -> Callable[[ImageDraw.ImageDraw], None]:
    def drawn(draw: ImageDraw.ImageDraw) -> None:
        _ring(draw, RED, WHITE)
        _written(draw, speed, FACE * 0.46, BLACK)

    return drawn


def _priority(draw: ImageDraw.ImageDraw) -> None:
    _polygon(draw, 4, 0, FACE * 0.5, WHITE)
    _polygon(draw, 4, 0, FACE * 0.36, YELLOW)


def _crossing(draw: ImageDraw.ImageDraw) -> None:
    at = FACE / 100
    draw.rounded_rectangle((2, 2, FACE - 2, FACE - 2), FACE * 0.06, fill=BLUE)
    draw.polygon([(50 * at, 9 * at), (92 * at, 88 * at), (8 * at, 88 * at)], fill=WHITE)
    draw.ellipse((47 * at, 28 * at, 55 * at, 36 * at), fill=BLACK)
    for ends in ((50, 37, 49, 58), (50, 42, 60, 52), (50, 42, 40, 52), (49, 57, 60, 76), (49, 57, 40, 76)):
        draw.line([end * at for end in ends], fill=BLACK, width=int(5 * at))
    for x in (24, 40, 56, 72):
        draw.rectangle((x * at, 79 * at, (x + 8) * at, 85 * at), fill=BLACK)


def _roundabout(draw: ImageDraw.ImageDraw) -> None:
    _ring(draw, WHITE, BLUE, 0.025)
    middle, reach = FACE / 2, FACE * 0.27
    around = (middle - reach, middle - reach, middle + reach, middle + reach)
    for start in (-80, 40, 160):  # against the clock, as where one drives on the right
        draw.arc(around, start, start + 82, fill=WHITE, width=int(FACE * 0.075))
        tip, side = np.deg2rad(start - 22), FACE * 0.1
        out, ahead = (np.cos(tip), np.sin(tip)), (np.sin(tip), -np.cos(tip))
        place = [middle + (reach - FACE * 0.037) * axis for axis in out]
        back = [place[axis] - ahead[axis] * side * 1.3 for axis in (0, 1)]
        ends = [(back[0] + sign * out[0] * side, back[1] + sign * out[1] * side) for sign in (-1, 1)]
        draw.polygon([(place[0], place[1]), *ends], fill=WHITE)


def _turn_right(draw: ImageDraw.ImageDraw) -> None:
    at = FACE / 100
    _ring(draw, WHITE, BLUE, 0.025)
    draw.line(
        [32 * at, 76 * at, 32 * at, 46 * at, 60 * at, 46 * at], fill=WHITE, width=int(12 * at), joint="curve"
    )
    draw.polygon([(57 * at, 27 * at), (57 * at, 65 * at), (84 * at, 46 * at)], fill=WHITE)


def _no_parking(draw: ImageDraw.ImageDraw) -> None:
    _ring(draw, RED, BLUE, 0.1)
    middle, reach = FACE / 2, FACE * 0.31
    draw.line(
        (middle - reach, middle - reach, middle + reach, middle + reach), fill=RED, width=int(FACE * 0.095)
    )


FACES: dict[str, Callable[[ImageDraw.ImageDraw], None]] = {
    "crossing": _crossing,
    "no-entry": _no_entry,
    "no-parking": _no_parking,
    "priority-road": _priority,
    "roundabout": _roundabout,
    "speed-30": _limit("30"),
    "speed-50": _limit("50"),
    "speed-80": _limit("80"),
    "stop": _stop,
    "turn-right": _turn_right,
    "yield": _yield,
}
"""How each class is drawn on a square of `FACE` pixels."""
