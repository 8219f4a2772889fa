"""What the command line lists: networks and weights, the inside of a model, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobilenets.compile.target import TARGETS
from mobilenets.costs.count import cost
from mobilenets.costs.device import TABLE
from mobilenets.costs.forecast import known_factors
from mobilenets.data.store import Store
from mobilenets.infer import weights
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.spec import codec, zoo
from mobilenets.spec.net import Net
from mobilenets.spec.published import PUBLISHED


def store() -> Store:
    """The cache of looks and features."""
    return Store(weights.cache_dir() / "features.sqlite")


def listed_targets() -> list[dict[str, str]]:
    """A row for each thing that `mobilenets compile` builds for."""
    return [{"name": one.name, "says": one.says, "verified": one.proof} for one in TARGETS.values()]


def listed_devices() -> list[dict[str, Any]]:
    """A row for each device, with the source of each figure."""
    runtimes = {kind: one.runtime for one in reversed(known_factors()) for kind in one.product}
    return [
        {
            "name": one.name,
            "says": one.says,
            "cores": one.cores,
            "ghz": one.ghz,
            "copy_gb_s": one.memory and one.memory.copy,
            "fill_gb_s": one.memory and one.memory.fill,
            "ram_gb": one.ram_gb,
            "ram_kb": one.ram_kb,
            "flash_kb": one.flash_kb,
            "idle_w": one.idle_w,
            "busy_w": one.busy_w,
            "target": one.target,
            "runtime": runtimes.get(one.kind),
            "sources": dict(one.sources),
        }
        for one in TABLE
    ]


def network(model: str, width: float | None, resolution: int | None) -> tuple[Net, str]:
    """The network of a model file, or one by its name, and the type it computes in: float32 for a name.

    Raises ValueError for what is neither, and for a size given to a file, which has its own.
    """
    if model in zoo.NETS and not Path(model).exists():
        return zoo.net(model, 1.0 if width is None else width, resolution), "float32"
    if width is not None or resolution is not None:
        raise ValueError(f"{model}: has its own width and resolution; these go with {', '.join(zoo.NETS)}")
    from mobilenets.infer.ready import load

    found = load(model, integers=True).artefact
    # A compiled model's scales are in its library, which says what it computes in.
    return found.net, found.dtype if found.weights else str(found.source["compiled"])


def listed() -> list[dict[str, Any]]:
    """A row for each network, then one for each known set of weights."""
    rows: list[dict[str, Any]] = []
    for name in zoo.NETS:
        counted = cost(zoo.net(name))
        rows.append(
            {
                "name": name,
                "kind": "network",
                "net": name,
                "width": 1.0,
                "resolution": zoo.DEFAULTS[name][0],
                "macs": counted.macs,
                "params": counted.params,
                "url": None,
                "licence": None,
                "top1": None,
                "top1_source": None,
                "on_disk": None,
                "path": None,
            }
        )
    for entry in PUBLISHED:
        counted = cost(zoo.published(entry.name, entry.net, entry.width, entry.resolution))
        there = weights.cached(entry)
        rows.append(
            {
                "name": entry.name,
                "kind": "weights",
                "net": entry.net,
                "width": entry.width,
                "resolution": entry.resolution,
                "macs": counted.macs,
                "params": counted.params,
                "url": entry.url,
                "licence": entry.licence,
                "top1": entry.top1,
                "top1_source": entry.top1_source,
                "on_disk": there is not None,
                "path": None if there is None else str(there),
            }
        )
    return rows


def described(model: Artefact) -> dict[str, Any]:
    """The inside of a model as JSON values."""
    counted = cost(model.net)
    return {
        "net": model.net.name,
        "width": model.net.width,
        "resolution": model.net.resolution,
        "dtype": model.dtype,
        "layers": len(model.net.nodes),
        "outputs": [output.name for output in model.net.outputs],
        "macs": counted.macs,
        "params": counted.params,
        "labels": list(model.labels),
        "threshold": model.threshold,
        "preprocess": codec.preprocess_to_json(model.preprocess),
        "source": dict(model.source),
        "recipe": dict(model.recipe),
        "scores": dict(model.scores),
        # A compiled model's weights are in its library, which says what it was made of.
        "digest": digest(model) if model.weights else model.source.get("digest"),
    }
