"""The model file: a network, its weights and everything needed to use it, sealed in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer import integer
from mobilenets.infer.scale import Scale
from mobilenets.infer.sealed import ArtefactError, pack, unpack, write_whole
from mobilenets.infer.walk import check
from mobilenets.spec.codec import net_from_json, net_to_json, preprocess_from_json, preprocess_to_json
from mobilenets.spec.net import Net, shapes
from mobilenets.spec.preprocess import Preprocess

FORMAT = 1
MOST_LABELS = 1 << 16
MOST_LOGIT = 1e6
"""More than any head gives, and still a number in every format a device may hold it in but float16."""
FIELDS = ("format", "net", "preprocess", "labels", "threshold", "source", "recipe", "scores")
SCALES = "scales"
"""A further field, of quantised models alone."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A network that can be used: its weights, how to feed it, how to read it, and what is known of it.

    `labels` name the logits in order (empty for a body alone). A greatest logit below `threshold` means
    "unknown"; None where nothing does. `source` says where the body came from and under which licence;
    `recipe` how it was made; `scores` what was measured: JSON values all three. A quantised model has a
    scale for each node whose values are bytes, and the tensors of `infer.integer` in place of float32.
    """

    net: Net
    weights: Mapping[str, NDArray[Any]]
    preprocess: Preprocess
    labels: tuple[str, ...] = ()
    threshold: float | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return "int8" if self.scales else "float32"

    def __post_init__(self) -> None:
        if (self.preprocess.height, self.preprocess.width) != self.net.input[:2]:
            raise ValueError(
                f"preprocessing makes {self.preprocess.height} × {self.preprocess.width}, "
                f"{self.net.name} takes {self.net.input.height} × {self.net.input.width}"
            )
        if self.net.input.channels != 3:
            raise ValueError(f"{self.net.name} takes {self.net.input.channels} channels; a picture has 3")
        logits = [o for o in self.net.outputs if o.decode == "classes"]
        known = shapes(self.net)
        if self.labels and (len(logits) != 1 or known[logits[0].node].channels != len(self.labels)):
            raise ValueError(
                f"{len(self.labels)} labels for {self.net.name}, whose logits are of another number"
            )


def to_bytes(model: Artefact) -> bytes:
    """The model as the bytes of its file. Raises ValueError where tensors don't fit or aren't finite."""
    tensors = dict(model.weights)
    if model.scales:
        integer.check(model.net, tensors, model.scales)
    else:
        check(model.net, tensors)
        tensors = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
        _sound(tensors)
    return pack(metadata(model), tensors)


def metadata(model: Artefact) -> dict[str, Any]:
    """All that a model's file says beside its tensors, as JSON values."""
    meta: dict[str, Any] = {
        "format": FORMAT,
        "net": net_to_json(model.net),
        "preprocess": preprocess_to_json(model.preprocess),
        "labels": list(model.labels),
        "threshold": model.threshold,
        "source": dict(model.source),
        "recipe": dict(model.recipe),
        "scores": dict(model.scores),
    }
    if model.scales:
        meta[SCALES] = {name: [scale.step, scale.zero] for name, scale in sorted(model.scales.items())}
    return meta


def from_bytes(data: bytes) -> Artefact:
    """The model whose file these bytes are. Raises ArtefactError with the first thing that is wrong."""
    meta, tensors = unpack(data)
    if meta.get("format") != FORMAT:
        raise ArtefactError(
            f"its format is {meta.get('format')!r}, this program reads {FORMAT}; update mobilenets"
        )
    try:
        return _built(meta, tensors)
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(str(error).strip("'\"")) from error


def save(model: Artefact, path: Path) -> None:
    """Write the model file whole or not at all: an older file at `path` stays until the new one is whole."""
    write_whole(path, to_bytes(model))


def load(path: Path) -> Artefact:
    """Read a model file. Raises ArtefactError naming the file and what is wrong, OSError from the disk."""
    data = path.read_bytes()
    try:
        return from_bytes(data)
    except ArtefactError as error:
        raise ArtefactError(f"{path}: {error}") from error


def digest(model: Artefact) -> str:
    """SHA-256 over network, preprocessing, weights and scales: what decides the outputs, and nothing else."""
    import hashlib  # a compiled model is asked without it

    facts = [net_to_json(model.net), preprocess_to_json(model.preprocess)]
    if model.scales:
        facts.append({name: [scale.step, scale.zero] for name, scale in sorted(model.scales.items())})
    total = hashlib.sha256(json.dumps(facts).encode())
    for name in sorted(model.weights):
        total.update(name.encode() + b"\0")
        kind = model.weights[name].dtype if model.scales else np.float32
        total.update(np.ascontiguousarray(model.weights[name], kind).data)
    return total.hexdigest()


def _sound(tensors: Mapping[str, NDArray[np.float32]]) -> None:
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name}: holds values that are not finite")
        if name.endswith(".norm.running_var") and value.min(initial=0) < 0:
            raise ValueError(f"{name}: holds a variance below zero")


def _built(meta: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]) -> Artefact:
    missing, extra = set(FIELDS) - set(meta), set(meta) - {*FIELDS, SCALES}
    if missing or extra:
        raise ValueError(f"its metadata misses {sorted(missing)} and has unknown {sorted(extra)}")
    labels = meta["labels"]
    if (
        not isinstance(labels, list)
        or len(labels) > MOST_LABELS
        or not all(isinstance(v, str) for v in labels)
    ):
        raise ValueError("its labels are no list of texts")
    threshold = meta["threshold"]
    if threshold is not None and not (isinstance(threshold, int | float) and abs(threshold) <= MOST_LOGIT):
        raise ValueError(f"its threshold is {threshold!r}, not a number a logit can have")
    for name in ("source", "recipe", "scores"):
        if not isinstance(meta[name], dict):
            raise ValueError(f"its {name} is no table")
    net = net_from_json(meta["net"])
    scales = _scales(meta.get(SCALES, {}))
    if scales:
        integer.check(net, tensors, scales)
    else:
        for name, value in tensors.items():
            if value.dtype != np.float32:
                raise ValueError(f"tensor {name} is {value.dtype}, not float32")
        check(net, tensors)
        _sound(tensors)
    return Artefact(
        net=net,
        weights=tensors,
        preprocess=preprocess_from_json(meta["preprocess"]),
        labels=tuple(labels),
        threshold=None if threshold is None else float(threshold),
        source=meta["source"],
        recipe=meta["recipe"],
        scores=meta["scores"],
        scales=scales,
    )


def _scales(value: Any) -> dict[str, Scale]:
    if not isinstance(value, dict) or not all(
        isinstance(one, list)
        and len(one) == 2
        and isinstance(one[0], int | float)
        and isinstance(one[1], int)
        and not isinstance(one[1], bool)
        for one in value.values()
    ):
        raise ValueError("its scales are no table of a step and a zero for each node")
    return {name: Scale(float(step), zero) for name, (step, zero) in value.items()}
