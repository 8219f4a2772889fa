"""`mobilenets compile`: a model in, a folder with C, weights, library and certificate out, or nothing."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from mobilenets.compile import runner, verify
from mobilenets.compile.build import Built, build, program, write
from mobilenets.compile.form import checked
from mobilenets.compile.part import fit
from mobilenets.compile.source import Source, compiled
from mobilenets.compile.step import refuse
from mobilenets.compile.target import BOARD, TARGETS, Target, family, loads
from mobilenets.compile.target import named as target_named
from mobilenets.costs.count import cost
from mobilenets.data import calibration
from mobilenets.data.crew import cores
from mobilenets.data.digests import Progress
from mobilenets.frames import frames
from mobilenets.infer.adopt import in_floats
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.compiled import CompiledBody, CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.quantise import quantise
from mobilenets.infer.resize import Frame
from mobilenets.infer.weights import cache_dir
from mobilenets.spec.codec import json_text
from mobilenets.spec.head import headless as without_head

CERTIFICATE = "certificate.json"
DTYPES = ("float32", "int8")
BODY_FRAMES = 2
WORTH_MACS = 3e11
"""Work from which on a build of some three seconds pays: 500 images of V1 1.0/224."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far outputs are from the reference's, made by what, on what; or why that is not known."""

    differences: Mapping[str, verify.Difference] = field(default_factory=dict)
    isas: tuple[str, ...] = ()
    ran_by: tuple[str, ...] = ()
    frames: int = 0
    told: str | None = None
    unverified: str | None = None
    stack_bytes: int | None = None


def compile_model(
    model: Artefact,
    out: Path,
    progress: Progress,
    *,
    name: str,
    target: str = "host",
    dtype: str | None = None,
    calibrate: Path | None = None,
    threads: int = 1,
    images: Path | None = None,
    headless: bool = False,
) -> dict[str, Any]:
    """Write the compiled model to `out` and give its certificate; where anything fails nothing is left there.

    `dtype` is the model's own unless given; from float32 to int8 it takes pictures, `calibrate`. Raises
    ValueError for what a user can mend, RuntimeError where the compiler or the verification fails.
    """
    chosen = target_named(target)
    if not model.weights:
        raise ValueError("this is a compiled model already; give the model file that it was made of")
    if headless:
        model = _bodied(model)
    refuse(model.net)
    model, calibrated = _typed(model, dtype or model.dtype, calibrate, progress)
    progress("compile", 0, 4)
    source = compiled(model, name, family(chosen, model.dtype))
    if not 1 <= threads <= source.threads:
        raise ValueError(f"--threads {threads}: --target {target} has at most {source.threads}")
    if chosen.part:
        fit(chosen.part, len(source.weights), source.arena_bytes, code=False)
    shown, told = frames(images or calibrate)
    with _whole(out) as place:
        write(source, place)
        progress("compile", 1, 4)
        made = build(source, chosen, place)
        progress("compile", 2, 4)
        found = _looked_at(source, chosen, made)
        verdict = _verified(model, source, chosen, made, threads, shown, told)
        progress("compile", 3, 4)
        certificate = _certificate(model, source, made, chosen, verdict) | found | calibrated
        if not chosen.shipped:
            made.file.unlink()
        (place / CERTIFICATE).write_text(json_text(certificate, indent=1) + "\n", encoding="utf-8")
    return certificate


def _typed(
    model: Artefact, dtype: str, calibrate: Path | None, progress: Progress
) -> tuple[Artefact, dict[str, Any]]:
    """The model in the type asked for, and what a certificate says of its calibration."""
    if dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype}: unknown; known: {', '.join(DTYPES)}")
    if dtype == "float32":
        if calibrate is not None:
            raise ValueError("--calibrate is for --dtype int8; float32 needs no pictures")
        return in_floats(model), {}
    if model.scales:
        if calibrate is not None:
            raise ValueError("--calibrate: the model is quantised already; leave it out")
        return model, {}
    if calibrate is None:
        raise ValueError("--dtype int8 needs --calibrate FOLDER, pictures such as the model will see")
    begun = time.perf_counter()
    found = calibration.pictures(calibrate, model.preprocess, progress=progress)
    made = quantise(model, found.levels, threads=cores(), progress=progress)
    told = {
        "pictures": len(found.files),
        "set_aside": [f"{one.file}: {one.reason}" for one in found.set_aside],
        "seconds": round(time.perf_counter() - begun, 2),
        **made.recipe["quantised"],
    }
    return made, {"calibration": told}


