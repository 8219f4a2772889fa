"""`mobilenets compile`: a model in, a folder with C, weights, library and certificate out, or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.resources import files
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from mobilenets.compile import isa, verify
from mobilenets.compile.build import TARGETS, Built, build, write
from mobilenets.compile.source import Source, compiled
from mobilenets.costs.count import cost
from mobilenets.data.digests import Progress
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.compiled import CompiledBody, CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import ImageError, decode
from mobilenets.infer.resize import Frame
from mobilenets.infer.sealed import json_text
from mobilenets.infer.weights import cache_dir
from mobilenets.listing import pictures
from mobilenets.spec.head import headless as without_head
from mobilenets.spec.net import tensors

CERTIFICATE = "certificate.json"
FRAMES = 16
BODY_FRAMES = 2
WORTH_MACS = 3e11
"""Work from which on a build of some three seconds pays: 500 images of V1 1.0/224."""
DRAWN_SIDES = (160, 480)
FAMILIES: Mapping[str, isa.Family] = {"x86-64": isa.X86}


def compile_model(
    model: Artefact,
    out: Path,
    progress: Progress,
    *,
    name: str,
    target: str = "host",
    threads: int = 1,
    images: Path | None = None,
    headless: bool = False,
) -> dict[str, Any]:
    """Write the compiled model to `out` and give its certificate; where anything fails nothing is left there.

    Raises ValueError for what a user can mend, RuntimeError where the compiler or the verification fails.
    """
    if target not in TARGETS:
        raise ValueError(f"--target {target}: unknown; known: {', '.join(TARGETS)}")
    if not model.weights:
        raise ValueError("this is a compiled model already; give the model file that it was made of")
    if headless:
        model = _bodied(model)
    progress("compile", 0, 4)
    source = compiled(model, name, FAMILIES[TARGETS[target].family])
    frames, told = _frames(images)
    with _whole(out) as place:
        write(source, place)
        progress("compile", 1, 4)
        made = build(source, TARGETS[target], place)
        progress("compile", 2, 4)
        engine = CompiledEngine(made.file, threads)
        isas = engine.isas
        difference = verify.compared(engine, isas, NumpyEngine(model), frames)
        progress("compile", 3, 4)
        certificate = _certificate(model, source, made, target, difference, isas, len(frames), told)
        (place / CERTIFICATE).write_text(json_text(certificate, indent=1) + "\n", encoding="utf-8")
    return certificate


def compiled_body(model: Artefact, streams: int, images: int, progress: Progress) -> CompiledBody | None:
    """The frozen body of a model as compiled C, built once and kept in the cache.

    None where so few images are not worth a build, where there is no compiler, the compiler or the disk
    fails, or the outputs differ from the walk's.
    """
    try:
        model = _bodied(model)
        library = cache_dir() / "compiled" / f"{_key(model)}.so"
        if library.exists():
            try:
                return CompiledBody(library, streams)
            except ValueError:  # a kill or a full disk may have left a part of one
                library.unlink()
        if images * cost(model.net).macs < WORTH_MACS:
            return None
        progress("compile", 0, 1)
        source = compiled(model, "body", FAMILIES[TARGETS["host"].family], threads=False)
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=library.parent) as place:
            write(source, Path(place))
            made = build(source, TARGETS["host"], Path(place))
            frames, _ = _frames(None)
            engine = CompiledEngine(made.file)
            verify.compared(engine, engine.isas[:1], NumpyEngine(model), frames[:BODY_FRAMES])
            made.file.replace(library)
        return CompiledBody(library, streams)
    except (ValueError, RuntimeError, OSError):
        return None


def named(path: str) -> str:
    """A name in C for a model file."""
    plain = re.sub(r"[^a-z0-9]+", "_", Path(path).stem.lower()).strip("_")
    return plain if plain[:1].isalpha() else f"model_{plain}".rstrip("_")


def _key(model: Artefact) -> str:
    """What a build of a body depends on: the model, this compiler's own text, the C compiler asked for."""
    total = hashlib.sha256(f"{digest(model)} {os.environ.get('CC', '')}".encode())
    for file in sorted(files("mobilenets.compile").iterdir(), key=lambda file: file.name):
        if file.name.endswith((".py", ".c", ".h")):
            total.update(file.read_bytes())
    return total.hexdigest()[:32]


def _bodied(model: Artefact) -> Artefact:
    body = without_head(model.net)
    kept = {tensor: model.weights[tensor] for tensor in tensors(body)}
    return replace(model, net=body, weights=kept, labels=(), threshold=None)


def _frames(images: Path | None) -> tuple[list[Frame], str]:
    """What outputs are compared on: the user's pictures, or frames drawn here."""
    if images is None:
        from mobilenets.data.signs import FACES, sign

        drawn = [
            sign(name, np.random.default_rng(number), DRAWN_SIDES)
            for number, name in zip(range(FRAMES), cycle(FACES), strict=False)
        ]
        return [decode(data) for data in drawn], f"{FRAMES} road signs drawn by this package"
    frames = []
    for _, data in pictures([str(images)]):
        if isinstance(data, str):
            raise ValueError(f"{images}: {data}")
        try:
            frames.append(decode(data()))
        except (ImageError, OSError):
            continue  # a bad picture among good ones says nothing of the code
        if len(frames) == FRAMES:
            break
    if not frames:
        raise ValueError(f"{images}: none of its pictures can be read; see `mobilenets doctor`")
    return frames, f"{len(frames)} pictures of {images}"


def _certificate(
    model: Artefact,
    source: Source,
    made: Built,
    target: str,
    difference: Mapping[str, verify.Difference],
    isas: Sequence[str],
    frames: int,
    told: str,
) -> dict[str, Any]:
    pre = model.preprocess
    with made.file.open("rb") as file:
        library_bytes = len(file.read())
    return {
        "name": source.name,
        "digest": digest(model),
        "net": model.net.name,
        "width": model.net.width,
        "resolution": model.net.resolution,
        "dtype": "float32",
        "target": target,
        "compiler": made.compiler,
        "command": made.command,
        "compile_s": round(made.seconds, 2),
        "code_bytes": library_bytes - len(source.weights),
        "weight_bytes": len(source.weights),
        "arena_bytes": source.maps_bytes + source.scratch_bytes,
        "input": [pre.height, pre.width, 3],
        "outputs": list(source.outputs),
        "verified_on": told,
        "frames": frames,
        "isas_verified": list(isas),
        "largest_error": {name: asdict(one) | {"relative": one.relative} for name, one in difference.items()},
    }


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` whose files move there when all went well."""
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(20, "a file is in its way; give another --out", str(out)) from error
    try:
        with tempfile.TemporaryDirectory(prefix=".part-", dir=out) as place:
            yield Path(place)
            # A certificate of other files must never lie beside these: it goes first and comes last.
            (out / CERTIFICATE).unlink(missing_ok=True)
            for file in sorted(Path(place).iterdir(), key=lambda file: file.name == CERTIFICATE):
                file.replace(out / file.name)
    except BaseException:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        raise
