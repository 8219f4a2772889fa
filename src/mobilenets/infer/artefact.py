"""The model file: one safetensors file with the network, its weights and everything needed to use it, sealed.

The header's `__metadata__` has two entries: `mobilenets`, one JSON text, and `sha256`, the seal in hexadecimal over
    the JSON text's UTF-8 bytes, a newline,
    for each tensor in order of its offset: name, dtype, shape joined by `,`, start, end, joined by tabs, a newline,
    the data section.
Any safetensors reader opens the file; nothing in it can execute.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from mobilenets.infer.fold import Weights
from mobilenets.infer.walk import check
from mobilenets.spec.codec import net_from_json, net_to_json, preprocess_from_json, preprocess_to_json
from mobilenets.spec.net import Net, shapes
from mobilenets.spec.preprocess import Preprocess

FORMAT = 1
KEY, SEAL = "mobilenets", "sha256"
MOST_HEADER_BYTES = 64 << 20
MOST_LABELS = 1 << 16
FIELDS = ("format", "net", "preprocess", "labels", "threshold", "source", "recipe", "scores")


class ArtefactError(ValueError):
    """A model file that is not to be trusted or not to be understood; the text says which."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A network that can be used: its weights, how to feed it, how to read it, and what is known of it.

    `labels` name the logits in order (empty for a body alone). `threshold` is the score below which an answer
    means "unknown", or None. `source` says where the body came from and under which licence; `recipe` how it was
    made; `scores` what was measured: JSON values all three.
    """

    net: Net
    weights: Mapping[str, NDArray[np.float32]]
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.preprocess.height, self.preprocess.width) != self.net.input[:2]:
            raise ValueError(
                f"preprocessing makes {self.preprocess.height} × {self.preprocess.width}, "
                f"{self.net.name} takes {self.net.input.height} × {self.net.input.width}"
            )
        logits = [o for o in self.net.outputs if o.decode == "classes"]
        known = shapes(self.net)
        if self.labels and (len(logits) != 1 or known[logits[0].node].channels != len(self.labels)):
            raise ValueError(f"{len(self.labels)} labels for {self.net.name}, whose logits are of another number")


def to_bytes(model: Artefact) -> bytes:
    """The model as the bytes of its file. Raises ValueError where tensors don't fit or aren't finite."""
    check(model.net, model.weights)
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in model.weights.items()}
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: holds values that are not finite; nothing was written")
    metadata = json.dumps(
        {
            "format": FORMAT,
            "net": net_to_json(model.net),
            "preprocess": preprocess_to_json(model.preprocess),
            "labels": list(model.labels),
            "threshold": model.threshold,
            "source": dict(model.source),
            "recipe": dict(model.recipe),
            "scores": dict(model.scores),
        },
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    )
    blank = "0" * 64
    data = safetensors.numpy.save(tensors, {KEY: metadata, SEAL: blank})
    seal = _seal(data, *_parsed(data))
    place = data.index(f'"{SEAL}":"{blank}"'.encode()) + len(SEAL) + 4
    return data[:place] + seal.encode() + data[place + 64 :]


def from_bytes(data: bytes) -> Artefact:
    """The model whose file these bytes are. Raises ArtefactError with the first thing that is wrong."""
    top, start = _parsed(data)
    entries = top.get("__metadata__", {})
    if not isinstance(entries, dict) or KEY not in entries or SEAL not in entries:
        raise ArtefactError("a safetensors file, but not a mobilenets model: it carries no network")
    try:
        seal = _seal(data, top, start)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"its tensor table is damaged ({error})") from error
    if seal != entries[SEAL]:
        raise ArtefactError("its digest does not match its content: altered or damaged; get the file again")
    try:
        meta = json.loads(entries[KEY])
    except json.JSONDecodeError as error:
        raise ArtefactError(f"its metadata is no JSON ({error})") from error
    version = meta.get("format") if isinstance(meta, dict) else None
    if version != FORMAT:
        raise ArtefactError(f"its format is {version!r}, this program reads {FORMAT}; update mobilenets")
    try:
        tensors = safetensors.numpy.load(data)
        return _built(meta, tensors)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ArtefactError(str(error).strip("'\"")) from error


def save(model: Artefact, path: Path) -> None:
    """Write the model file whole or not at all: an older file at `path` stays until the new one is complete."""
    write_whole(path, to_bytes(model))


def load(path: Path) -> Artefact:
    """Read a model file. Raises ArtefactError that names the file and what is wrong, OSError where it can't be read."""
    data = path.read_bytes()
    try:
        return from_bytes(data)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error


def write_whole(path: Path, data: bytes) -> None:
    """Replace `path` by `data` in one step; whatever fails, the old content stays and no part file is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def digest(model: Artefact) -> str:
    """SHA-256 over network, preprocessing and weights: what decides the outputs, and nothing else."""
    total = hashlib.sha256(json.dumps([net_to_json(model.net), preprocess_to_json(model.preprocess)]).encode())
    for name in sorted(model.weights):
        total.update(name.encode() + b"\0")
        total.update(np.ascontiguousarray(model.weights[name], np.float32))
    return total.hexdigest()


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
    ends = [v["data_offsets"][1] for v in top.values() if isinstance(v, dict) and _offsets(v.get("data_offsets"))]
    if ends and max(ends) > len(data) - 8 - length:
        raise ArtefactError(
            f"truncated: {len(data) - 8 - length} of {max(ends)} bytes of data are there; get the file again"
        )
    return top, 8 + length


def _offsets(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _seal(data: bytes, top: Mapping[str, Any], start: int) -> str:
    total = hashlib.sha256(top["__metadata__"][KEY].encode() + b"\n")
    table = {name: entry for name, entry in top.items() if name != "__metadata__"}
    for name, entry in sorted(table.items(), key=lambda item: (item[1]["data_offsets"][0], item[0])):
        if "\t" in name or "\n" in name:
            raise ValueError(f"tensor name {name!r}")
        shape = ",".join(str(int(side)) for side in entry["shape"])
        first, last = entry["data_offsets"]
        total.update(f"{name}\t{entry['dtype']}\t{shape}\t{first}\t{last}\n".encode())
    total.update(memoryview(data)[start:])
    return total.hexdigest()


def _built(meta: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]) -> Artefact:
    missing, extra = set(FIELDS) - set(meta), set(meta) - set(FIELDS)
    if missing or extra:
        raise ValueError(f"its metadata misses {sorted(missing)} and has unknown {sorted(extra)}")
    labels = meta["labels"]
    if not isinstance(labels, list) or len(labels) > MOST_LABELS or not all(isinstance(v, str) for v in labels):
        raise ValueError("its labels are no list of texts")
    threshold = meta["threshold"]
    if threshold is not None and not (isinstance(threshold, int | float) and 0 <= threshold <= 1):
        raise ValueError(f"its threshold is {threshold!r}, not a number in 0…1")
    for name in ("source", "recipe", "scores"):
        if not isinstance(meta[name], dict):
            raise ValueError(f"its {name} is no table")
    net = net_from_json(meta["net"])
    for name, value in tensors.items():
        if value.dtype != np.float32:
            raise ValueError(f"tensor {name} is {value.dtype}, not float32")
    check(net, tensors)
    return Artefact(
        net=net,
        weights=tensors,
        preprocess=preprocess_from_json(meta["preprocess"]),
        labels=tuple(labels),
        threshold=None if threshold is None else float(threshold),
        source=meta["source"],
        recipe=meta["recipe"],
        scores=meta["scores"],
    )
