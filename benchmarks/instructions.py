"""Instructions that a 64-bit ARM executes for a picture, by kind of layer: float32, int8 and int8 by dots.

    python benchmarks/instructions.py [--variants 1.0/224,0.5/160,0.25/128] [--out results/instructions.csv]

V1 with random weights as `mobilenets bench` draws them, quantised, built by the cross compiler and run under
`qemu-aarch64`, whose plugin (instructions.c) counts. Two runs are compared, one of a picture more than the
other: starting counts for nothing, and the reading and writing of what passes between processes is left out.
The network's row is the sum of all others but that of the picture, its resize. Counts are the same in every
run. They are no times: processors start several instructions at once, and wait for memory. Needs ziglang,
qemu-user (Debian's 7.2 was tried), binutils and a C compiler.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import struct
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
from rows import keep

from mobilenets.bench.subject import opened
from mobilenets.compile.build import program, write
from mobilenets.compile.source import Source, compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.compiling import float_engine
from mobilenets.costs.count import cost
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.quantise import quantise
from mobilenets.train.meter import cores

ROOT = Path(__file__).parents[1]
TARGET = TARGETS["aarch64"]
CPU = "cortex-a76"
RUN, USE = 0, 2
"""Requests, as in the harness."""
FILLS = "memset"
"""What the C library does for the network itself."""
KERNEL = re.compile(r"static APART void (use\w+)\([^)]*\)\n\{\n    (tile|filter)")
STEP = re.compile(r"static void (\w+)\(struct state \*net, int part, int parts\)\n\{\n(.*?)\n\}\n", re.DOTALL)


def plugin(place: Path) -> Path:
    """The counting plugin, for the interface that the QEMU that is here has."""
    told = subprocess.run(["qemu-aarch64", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"version (\d+)", told)
    interface = 1 if version and int(version[1]) < 9 else 2
    made = place / "instructions.so"
    words = ["cc", "-O2", "-shared", "-fPIC", f"-DINTERFACE={interface}", "-o", str(made)]
    subprocess.run([*words, str(Path(__file__).with_suffix(".c"))], check=True)
    return made


def executed(words: list[str], counting: Path, isa: str, model: Artefact, frames: int) -> Counter[int]:
    """Instructions by the address of their block, of a program that answers so many pictures."""
    side = model.net.resolution
    frame = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8).tobytes()
    asked = struct.pack("<3i", USE, len(isa), 0) + isa.encode()
    asked += frames * (struct.pack("<3i", RUN, side, side) + frame)
    told = counting.with_suffix(".txt")
    run = ["qemu-aarch64", "-cpu", CPU, "-plugin", str(counting), *words, "1"]
    env = {**os.environ, "COUNTED": str(told)}
    answers = subprocess.run(run, input=asked, stdout=subprocess.PIPE, env=env, check=True).stdout
    if any(answers[:4]) or any(answers[4:8]):
        raise SystemExit(f"{isa}: the program answered with an error")
    found: Counter[int] = Counter()
    for line in told.read_text().splitlines():
        at, instructions, times = map(int, line.split())
        found[at] += instructions * times
    return found


def functions(file: str) -> tuple[list[int], list[str]]:
    """Addresses of a program's functions, and their names."""
    told = subprocess.run(["nm", "-n", file], capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    known = [(int(words[0], 16), words[2]) for words in lines if len(words) == 3 and words[1] in "tT"]
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


def counted(source: Source, model: Artefact, isa: str, words: list[str], counting: Path) -> Counter[str]:
    """Instructions for one picture by kind of layer."""
    once, twice = (executed(words, counting, isa, model, frames) for frames in (1, 2))
    twice.subtract(once)
    addresses, names = functions(words[0])
    ours = set(re.findall(r"\w+", source.code)) | {FILLS}
    known = dict.fromkeys(taking(isa), "picture") | kinds(source, model, isa)
    found: Counter[str] = Counter()
    for at, instructions in twice.items():
        name = names[bisect_right(addresses, at) - 1]
        if name in ours and name != f"{source.name}_value":
            found[known.get(name, "the rest")] += instructions
    return found


def measured(variant: str, out: Path) -> None:
    width, side = variant.split("/")
    subject = opened("v1", width=float(width), resolution=int(side), seed=0, calibrate=None)
    levels = np.load(subject.folder / "calibration.npy")
    maps = float_engine(subject.model, cores()).maps
    for model in (subject.model, quantise(subject.model, levels, maps=maps, threads=cores())):
        isas = family(TARGET, model.dtype).isas
        source = compiled(model, "model", family(TARGET, model.dtype))
        macs: Counter[str] = Counter()
        for row in cost(model.net).rows:
            macs[row.kind] += row.macs
        macs["network"] = macs.total()
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            write(source, place)
            words = program(source, TARGET, place, place, symbols=True)
            for isa in isas:
                found = counted(source, model, isa.name, words, plugin(place))
                found["network"] = found.total() - found["picture"]
                for kind, instructions in found.most_common():
                    told = {"model": subject.name, "weights": subject.weights, "dtype": model.dtype}
                    told |= {"isa": isa.name, "kind": kind, "instructions": instructions, "macs": macs[kind]}
                    per_mac = round(instructions / macs[kind], 3) if macs[kind] else ""
                    command = shlex.join(["python", *sys.argv])
                    keep(out, told | {"instructions_per_mac": per_mac, "command": command})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", default="1.0/224,0.5/160,0.25/128")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "instructions.csv")
    args = parser.parse_args()
    for variant in args.variants.split(","):
        measured(variant, args.out)


if __name__ == "__main__":
    main()
