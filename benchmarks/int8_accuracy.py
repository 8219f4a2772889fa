"""What quantising costs: float32 and our int8 on the same pictures, the LiteRT interpreter beside them.

    python benchmarks/int8_accuracy.py imagenet --data FOLDER [--pictures 256] [--out results/int8.csv]
    python benchmarks/int8_accuracy.py person --data FOLDER
    python benchmarks/int8_accuracy.py imported --data FOLDER
    python benchmarks/int8_accuracy.py caltech --data FOLDER --weights FILE [-- OPTIONS of retrain]

FOLDER has `data/*.tar` and `weights/*.tflite`. No picture is scored by a model that was calibrated on it:
`imagenet` (V1 0.25/224 in float32) and `person` (the float detector of 96 pixels, on Caltech-101's Faces
against as many pictures of its other classes but the background) are cut in halves, each scored by the model
calibrated on the other; `caltech` retrains first, calibrates on what is not the test part and scores that.
`imported` compares files quantised by others, in their own integers, with the interpreter as it comes and
with its plain kernels. Intervals are 95 %, of the paired difference in top-1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rows import keep

from mobilenets.compiling import float_engine
from mobilenets.data.catalog import scan
from mobilenets.infer import adopt, imagenet, tflite
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode, prepare
from mobilenets.infer.quantise import quantise
from mobilenets.infer.resize import Frame
from mobilenets.spec.net import shapes
from mobilenets.spec.preprocess import Preprocess

BATCH = 8
THREADS = 2
FLOAT = "mobilenet_v1_0.25_224_float.tflite"
PERSON, PERSON_INT8 = "vww_96_float.tflite", "vww_96_int8.tflite"
FIELDS = (
    *("model", "pictures", "n", "calibrated_on", "float32_top1", "int8_top1"),
    *("difference", "difference_low", "difference_high", "agreement", "chosen", "calibrate_s"),
    *("interpreter_int8_top1", "interpreter_agreement", "plain_agreement", "interpreter", "command"),
)
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Set:
    """Prepared pictures [n, height, width, 3] and the classes they are of."""

    levels: Frame
    truth: NDArray[np.int64]


def logits(model: Artefact, levels: Frame) -> Logits:
    """Of prepared pictures: stretched to the size that they have, they stay as they are."""
    engine = NumpyEngine(replace(model, preprocess=replace(model.preprocess, geometry="stretch")))
    parts = (levels[start : start + BATCH] for start in range(0, len(levels), BATCH))
    return np.concatenate([engine.many(list(part))["logits"] for part in parts])


class Interpreter:
    """LiteRT's on one thread, with XNNPACK as it comes or with its plain kernels: logits as it has them."""

    def __init__(self, data: bytes, *, plain: bool) -> None:
        from ai_edge_litert import interpreter  # type: ignore[import-untyped]  # it ships no types

        kinds = interpreter.OpResolverType
        self._run: Any = interpreter.Interpreter(
            model_content=data,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if plain else kinds.BUILTIN,
        )
        self._run.allocate_tensors()
        self._input = self._run.get_input_details()[0]
        softmax = [op for op in self._run._get_ops_details() if op["op_name"] == "SOFTMAX"]
        self._place = int(softmax[-1]["inputs"][0])

    def __call__(self, levels: Frame, classes: int) -> NDArray[np.int64]:
        rows = []
        signed = np.dtype(self._input["dtype"]) == np.int8
        for picture in levels:
            x = (picture.astype(np.int16) - 128).astype(np.int8) if signed else picture
            self._run.set_tensor(self._input["index"], x[None])
            self._run.invoke()
            rows.append(self._run.get_tensor(self._place).reshape(-1)[-classes:].astype(np.int64))
        return np.stack(rows)


def imagenet_500(tar: Path, pre: Preprocess) -> Set:
    number = {wnid: i for i, wnid in enumerate(imagenet.wnids())}
    levels, truth = [], []
    with tarfile.open(tar) as archive:
        for member in sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name):
            content = archive.extractfile(member)
            if content is not None:
                levels.append(prepare(decode(content.read()), pre))
                truth.append(number[Path(member.name).parent.name])
    return Set(np.stack(levels), np.array(truth))


