"""Pictures to calibrate on are drawn by seed; bad ones are named and passed over, and all bad is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenets.data.calibration import listed, pictures
from mobilenets.infer.image import decode, prepare
from mobilenets.spec.preprocess import Preprocess

PRE = Preprocess(height=6, width=7)


def painted(root: Path, *files: str) -> Path:
    """A picture of its own noise for each name."""
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / file)
    return root


def test_levels_are_the_pictures_as_the_model_wants_them(tmp_path: Path) -> None:
    found = pictures(listed(painted(tmp_path, "a/1.png", "a/2.png", "b/3.png")), PRE)
    assert sorted(found.files) == ["a/1.png", "a/2.png", "b/3.png"]
    assert found.levels.shape == (3, 6, 7, 3)
    for file, made in zip(found.files, found.levels, strict=True):
        np.testing.assert_array_equal(made, prepare(decode((tmp_path / file).read_bytes(), PRE), PRE))


@pytest.mark.parametrize("folders", [("", "", "", ""), ("x", "x", "y", ""), ("x/deep", "x/deep", "y", "y")])
def test_any_folder_serves_with_classes_or_without(tmp_path: Path, folders: tuple[str, ...]) -> None:
    painted(tmp_path, *(f"{folder}/{number}.png".lstrip("/") for number, folder in enumerate(folders)))
    assert len(pictures(listed(tmp_path), PRE).files) >= 3


def test_the_draw_is_the_seeds_and_no_larger_than_asked(tmp_path: Path) -> None:
    painted(tmp_path, *(f"{label}/{n}.png" for label in "ab" for n in range(20)))
    first = pictures(listed(tmp_path), PRE, most=10)
    assert len(first.files) == len(set(first.files)) == len(first.levels) == 10
    assert pictures(listed(tmp_path), PRE, most=10).files == first.files
    assert pictures(listed(tmp_path), PRE, most=10, seed=1).files != first.files
    assert {file[0] for file in first.files} == {"a", "b"}


def test_what_is_for_judging_is_not_calibrated_on(tmp_path: Path) -> None:
    painted(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png", "val/b/4.png")
    assert sorted(pictures(listed(tmp_path), PRE).files) == ["train/a/1.png", "train/b/2.png"]
    only = painted(tmp_path / "other", "test/a/1.png", "test/b/2.png")
    assert len(pictures(listed(only), PRE).files) == 2


def test_bad_pictures_are_named_and_others_drawn_in_their_place(tmp_path: Path) -> None:
    painted(tmp_path, *(f"a/{n}.png" for n in range(6)))
    (tmp_path / "a" / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "a" / "empty.png").write_bytes(b"")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    told: list[tuple[str, int, int]] = []
    found = pictures(listed(tmp_path), PRE, most=6, progress=lambda *one: told.append(one))
    assert sorted(found.files) == [f"a/{n}.png" for n in range(6)]
    assert {one.file for one in found.set_aside} <= {"a/bad.jpg", "a/empty.png", "a/cut.png"}
    every = pictures(listed(tmp_path), PRE)
    assert {one.file: one.kind for one in every.set_aside} == {
        "a/bad.jpg": "unreadable",
        "a/empty.png": "empty",
        "a/cut.png": "truncated",
    }
    assert told[-1] == ("calibrate", 6, 6)


def test_only_bad_pictures_are_one_clear_error(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"none of its 3 pictures can be used: \d\.jpg: .*doctor") as error:
        pictures(listed(tmp_path), PRE)
    assert "\n" not in str(error.value)


def test_a_folder_without_pictures_and_a_path_that_is_none_are_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(ValueError, match="without pictures"):
        pictures(listed(tmp_path), PRE)
    with pytest.raises(ValueError, match="no such folder"):
        pictures(listed(tmp_path / "none"), PRE)
