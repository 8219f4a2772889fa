"""What a teacher says of fixed views of every picture, asked once; what a student is to make of it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mobilenets.data.decoded import Decoded
from mobilenets.data.digests import Progress
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.engine import Engine
from mobilenets.spec.head import HEAD
from mobilenets.spec.net import Net, Node, Output, needed, shapes
from mobilenets.spec.op import Dense
from mobilenets.spec.training import DistilOptions
from mobilenets.spec.views import Mixing, Views
from mobilenets.train.body import TorchEngine
from mobilenets.train.features import Body
from mobilenets.train.loop import Objective
from mobilenets.train.stream import streamed
from mobilenets.train.views import DRAWS, draws, viewed

MATCH = "match"
"""The layer that makes a student's features as many as the teacher's, and goes when all is learned."""
ASKED = 16
KEPT = np.float16


@dataclass(frozen=True, slots=True)
class Teacher:
    """What answers for a teacher: `ask` gives features and logits (empty where it has none) of levels
    [n, *size, 3].

    `digest` tells it from every other; `head` is its classifier where that is one layer on its features.
    """

    told: str
    digest: str
    size: tuple[int, int]
    labels: tuple[str, ...]
    ask: Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float32]]]
    streams: int = 1
    head: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


def of_engine(
    engine: Engine, labels: Sequence[str], size: tuple[int, int], digest: str, told: str
) -> Teacher:
    """Any engine as a teacher; `size` is that of its frames, `digest` tells it from others."""
    return Teacher(told, digest, size, tuple(labels), lambda levels: engine.many(list(levels)))


def of_model(
    model: Artefact, device: str, threads: int, compiled: Callable[[Artefact], Body | None] | None = None
) -> Teacher:
    """A model file as a teacher, shown whole views. `compiled` may make an engine of its body."""
    pre = replace(model.preprocess, geometry="stretch")
    shown = replace(model, preprocess=pre)
    size = (pre.height, pre.width)
    names = (f"{HEAD}.weight", f"{HEAD}.bias")
    head = (
        (model.weights[names[0]], model.weights[names[1]]) if all(n in model.weights for n in names) else None
    )
    head = head if head is not None and isinstance(_named(model.net, HEAD).op, Dense) else None
    body = compiled(shown) if compiled is not None and head is not None and device == "cpu" else None
    if body is None or head is None:
        engine = TorchEngine(shown, device, threads)
        return Teacher(
            engine.told, artefact.digest(shown), size, model.labels, engine.prepared, threads, head
        )
    weight, bias = head

    def ask(levels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        found = body.prepared(levels)["features"]
        return {"features": found, "logits": found @ weight.T + bias}

    return Teacher(body.told, artefact.digest(shown), size, model.labels, ask, body.streams, head)


@dataclass(frozen=True, slots=True)
class Said:
    """A teacher's answers to `views` views of each picture, by output, each [views, pictures, size]."""

    views: int
    kept: Mapping[str, NDArray[np.float16]]

    def __call__(self, which: NDArray[np.int64], view: int) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(rows[view, which].astype(np.float32)) for name, rows in self.kept.items()
        }


def asked(
    teacher: Teacher,
    outputs: Sequence[str],
    pictures: Decoded,
    content: str,
    views: Views,
    seed: int,
    count: int,
    folder: Path,
    progress: Progress,
) -> Said:
    """The answers of a teacher, from `folder` where it was asked the same before.

    `content` tells these pictures, in this order, from all others. Raises OSError where the disk is full.
    """
    plain = replace(views, mix=Mixing())  # mixing comes after: it mixes what was said, too
    facts = (teacher.digest, teacher.size, content, len(pictures), asdict(plain), seed, count, KEPT.__name__)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    paths = {name: folder / f"said-{key}-{name}.npy" for name in outputs}
    if not all(path.exists() for path in paths.values()):
        folder.mkdir(parents=True, exist_ok=True)
        _ask(teacher, paths, pictures, plain, seed, count, progress)
    return Said(count, {name: np.load(path, mmap_mode="r") for name, path in paths.items()})


