"""Any picture becomes uint8 RGB the way its file means it, or is refused with one word for what is wrong."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from mobilenets.infer import image
from mobilenets.infer.image import Header, ImageError, decode, header, normalise, prepare
from mobilenets.infer.resize import Frame, resize
from mobilenets.spec.preprocess import Preprocess

simplejpeg_is_here = image._simplejpeg() is not None
both_decoders = pytest.mark.skipif(not simplejpeg_is_here, reason="simplejpeg is not installed")


def scene(height: int = 60, width: int = 90, period: int = 57) -> Image.Image:
    """Smooth colours with a few hard edges, different in every corner."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [255 * x / width, 255 * y / height, 127 + 120 * np.sin((x + 2 * y) * 2 * np.pi / period)]
    levels = np.stack(channels, axis=2)
    levels[height // 5 : height // 3, width // 8 : width // 2] = (250, 20, 40)
    return Image.fromarray(levels.astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(picture: Image.Image, kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[image.ORIENTATION] = orientation
    return encoded(picture, kind, exif=exif.tobytes())


def difference(ours: Frame, theirs: Frame) -> int:
    assert ours.shape == theirs.shape
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_each_exif_turn_is_the_one_pillow_makes(kind: str, orientation: int) -> None:
    data = turned(scene(), kind, orientation)
    with Image.open(io.BytesIO(data)) as picture:
        theirs = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    ours = decode(data)
    assert difference(ours, theirs) <= (3 if kind == "JPEG" else 0)
    told = header(data)
    assert (told.orientation, told.height, told.width) == (orientation, 60, 90)


@pytest.mark.parametrize("orientation", [0, 9, 77, 65535])
def test_an_orientation_that_is_none_turns_nothing(orientation: int) -> None:
    data = turned(scene(), "PNG", orientation)
    assert header(data).orientation == 1
    assert difference(decode(data), np.asarray(scene())) == 0


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "CMYK", "LAB"])
def test_a_picture_without_transparency_is_what_pillow_makes_of_it(mode: str) -> None:
    kind = "PNG" if mode in ("1", "L", "P", "RGB") else "TIFF"
    picture = Image.frombytes("LAB", (90, 60), scene().tobytes()) if mode == "LAB" else scene().convert(mode)
    data = encoded(picture, kind)
    with Image.open(io.BytesIO(data)) as again:
        assert again.mode == mode
        theirs = np.asarray(again.convert("RGB"))
    assert difference(decode(data), theirs) == 0


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_jpeg_of_any_mode_is_what_pillow_makes_of_it(mode: str) -> None:
    data = encoded(scene().convert(mode), "JPEG", quality=92)
    with Image.open(io.BytesIO(data)) as again:
        assert again.mode == mode
        theirs = np.asarray(again.convert("RGB"))
    assert difference(decode(data), theirs) <= 3


def alpha_over_white(colour: tuple[int, int, int], alpha: int) -> list[int]:
    return [round((c * alpha + 255 * (255 - alpha)) / 255) for c in colour]


@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(mode: str, alpha: int) -> None:
    colour = (200, 30, 90) if mode == "RGBA" else (90, 90, 90)
    value = (*colour, alpha) if mode == "RGBA" else (90, alpha)
    data = encoded(Image.new(mode, (4, 3), value), "PNG")
    assert header(data).alpha
    assert np.abs(decode(data).astype(int) - alpha_over_white(colour, alpha)).max() <= 1


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    picture = Image.new("P", (4, 2), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50] + [0] * 750)
    picture.putpixel((0, 0), 0)
    data = encoded(picture, "PNG", transparency=0)
    assert header(data).alpha
    made = decode(data)
    assert made[0, 0].tolist() == [255, 255, 255]
    assert made[1, 1].tolist() == [200, 100, 50]


def test_a_transparent_colour_of_rgb_lies_on_white() -> None:
    picture = Image.new("RGB", (4, 2), (9, 8, 7))
    picture.putpixel((3, 1), (200, 100, 50))
    made = decode(encoded(picture, "PNG", transparency=(9, 8, 7)))
    assert made[0, 0].tolist() == [255, 255, 255]
    assert made[1, 3].tolist() == [200, 100, 50]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(kind: str) -> None:
    levels = (np.arange(65536, dtype=np.uint32).reshape(256, 256)).astype(np.uint16)
    made = decode(encoded(Image.fromarray(levels), kind))
    assert (made == (levels >> 8).astype(np.uint8)[..., None]).all()


