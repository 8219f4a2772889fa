"""The files of one variant of an app: WebAssembly, packed weights, what makes a model file of them again."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile.target import TARGETS, family
from mobilenets.compile.unpacked import copies
from mobilenets.compiling import compile_model
from mobilenets.costs.count import cost
from mobilenets.data.digests import Progress
from mobilenets.infer.artefact import Artefact, metadata
from mobilenets.infer.fold import fold
from mobilenets.infer.sealed import DTYPES
from mobilenets.spec.head import HEAD, classify, headless
from mobilenets.spec.net import shapes

NAME = "net"
"""Of the network in C and of its files."""
BUILDS = {"wasm": "net.wasm", "wasm-threads": "threads.wasm"}


@dataclass(frozen=True, slots=True)
class Variant:
    """A network as an app ships it: its files by name, and what is known of it."""

    name: str
    files: dict[str, bytes]
    certificates: dict[str, dict[str, Any]]
    macs: int
    digest: str


def variant(model: Artefact, name: str, progress: Progress, images: Path | None = None) -> Variant:
    """The files of a model, compiled for a page with threads and for one without, both verified.

    Raises ValueError for what a user can mend, RuntimeError where the compiler or the verification fails.
    """
    made: dict[str, bytes] = {}
    certificates = {}
    if not model.scales:
        net, folded = fold(model.net, model.weights)
        model = replace(model, net=net, weights=folded)
    for target, file in BUILDS.items():
        with tempfile.TemporaryDirectory(prefix="mobilenets-") as place:
            out = Path(place) / "out"
            certificates[target] = compile_model(
                model, out, progress, name=NAME, target=target, images=images, lean=True
            )
            made[file] = (out / f"{NAME}.wasm").read_bytes()
            weights = (out / f"{NAME}.weights").read_bytes()
            if made.setdefault(f"{NAME}.weights", weights) != weights:
                raise RuntimeError(f"{name}: both builds read one weight file, and theirs differ")
            loader = (out / f"{NAME}.mjs").read_text(encoding="utf-8")
            made[f"{NAME}.js"] = loader.replace(f"{NAME}.mjs", f"{NAME}.js").encode()  # hosts know .js
    made |= _described(model)
    digest = certificates["wasm"]["digest"]
    return Variant(name, made, certificates, cost(model.net).macs, digest)


def _described(model: Artefact) -> dict[str, bytes]:
    """What the page wants to know to write a model file: metadata, and where each tensor lies."""
    found, rest = copies(model, family(TARGETS["wasm"], model.dtype))
    body = headless(model.net)
    nodes = {node.name for node in body.nodes}
    own = [name for name in model.weights if name.rpartition(".")[0] in nodes]
    channels = shapes(model.net)[body.output("features").node].channels
    rows: list[dict[str, Any]] = []
    behind = b""
    for name in sorted(own, key=lambda name: (-model.weights[name].itemsize, name)):
        value: NDArray[Any] = np.ascontiguousarray(model.weights[name])
        row = {"name": name, "dtype": DTYPES[value.dtype.name], "shape": list(value.shape)}
        if name in rest:
            rows.append(row | {"at": len(behind)})
            behind += value.tobytes()
        else:
            rows.append(row | {"copies": [[one.at, one.to, one.axes] for one in found[name]]})
    taught = replace(
        model,
        net=classify(body, len(model.labels) or 1),
        weights={},
        recipe={"body": dict(model.recipe)},
        scores={},
        scales={name: scale for name, scale in model.scales.items() if name != HEAD},
    )
    told = {"channels": channels, "taught": metadata(taught), "tensors": rows}
    return {"model.json": json.dumps(told, separators=(",", ":")).encode(), "rest.bin": behind}
