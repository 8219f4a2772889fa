"""A model taught on Caltech-101, compiled for every target: its builds give the reference's answers."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.compile.target import TARGETS
from mobilenets.data.calibration import listed, pictures
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode
from mobilenets.infer.quantise import quantise

Ask = Callable[..., Any]

if shutil.which("cc") is None:
    pytest.skip("no C compiler on this machine", allow_module_level=True)

ZIG = [sys.executable, "-m", "ziglang", "cc", *TARGETS["aarch64"].program]
CC: Mapping[str, Sequence[str]] = {"host": ("cc",), "c": ("cc",), "aarch64": ZIG}
RUN: Mapping[str, Sequence[str]] = {"host": (), "c": (), "aarch64": ("qemu-aarch64",), "wasm": ("node",)}
FLOATS = 1e-4
"""What float32 in another order may differ by, in parts of the largest logit."""

LOGITS_C = """
#include "five.h"
#include <stdio.h>
#include <stdlib.h>

static void *read_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!file || !memory || fread(memory, 1, bytes, file) != bytes)
        exit(1);
    fclose(file);
    return memory;
}

int main(int count, char **words)
{
    five_model *net;
    void *weights = read_file("five.weights", FIVE_WEIGHT_BYTES);
    const size_t bytes = five_arena_size(1000, 1000, 1);
    if (five_init(&net, aligned_alloc(64, bytes), bytes, weights, 1000, 1000, 1))
        return 2;
    for (int i = 1; i + 2 < count; i += 3) {
        const int width = atoi(words[i + 1]), height = atoi(words[i + 2]);
        if (five_run(net, read_file(words[i], 3 * (size_t)width * height), width, height, 3 * width))
            return 3;
        for (int class = 0; class < FIVE_LABELS; class++)
            printf("%.9g ", five_value(net, 0, class));
    }
    return 0;
}
"""
LOGITS_JS = """
import { readFileSync } from "node:fs";
import { load } from "./five.mjs";
const net = await load(), words = process.argv.slice(2);
for (let i = 0; i + 2 < words.length; i += 3) {
    const { logits } = net.run(readFileSync(words[i]), Number(words[i + 1]), Number(words[i + 2]));
    console.log(...logits);
}
"""


@pytest.fixture(scope="module")
def models(taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The taught model's file, and the file of it in integers."""
    model = artefact.load(taught.model)
    path = tmp_path_factory.mktemp("int8") / "model.safetensors"
    artefact.save(quantise(model, pictures(listed(taught.folder), model.preprocess, most=40).levels), path)
    return {"float32": taught.model, "int8": path}


@pytest.fixture(scope="module")
def unseen(taught: Any) -> list[np.ndarray]:
    """The pictures of the test part, which nothing was learnt from."""
    with (taught.out / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [decode((taught.out / row["file"]).read_bytes()) for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("target", ["host", "c", "aarch64", "wasm"])
def test_every_build_gives_the_references_answers_on_pictures_that_were_held_out(
    ask: Ask, models: Mapping[str, Path], unseen: list[np.ndarray], tmp_path: Path, target: str, dtype: str
) -> None:
    """Logits within rounding in float32, bit for bit in bytes; by the files of the output folder alone."""
    if target in ("aarch64", "wasm"):
        pytest.importorskip("ziglang", reason="ziglang, the cross compiler, is not installed")
    for command in RUN[target]:
        if shutil.which(command) is None:
            pytest.skip(f"no {command} on this machine")
    words = ("--out", tmp_path / "out", "--target", target, "--name", "five", "--json")
    facts = ask("compile", models[dtype], *words).facts
    assert facts["dtype"] == dtype
    assert facts["unverified"] is None
    most = FLOATS if dtype == "float32" else 0.0
    assert all(error["relative"] <= most for error in facts["largest_error"].values())
    folder = Path(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))
    model = artefact.load(models[dtype])
    reference = NumpyEngine(model)
    wanted = np.stack([reference(frame)["logits"] for frame in unseen])
    found = _logits(folder, target, unseen).reshape(wanted.shape)
    assert len(wanted) == 20
    assert float(np.abs(found - wanted).max()) <= most * float(np.abs(wanted).max())
    if target in CC:
        assert _named_by_the_example(folder, target, unseen) == _named(model, wanted)


def _named(model: Artefact, logits: np.ndarray) -> list[list[str]]:
    """The labels of each picture, best first."""
    return [[model.labels[i] for i in np.argsort(-row, kind="stable")] for row in logits]


def _frames(folder: Path, frames: Sequence[np.ndarray]) -> list[list[str]]:
    """Each frame as raw bytes in the folder, and the words that name it and its size."""
    for number, frame in enumerate(frames):
        (folder / f"{number}.rgb").write_bytes(frame.tobytes())
    return [[f"{i}.rgb", str(frame.shape[1]), str(frame.shape[0])] for i, frame in enumerate(frames)]


def _logits(folder: Path, target: str, frames: Sequence[np.ndarray]) -> np.ndarray:
    """What a program on top of the build prints of all frames."""
    if target in CC:
        (folder / "logits.c").write_text(LOGITS_C)
        subprocess.run(
            [*CC[target], "-O2", "logits.c", "five.c", "-o", "logits", "-lpthread"], cwd=folder, check=True
        )
        command = "./logits"
    else:
        (folder / "logits.mjs").write_text(LOGITS_JS)
        command = "logits.mjs"
    words = [*RUN[target], command, *chain(*_frames(folder, frames))]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return np.array(done.stdout.split(), np.float64).astype(np.float32)


def _named_by_the_example(folder: Path, target: str, frames: Sequence[np.ndarray]) -> list[list[str]]:
    """What main.c prints, built as its first line says; for ARM by the cross compiler in cc's place."""
    said = re.search(r"cc (.*)", (folder / "main.c").read_text().partition("\n")[0])
    assert said is not None
    subprocess.run([*CC[target], *said[1].split()], cwd=folder, check=True)
    named = []
    for words in _frames(folder, frames):
        done = subprocess.run(
            [*RUN[target], "./example", *words], cwd=folder, capture_output=True, text=True, check=True
        )
        named.append([line.split(maxsplit=1)[1] for line in done.stdout.splitlines()])
    return named
