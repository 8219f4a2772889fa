"""What a teacher says of fixed views of every picture, asked once; what a student is to make of it."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from mobilenets.data.claim import claimed
from mobilenets.data.decoded import FULL, SAID, Decoded, freed
from mobilenets.data.digests import Progress
from mobilenets.data.mapped import reserve
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import normalise
from mobilenets.spec.head import HEAD
from mobilenets.spec.net import Net, Node, Output, needed, shapes
from mobilenets.spec.op import Dense
from mobilenets.spec.preprocess import Preprocess
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
VERSION = 1


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


def of_body(
    body: Body,
    labels: Sequence[str],
    size: tuple[int, int],
    digest: str,
    head: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
) -> Teacher:
    """Any engine of levels [n, *size, 3] as a teacher, such as a compiled library; `digest` tells it from
    others. With `head` it gives features, and logits are made of them."""

    def ask(levels: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        found = body.prepared(levels)
        if head is None or "logits" in found:
            return found
        return {**found, "logits": found["features"] @ head[0].T + head[1]}

    return Teacher(body.told, digest, size, tuple(labels), ask, body.streams, head)


def of_module(
    made: nn.Module,
    labels: Sequence[str],
    pre: Preprocess,
    digest: str,
    device: str = "cpu",
    threads: int = 1,
) -> Teacher:
    """Any torch module as a teacher, in eval mode from here on.

    It is called on float32 [n, 3, height, width] of whole views, normalised as `pre` says, and gives logits
    [n, classes], or a mapping with `logits`, `features` or both. `digest` tells its weights from all others:
    what was said under it is not asked again.
    """
    place = torch.device(device)
    made = made.to(place).eval()

    def ask(levels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        x = torch.from_numpy(normalise(levels, pre)).permute(0, 3, 1, 2).to(place)
        with torch.inference_mode():
            found = made(x)
        found = found if isinstance(found, Mapping) else {"logits": found}
        return {name: value.float().cpu().numpy() for name, value in found.items()}

    streams = threads if place.type == "cpu" else 1
    return Teacher(f"torch, {device}", digest, (pre.height, pre.width), tuple(labels), ask, streams)


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
    return of_body(
        TorchEngine(shown, device, threads) if body is None else body,
        model.labels,
        size,
        artefact.digest(shown),
        head,
    )


@dataclass(frozen=True, slots=True)
class Said:
    """A teacher's answers to `views` views of each picture, by output, each [views, pictures, size]."""

    views: int
    kept: Mapping[str, NDArray[np.float16]]

    def __call__(self, which: NDArray[np.int64], view: int) -> dict[str, Tensor]:
        return {
            name: torch.from_numpy(rows[view, which].astype(np.float32)) for name, rows in self.kept.items()
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """What a teacher is asked about: `count` views of each of these pictures, as a student sees them at
    `size`.

    `content` tells these pictures, in this order, from all others.
    """

    pictures: Decoded
    content: str
    views: Views
    size: tuple[int, int]
    seed: int
    count: int


def asked(teacher: Teacher, outputs: Sequence[str], what: Asked, folder: Path, progress: Progress) -> Said:
    """The answers of a teacher, from `folder` where it was asked the same before.

    Of several processes that want the same one asks, the others wait. Where room is short, what lay in
    `folder` unused for a week is removed. Raises OSError where that is not enough, ValueError where the
    teacher has no such output, or says what is no number.
    """
    what = replace(what, views=replace(what.views, mix=Mixing()))  # what was said is mixed with the pictures
    told = {field.name: getattr(what, field.name) for field in fields(what) if field.name != "pictures"}
    facts = (VERSION, teacher.digest, teacher.size, len(what.pictures), sorted(told.items()), KEPT.__name__)
    key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
    paths = {name: folder / f"{SAID}{key}-{name}.npy" for name in outputs}
    shape = (what.count, len(what.pictures))
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder / f"{SAID}{key}", lambda: progress("teacher", 0, shape[0] * shape[1])):
        found = {name: _opened(path, shape) for name, path in paths.items()}
        if missing := {name: path for name, path in paths.items() if found[name] is None}:
            _ask(teacher, missing, what, progress)
            found |= {name: _opened(path, shape) for name, path in missing.items()}
    kept = {name: rows for name, rows in found.items() if rows is not None}
    if len(kept) < len(paths):
        raise OSError(errno.EIO, "what was written there reads otherwise; check the disk", str(folder))
    return Said(what.count, kept)


def _opened(path: Path, shape: tuple[int, int]) -> NDArray[np.float16] | None:
    """Answers that are there and whole."""
    try:
        rows: NDArray[np.float16] = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if rows.ndim != 3 or rows.shape[:2] != shape or rows.dtype != KEPT:
        return None
    with suppress(OSError):
        os.utime(path)  # when they were last of use
    return rows