def faces_or_not(tar: Path, pre: Preprocess) -> Set:
    """Caltech-101's Faces, and as many of its other pictures, drawn by seed."""
    with tarfile.open(tar) as archive:
        files = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        faces = [m for m in files if Path(m.name).parent.name == "Faces"]
        left_out = ("Faces", "Faces_easy", "BACKGROUND_Google")
        others = [m for m in files if Path(m.name).parent.name not in left_out]
        drawn = Random(0).sample(others, len(faces))
        levels = [prepare(decode(_read(archive, m)), pre) for m in (*faces, *drawn)]
    return Set(np.stack(levels), np.repeat([1, 0], len(faces)))


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    return b"" if content is None else content.read()


def halves(n: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """What to calibrate on and what to score, twice, so that each is scored once."""
    order = np.array(Random(0).sample(range(n), n))
    first, second = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
    yield first, second
    yield second, first


def crossed(model: Artefact, data: Set, most: int) -> dict[str, Any]:
    """A row: the model in float32 and, calibrated on the other half, in int8."""
    plain = logits(model, data.levels)
    whole = np.empty_like(plain)
    chosen, seconds, used = [], 0.0, 0
    for learn, judge in halves(len(data.truth)):
        drawn = np.array(Random(1).sample(list(learn), min(most, len(learn))))
        begun = time.perf_counter()
        made = quantise(model, data.levels[drawn], maps=float_engine(model, THREADS).maps, threads=THREADS)
        seconds += time.perf_counter() - begun
        used = len(drawn)
        chosen.append(_chosen(made))
        whole[judge] = logits(made, data.levels[judge])
    told = {"calibrated_on": f"{used} of the other half", "chosen": " | ".join(chosen)}
    return compared(data.truth, plain, whole) | told | {"calibrate_s": f"{seconds / 2:.1f}"}


def _chosen(made: Artefact) -> str:
    """All that was tried with its error on the pictures held out, least first: the first is what was kept."""
    tried = made.scores["quantised"]["tried"]
    return "; ".join(f"{name}: {tried[name]:.4f}" for name in sorted(tried, key=tried.__getitem__))


def compared(truth: NDArray[np.int64], plain: Logits, whole: Logits) -> dict[str, Any]:
    hit_plain, hit_whole = plain.argmax(1) == truth, whole.argmax(1) == truth
    paired = hit_whole.astype(float) - hit_plain
    half = 1.96 * paired.std(ddof=1) / math.sqrt(len(truth))
    return {
        "n": len(truth),
        "float32_top1": f"{hit_plain.mean():.4f}",
        "int8_top1": f"{hit_whole.mean():.4f}",
        "difference": f"{paired.mean():+.4f}",
        "difference_low": f"{paired.mean() - half:+.4f}",
        "difference_high": f"{paired.mean() + half:+.4f}",
        "agreement": f"{(plain.argmax(1) == whole.argmax(1)).mean():.4f}",
    }


def retrained(weights: Path, tar: Path, options: Sequence[str], most: int) -> tuple[str, dict[str, Any]]:
    """A row: a head on Caltech-101 that `mobilenets retrain` made, calibrated on what is no test picture."""
    with tempfile.TemporaryDirectory() as place:
        root, out = Path(place) / "caltech101", Path(place) / "out"
        with tarfile.open(tar) as archive:
            archive.extractall(place, filter="data")
        command = [sys.executable, "-m", "mobilenets", "retrain", str(root), "--out", str(out)]
        command += ["--weights", str(weights), "--seed", "0", "--json", *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        json.loads(done.stdout)
        model = adopt.read(out / "model.safetensors")
        test = scan(out / "split.csv")
        known = {label: i for i, label in enumerate(model.labels)}
        scored = {(test.root / item.file).resolve() for item in test.items}
        catalog = scan(root)
        learn = [item for item in catalog.items if (catalog.root / item.file).resolve() not in scored]
        drawn = Random(1).sample(learn, min(most, len(learn)))
        levels = np.stack([prepare(decode(catalog.read(item)), model.preprocess) for item in drawn])
        begun = time.perf_counter()
        made = quantise(model, levels, maps=float_engine(model, THREADS).maps, threads=THREADS)
        seconds = time.perf_counter() - begun
        pictures = np.stack([prepare(decode(test.read(item)), model.preprocess) for item in test.items])
        truth = np.array([known[item.label] for item in test.items])
        row = compared(truth, logits(model, pictures), logits(made, pictures))
        told = {"calibrated_on": f"{len(drawn)} not of the test part", "chosen": _chosen(made)}
        name = f"retrained on {weights.name}" + (f" with {' '.join(options)}" if options else "")
        return name, row | told | {"calibrate_s": f"{seconds:.1f}"}


def imported(data: bytes, tar: Path, faces: Path) -> dict[str, Any]:
    """A row: a quantised file in its own integers, and how often the interpreter gives the same answer."""
    model, floats = tflite.read(data, integers=True), tflite.read(data)
    of_people = shapes(model.net)[model.net.nodes[-1].name].channels == 2
    held = faces_or_not(faces, model.preprocess) if of_people else imagenet_500(tar, model.preprocess)
    whole = logits(model, held.levels)
    rows = [Interpreter(data, plain=plain)(held.levels, whole.shape[1]) for plain in (False, True)]
    agree = [f"{(whole.argmax(1) == row.argmax(1)).mean():.4f}" for row in rows]
    return compared(held.truth, logits(floats, held.levels), whole) | {
        "interpreter_int8_top1": f"{(rows[0].argmax(1) == held.truth).mean():.4f}",
        "interpreter_agreement": agree[0],
        "plain_agreement": agree[1],
        "interpreter": f"ai-edge-litert {version('ai-edge-litert')}",
        "calibrated_on": "its own scales",
        "pictures": "Caltech-101 faces" if of_people else "ImageNet-500",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="int8 against float32 on the same pictures")
    parser.add_argument("case", choices=("imagenet", "person", "imported", "caltech"))
    parser.add_argument("--data", type=Path, default=os.environ.get("MOBILENETS_TEST_DATA"))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("results/int8.csv"))
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    chosen, options = parser.parse_args(words[:cut]), words[cut + 1 :]
    if chosen.data is None:
        parser.error("--data FOLDER, or MOBILENETS_TEST_DATA, must name the folder with data/ and weights/")
    data, weights = chosen.data / "data", chosen.data / "weights"
    command = f"python benchmarks/int8_accuracy.py {chosen.case} --data DATA --pictures {chosen.pictures}"
    if chosen.case == "imagenet":
        model = adopt.read(weights / FLOAT)
        row = crossed(model, imagenet_500(data / "imagenet-500.tar", model.preprocess), chosen.pictures)
        add(chosen.out, {"model": FLOAT, "pictures": "ImageNet-500", **row, "command": command})
    elif chosen.case == "person":
        model = adopt.read(weights / PERSON)
        held = faces_or_not(data / "caltech101.tar", model.preprocess)
        row = crossed(model, held, chosen.pictures)
        theirs = Interpreter((weights / PERSON_INT8).read_bytes(), plain=False)(held.levels, 2)
        row["interpreter_int8_top1"] = f"{(theirs.argmax(1) == held.truth).mean():.4f}"
        row["interpreter"] = f"ai-edge-litert {version('ai-edge-litert')} on {PERSON_INT8}"
        add(chosen.out, {"model": PERSON, "pictures": "Caltech-101 faces", **row, "command": command})
    elif chosen.case == "imported":
        for path in sorted(weights.glob("*.tflite")):
            try:
                model = tflite.read(path.read_bytes(), integers=True)
            except ValueError as error:
                print(f"{path.name}: left out: {str(error)[:100]}", file=sys.stderr)
                continue
            if model.scales:
                row = imported(path.read_bytes(), data / "imagenet-500.tar", data / "caltech101.tar")
                add(chosen.out, {"model": path.name, **row, "command": command})
    else:
        if chosen.weights is None:
            parser.error("caltech wants --weights FILE, the body to retrain")
        name, row = retrained(chosen.weights, data / "caltech101.tar", options, chosen.pictures)
        command += f" --weights DATA/weights/{chosen.weights.name}"
        command += f" -- {' '.join(options)}" if options else ""
        add(chosen.out, {"model": name, "pictures": "Caltech-101", **row, "command": command})


def add(out: Path, row: dict[str, Any]) -> None:
    keep(out, {field: row.get(field, "") for field in FIELDS})


if __name__ == "__main__":
    main()
