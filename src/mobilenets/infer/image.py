"""Pictures from bytes to a network's input: decoding, EXIF turn, any mode to RGB, geometry, normalisation."""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mobilenets.infer.resize import Frame, resize
from mobilenets.spec.preprocess import Preprocess, box, fitted

PLUGINS = {
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "PPM": "PpmImagePlugin",
    "AVIF": "AvifImagePlugin",
    "TIFF": "TiffImagePlugin",
}
"""What is decoded, by Pillow's plugins (that of JPEG opens MPO as well). It has more, some that start other
programs: those stay closed."""
SIGNATURE_BYTES = 16
"""What a plugin asks for to know its own."""
MOST_PIXELS = 1 << 27
ORIENTATION = 0x0112
DRAFT_FACTORS = (8, 4, 2)
TURNED_BY_PILLOW = ("TIFF",)
"""Formats whose EXIF turn Pillow makes itself while it loads the pixels."""


class ImageError(ValueError):
    """A picture that cannot be used; `kind` is one word for it, the text says why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)  # both, so that it crosses from a worker process
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[1])


@dataclass(frozen=True, slots=True)
class Header:
    """What a picture's file says of itself before any pixel is decoded; sides before the EXIF turn."""

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    frames: int
    alpha: bool


def header(data: bytes) -> Header:
    """The header of an encoded picture. Raises ImageError (`empty`, `unreadable`, `too-large`)."""
    with _opened(data) as picture:
        return _header(picture)


def decode(data: bytes, target: Preprocess | None = None) -> Frame:
    """An encoded picture as uint8 [height, width, 3], turned as its EXIF says, transparency on white.

    Colour profiles are not applied; of an animation the first frame counts; 16-bit samples keep their high
    byte. With a `target` a JPEG may be decoded at ½, ¼ or ⅛ scale, while what is read stays at least twice
    the target.
    Raises ImageError (`empty`, `unreadable`, `truncated`, `too-large`).
    """
    with _opened(data) as picture:
        head = _header(picture)
        factor = _draft_factor(head, target)
        try:
            frame = _decoded(data, picture, head, factor)
        except MemoryError as error:
            raise ImageError(
                "too-large", f"{head.width} × {head.height} pixels do not fit in memory"
            ) from error
        except Exception as error:  # decoders raise whatever a broken file makes them raise
            raise ImageError("truncated", f"its pixels cannot be decoded: {_one_line(error)}") from error
    return frame if head.format in TURNED_BY_PILLOW else _turned(frame, head.orientation)


def prepare(frame: Frame, pre: Preprocess) -> Frame:
    """uint8 [h, w, 3] of any size to uint8 [pre.height, pre.width, 3]: geometry and resize, in levels."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise ValueError(f"a frame is uint8 [height, width, 3], not {frame.dtype} {list(frame.shape)}")
    top, left, tall, wide = box(pre, frame.shape[0], frame.shape[1])
    place = fitted(pre, tall, wide)
    made = resize(frame[top : top + tall, left : left + wide], place[2], place[3])
    if pre.geometry != "letterbox":
        return np.ascontiguousarray(made)
    canvas = np.full((pre.height, pre.width, 3), pre.fill, np.uint8)
    canvas[place[0] : place[0] + place[2], place[1] : place[1] + place[3]] = made
    return canvas


def normalise(prepared: NDArray[np.uint8], pre: Preprocess) -> NDArray[np.float32]:
    """Levels [..., 3] to a network's float32 input: (pixel − mean) / std."""
    mean, std = np.array(pre.mean, np.float32), np.array(pre.std, np.float32)
    return (prepared.astype(np.float32) - mean) / std


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("empty", "the file has no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warning about size; the limit is checked below
            picture = _recognised(data)
    except Image.DecompressionBombError as error:
        raise ImageError("too-large", _one_line(error)) from error
    except Exception as error:  # a broken header can raise anything
        raise ImageError("unreadable", "no picture of a known format") from error
    if picture.width * picture.height > MOST_PIXELS:
        picture.close()
        raise ImageError("too-large", f"{picture.width} × {picture.height} pixels, more than {MOST_PIXELS}")
    return picture


def _recognised(data: bytes) -> Image.Image:
    """By the first plugin that takes it, as `Image.open` would, which imports five whatever it is given."""
    for name, plugin in PLUGINS.items():
        with suppress(ImportError):  # an older Pillow, or one built without that library
            import_module(f"PIL.{plugin}")
        if name not in Image.OPEN:
            continue
        opens, knows = Image.OPEN[name]
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # what plugins raise for: not mine
            if knows is None or knows(data[:SIGNATURE_BYTES]) is True:
                return opens(io.BytesIO(data), "")
    raise UnidentifiedImageError("no picture of a known format")


def _header(picture: Image.Image) -> Header:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # unreadable EXIF is no reason to lose the picture
        orientation = 1
    wide, tall = picture.size
    if picture.format in TURNED_BY_PILLOW:  # its sides may be turned already; the tags have them as stored
        tags = getattr(picture, "tag_v2", {})
        wide, tall = int(tags.get(256, wide)), int(tags.get(257, tall))
    return Header(
        format=picture.format or "",
        mode=picture.mode,
        width=wide,
        height=tall,
        orientation=orientation if orientation in range(1, 9) else 1,
        frames=getattr(picture, "n_frames", 1),
        alpha=picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info,
    )


def _draft_factor(head: Header, target: Preprocess | None) -> int:
    if target is None or head.format not in ("JPEG", "MPO"):
        return 1
    tall, wide = (head.width, head.height) if head.orientation >= 5 else (head.height, head.width)
    _, _, read_tall, read_wide = box(target, tall, wide)
    _, _, fit_tall, fit_wide = fitted(target, read_tall, read_wide)
    for factor in DRAFT_FACTORS:
        if read_tall >= 2 * factor * fit_tall and read_wide >= 2 * factor * fit_wide:
            return factor
    return 1


@cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg  # type: ignore[no-any-return]  # it ships no types


def _decoded(data: bytes, picture: Image.Image, head: Header, factor: int) -> Frame:
    fast = _simplejpeg()
    if fast is not None and head.format == "JPEG" and head.mode == "RGB":
        tall, wide = -(-head.height // factor), -(-head.width // factor)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns where a file is cut short: that is an error here
            least = (tall, wide) if factor > 1 else (0, 0)
            made: Frame = fast.decode_jpeg(data, "RGB", min_height=least[0], min_width=least[1])
            return made
    if factor > 1:
        # Rounded down, or Pillow takes the next larger scale where a side is no multiple.
        picture.draft("RGB", (head.width // factor, head.height // factor))
    return _rgb(picture, head)


def _rgb(picture: Image.Image, head: Header) -> Frame:
    if picture.mode.startswith("I;16"):
        levels = np.asarray(picture).astype(np.uint16) >> 8
        return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        values = np.asarray(picture).astype(np.float64)
        top = float(np.nanmax(values)) if values.size else 0.0
        scale = 255.0 if picture.mode == "F" and top <= 1 else 1 / 256 if top > 255 else 1.0
        levels = np.clip(np.nan_to_num(values) * scale, 0, 255).astype(np.uint8)
        return np.repeat(levels[..., None], 3, axis=2)
    if head.alpha:
        colours = picture.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, colours)
    return np.asarray(picture.convert("RGB"))


def _turned(frame: Frame, orientation: int) -> Frame:
    if orientation in (5, 6, 7, 8):
        frame = frame.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        frame = frame[::-1]
    if orientation in (2, 3, 6, 7):
        frame = frame[:, ::-1]
    return np.ascontiguousarray(frame)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
