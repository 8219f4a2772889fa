"""`mobilenets compile`: a model in, a folder with C, weights, library and certificate out, or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.compile import runner, verify
from mobilenets.compile.build import Built, build, program, write
from mobilenets.compile.form import checked
from mobilenets.compile.isa import Family
from mobilenets.compile.lacking import refuse
from mobilenets.compile.part import fit
from mobilenets.compile.smaller import smaller
from mobilenets.compile.source import Source, compiled
from mobilenets.compile.target import BOARD, TARGETS, Target, body_family, family, loads
from mobilenets.compile.target import named as target_named
from mobilenets.costs.count import cost
from mobilenets.data import calibration
from mobilenets.data.crew import cores
from mobilenets.data.digests import Progress
from mobilenets.frames import frames
from mobilenets.infer.adopt import in_floats
from mobilenets.infer.artefact import Artefact, digest
from mobilenets.infer.calibrate import Maps
from mobilenets.infer.compiled import FORMAT, CompiledBody, CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.quantise import quantise
from mobilenets.infer.resize import Frame
from mobilenets.infer.weights import cache_dir
from mobilenets.placing import PART, drop_left
from mobilenets.spec.head import headless as without_head
from mobilenets.spec.net import Output
from mobilenets.spec.text import json_text
from mobilenets.train.meter import instructions

CERTIFICATE = "certificate.json"
MOST_LETTERS = 48
"""Of a name that is taken from a file's."""
DTYPES = ("float32", "int8")
BODY_FRAMES = 2
WORTH_MACS = 3e11
"""Work from which on a build of two or three seconds pays: 500 images of V1 1.0/224."""
MOST_STREAMS = 8
"""Networks side by side that give every map: each holds all of them, 40 MB for V1 1.0/224."""


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
    lean: bool = False,
) -> dict[str, Any]:
    """Write the compiled model to `out` and give its certificate; where anything fails nothing is left there.

    `dtype` is the model's own unless given; from float32 to int8 it takes pictures, `calibrate`. Raises
    ValueError for what a user can mend, RuntimeError where the compiler or the verification fails. Code that
    is to be `lean` does not tell what the model is, which others know then.
    """
    chosen = target_named(target)
    if not model.weights:
        raise ValueError("this is a compiled model already; give the model file that it was made of")
    if headless:
        model = _bodied(model)
    refuse(model.net)
    _try_out(out)
    model, calibrated = typed(model, dtype or model.dtype, calibrate, progress)
    with _whole(out) as place:
        progress("compile", 0, 4)
        source = compiled(model, name, family(chosen, model.dtype), lean=lean)
        if not 1 <= threads <= source.threads:
            raise ValueError(f"--threads {threads}: --target {target} has at most {source.threads}")
        if chosen.part:
            change = partial(smaller, model, chosen, chosen.part)
            fit(chosen.part, len(source.weights), source.arena_bytes, change, code=False)
        shown, told = frames(images or calibrate)
        write(source, place)
        progress("compile", 1, 4)
        made = build(source, chosen, place)
        progress("compile", 2, 4)
        found = _looked_at(model, source, chosen, made)
        verdict = _verified(model, source, chosen, made, threads, shown, told)
        progress("compile", 3, 4)
        certificate = _certificate(model, source, made, chosen, verdict) | found | calibrated
        certificate |= {"threads": threads}
        if not chosen.shipped:
            made.file.unlink()
        certificate["files"] = {file.name: _content(file) for file in sorted(place.iterdir())}
        (place / CERTIFICATE).write_text(json_text(certificate, indent=1) + "\n", encoding="utf-8")
    return certificate