def test_a_16_bit_png_of_few_levels_is_dark_and_not_stretched() -> None:
    levels = np.full((3, 3), 300, np.uint16)
    assert (decode(encoded(Image.fromarray(levels), "PNG")) == 1).all()


def test_of_an_animation_the_first_frame_counts() -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(first, kind, save_all=True, append_images=[second], duration=50, loop=0, lossless=True)
        assert header(data).frames == 2
        assert (decode(data) == [255, 0, 0]).all(), kind


def test_a_header_tells_what_the_file_says() -> None:
    told = header(turned(scene(50, 70), "JPEG", 6))
    assert told == Header("JPEG", "RGB", width=70, height=50, orientation=6, frames=1, alpha=False)
    assert decode(turned(scene(50, 70), "JPEG", 6)).shape == (70, 50, 3)


def with_pillow_alone(monkeypatch: pytest.MonkeyPatch, work: Callable[[], Frame]) -> Frame:
    with monkeypatch.context() as patched:
        patched.setattr(image, "_simplejpeg", lambda: None)
        return work()


@both_decoders
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(("height", "width"), [(60, 90), (61, 91), (1, 1), (8, 8), (17, 1), (1, 33)])
def test_both_jpeg_decoders_agree_within_three_levels(
    monkeypatch: pytest.MonkeyPatch, subsampling: str, height: int, width: int
) -> None:
    data = encoded(scene(height, width), "JPEG", quality=90, subsampling=subsampling)
    assert difference(decode(data), with_pillow_alone(monkeypatch, lambda: decode(data))) <= 3


@both_decoders
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sides", [(500, 700), (451, 777), (1001, 999), (2000, 2401)])
def test_both_jpeg_decoders_agree_at_a_reduced_scale(
    monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int], progressive: bool
) -> None:
    data = encoded(scene(*sides), "JPEG", quality=90, progressive=progressive)
    target = Preprocess(height=96, width=96)
    ours = decode(data, target)
    assert ours.shape[0] < sides[0]
    assert difference(ours, with_pillow_alone(monkeypatch, lambda: decode(data, target))) <= 3


@both_decoders
def test_both_jpeg_decoders_agree_on_photographs(monkeypatch: pytest.MonkeyPatch, material: Path) -> None:
    frames = photographs(material, 24)
    for index, frame in enumerate(frames):
        data = encoded(Image.fromarray(frame), "JPEG", quality=(75, 95)[index % 2])
        theirs = with_pillow_alone(monkeypatch, lambda data=data: decode(data))  # type: ignore[misc]
        assert difference(decode(data), theirs) <= 3


