"""Tensors and one JSON text in a sealed safetensors file, written whole or not at all.

The header's `__metadata__` has two entries: `mobilenets`, the JSON text, and `sha256`, the seal in
hexadecimal over
    the JSON text's UTF-8 bytes, a newline,
    for each tensor in order of its offset: name, dtype, shape joined by `,`, start, end, joined by tabs, a
    newline,
    the data section.
Any safetensors reader opens the file; nothing in it can execute.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.spec.text import json_text

KEY, SEAL = "mobilenets", "sha256"
MOST_HEADER_BYTES = 64 << 20


class ArtefactError(ValueError):
    """A file that is not to be trusted or not to be understood; the text says which."""


DTYPES = {"float32": "F32", "int32": "I32", "int8": "I8", "uint8": "U8", "int64": "I64", "float64": "F64"}


def pack(meta: Mapping[str, Any], tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of a sealed file; the same content gives the same bytes."""
    # Written here because the library's own writer puts the entries of `__metadata__` in a random order.
    table: dict[str, Any] = {}
    parts, start = [], 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):  # aligned without gaps
        part = np.ascontiguousarray(tensors[name]).astype(tensors[name].dtype.newbyteorder("<"), copy=False)
        parts.append(part.tobytes())
        entry = {"dtype": DTYPES[part.dtype.name], "shape": list(part.shape)}
        table[name] = entry | {"data_offsets": [start, start + part.nbytes]}
        start += part.nbytes
    text = json_text(meta, separators=(",", ":"))
    body = b"".join(parts)
    top = {"__metadata__": {KEY: text}, **table}
    seal = _digest(text, top, body)
    header = json.dumps(
        {"__metadata__": {KEY: text, SEAL: seal}, **table}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + body


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The JSON table and the tensors of a sealed file. Raises ArtefactError with the first thing wrong."""
    import safetensors.numpy

    top, start = _parsed(data)
    entries = top.get("__metadata__", {})
    if not isinstance(entries, dict) or KEY not in entries or SEAL not in entries:
        raise ArtefactError("a safetensors file, but not one of mobilenets: it carries no network")
    try:
        seal = _digest(entries[KEY], top, memoryview(data)[start:])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"its tensor table is damaged ({error})") from error
    if seal != entries[SEAL]:
        raise ArtefactError("its digest does not match its content: altered or damaged; get the file again")
    try:
        meta = json.loads(entries[KEY])
        tensors = safetensors.numpy.load(data)
    except (json.JSONDecodeError, RecursionError, safetensors.SafetensorError, KeyError) as error:
        raise ArtefactError(f"sealed, but not readable ({error})") from error
    if not isinstance(meta, dict):
        raise ArtefactError("its metadata is no table")
    return meta, tensors


def writable(out: Path) -> None:
    """Raises OSError before any work where results could not be written after it; what it makes it removes.

    A folder that is there but empty would be read as a class without pictures where `out` lies in the data.
    """
    made = [place for place in (out, *out.parents) if not place.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(20, "a file is in its way; give another --out", str(out)) from error
    if not os.access(out, os.W_OK):
        raise PermissionError(13, "cannot be written to; give another --out", str(out))
    for place in made:
        place.rmdir()


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step; if that fails, the old content stays and no part file is left.

    An OSError names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(errno.EINVAL, "a device or a pipe, which a file would take the place of", str(path))
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def _umask() -> int:
    mask = os.umask(0o022)  # the only way to read it is to set it
    os.umask(mask)
    return mask


def _parsed(data: bytes) -> tuple[dict[str, Any], int]:
    """The safetensors header and where the data section starts."""
    if len(data) < 8:
        raise ArtefactError("no model: the file is shorter than a header; get it again")
    (length,) = struct.unpack("<Q", data[:8])
    if length > MOST_HEADER_BYTES:
        raise ArtefactError("no safetensors file: its first eight bytes are no header length")
    if len(data) < 8 + length:
        raise ArtefactError("truncated inside its header; get the file again")
    try:
        top = json.loads(data[8 : 8 + length])
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ArtefactError("no safetensors file: its header is no JSON") from error
    if not isinstance(top, dict):
        raise ArtefactError("no safetensors file: its header is no table")
    ends = [
        v["data_offsets"][1] for v in top.values() if isinstance(v, dict) and _offsets(v.get("data_offsets"))
    ]
    if ends and max(ends) > len(data) - 8 - length:
        raise ArtefactError(
            f"truncated: {len(data) - 8 - length} of {max(ends)} bytes of data are there; get the file again"
        )
    return top, 8 + length


def _offsets(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _digest(text: str, top: Mapping[str, Any], body: bytes | memoryview) -> str:
    import hashlib  # like safetensors, what a compiled model is asked without

    total = hashlib.sha256(text.encode() + b"\n")
    table = {name: entry for name, entry in top.items() if name != "__metadata__"}
    for name, entry in sorted(table.items(), key=lambda item: (item[1]["data_offsets"], item[0])):
        if "\t" in name or "\n" in name:
            raise ValueError(f"tensor name {name!r}")
        shape = ",".join(str(int(side)) for side in entry["shape"])
        first, last = entry["data_offsets"]
        total.update(f"{name}\t{entry['dtype']}\t{shape}\t{first}\t{last}\n".encode())
    total.update(body)
    return total.hexdigest()
