"""Instructions that a processor executes for a picture, by kind of layer, counted under an emulator.

    python benchmarks/instructions.py [--variants 1.0/224,0.5/160] [--targets aarch64] [--peers FOLDER]

V1 with random weights as `mobilenets bench` draws them, in float32 and quantised, built by the cross compiler
and run under each target's own emulators, whose plugin (emulated.c) counts: each instruction set under the
first that has it. Two runs are compared, one of a picture more than the other: starting counts for nothing,
and the reading and writing of what passes between processes is left out. The network's row is the sum of all
others but that of the picture, its resize. A variant may name its number of classes, as 0.5/128/2. What does
not fit a target's part is left out.

With `--peers` LiteRT and ncnn answer the same picture beside our code for 64-bit ARM, by their own wheels for
it, in a Python for it: see `emulated_peers`, which gets both into FOLDER (70 MB) where it is empty. Python's
and numpy's own instructions are left out.

Ours are the same in every run, others' to a thousandth. They are no times: processors start several
instructions at once, and wait for memory. Needs ziglang, qemu-user and qemu-system-arm (Debian's 7.2 was
tried), binutils and a C compiler; with peers what `mobilenets[bench]` installs, apt-get and dpkg-deb.
"""

from __future__ import annotations

import argparse
import re
import shlex
import struct
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import emulated_peers
import numpy as np
from emulated import executed
from rows import keep

from mobilenets.bench.subject import NORM_FRAMES, Subject, opened, random_weights
from mobilenets.compile.build import program, write
from mobilenets.compile.runner import RUN, USE, Program
from mobilenets.compile.source import Source, compiled
from mobilenets.compile.target import TARGETS, Target, family
from mobilenets.compiling import float_engine
from mobilenets.costs.count import cost
from mobilenets.frames import frames
from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import normalise, prepare
from mobilenets.infer.quantise import quantise
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.preprocess import Preprocess
from mobilenets.train.meter import cores

ROOT = Path(__file__).parents[1]
EMULATED = [target.name for target in TARGETS.values() if target.runners and "qemu" in target.runners[0][0]]
FILLS = "memset"
"""What the C library does for the network itself."""
KERNEL = re.compile(r"static APART void (use\w+)\([^)]*\)\n\{\n    (tile|filter)")
STEP = re.compile(r"static void (\w+)\(struct state \*net, int part, int parts\)\n\{\n(.*?)\n\}\n", re.DOTALL)
PEERS_TARGET = "aarch64"


def functions(file: str) -> tuple[list[int], list[str]]:
    """Addresses of a program's functions, and their names."""
    told = subprocess.run(["nm", "-n", file], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    known = [(int(words[0], 16) & ~1, words[2]) for words in lines if len(words) == 3 and words[1] in "tTwW"]
    known = [(at, name) for at, name in known if name[0].isalpha() or name[0] == "_"]
    return [at for at, _ in known], [name for _, name in known]


def kinds(source: Source, model: Artefact, isa: str) -> dict[str, str]:
    """The kind of layer that each kernel's use belongs to: a depthwise one, or the product of a step."""
    filters = {use for use, kernel in KERNEL.findall(source.code) if kernel == "filter"}
    last = {row.name.replace(".", "_"): row.kind for row in cost(model.net).rows}
    found = dict.fromkeys(filters, "depthwise")
    for step, body in STEP.findall(source.code):
        name = step.removesuffix(f"_{isa}")
        kind = next((last[node] for node in last if name.endswith(node)), "")
        for use in re.findall(r"use\d+_\w+", body):
            found.setdefault(use, kind)
    return found


def taking(isa: str) -> list[str]:
    """The functions that make an input of a frame."""
    texts = [files("mobilenets.compile").joinpath(file).read_text() for file in ("frame.c", "rows.c")]
    return re.findall(r"^static .*?(\w+)\(", "".join(texts).replace("@isa@", isa), re.MULTILINE)


def counted(
    source: Source, model: Artefact, isa: str, runner: Sequence[str], words: Sequence[str], place: Path
) -> Counter[str]:
    """Instructions for one picture by kind of layer."""
    side = model.net.resolution
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8).tobytes()
    use = struct.pack("<3i", USE, len(isa), 0) + isa.encode()
    one = struct.pack("<3i", RUN, side, side) + frame
    runs = [executed(runner, words, place, use + times * one) for times in (1, 2)]
    if any(any(answer[:8]) for _, answer in runs):
        raise SystemExit(f"{isa}: the program answered with an error")
    (once, _), (twice, _) = runs
    twice.subtract(once)
    addresses, names = functions(words[0])
    ours = set(re.findall(r"\w+", source.code)) | {FILLS}
    known = dict.fromkeys(taking(isa), "picture") | kinds(source, model, isa)
    found: Counter[str] = Counter()
    for at, instructions in twice.items():
        name = names[bisect_right(addresses, at) - 1]
        if name in ours and name != f"{source.name}_value":
            found[known.get(name, "the rest")] += instructions
    found["network"] = found.total() - found["picture"]
    return found