def typed(
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
    there = calibration.listed(calibrate)
    with ThreadPoolExecutor(1) as aside:
        building = aside.submit(float_engine, model, min(cores(), MOST_STREAMS))
        found = calibration.pictures(there, model.preprocess, progress=progress)
        engine = building.result()
    made = quantise(model, found.levels, maps=engine.maps, threads=cores(), progress=progress)
    told = {
        **made.recipe["quantised"],
        "pictures": len(found.files),
        "held_out": made.scores["quantised"]["held_out"],
        "set_aside": [f"{one.file}: {one.reason}" for one in found.set_aside],
        "seconds": round(time.perf_counter() - begun, 2),
        "float_ran_by": engine.told,
        "float_build_s": engine.build_s,
    }
    return made, {"calibration": told}


@dataclass(frozen=True, slots=True)
class FloatEngine:
    """What `quantise` takes the float network's maps from: numpy's walk where `maps` is None."""

    maps: Maps | None = None
    told: str = "numpy"
    build_s: float | None = None


def float_engine(model: Artefact, streams: int) -> FloatEngine:
    """The float network as C built now, every map an output; numpy where no compiler is, or it fails."""
    nodes = tuple(Output(node.name, node.name, "vector") for node in model.net.nodes)
    every = replace(model, net=replace(model.net, outputs=nodes), labels=(), threshold=None)
    begun = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(prefix="mobilenets-") as place:
            chosen = body_family(instructions(), rough=False)
            body = CompiledBody(_built_body(every, Path(place), chosen), streams)
    except (ValueError, RuntimeError, OSError):
        return FloatEngine()

    def maps(levels: Frame, names: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        given = {output.name: output.node for output in model.net.outputs}
        found = body.prepared(levels, {*names, *given.values()})
        return {name: found[node] for name, node in given.items()} | {name: found[name] for name in names}

    return FloatEngine(maps, body.told, round(time.perf_counter() - begun, 2))


def compiled_body(
    model: Artefact,
    streams: int,
    images: int,
    progress: Progress,
    *,
    rough: bool = False,
    place: Path | None = None,
) -> CompiledBody | None:
    """The frozen body of a model as compiled C for this processor, built once and kept in the cache, or in
    `place`.

    With `rough` its products are of numbers in bfloat16 where the processor has instructions for them; the
    exact one, which will be asked for next, is built beside it. None where so few images are not worth a
    build, where there is no compiler, the compiler or the disk fails, or the outputs differ from the walk's.
    """
    try:
        model = _bodied(in_floats(model))
        refuse(model.net)
        chosen, exact = (body_family(instructions(), rough=one) for one in (rough, False))
        places = {
            one: (place or cache_dir()) / "compiled" / f"{_key(model)}-{one.isas[0].name}.so"
            for one in (chosen, exact)
        }
        if places[chosen].exists():
            try:
                return CompiledBody(places[chosen], streams, exact=chosen == exact)
            except ValueError:  # a kill or a full disk may have left a part of one
                places[chosen].unlink()
        if images * cost(model.net).macs < WORTH_MACS:
            return None
        progress("compile", 0, 1)
        with ThreadPoolExecutor(2) as pool:
            jobs = {one: pool.submit(_keep_body, model, one, place) for one, place in places.items()}
        # An older compiler may know nothing of bfloat16.
        best = exact if jobs[chosen].exception() else chosen
        jobs[best].result()
        return CompiledBody(places[best], streams, exact=best == exact)
    except (ValueError, RuntimeError, OSError):
        return None


def _keep_body(model: Artefact, chosen: Family, library: Path) -> None:
    """Build the library unless it is there."""
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=library.parent) as place:
            _built_body(model, Path(place), chosen).replace(library)


def _built_body(model: Artefact, place: Path, chosen: Family) -> Path:
    """The library of a float body, for one thread, compared with the walk; raises where it differs."""
    source = compiled(model, "body", chosen, threads=False)
    write(source, place)
    made = build(source, TARGETS["host"], place)
    shown, _ = frames(None)
    engine = CompiledEngine(made.file)
    most = verify.ROUGH if chosen.bfloat16 else verify.AGREE
    verify.compared(engine, engine.isas[:1], NumpyEngine(model), shown[:BODY_FRAMES], most)
    return made.file


def named(path: str) -> str:
    """A name in C for a model file."""
    plain = re.sub(r"[^a-z0-9]+", "_", Path(path).stem.lower()).strip("_")[:MOST_LETTERS]
    return plain if plain[:1].isalpha() and plain != "main" else f"model_{plain}".rstrip("_")


def _key(model: Artefact) -> str:
    """What a build of a body depends on: the model, this compiler's own text, the C compiler asked for."""
    total = hashlib.sha256(f"{digest(model)} {FORMAT} {os.environ.get('CC', '')}".encode())
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


def _looked_at(model: Artefact, source: Source, target: Target, made: Built) -> dict[str, Any]:
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
        code = found.kept_bytes - len(source.weights)
        change = partial(smaller, model, target, target.part, code)
        fit(target.part, takes["flash_bytes"], takes["ram_bytes"], change, code=True)
        facts |= {
            "part": asdict(target.part),
            **takes,
            "arena_bytes": source.arena_bytes,
            "code_bytes": code,
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
        try:
            engine = CompiledEngine(made.file, threads)
        except ValueError as error:
            told = str(error).replace(str(made.file), made.file.name)
            raise RuntimeError(f"what the C compiler made cannot be used: {told}: {made.command}") from error
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
        "labels": len(model.labels),
        "compiler": made.compiler,
        "command": made.command,
        "compile_s": round(made.seconds, 2),
        "code_bytes": made.file.stat().st_size - weights_within - source.text_bytes,
        "text_bytes": source.text_bytes,
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


def _try_out(out: Path) -> None:
    """Raises OSError where nothing can be written to `out`, before anything takes long; leaves nothing."""
    made = _opened(out)
    try:
        tempfile.TemporaryDirectory(prefix=PART, dir=out).cleanup()
    finally:
        if made:
            out.rmdir()


def _opened(out: Path) -> bool:
    """Make the folder unless it is there; whether it was made."""
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(20, "a file is in its way; give another --out", str(out)) from error
    return made


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` whose files move there when all went well."""
    made = _opened(out)
    try:
        drop_left(out)
        with tempfile.TemporaryDirectory(prefix=PART, dir=out) as place:
            yield Path(place).resolve()
            # A certificate of other files must never lie beside these: it goes first and comes last, and what
            # another build left goes with it.
            for file in _left(out):
                file.unlink(missing_ok=True)
            (out / CERTIFICATE).unlink(missing_ok=True)
            for file in sorted(Path(place).iterdir(), key=lambda file: file.name == CERTIFICATE):
                file.replace(out / file.name)
    except BaseException as error:
        if made:
            shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say which
            raise OSError(error.errno, error.strerror or str(error), str(out)) from error
        raise


def _left(out: Path) -> list[Path]:
    """The files of another build that its certificate lists and nobody has changed since."""
    try:
        listed = json.loads((out / CERTIFICATE).read_bytes())["files"]
        known = [(out / name, content) for name, content in listed.items() if Path(name).name == name]
        return [file for file, content in known if file.is_file() and _content(file) == content]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _content(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
