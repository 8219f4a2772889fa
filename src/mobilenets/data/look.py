"""What one picture's file is: digest, header, whether it decodes, and a small trace of what it shows."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import astuple, dataclass, fields, replace
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.image import ImageError, decode, header
from mobilenets.infer.resize import Frame, resize
from mobilenets.spec.preprocess import Preprocess

SIDE, FREQUENCIES, THUMB = 32, 8, 8
TURN_BITS = 14
FORMAT = 1
"""Part of the cache's key: raise it whenever a look at the same bytes would come out otherwise."""
STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
Bytes: TypeAlias = bytes  # inside `Look` the bare word is the field


@dataclass(frozen=True, slots=True)
class Look:
    """One file, looked at. Where `problem` is set it cannot be used, and what is not known is empty or 0.

    Sides are as stored, before the EXIF turn. `bits` are a sample's. `thumb` is 8 × 8 RGB, row by row.
    """

    digest: str
    bytes: int
    format: str = ""
    mode: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    frames: int = 1
    alpha: bool = False
    bits: int = 8
    phash: int = 0
    thumb: Bytes = b""
    problem: str | None = None
    reason: str = ""


def look(data: bytes, suffix: str) -> Look:
    """Decode a file in full and say what it is; never raises for what the bytes hold.

    `problem` is `empty`, `unreadable`, `truncated` or `too-large`. `suffix` only helps to word the reason.
    """
    return seen(data, suffix)[0]


def seen(data: bytes, suffix: str, target: Preprocess | None = None) -> tuple[Look, Frame | None]:
    """A look and its frame, None where there is a problem; a JPEG may be scaled for `target`."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        head = header(data)
    except ImageError as error:
        name = _announced(data)
        if error.kind == "unreadable" and name:
            reason = f"a {name} by its first bytes, but cut short or damaged in its header"
            return Look(digest, len(data), problem="truncated", reason=reason), None
        reason = str(error) + (f", whatever {suffix} says" if suffix and error.kind == "unreadable" else "")
        if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
            reason = "HEIC is not read; convert it to JPEG"
        return Look(digest, len(data), problem=error.kind, reason=reason), None
    except Exception as error:  # a header can pass and its frame count still fail in the decoder
        reason = f"its header is damaged ({type(error).__name__})"
        return Look(digest, len(data), problem="unreadable", reason=reason), None
    deep = head.mode.startswith("I;16") or (head.format == "PNG" and data[24:25] == b"\x10")
    known = replace(Look(digest, len(data), *astuple(head)), bits=16 if deep else 8)
    try:
        frame = decode(data, target)
    except ImageError as error:
        return replace(known, problem=error.kind, reason=str(error)), None
    small = _small(frame)
    return replace(known, phash=_hashed(small), thumb=resize(small, THUMB, THUMB).tobytes()), frame


def _announced(data: bytes) -> str:
    """The format that the first bytes name, if one."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in STARTS.items() if data.startswith(start)), "")


def phash(frame: Frame) -> int:
    """A 63-bit perceptual hash of uint8 [h, w, 3]: which low frequencies lie above their median.

    The DCT hash of C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions"
    (2010): the lowest 8 × 8 frequencies of 32 × 32 grey levels, without the mean. Low frequencies survive a
    resize, a recompression and a change of brightness better than the neighbours' differences of other
    hashes. In integers, so the same everywhere.
    """
    return _hashed(_small(frame))


def to_json(seen: Look) -> bytes:
    """A look as a compact JSON list."""
    row = [base64.b64encode(v).decode() if isinstance(v, bytes) else v for v in astuple(seen)]
    return json.dumps([FORMAT, *row], separators=(",", ":"), ensure_ascii=False).encode()


def from_json(data: bytes) -> Look:
    """The look that `to_json` wrote. Raises ValueError for anything else."""
    row = json.loads(data)
    if not isinstance(row, list) or len(row) != 1 + len(fields(Look)) or row[0] != FORMAT:
        raise ValueError("not a look of this format")
    seen = Look(*row[1:])
    return replace(seen, thumb=base64.b64decode(row[1 + [f.name for f in fields(Look)].index("thumb")]))


def _small(frame: Frame) -> Frame:
    """32 × 32 RGB. All but small pictures are averaged over cells, far cheaper than wide taps."""
    if min(frame.shape[:2]) < 4 * SIDE:
        return resize(frame, SIDE, SIDE)
    rows, columns = (np.arange(SIDE + 1) * side // SIDE for side in frame.shape[:2])
    lines = np.add.reduceat(frame, rows[:-1], axis=0, dtype=np.uint32)
    cells = np.add.reduceat(lines, columns[:-1], axis=1)
    area = (np.diff(rows)[:, None] * np.diff(columns))[..., None]
    return np.asarray((cells + area // 2) // area, np.uint8)


@cache
def _cosines() -> NDArray[np.int64]:
    k, x = np.arange(FREQUENCIES)[:, None], np.arange(SIDE)
    waves = np.cos(np.pi * (2 * x + 1) * k / (2 * SIDE))
    return np.asarray(np.rint(waves * (1 << TURN_BITS)), np.int64)


def _hashed(small: Frame) -> int:
    grey = small.astype(np.int64) @ np.array([299, 587, 114])
    waves = (_cosines() @ grey @ _cosines().T).ravel()[1:]
    above = waves > np.sort(waves)[waves.size // 2]
    return int("".join("1" if bit else "0" for bit in above), 2)