def _ask(
    teacher: Teacher,
    paths: Mapping[str, Path],
    pictures: Decoded,
    views: Views,
    seed: int,
    count: int,
    progress: Progress,
) -> None:
    total = len(pictures)
    parts = [(v, first) for v in range(count) for first in range(0, total, ASKED)]

    def look(part: tuple[int, int]) -> tuple[int, int, Mapping[str, NDArray[np.float32]]]:
        view, first = part
        which = np.arange(first, min(first + ASKED, total))
        levels = torch.from_numpy(pictures.rows(which))
        x = viewed(levels, draws(seed, which, view, DRAWS), views, teacher.size)
        shown = x.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
        lacking = ASKED - len(shown)  # engines of one batch size want it full
        if lacking:
            shown = np.concatenate([shown, np.zeros((lacking, *shown.shape[1:]), np.uint8)])
        return view, first, {name: rows[: len(which)] for name, rows in teacher.ask(shown).items()}

    parted: dict[str, Path] = {}
    kept: dict[str, NDArray[np.float16]] = {}
    try:
        with ThreadPoolExecutor(teacher.streams, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done, (view, first, found) in enumerate(
                streamed(pool, look, iter(parts), 2 * teacher.streams), 1
            ):
                for name, path in paths.items():
                    if name not in kept:
                        kept[name], parted[name] = _begun(path, (count, total, found[name].shape[1]))
                    kept[name][view, first : first + len(found[name])] = found[name]
                progress("teacher", min(done * ASKED, count * total), count * total)
        for name, rows in kept.items():
            rows.flush()  # type: ignore[attr-defined]  # a memmap's
            os.replace(parted[name], paths[name])
    finally:
        for part in parted.values():
            part.unlink(missing_ok=True)


def _begun(path: Path, shape: tuple[int, ...]) -> tuple[NDArray[np.float16], Path]:
    """A file that is mapped into memory, all of its room taken on the disk."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    rows = np.lib.format.open_memmap(name, mode="w+", dtype=KEPT, shape=shape)
    with Path(name).open("rb+") as file:
        if hasattr(os, "posix_fallocate"):  # a disk that fills up later would end this process by SIGBUS
            os.posix_fallocate(file.fileno(), 0, Path(name).stat().st_size)
    return rows, Path(name)


def matched(net: Net, size: int) -> Net:
    """The network with a layer that makes its features `size` long, as a further output."""
    features = net.output("features").node
    if shapes(net)[features].channels == size:
        return replace(net, outputs=(*net.outputs, Output(MATCH, features, "vector")))
    return replace(
        net,
        nodes=(*net.nodes, Node(MATCH, Dense(out=size), (features,))),
        outputs=(*net.outputs, Output(MATCH, MATCH, "vector")),
    )


def unmatched(net: Net) -> Net:
    """The network without what `matched` put on it."""
    outputs = tuple(output for output in net.outputs if output.name != MATCH)
    return replace(net, nodes=needed(net, [output.node for output in outputs]), outputs=outputs)


def objective(options: DistilOptions, teacher: Teacher, spread: float) -> Objective:
    """What a student makes small, summed over pictures, a share `weight` of it the teacher's:

    `soft`: T² · KL(teacher / T ‖ student / T), arXiv:1503.02531, and the labels' cross entropy;
    `features`: the squared error of the matched features (arXiv:1704.04861, 4.6), as a share of the
    teacher's own variance `spread` (the sum over its channels), and the divergence of what the teacher's head
    makes of them.
    """
    warm, share = options.temperature, options.teacher_weight
    head = None if teacher.head is None else tuple(torch.from_numpy(np.array(part)) for part in teacher.head)

    def divergence(told: Tensor, said: Tensor) -> Tensor:
        wanted, own = (functional.log_softmax(one / warm, dim=1) for one in (told, said))
        return warm * warm * (wanted.exp() * (wanted - own)).sum()

    def whole(outputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
        hard = -(wanted["classes"] * functional.log_softmax(outputs["logits"], dim=1)).sum()
        taught = torch.zeros((), device=hard.device)
        if "logits" in wanted:
            taught = taught + divergence(wanted["logits"], outputs["logits"])
        if "features" in wanted:
            taught = taught + (outputs[MATCH] - wanted["features"]).square().sum() / spread
            if head is not None:
                weight, bias = (part.to(hard.device) for part in head)
                told, said = (
                    functional.linear(f, weight, bias) for f in (wanted["features"], outputs[MATCH])
                )
                taught = taught + divergence(told, said)
        return (1 - share) * hard + share * taught

    return whole


def spread(said: Said) -> float:
    """The variance of a teacher's features around their mean, summed over channels."""
    rows = said.kept["features"][0, :: max(1, said.kept["features"].shape[1] // 4096)].astype(np.float64)
    return float(rows.var(axis=0).sum())


def _named(net: Net, name: str) -> Node:
    return next(node for node in net.nodes if node.name == name)


def refused(teacher: Teacher, options: DistilOptions, labels: Sequence[str]) -> None:
    """Raises ValueError for a teacher that cannot teach these classes so."""
    if options.distil == "soft" and teacher.labels != tuple(labels):
        missing = [label for label in labels if label not in teacher.labels]
        other = [label for label in teacher.labels if label not in labels]
        raise ValueError(
            f"--teacher knows other classes: it lacks {_few(missing)} and has {_few(other)}; "
            "retrain it on this folder first, or give --distil features"
        )


def _few(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