def runs(
    target: Target, source: Source, isas: Sequence[str], words: Sequence[str]
) -> Iterator[tuple[str, int]]:
    """Each instruction set with the first runner that has it."""
    left = list(isas)
    for number, runner in enumerate(target.runners):
        with Program([*runner, *words], source.outputs, isas) as one:
            had = [isa for isa in left if isa in one.isas]
        left = [isa for isa in left if isa not in had]
        yield from ((isa, number) for isa in had)


def fits(source: Source, target: Target) -> bool:
    part = target.part
    return part is None or (source.arena_bytes <= part.ram_bytes and len(source.weights) <= part.flash_bytes)


def subject_of(variant: str, place: Path) -> Subject:
    """The network of a variant WIDTH/SIDE[/CLASSES]."""
    width, side, *classes = variant.split("/")
    if not classes:
        return opened("v1", width=float(width), resolution=int(side), seed=0, calibrate=None)
    net = classify(zoo.v1(float(width), int(side)), int(classes[0]))
    size = Preprocess(height=net.input.height, width=net.input.width)
    drawn = np.stack([prepare(frame, size) for frame in frames(None)[0][:NORM_FRAMES]])
    weights = random_weights(net, 0, normalise(drawn, size))
    labels = tuple(f"class {number}" for number in range(int(classes[0])))
    artefact.save(
        Artefact(net=net, weights=weights, preprocess=size, labels=labels), place / "model.safetensors"
    )
    return opened(str(place / "model.safetensors"), width=None, resolution=None, seed=0, calibrate=None)


def measured(variant: str, targets: Sequence[str], peers: Path | None, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        subject = subject_of(variant, Path(folder))
    levels = np.load(subject.folder / "calibration.npy")
    maps = float_engine(subject.model, cores()).maps
    classes = f", {variant.split('/')[2]} classes" if variant.count("/") > 1 else ""
    for model in (subject.model, quantise(subject.model, levels, maps=maps, threads=cores())):
        macs: Counter[str] = Counter()
        for row in cost(model.net).rows:
            macs[row.kind] += row.macs
        macs["network"] = macs.total()

        def told(
            engine: str, target: str, cpu: str, isa: str, found: Counter[str], dtype: str, macs: Counter[str]
        ) -> None:
            for kind, instructions in found.most_common():
                row = {"model": subject.name + classes, "weights": "random, seed 0", "dtype": dtype}
                row |= {"engine": engine, "target": target, "cpu": cpu, "isa": isa, "kind": kind}
                row |= {"instructions": instructions, "macs": macs[kind]}
                row["instructions_per_mac"] = round(instructions / macs[kind], 3) if macs[kind] else ""
                keep(out, row | {"command": shlex.join(["python", *sys.argv])})

        for name in targets:
            target = TARGETS[name]
            of = family(target, model.dtype)
            source = compiled(model, "model", of)
            if not fits(source, target):
                print(f"{subject.name}{classes}, {model.dtype}: does not fit {target.part}", flush=True)
                continue
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder)
                write(source, place)
                words = program(source, target, place, place, symbols=True)
                for isa, number in runs(target, source, [one.name for one in of.isas], words):
                    runner = target.runners[number]
                    found = counted(source, model, isa, runner, words, place)
                    told("ours", name, cpu_of(runner), isa, found, model.dtype, macs)
        for engine in emulated_peers.peers(model.dtype) if peers else []:
            for runner in TARGETS[PEERS_TARGET].runners:
                with tempfile.TemporaryDirectory() as folder:
                    count = emulated_peers.counted(engine, subject.folder, runner, peers, Path(folder))
                of_all = Counter({"network": count})
                told(engine.name, "its own wheel", cpu_of(runner), "", of_all, model.dtype, macs)


def cpu_of(runner: Sequence[str]) -> str:
    """The processor or board that a runner is told."""
    return next((runner[at + 1] for at, word in enumerate(runner) if word in ("-cpu", "-M")), "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default="1.0/224,0.5/160,0.5/128,0.5/128/2,0.25/128")
    parser.add_argument("--targets", default=",".join(EMULATED))
    parser.add_argument("--peers", type=Path, help="a folder for an arm64 Python with LiteRT and ncnn")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "instructions.csv")
    args = parser.parse_args()
    root = emulated_peers.fetched(args.peers) if args.peers else None
    for variant in args.variants.split(","):
        measured(variant, args.targets.split(","), root, args.out)


if __name__ == "__main__":
    main()