def _ask(teacher: Teacher, paths: Mapping[str, Path], what: Asked, progress: Progress) -> None:
    total = len(what.pictures)
    parts = [(view, first) for view in range(what.count) for first in range(0, total, ASKED)]

    def look(part: tuple[int, int]) -> tuple[int, int, Mapping[str, NDArray[np.float32]]]:
        view, first = part
        which = np.arange(first, min(first + ASKED, total))
        shown = shown_to(teacher, what, which, view)
        lacking = ASKED - len(shown)  # engines of one batch size want it full
        if lacking:
            shown = np.concatenate([shown, np.zeros((lacking, *shown.shape[1:]), np.uint8)])
        return view, first, {name: rows[: len(which)] for name, rows in teacher.ask(shown).items()}

    parted: dict[str, Path] = {}
    kept: dict[str, np.memmap[Any, np.dtype[np.float16]]] = {}
    try:
        with ThreadPoolExecutor(teacher.streams, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done, (view, first, found) in enumerate(
                streamed(pool, look, iter(parts), 2 * teacher.streams), 1
            ):
                for name, path in paths.items():
                    if name not in found:
                        raise ValueError(f"--teacher: it gives {', '.join(found)}, but no {name}")
                    if name not in kept:
                        kept[name], parted[name] = _begun(path, (what.count, total, found[name].shape[1]))
                    if not np.abs(found[name]).max(initial=0) <= np.finfo(KEPT).max:
                        raise ValueError(f"--teacher: its {name} are no numbers, or too large to be kept")
                    kept[name][view, first : first + len(found[name])] = found[name]
                progress("teacher", min(done * ASKED, what.count * total), what.count * total)
        while kept:
            name, rows = kept.popitem()
            rows.flush()
            del rows  # Windows neither replaces nor removes a file that is mapped
            os.replace(parted[name], paths[name])
    finally:
        kept.clear()
        for part in parted.values():
            part.unlink(missing_ok=True)


def shown_to(teacher: Teacher, what: Asked, which: NDArray[np.int64], view: int) -> NDArray[np.uint8]:
    """Levels [n, *teacher.size, 3] of one view of some pictures: the window that the student sees of them."""
    levels = torch.from_numpy(what.pictures.rows(which))
    drawn = draws(what.seed, which, view, DRAWS)
    # Windows can be had at any size; what is cut out without resampling only at the student's.
    size = teacher.size if what.views.shift is None else what.size
    x = viewed(levels, drawn, what.views, size)
    if size != teacher.size:
        x = functional.interpolate(x, teacher.size, mode="bilinear", antialias=True, align_corners=False)
    return x.permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def _begun(path: Path, shape: tuple[int, ...]) -> tuple[np.memmap[Any, np.dtype[np.float16]], Path]:
    """A file that is mapped into memory, all of its room taken on the disk."""
    needed = int(np.prod(shape)) * np.dtype(KEPT).itemsize
    freed(path.parent, needed + 2 * mmap.PAGESIZE)  # its header, and what a file system rounds up to
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    about = {"descr": np.lib.format.dtype_to_descr(np.dtype(KEPT)), "fortran_order": False, "shape": shape}
    try:
        with os.fdopen(handle, "r+b") as file:
            np.lib.format.write_array_header_1_0(file, about)
            reserve(file, file.tell() + needed)  # a mapped file ends its process where the disk is full later
        return np.lib.format.open_memmap(name, mode="r+"), Path(name)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        if error.errno not in FULL:
            raise
        raise OSError(
            error.errno,
            f"what the teacher says takes {needed} bytes there ({error.strerror}); make room, set "
            "MOBILENETS_CACHE to another folder, or give fewer --teacher-views",
            str(path.parent),
        ) from error


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
    found = float(rows.var(axis=0).sum())
    if not found > 0:
        raise ValueError("--teacher: its features are the same for every picture: they teach nothing")
    return found


def _named(net: Net, name: str) -> Node:
    return next(node for node in net.nodes if node.name == name)


def refused(teacher: Teacher, options: DistilOptions, labels: Sequence[str]) -> None:
    """Raises ValueError for a teacher that cannot teach these classes so."""
    if options.distil != "soft" or teacher.labels == tuple(labels):
        return
    if not teacher.labels:
        raise ValueError(f"--teacher {teacher.told}: it knows no classes; give --distil features")
    if sorted(teacher.labels) == sorted(labels):
        raise ValueError("--teacher knows these classes in another order; retrain it on this folder first")
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