def compiled_body(model: Artefact, streams: int, images: int, progress: Progress) -> CompiledBody | None:
    """The frozen body of a model as compiled C, built once and kept in the cache.

    None where so few images are not worth a build, where there is no compiler, the compiler or the disk
    fails, or the outputs differ from the walk's.
    """
    try:
        model = _bodied(in_floats(model))
        library = cache_dir() / "compiled" / f"{_key(model)}.so"
        if library.exists():
            try:
                return CompiledBody(library, streams)
            except ValueError:  # a kill or a full disk may have left a part of one
                library.unlink()
        if images * cost(model.net).macs < WORTH_MACS:
            return None
        progress("compile", 0, 1)
        source = compiled(model, "body", family(TARGETS["host"]), threads=False)
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=library.parent) as place:
            write(source, Path(place))
            made = build(source, TARGETS["host"], Path(place))
            shown, _ = frames(None)
            engine = CompiledEngine(made.file)
            verify.compared(engine, engine.isas[:1], NumpyEngine(model), shown[:BODY_FRAMES])
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
    left = {node.name for node in model.net.nodes} - {node.name for node in body.nodes}
    kept = {name: value for name, value in model.weights.items() if name.split(".")[0] not in left}
    scales = {name: scale for name, scale in model.scales.items() if name not in left}
    return replace(model, net=body, weights=kept, labels=(), threshold=None, scales=scales)


def _looked_at(source: Source, target: Target, made: Built) -> dict[str, Any]:
    """What a certificate says of the file itself, and of what it takes of a microcontroller.

    Raises RuntimeError where it is not what it should be, ValueError where it does not fit.
    """
    if not target.form:
        return {"checked": None}
    data = made.file.read_bytes()
    found = checked(source, data, target.form)
    facts: dict[str, Any] = {
        "checked": {"form": found.told, "names": len(found.names), "bytes": len(data)},
    }
    if target.part:
        takes = {"flash_bytes": found.kept_bytes, "ram_bytes": found.static_bytes + source.arena_bytes}
        fit(target.part, takes["flash_bytes"], takes["ram_bytes"], code=True)
        facts |= {
            "part": asdict(target.part),
            **takes,
            "arena_bytes": source.arena_bytes,
            "code_bytes": found.kept_bytes - len(source.weights),
        }
    return facts


def _verified(
    model: Artefact,
    source: Source,
    target: Target,
    made: Built,
    threads: int,
    frames: Sequence[Frame],
    told: str,
) -> Verdict:
    """Library, or program of the same C, compared with the walk. Raises RuntimeError where they differ."""
    reference, most = NumpyEngine(model), verify.SAME if model.scales else verify.AGREE
    if loads(target):
        engine = CompiledEngine(made.file, threads)
        differences = verify.compared(engine, engine.isas, reference, frames, most)
        return Verdict(differences, engine.isas, ("this machine",), len(frames), told)
    lacking = runner.missing(target.runners)
    if lacking or not target.runners:
        reason = f"no {lacking} here, get {target.packages}" if lacking else "nothing here can run it"
        return Verdict(unverified=reason)
    if len(frames) > target.frames:
        frames, told = frames[: target.frames], f"the first {target.frames} of {told}"
    if target.largest:
        frames = [_thinned(frame, target.largest) for frame in frames]
    with tempfile.TemporaryDirectory(prefix="mobilenets-") as place:
        words = program(source, target, made.file.parent, Path(place), threads)
        isas = [one.name for one in family(target, model.dtype).isas]
        with runner.programs(target.runners, words, source.outputs, isas) as programs:
            found = [verify.compared(one, one.isas, reference, frames, most) for one in programs]
            stack = max(one.stack() for one in programs) if target.part else None
            seen = tuple(name for name in isas if any(name in one.isas for one in programs))
    ran_by = tuple(" ".join(word for word in words if word not in BOARD) for words in target.runners)
    return Verdict(verify.largest(found), seen, ran_by, len(frames), told, stack_bytes=stack)


def _thinned(frame: Frame, most: int) -> Frame:
    """Every nth pixel of a frame, so that no side is longer."""
    step = -(-max(frame.shape[:2]) // most)
    return frame[::step, ::step]


def _certificate(
    model: Artefact, source: Source, made: Built, target: Target, verdict: Verdict
) -> dict[str, Any]:
    pre = model.preprocess
    weights_within = len(source.weights) if target.linked else 0
    stack = {"stack_bytes": verdict.stack_bytes} if target.part else {}
    return {
        "name": source.name,
        "digest": digest(model),
        "net": model.net.name,
        "width": model.net.width,
        "resolution": model.net.resolution,
        "dtype": model.dtype,
        "target": target.name,
        "library": made.file.name if target.shipped else None,
        "compiler": made.compiler,
        "command": made.command,
        "compile_s": round(made.seconds, 2),
        "code_bytes": made.file.stat().st_size - weights_within,
        "weight_bytes": len(source.weights),
        "arena_bytes": source.maps_bytes + source.scratch_bytes,
        "input": [pre.height, pre.width, 3],
        "outputs": list(source.outputs),
        **stack,
        "verified_on": verdict.told,
        "unverified": verdict.unverified,
        "frames": verdict.frames,
        "ran_by": list(verdict.ran_by),
        "isas_verified": list(verdict.isas),
        "largest_error": {
            name: asdict(one) | {"relative": one.relative} for name, one in verdict.differences.items()
        },
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
