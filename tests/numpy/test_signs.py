"""The drawn signs are the same for a seed, unlike each other, and give nothing away but by what they show."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenets.data.catalog import scan
from mobilenets.data.doctor import examine
from mobilenets.data.signs import FACES, render, sign
from mobilenets.data.survey import looks_of


def test_a_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    files = {seed: render(tmp_path / f"{run}", 2, seed) for run, seed in ((0, 0), (1, 1))}
    again = render(tmp_path / "2", 2, 0)
    digests = {
        seed: [hashlib.sha256(file.read_bytes()).digest() for file in made] for seed, made in files.items()
    }
    assert [hashlib.sha256(file.read_bytes()).digest() for file in again] == digests[0]
    assert len(set(digests[0] + digests[1])) == 4 * len(FACES)


def test_more_pictures_keep_those_that_were_there(tmp_path: Path) -> None:
    few, many = render(tmp_path / "few", 1), render(tmp_path / "many", 3)
    assert [file.read_bytes() for file in few] == [many[3 * k].read_bytes() for k in range(len(FACES))]


def test_the_doctor_finds_nothing_in_the_signs(tmp_path: Path) -> None:
    render(tmp_path, 25)
    catalog = scan(tmp_path)
    assert catalog.labels == tuple(sorted(FACES))
    told = examine(catalog, looks_of(catalog, None, 2))
    assert told.problems == ()
    blur = {one.cue: one.accuracy for one in told.shortcuts}["4 × 4 thumbnail"]
    assert blur < 0.4, "colours alone must not tell the class"


def test_sides_lie_between_the_two_given(tmp_path: Path) -> None:
    for file in render(tmp_path, 2, size=(60, 90)):
        with Image.open(file) as picture:
            assert picture.format == "JPEG"
            assert all(60 <= side <= 90 for side in picture.size)


def test_a_sign_is_seen_against_the_same_scene_without_it() -> None:
    # The same dice, another face: pixels differ where the sign is, and only there.
    def levels(name: str) -> np.ndarray:
        with Image.open(io.BytesIO(sign(name, np.random.Generator(np.random.PCG64(3))))) as picture:
            return np.asarray(picture.convert("RGB"), np.int16)

    change = np.abs(levels("stop") - levels("priority-road")).max(axis=2) > 40
    assert 0.02 < change.mean() < 0.7


@pytest.mark.parametrize(("per_class", "size"), [(0, (120, 240)), (1, (10, 20)), (1, (200, 100))])
def test_numbers_that_make_no_set_are_refused(tmp_path: Path, per_class: int, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pictures a class"):
        render(tmp_path, per_class, 0, size)
    assert list(tmp_path.iterdir()) == []
