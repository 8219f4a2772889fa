"""ImageNet-500: the LiteRT interpreter and our engines on the same pixels, for every .tflite file we read.

    python benchmarks/imagenet500.py --data FOLDER [--engine numpy] [--limit N] [--only PATTERN]
    [--out results/imagenet500.csv]

FOLDER has `data/imagenet-500.tar`, `weights/*.tflite` and `weights/*.npz`; of Caffe's arrays, which have no
interpreter here, our scores alone are told. The same prepared pixels go into both; the
interpreter runs its plain kernels on one thread, its logits are taken before the closing softmax and without
the background class. A row is added to the CSV for each file. The interval is 95 %, of the paired difference
in top-1 (ours − theirs).
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tarfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import keep

from mobilenets.infer import adopt, imagenet, tflite
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.resize import Frame
from mobilenets.infer.walk import Walk
from mobilenets.spec.preprocess import Preprocess

BATCH = 4
Logits = NDArray[np.float32]
Engine = Callable[[NDArray[np.float32]], Logits]


def numpy_engine(model: Artefact) -> Engine:
    """The reference walk."""
    walk = Walk(model.net, model.weights)
    return lambda x: walk(x)["logits"]


def torch_engine(model: Artefact) -> Engine:
    """The torch module, eval mode."""
    import torch

    from mobilenets.model.module import module

    made = module(model.net, model.weights).eval()

    def run(x: NDArray[np.float32]) -> Logits:
        with torch.no_grad():
            logits: Logits = made(torch.from_numpy(x).permute(0, 3, 1, 2))["logits"].numpy()
        return logits

    return run


ENGINES: dict[str, Callable[[Artefact], Engine]] = {"numpy": numpy_engine, "torch": torch_engine}


class Interpreter:
    """LiteRT's, with its plain kernels: delegates would not keep the values before the softmax."""

    def __init__(self, data: bytes) -> None:
        from ai_edge_litert import interpreter  # type: ignore[import-untyped]  # it ships no types

        self._run: Any = interpreter.Interpreter(
            model_content=data,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._run.allocate_tensors()
        self._input = self._run.get_input_details()[0]
        softmax = [op for op in self._run._get_ops_details() if op["op_name"] == "SOFTMAX"]
        output = self._run.get_output_details()[0]["index"]
        self._place = int(softmax[-1]["inputs"][0]) if softmax else output
        self._scale, self._zero = self._run._get_tensor_details(self._place, 0)["quantization"]

    def __call__(self, picture: Frame, pre: Preprocess) -> Logits:
        """Logits [1000] of one prepared picture."""
        whole = np.dtype(self._input["dtype"]) == np.uint8
        self._run.set_tensor(self._input["index"], (picture if whole else normalise(picture, pre))[None])
        self._run.invoke()
        y = self._run.get_tensor(self._place).reshape(-1)
        y = (y.astype(np.float32) - self._zero) * self._scale if self._scale else y
        return np.asarray(y[-imagenet.CLASSES :], np.float32)


def pictures(tar: Path, limit: int) -> Iterator[tuple[int, Frame]]:
    """Class number and decoded picture, in the archive's order."""
    number = {wnid: i for i, wnid in enumerate(imagenet.wnids())}
    with tarfile.open(tar) as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        for member in members[:limit]:
            content = archive.extractfile(member)
            if content is not None:
                yield number[Path(member.name).parent.name], decode(content.read())


def measured(path: Path, tar: Path, limit: int, engine: str) -> dict[str, Any] | None:
    """One row: what the interpreter and our engine make of the same pixels; None for what is not read."""
    data, lite = path.read_bytes(), path.suffix == ".tflite"
    try:
        model = tflite.read(data) if lite else adopt.read(path)
    except ValueError as error:
        print(f"{path.name}: left out: {str(error)[:160]}", file=sys.stderr)
        return None
    if len(model.labels) != imagenet.CLASSES:
        print(f"{path.name}: left out: not ImageNet's classes", file=sys.stderr)
        return None
    theirs, run = Interpreter(data) if lite else None, ENGINES[engine](model)
    truth: list[int] = []
    rows: list[Logits] = []
    batch: list[Frame] = []
    reference: list[Logits] = []
    for label, frame in pictures(tar, limit):
        picture = prepare(frame, model.preprocess)
        truth.append(label)
        if theirs is not None:
            reference.append(theirs(picture, model.preprocess))
        batch.append(picture)
        if len(batch) == BATCH:
            rows.append(run(normalise(np.stack(batch), model.preprocess)))
            batch.clear()
    if batch:
        rows.append(run(normalise(np.stack(batch), model.preprocess)))
    return compared(np.array(truth), np.stack(reference) if lite else None, np.concatenate(rows))


def compared(truth: NDArray[np.int64], theirs: Logits | None, ours: Logits) -> dict[str, Any]:
    """Scores of both as fractions, and how far they are apart; ours alone where there are no others."""
    hit_ours = top(ours, truth, 1)
    own = {"ours_top1": f"{hit_ours.mean():.4f}", "ours_top5": f"{top(ours, truth, 5).mean():.4f}"}
    if theirs is None:
        return {"n": len(truth), "interpreter_top1": "", "interpreter_top5": "", **own} | dict.fromkeys(
            ("agreement", "largest_logit_difference", "difference", "difference_low", "difference_high"), ""
        )
    hit_theirs = top(theirs, truth, 1)
    paired = hit_ours.astype(float) - hit_theirs
    half = 1.96 * paired.std(ddof=1) / math.sqrt(len(truth))
    return {
        "n": len(truth),
        "interpreter_top1": f"{hit_theirs.mean():.4f}",
        "interpreter_top5": f"{top(theirs, truth, 5).mean():.4f}",
        **own,
        "agreement": f"{(theirs.argmax(1) == ours.argmax(1)).mean():.4f}",
        "largest_logit_difference": f"{np.abs(theirs - ours).max():.2e}",
        "difference": f"{paired.mean():+.4f}",
        "difference_low": f"{paired.mean() - half:+.4f}",
        "difference_high": f"{paired.mean() + half:+.4f}",
    }


def top(logits: Logits, truth: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Whether the true class is among the k best, the earlier class first among equals."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return np.asarray((best == truth[:, None]).any(axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description="ImageNet-500 against the LiteRT interpreter")
    parser.add_argument("--data", type=Path, default=os.environ.get("MOBILENETS_TEST_DATA"))
    parser.add_argument("--engine", choices=ENGINES, default="numpy")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--only", default="*", help="a pattern of file names")
    parser.add_argument("--out", type=Path, default=Path("results/imagenet500.csv"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data FOLDER, or MOBILENETS_TEST_DATA, must name the folder with data/ and weights/")
    command = (
        f"python benchmarks/imagenet500.py --data DATA --engine {options.engine} --limit {options.limit}"
        + (f" --only '{options.only}'" if options.only != "*" else "")
    )
    folder = options.data / "weights"
    files = sorted([*folder.glob("*.tflite"), *folder.glob("*.npz")])
    for path in [file for file in files if fnmatch(file.name, options.only)]:
        row = measured(path, options.data / "data" / "imagenet-500.tar", options.limit, options.engine)
        if row is None:
            continue
        interpreter = f"ai-edge-litert {version('ai-edge-litert')}" if path.suffix == ".tflite" else ""
        row = {
            "file": path.name,
            "engine": options.engine,
            "interpreter": interpreter,
            **row,
            "command": command,
        }
        keep(options.out, row)


if __name__ == "__main__":
    main()
