"""Every kind of bad file that turns up among pictures is named with its reason, and the rest is learned."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Ask = Callable[..., Any]


def _bomb() -> bytes:
    """A sound PNG header of 20000 × 20000 pixels, and next to nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _sound(picture: Image.Image) -> dict[str, bytes]:
    """Unusual files that are pictures all the same."""
    grey = np.asarray(picture.convert("L")).astype(np.uint16) * 256
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [picture.rotate(turn).quantize(16) for turn in (0, 90, 180)]
    return {
        "animated.gif": _saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "cmyk.jpg": _saved(picture.convert("CMYK"), "JPEG"),
        "deep.png": _saved(Image.fromarray(grey), "PNG"),
        "palette.png": _saved(picture.quantize(8), "PNG"),
        "alpha.png": _saved(picture.convert("RGBA"), "PNG"),
        "grey.jpg": _saved(picture.convert("L"), "JPEG"),
        "turned.jpg": _saved(picture, "JPEG", exif=exif),
        "png named.jpg": _saved(picture.resize((90, 60)), "PNG"),
        "dot.png": _saved(Image.new("RGB", (1, 1), (9, 99, 200)), "PNG"),
        "line.png": _saved(picture.resize((2000, 1)), "PNG"),
        "Ünïcödé 木 🌳.jpg": _saved(picture.rotate(20), "JPEG"),
        "n" * 240 + ".png": _saved(picture.rotate(40), "PNG"),
        "UPPER.JPG": _saved(picture.rotate(60), "JPEG"),
        "nosuffix": _saved(picture.rotate(80), "JPEG"),
    }


def _broken(picture: Image.Image) -> dict[str, tuple[bytes, str]]:
    """Files that are none, with the kind that each is set aside as."""
    whole = _saved(picture, "JPEG")
    return {
        "zero.jpg": (b"", "empty"),
        "cut.jpg": (whole[: len(whole) // 2], "truncated"),
        "head.jpg": (whole[:20], "truncated"),
        "text.jpg": (b"this is text\n" * 50, "unreadable"),
        "page.png": (b"<!doctype html><html></html>", "unreadable"),
        "bomb.png": (_bomb(), "too-large"),
        "notes.txt": (b"notes", "not-a-picture"),
        "program.exe": (b"MZ" + bytes(100), "not-a-picture"),
    }


@pytest.fixture(scope="module")
def mixed(slice_of: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, dict[str, str]]:
    """A folder with every kind of file; how many of them are pictures, and the kind of each that is none."""
    folder: Path = slice_of(tmp_path_factory.mktemp("mixed") / "set", 3, 8)
    with Image.open(sorted((folder / "ant").iterdir())[0]) as opened:
        picture = opened.convert("RGB")
    for name, data in _sound(picture).items():
        (folder / "ant" / name).write_bytes(data)
    kinds = {}
    for name, (data, kind) in _broken(picture).items():
        (folder / "barrel" / name).write_bytes(data)
        kinds[f"barrel/{name}"] = kind
    (folder / "stray.jpg").write_bytes(_saved(picture, "JPEG"))
    kinds["stray.jpg"] = "no-class"
    (folder / "Faces" / "loop").symlink_to(folder, target_is_directory=True)
    kinds["Faces/loop"] = "link"
    (folder / "Faces" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    kinds["Faces/gone.jpg"] = "not-a-file"
    os.mkfifo(folder / "Faces" / "pipe.jpg")
    kinds["Faces/pipe.jpg"] = "not-a-file"
    (folder / "nobody").mkdir()
    kinds["nobody"] = "empty-class"
    (folder / "Faces" / "Thumbs.db").write_bytes(b"clutter")
    (folder / "Faces" / "._image.jpg").write_bytes(b"clutter")
    return folder, 24 + len(_sound(picture)), kinds


@pytest.mark.slow
def test_bad_files_are_named_with_their_reason_and_the_rest_is_learned(
    ask: Ask, mixed: tuple[Path, int, dict[str, str]], body25: Path, tmp_path: Path
) -> None:
    folder, good, kinds = mixed
    out = tmp_path / "out"
    facts = ask("retrain", folder, "--out", out, "--weights", body25, "--json").facts
    assert {one["file"]: one["kind"] for one in facts["set_aside"]} == kinds
    assert all(one["reason"] for one in facts["set_aside"])
    assert facts["images"] == {"used": good, "set_aside": len(kinds)}
    report = (out / "report.html").read_text()
    assert all(Path(name).name in report for name in kinds)
    found = ask("evaluate", out / "model.safetensors", folder, "--json").facts
    assert found["n"] == good
    assert {one["file"] for one in found["set_aside"]} == set(kinds)


def test_doctor_names_the_same_files(ask: Ask, mixed: tuple[Path, int, dict[str, str]]) -> None:
    folder, _, kinds = mixed
    facts = ask("doctor", folder, "--json").facts
    named = {file for problem in facts["problems"] for file in problem["files"]}
    assert {name for name, kind in kinds.items() if kind in ("empty", "truncated", "unreadable")} <= named


@pytest.mark.slow
def test_bad_files_in_a_zip_and_rows_of_a_csv_that_lead_nowhere_are_named_too(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 3, 8)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in sorted(folder.rglob("*.webp")):
            archive.write(path, path.relative_to(folder))
        archive.writestr("ant/zero.jpg", b"")
        archive.writestr("../../etc/passwd.jpg", b"out of the archive")
        archive.writestr("__MACOSX/ant/._x.jpg", b"clutter")
    facts = ask("retrain", tmp_path / "set.zip", "--out", tmp_path / "a", "--weights", body25, "--json").facts
    assert facts["images"]["used"] == 24
    assert "ant/zero.jpg" in {one["file"] for one in facts["set_aside"]}
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(folder.rglob("*.webp"))]
    more = ["set/ant/gone.jpg,ant", "set/ant,ant", ",ant", f"{rows[0].partition(',')[0]},", rows[0]]
    (tmp_path / "set.csv").write_text("\n".join(rows + more))
    facts = ask("retrain", tmp_path / "set.csv", "--out", tmp_path / "b", "--weights", body25, "--json").facts
    assert facts["images"] == {"used": 24, "set_aside": 5}
    assert [one["kind"] for one in facts["set_aside"]].count("no-class") == 2


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_or_is_damaged_costs_time_and_nothing_else(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 2, 6)
    (tmp_path / "file").write_text("a file where the cache should be")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "features.sqlite").write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    digests = set()
    for place in ("file", "broken"):
        env = {"MOBILENETS_CACHE": str(tmp_path / place)}
        facts = ask("retrain", folder, "--out", tmp_path / "o", "--weights", body25, "--json", env=env).facts
        assert any("cache" in note for note in facts["notes"])
        digests.add(facts["digest"])
    assert len(digests) == 1


@pytest.mark.slow
def test_more_threads_than_pictures_and_no_home_will_do(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 2, 3)
    env = {"HOME": "", "MOBILENETS_CACHE": str(tmp_path / "cache")}
    command = ("retrain", folder, "--out", tmp_path / "o", "--weights", body25, "--threads", 8, "--json")
    assert ask(*command, env=env).facts["options"]["threads"] == 8
