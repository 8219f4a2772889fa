"""One file, looked at: every kind of broken or odd picture is told apart, and copies look alike."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from mobilenets.data.look import Look, from_json, look, phash, to_json
from mobilenets.data.signs import FACES, sign


def photo(seed: int = 0, name: str = "stop") -> Image.Image:
    data = sign(name, np.random.Generator(np.random.PCG64(seed)), (150, 240))
    return Image.open(io.BytesIO(data)).convert("RGB")


def saved(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def apart(one: Look, other: Look) -> int:
    return (one.phash ^ other.phash).bit_count()


def test_a_look_says_what_the_file_is() -> None:
    data = saved(photo(), quality=80)
    seen = look(data, ".jpg")
    assert seen.digest == hashlib.sha256(data).hexdigest()
    assert (seen.bytes, seen.format, seen.mode) == (len(data), "JPEG", "RGB")
    assert (seen.width, seen.height) == photo().size
    assert (seen.problem, seen.bits, seen.frames, seen.alpha, seen.orientation) == (None, 8, 1, False, 1)


def test_a_file_of_no_bytes_is_empty() -> None:
    assert look(b"", ".jpg").problem == "empty"


def test_text_renamed_jpg_is_unreadable_and_the_suffix_is_named() -> None:
    seen = look(b"this is no picture\n" * 50, ".jpg")
    assert seen.problem == "unreadable"
    assert ".jpg" in seen.reason
    assert "\n" not in seen.reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_short_is_truncated_or_unreadable(kind: str) -> None:
    data = saved(photo(), kind)
    assert look(data, "").problem is None
    for share in (0.02, 0.3, 0.5, 0.6, 0.9):
        cut = look(data[: int(len(data) * share)], "")
        assert cut.problem == "truncated", share
        assert "\n" not in cut.reason


def test_a_header_of_twenty_thousand_squared_is_refused_before_any_pixel() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(9)))
        + chunk(b"IEND", b"")
    )
    assert look(bomb, ".png").problem == "too-large"


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (127, 129), (128, 4000)])
def test_a_picture_of_any_size_has_a_hash_and_a_thumbnail(size: tuple[int, int]) -> None:
    seen = look(saved(photo().resize(size), "PNG"), ".png")
    assert seen.problem is None
    assert len(seen.thumb) == 8 * 8 * 3
    assert 0 <= seen.phash < 1 << 63


def test_odd_kinds_of_pictures_are_told_apart() -> None:
    picture = photo()
    frames = [picture, picture.rotate(90), picture.rotate(180)]
    animated = look(saved(picture.convert("P"), "GIF", save_all=True, append_images=frames), ".gif")
    assert (animated.format, animated.frames, animated.problem) == ("GIF", 4, None)
    assert look(saved(picture.convert("CMYK")), ".jpg").mode == "CMYK"
    assert look(saved(picture.convert("L")), ".jpg").mode == "L"
    assert look(saved(picture.convert("P"), "PNG"), ".png").mode == "P"
    assert look(saved(picture.convert("RGBA"), "PNG"), ".png").alpha
    deep = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    assert look(saved(deep, "PNG"), ".png").bits == 16
    assert look(saved(picture), ".png").format == "JPEG"
    exif = Image.Exif()
    exif[0x0112] = 6
    assert look(saved(picture, exif=exif), ".jpg").orientation == 6


def test_sixteen_bit_colour_is_seen_although_pillow_calls_it_rgb() -> None:
    rows = b"".join(b"\0" + bytes(4 * 6) for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    seen = look(data, ".png")
    assert (seen.mode, seen.bits, seen.problem) == ("RGB", 16, None)


def test_a_picture_and_its_exif_turned_copy_look_the_same() -> None:
    picture = photo(3)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter to the right
    turned = saved(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert look(turned, ".png").phash == look(saved(picture, "PNG"), ".png").phash


@pytest.mark.parametrize("name", sorted(FACES))
def test_copies_stay_near_and_other_pictures_far(name: str) -> None:
    picture = photo(5, name)
    seen = look(saved(picture, "PNG"), ".png")
    half = picture.resize((picture.width // 2, picture.height // 2))
    for copy in (
        saved(picture, quality=35),
        saved(half),
        saved(ImageEnhance.Brightness(picture).enhance(0.9)),
    ):
        assert apart(seen, look(copy, ".jpg")) <= 6
    others = [look(saved(photo(seed, name)), ".jpg") for seed in range(6, 16)]
    assert min(apart(seen, other) for other in others) > 8


def test_the_hash_is_of_low_frequencies_above_their_median() -> None:
    # A plane wave of two half periods across is the third frequency of the first row and nothing else.
    wave = 128 + 100 * np.cos(np.pi * (2 * np.arange(32) + 1) * 2 / 64)
    frame = np.broadcast_to(wave[None, :, None], (32, 32, 3)).astype(np.uint8)
    bits = format(phash(np.ascontiguousarray(frame)), "063b")
    assert bits[1] == "1"
    assert phash(np.zeros((50, 70, 3), np.uint8)) == phash(np.full((9, 9, 3), 200, np.uint8)) == 0


@given(
    st.binary(max_size=400),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"BM"]),
)
def test_no_bytes_make_a_look_raise(tail: bytes, start: bytes) -> None:
    seen = look(start + tail, ".jpg")
    assert seen.bytes == len(start + tail)
    assert seen.problem is None or seen.reason


@given(st.integers(0, 60), st.integers(0, 255), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF"]))
def test_no_damaged_picture_makes_a_look_raise(place: int, value: int, kind: str) -> None:
    data = bytearray(saved(photo().resize((40, 30)), kind))
    data[place * (len(data) - 1) // 60] = value
    assert look(bytes(data), "").bytes == len(data)


def test_a_look_comes_back_from_the_store_as_it_went() -> None:
    for data in (saved(photo()), b"", b"no picture"):
        seen = look(data, ".jpg")
        assert from_json(to_json(seen)) == seen
    with pytest.raises(ValueError):
        from_json(to_json(replace(seen))[:-3])
    with pytest.raises(ValueError, match="not a look"):
        from_json(b"[1,2]")
