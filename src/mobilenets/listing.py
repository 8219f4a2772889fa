"""What the command line lists: networks and weights, the inside of a model, the cache."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenets.compile.target import TARGETS
from mobilenets.costs.choose import Variant
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


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracies of variants on the pictures of `part`; `left_out` is how many variants have none.

    `classes` is None where the file does not tell how many there are.
    """

    by_variant: Mapping[Variant, float]
    part: str
    left_out: int
    classes: int | None


def sweep_scores(path: Path) -> Scores:
    """The scores in a `sweep.csv`, which stands beside its `run.json`.

    On the test part; on the validation part where no variant was tested. Raises ValueError that names the
    file and what it lacks.
    """
    net, classes = _swept(path.with_name("run.json"))
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if any(None in row.values() for row in rows):
            raise ValueError("a line that is cut off")
        part = "test" if any(row["test_accuracy"] for row in rows) else "val"
        scored = [row for row in rows if row[f"{part}_accuracy"]]
        found = {
            (net, float(row["width"]), int(row["resolution"])): float(row[f"{part}_accuracy"])
            for row in scored
        }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        told = f"no column {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: no sweep.csv of `mobilenets retrain --sweep`: {told}") from error
    if not found:
        raise ValueError(f"{path}: has no variant with an accuracy, of test or of validation pictures")
    return Scores(found, "validation" if part == "val" else part, len(rows) - len(scored), classes)


def _swept(record: Path) -> tuple[str, int | None]:
    """The network and the classes of a sweep; V1, and of classes nothing known, without its record."""
    try:
        kept = json.loads(record.read_bytes())
        return str(kept["net"]["name"]), len(kept["classes"])
    except (OSError, ValueError, LookupError, TypeError):
        return "v1", None


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


def unbuilt(net: Net) -> str | None:
    """Why a network cannot be compiled yet; None where it can."""
    from mobilenets.compile.step import refuse

    try:
        refuse(net)
    except ValueError as error:
        return str(error)
    return None


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