def photographs(material: Path, most: int) -> list[Frame]:
    found: list[Frame] = []
    with tarfile.open(material / "data" / "imagenet-500.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and member.name.lower().endswith((".webp", ".jpg", ".jpeg", ".png")):
                found.append(decode(file.read()))
            if len(found) == most:
                return found
    raise AssertionError("too few photographs")


@pytest.mark.parametrize("geometry", ["crop", "stretch", "letterbox"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_reduced_jpeg_stays_at_least_twice_the_target_and_looks_the_same(
    geometry: str, orientation: int
) -> None:
    target = Preprocess(height=64, width=64, geometry=geometry)  # type: ignore[arg-type]
    data = turned(scene(600, 900, period=400), "JPEG", orientation)
    whole, reduced = decode(data), decode(data, target)
    assert reduced.size < whole.size
    read = min(reduced.shape[:2]) * (target.fraction if geometry == "crop" else 1)
    assert read >= 2 * 64 * (600 / 900 if geometry == "letterbox" else 1)
    apart = np.abs(prepare(whole, target).astype(int) - prepare(reduced, target))
    # A crop begins at a whole pixel: at a reduced scale up to half a reduced pixel off.
    assert apart.mean() < (3 if geometry == "crop" else 1)


def test_a_small_jpeg_and_a_png_are_never_reduced() -> None:
    target = Preprocess(height=64, width=64, geometry="stretch")
    assert decode(encoded(scene(255, 255), "JPEG"), target).shape == (255, 255, 3)
    assert decode(encoded(scene(256, 256), "JPEG"), target).shape == (128, 128, 3)
    assert decode(encoded(scene(900, 900), "PNG"), target).shape == (900, 900, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_file_cut_short_anywhere_is_refused(kind: str) -> None:
    options = {"JPEG": {"quality": 90}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(scene(120, 160), kind, **options)
    # A JPEG without its closing bytes, or a PNG without its last chunk and checksums, has lost no pixel.
    tail = {"JPEG": 40, "PNG": 24, "GIF": 8}.get(kind, 4)
    cuts = sorted(
        {*range(1, min(64, len(data))), *np.linspace(64, len(data) - tail, 60).astype(int).tolist()}
    )
    read, refused = [], set()
    for cut in cuts:
        try:
            decode(data[:cut])
        except ImageError as error:
            refused.add(error.kind)
        else:
            read.append(cut)
    assert read == []
    assert refused <= {"unreadable", "truncated"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pillow_alone_refuses_a_file_cut_short_too(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(image, "_simplejpeg", lambda: None)
    data = encoded(scene(120, 160), kind)
    for part in (0.3, 0.5, 0.9):
        with pytest.raises(ImageError):
            decode(data[: int(part * len(data))])


@given(st.data())
def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")))
    whole = bytearray(encoded(scene(20, 30), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        made = decode(bytes(whole), data.draw(st.sampled_from((None, Preprocess(height=4, width=4)))))
    except ImageError:
        return
    assert made.dtype == np.uint8
    assert made.ndim == 3
    assert made.shape[2] == 3


def png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header claims another size."""
    data = encoded(scene(16, 16), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


@pytest.mark.parametrize("make", [png, jpeg])
@pytest.mark.parametrize("sides", [(20_000, 20_000), (65_000, 65_000), (11_600, 11_600)])
def test_a_decompression_bomb_is_refused_before_it_takes_memory(
    make: Callable[[int, int], bytes], sides: tuple[int, int]
) -> None:
    before = peak_kilobytes()
    with pytest.raises(ImageError) as error:
        decode(make(*sides))
    assert error.value.kind == "too-large"
    with pytest.raises(ImageError):
        header(make(*sides))
    assert peak_kilobytes() - before < 64 << 10


def peak_kilobytes() -> int:
    resource = pytest.importorskip("resource", reason="peak memory is read the POSIX way")
    peak = int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return peak // 1024 if sys.platform == "darwin" else peak


@pytest.mark.parametrize("kind", ["EPS", "PDF"])
def test_a_format_that_starts_another_program_is_not_opened(kind: str) -> None:
    with pytest.raises(ImageError) as error:
        decode(encoded(scene(), kind))
    assert error.value.kind == "unreadable"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b"\0", "unreadable"),
        (b"no picture at all\n" * 50, "unreadable"),
        (b"<svg/>", "unreadable"),
    ],
)
def test_what_is_no_picture_is_refused_with_one_word_for_why(data: bytes, kind: str) -> None:
    for work in (decode, header):
        with pytest.raises(ImageError) as error:
            work(data)  # type: ignore[operator]
        assert error.value.kind == kind


def test_a_refusal_crosses_from_a_worker_process_as_it_was() -> None:
    error = pickle.loads(pickle.dumps(ImageError("truncated", "ends early")))
    assert (error.kind, str(error)) == ("truncated", "ends early")


def test_one_pixel_is_a_picture() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        made = decode(encoded(Image.new("RGB", (1, 1), (255, 255, 255)), kind))
        assert made.shape == (1, 1, 3)
        assert prepare(made, Preprocess(height=32, width=32)).shape == (32, 32, 3)


def test_a_crop_takes_the_centre() -> None:
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[25:75, 75:125] = 255
    made = prepare(frame, Preprocess(height=50, width=50, fraction=0.5))
    np.testing.assert_array_equal(made, np.full((50, 50, 3), 255))


def test_a_stretch_takes_all_of_the_picture() -> None:
    frame = np.asarray(scene(40, 80))
    np.testing.assert_array_equal(
        prepare(frame, Preprocess(height=20, width=20, geometry="stretch")), resize(frame, 20, 20)
    )


def test_a_letterbox_keeps_proportions_and_fills_the_rest() -> None:
    frame = np.asarray(scene(40, 80))
    made = prepare(frame, Preprocess(height=20, width=20, geometry="letterbox", fill=7))
    np.testing.assert_array_equal(made[5:15], resize(frame, 10, 20))
    assert (made[:5] == 7).all()
    assert (made[15:] == 7).all()


def test_normalising_is_the_pixel_less_the_mean_over_std() -> None:
    pre = Preprocess(height=1, width=2, mean=(10, 20, 30), std=(2, 4, 5))
    made = normalise(np.array([[[12, 20, 30], [10, 28, 25]]], np.uint8), pre)
    assert made.dtype == np.float32
    assert made.tolist() == [[[1, 0, 0], [0, 2, -1]]]


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_what_is_no_frame_is_refused(frame: Frame) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[height, width, 3\]"):
        prepare(frame, Preprocess(height=4, width=4))
