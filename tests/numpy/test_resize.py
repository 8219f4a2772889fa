"""Resizing is integers throughout: a scalar loop equals it bit for bit, and Pillow lies within one level."""

from __future__ import annotations

import io
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mobilenets.infer.resize import BITS, Frame, resize, taps


def scalar_weights(samples: int, places: int) -> list[dict[int, int]]:
    """The definition, in exact fractions: for each output the samples it weighs, in units of 2⁻²²."""
    reach = max(Fraction(samples, places), Fraction(1))
    rows = []
    for i in range(places):
        centre = (i + Fraction(1, 2)) * Fraction(samples, places)
        share = {j: max(1 - abs(j + Fraction(1, 2) - centre) / reach, Fraction(0)) for j in range(samples)}
        total = sum(share.values())
        exact = {j: value / total * 2**BITS for j, value in share.items() if value}
        rows.append({j: int(value + Fraction(1, 2)) for j, value in exact.items()})  # half up
    return rows


def scalar_axis(line: list[int], places: int) -> list[int]:
    if len(line) == places:
        return line
    made = []
    for weights in scalar_weights(len(line), places):
        total = (1 << (BITS - 1)) + sum(weight * line[j] for j, weight in weights.items())
        made.append(min(max(total >> BITS, 0), 255))
    return made


def scalar_resize(frame: Frame, height: int, width: int) -> Frame:
    rows = [
        [scalar_axis([int(v) for v in frame[y, :, c]], width) for c in range(frame.shape[2])]
        for y in range(len(frame))
    ]
    columns = [
        [scalar_axis([rows[y][c][x] for y in range(len(frame))], height) for x in range(width)]
        for c in range(frame.shape[2])
    ]
    return np.array(columns, np.uint8).transpose(2, 1, 0)


def noise(seed: int, height: int, width: int) -> Frame:
    """Hard noise, black and white among it: what clips and rounds worst."""
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 256, (height, width, 3))
    return np.where(
        draw.random((height, width, 1)) < 0.3, draw.choice([0, 255], values.shape), values
    ).astype(np.uint8)


SMALL = st.integers(1, 12)
SIDE = st.integers(1, 90)
SEED = st.integers(0, 2**31)


@given(SEED, SMALL, SMALL, SMALL, SMALL)
def test_a_scalar_loop_of_integers_gives_the_same_bits(
    seed: int, height: int, width: int, tall: int, wide: int
) -> None:
    frame = noise(seed, height, width)
    np.testing.assert_array_equal(resize(frame, tall, wide), scalar_resize(frame, tall, wide))


@given(SEED, SIDE, SIDE, SIDE, SIDE)
def test_pillow_lies_within_one_level(seed: int, height: int, width: int, tall: int, wide: int) -> None:
    frame = noise(seed, height, width)
    theirs = np.asarray(Image.fromarray(frame).resize((wide, tall), Image.Resampling.BILINEAR))
    ours = resize(frame, tall, wide)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize(
    ("height", "width", "tall", "wide"),
    [
        (1, 1, 224, 224),
        (1, 3000, 224, 224),
        (3000, 1, 1, 1),
        (2999, 3001, 1, 1),
        (224, 224, 1, 1),
        (5, 7, 7, 5),
    ],
)
def test_pillow_lies_within_one_level_at_the_extremes(height: int, width: int, tall: int, wide: int) -> None:
    frame = noise(height * width, height, width)
    theirs = np.asarray(Image.fromarray(frame).resize((wide, tall), Image.Resampling.BILINEAR))
    assert np.abs(resize(frame, tall, wide).astype(int) - theirs).max() <= 1


@given(st.integers(1, 5000), st.integers(1, 600))
def test_weights_sum_to_one_within_a_rounding_each_and_lie_on_the_axis(samples: int, places: int) -> None:
    first, weights = taps(samples, places)
    assert first.shape == (places,)
    assert weights.min() >= 0
    reached = first[:, None] + np.nonzero(np.ones_like(weights))[1].reshape(weights.shape)
    assert (reached[weights > 0] < samples).all()
    assert (np.abs(weights.sum(axis=1) - (1 << BITS)) <= weights.shape[1]).all()


@given(st.integers(0, 255), SIDE, SIDE, SIDE, SIDE)
def test_one_colour_stays_that_colour(level: int, height: int, width: int, tall: int, wide: int) -> None:
    frame = np.full((height, width, 3), level, np.uint8)
    assert (resize(frame, tall, wide) == level).all()


@given(SEED, SIDE, SIDE)
def test_the_same_size_is_the_same_picture(seed: int, height: int, width: int) -> None:
    frame = noise(seed, height, width)
    np.testing.assert_array_equal(resize(frame, height, width), frame)


@given(SEED, SMALL, SMALL, SMALL, SMALL)
def test_a_mirrored_picture_gives_the_mirrored_result(
    seed: int, height: int, width: int, tall: int, wide: int
) -> None:
    frame = noise(seed, height, width)
    np.testing.assert_array_equal(
        resize(frame[::-1, ::-1], tall, wide), resize(frame, tall, wide)[::-1, ::-1]
    )


def test_real_photographs_lie_within_one_level_of_pillow(material: Path) -> None:
    with tarfile.open(material / "data" / "road-or-not.tar") as archive:
        pictures = [
            m for m in archive if m.isfile() and m.name.lower().endswith(("jpg", "jpeg", "png", "webp"))
        ][:40]
        frames = []
        for member in pictures:
            file = archive.extractfile(member)
            assert file is not None
            with Image.open(io.BytesIO(file.read())) as picture:
                frames.append(np.asarray(picture.convert("RGB")))
    assert len(frames) == 40
    for frame in frames:
        theirs = np.asarray(Image.fromarray(frame).resize((128, 128), Image.Resampling.BILINEAR))
        assert np.abs(resize(frame, 128, 128).astype(int) - theirs).max() <= 1
