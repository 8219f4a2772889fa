"""Every target gives the reference's outputs: plain C here, others under an emulator, wine or in Node."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets import compiling
from mobilenets.compile import runner
from mobilenets.compile.build import FLAGS, WARNINGS, build, program, write
from mobilenets.compile.form import checked, form
from mobilenets.compile.runner import Program
from mobilenets.compile.source import Source, compiled
from mobilenets.compile.target import OBJECT, TARGETS, Target, family, loads, named, told
from mobilenets.compiling import compile_model
from mobilenets.costs.device import DEVICES
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import prepare
from mobilenets.listing import listed_targets
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net, Node, Output
from mobilenets.spec.op import Conv, Pointwise, Pool, Shape

from .cases import BLOCKS, EVERYTHING, SMALL, ZOO, drawn, graphs
from .conftest import agrees, filled, in_bytes, taught

CHAINS, GRAPHS = 8, 2
DOCS = Path(__file__).parents[2] / "docs"
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover")
ZIG = [sys.executable, "-m", "ziglang", "cc"]
ANY = ("c", "aarch64", "wasm", "wasm-threads")
"""Targets that many networks are built for; the others have a few, and `host` tests of its own."""
UNRUN = [one.name for one in TARGETS.values() if one.form and not one.runners]
BOARDS = [name for name in TARGETS if name not in ("host", *ANY, *UNRUN)]
LABELS = ("a", 'quo"te\\', "Bäumchen 🌳", "??/ trigraph")


def needed(target: str) -> Target:
    """The target, or a skip where what builds it or runs it is not on this machine."""
    found = TARGETS[target]
    if found.zig:
        pytest.importorskip("ziglang", reason="ziglang, the cross compiler, is not installed")
    if not loads(found) and (lacking := runner.missing(found.runners)):
        pytest.skip(f"no {lacking} on this machine")
    return found


def foreign(source: Source, target: Target, place: Path, threads: int = 1) -> Iterator[Program]:
    """A built model under each runner of its target."""
    words = program(source, target, place, place, threads)
    isas = [one.name for one in family(target, "int8" if source.exact else "float32").isas]
    with runner.programs(target.runners, words, source.outputs, isas) as programs:
        yield from programs


def sanitized(source: Source, place: Path) -> Program:
    """Plain C under AddressSanitizer and UBSan: what they find ends the program."""
    name, text = source.harness
    (place / name).write_text(text)
    flags = [*FLAGS, *WARNINGS, "-std=c11", *SANITIZED]
    subprocess.run(["cc", *flags, name, f"{source.name}.c", "-o", "sanitized"], cwd=place, check=True)
    words = [str(place / "sanitized"), str(place / f"{source.name}.weights"), "1"]
    return Program(words, source.outputs, [one.name for one in family(TARGETS["c"]).isas])


@pytest.mark.slow
@pytest.mark.parametrize("name", ANY)
def test_any_network_gives_the_references_outputs_on_every_target(name: str, tmp_path: Path) -> None:
    target = needed(name)

    def tried(number: int, model: Artefact) -> None:
        place = tmp_path / str(number)
        place.mkdir()
        chosen = family(target, model.dtype)
        if number % 2:  # of a scratch so small that no map before a depthwise layer is whole
            chosen = replace(chosen, scratch_bytes=300, tight=False)
        source = compiled(model, "tested", chosen)
        whole[number] = "const int shared" not in source.code
        write(source, place)
        built = build(source, target, place)
        assert built.file.stat().st_size < 200_000 + len(source.weights)
        if loads(target):
            agrees(CompiledEngine(built.file), model, number)
            with sanitized(source, place) as engine:
                agrees(engine, model, number)
        else:
            for engine in foreign(source, target, place, threads=1 + number % 2 * (source.threads > 1)):
                agrees(engine, model, number)

    whole: dict[int, bool] = {}
    models = [*drawn(CHAINS), *drawn(GRAPHS, graphs), *map(filled, SMALL), filled(EVERYTHING)]
    models += [filled(BLOCKS)] * 2
    models += [in_bytes(model, seed, bool(seed % 2)) for seed, model in enumerate(models)]
    models.append(in_bytes(filled(EVERYTHING), asymmetric=True))
    models += [taught(in_bytes(filled(classify(zoo.v1(0.25, 40), classes)))) for classes in (2, 19)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(tried, number, model) for number, model in enumerate(models)]:
            done.result()
    assert sum(not one for one in whole.values()) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", BOARDS)
def test_a_few_networks_give_the_references_outputs_on_every_board(name: str, tmp_path: Path) -> None:
    target = needed(name)
    models = [*drawn(1), filled(ZOO[5]), filled(EVERYTHING), filled(zoo.net("v2", 0.25, 33, 5))]
    in_integers = [in_bytes(one, 1, bool(i % 2)) for i, one in enumerate(models)]
    head = taught(in_bytes(filled(classify(zoo.v1(0.25, 33), 5))))
    for number, model in enumerate([*models, *in_integers, head]):
        place = tmp_path / str(number)
        place.mkdir()
        source = compiled(model, "tested", family(target, model.dtype))
        write(source, place)
        built = build(source, target, place)
        if loads(target):
            agrees(CompiledEngine(built.file), model, number)
            continue
        found = checked(source, built.file.read_bytes(), target.form)
        for engine in foreign(source, target, place):
            agrees(engine, model, number)
            if target.part:
                size = model.preprocess.width, model.preprocess.height
                assert engine.arena(*size) == source.arena_bytes
                assert 0 < engine.stack() < 8 << 10
                assert found.static_bytes == 0
                assert len(source.weights) < found.kept_bytes < len(source.weights) + 100_000


@pytest.mark.parametrize("name", UNRUN)
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_what_apples_systems_load_is_checked_by_its_form(
    small: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    needed(name)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    model = in_bytes(small) if dtype == "int8" else small
    facts = compile_model(model, tmp_path, quiet, name="tested", target=name)
    assert facts["checked"]["form"] == TARGETS[name].form
    assert facts["checked"]["bytes"] == (tmp_path / facts["library"]).stat().st_size < 1_200_000
    assert facts["verified_on"] is None
    assert facts["unverified"] == "nothing here can run it"
    assert not any(here.iterdir())


def test_a_file_of_another_form_is_not_given(small: Artefact, tmp_path: Path) -> None:
    built = {}
    for name in ("aarch64", "macos-arm64"):
        needed(name)
        source = compiled(small, "tested", family(TARGETS[name]))
        write(source, tmp_path)
        built[name] = build(source, TARGETS[name], tmp_path).file.read_bytes()
        assert checked(source, built[name], TARGETS[name].form).names >= {"tested_run", "tested_init"}
        for share in (2, 3, 30, 3000):
            with pytest.raises(RuntimeError, match=r"the compiler made|does not give"):
                checked(source, built[name][: len(built[name]) // share], TARGETS[name].form)
    with pytest.raises(RuntimeError, match="made ELF 64-bit AArch64 library, not Mach-O arm64 macOS library"):
        checked(source, built["aarch64"], TARGETS["macos-arm64"].form)
    with pytest.raises(RuntimeError, match="does not give other_about, other_arena_size"):
        checked(
            compiled(small, "other", family(TARGETS["aarch64"])), built["aarch64"], TARGETS["aarch64"].form
        )
    for data in (b"", b"MZ" + bytes(99), b"!<arch>\n", b"\x7fELF", bytes(99)):
        with pytest.raises(ValueError, match=r"cut short|begins"):
            form(data)


def test_a_person_detector_fits_a_microcontroller_as_the_published_one_does(tmp_path: Path) -> None:
    """V1 0.25 at 96, two classes, in integers: a vendor prints 83 KiB of RAM and 283 KiB of flash."""
    needed("cortex-m7")
    model = in_bytes(filled(classify(zoo.v1(0.25, 96), 2), labels=("person", "no person")))
    facts = compile_model(model, tmp_path, quiet, name="tested", target="stm32h747")
    assert facts["ram_bytes"] <= 83 << 10
    assert facts["flash_bytes"] <= 283 << 10
    assert 0 < facts["stack_bytes"] <= 2 << 10
    assert facts["part"] == {"name": "STM32H747", "flash_bytes": 2 << 20, "ram_bytes": 512 << 10}
    assert facts["verified_on"]
    assert all(one["largest"] == 0 for one in facts["largest_error"].values())
    words = [*ZIG, *TARGETS["cortex-m7"].zig, *OBJECT, *WARNINGS, "-c", "main.c", "-o", "main.o"]
    subprocess.run(words, cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            filled(classify(zoo.v1(1.0, 32), 2)),
            "the weights .* bytes of flash, the STM32L4R5 .*; it fits in int8, at width 0.75",
        ),
        (
            in_bytes(filled(classify(zoo.v1(0.75, 224), 2))),
            "the arena .* bytes of RAM, .* has 655360; it fits at 160 px$",
        ),
    ],
)
def test_what_does_not_fit_a_microcontroller_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Artefact, words: str
) -> None:
    monkeypatch.setattr(compiling, "build", None)
    with pytest.raises(ValueError, match=words):
        compile_model(model, tmp_path / "out", quiet, name="tested", target="cortex-m4")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["android-arm64", "android-arm32"])
def test_kotlins_entry_points_give_the_references_outputs(
    small: Artefact, frames: list[Any], tmp_path: Path, name: str
) -> None:
    """Called as a Java machine would, by a table that has the two functions that they ask for."""
    target = needed(name)
    source = compiled(small, "tested", family(target))
    write(source, tmp_path)
    (tmp_path / "caller.c").write_text(CALLER)
    words = [
        *ZIG,
        *target.program,
        *FLAGS,
        *WARNINGS,
        "-DTESTED_LINKED",
        "caller.c",
        "tested.c",
        "tested_jni.c",
    ]
    subprocess.run([*words, "-o", "caller"], cwd=tmp_path, check=True)
    for frame in frames:
        size = [str(frame.shape[1]), str(frame.shape[0])]
        words = [*target.runners[0], "./caller", *size]
        done = subprocess.run(words, cwd=tmp_path, input=frame.tobytes(), capture_output=True, check=True)
        values, _, rest = done.stdout.decode().partition("\n")
        wanted = NumpyEngine(small)(frame)["logits"].tolist()
        assert [float(value) for value in values.split()] == pytest.approx(wanted, abs=1e-5)
        assert tuple(rest.splitlines()) == LABELS


CALLER = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct buffer { void *at; int64_t bytes; };
static void *address(void *env, void *buffer) { (void)env; return ((struct buffer *)buffer)->at; }
static int64_t capacity(void *env, void *buffer) { (void)env; return ((struct buffer *)buffer)->bytes; }
int64_t Java_mobilenets_Tested_arenaSize(void *, void *, int32_t, int32_t);
int32_t Java_mobilenets_Tested_init(void *, void *, void *, int32_t, int32_t);
int32_t Java_mobilenets_Tested_run(void *, void *, void *, void *, int32_t, int32_t, int32_t);
int32_t Java_mobilenets_Tested_values(void *, void *, void *, int32_t, void *);
int32_t Java_mobilenets_Tested_label(void *, void *, int32_t, void *);

int main(int count, char **words)
{
    static void *table[232];
    void *first = table, *env = &first;
    table[230] = (void *)address;
    table[231] = (void *)capacity;
    const int width = atoi(words[1]), height = atoi(words[2]);
    struct buffer rgb = {malloc(3 * width * height), 3 * width * height}, into = {malloc(4096), 4096};
    struct buffer arena = {NULL, Java_mobilenets_Tested_arenaSize(env, NULL, width, height)};
    struct buffer narrow = {into.at, 1}, low = {rgb.at, rgb.bytes - 1};
    arena.at = malloc(arena.bytes + 8) + 8;
    struct buffer small = {arena.at, arena.bytes - 1};
    if (count != 3 || fread(rgb.at, 1, rgb.bytes, stdin) != (size_t)rgb.bytes)
        return 1;
    if (!Java_mobilenets_Tested_init(env, NULL, &small, width, height) ||
        Java_mobilenets_Tested_init(env, NULL, &arena, width, height))
        return 2;
    if (!Java_mobilenets_Tested_run(env, NULL, &arena, &low, width, height, 3 * width) ||
        Java_mobilenets_Tested_run(env, NULL, &arena, &rgb, width, height, 3 * width))
        return 3;
    if (Java_mobilenets_Tested_values(env, NULL, &arena, 0, &narrow) ||
        Java_mobilenets_Tested_values(env, NULL, &arena, 9, &into) ||
        Java_mobilenets_Tested_label(env, NULL, 2, &narrow))
        return 4;
    const int many = Java_mobilenets_Tested_values(env, NULL, &arena, 0, &into);
    for (int i = 0; i < many; i++)
        printf("%.9g ", ((float *)into.at)[i]);
    for (int i = 0; i < many; i++)
        printf("\\n%.*s", Java_mobilenets_Tested_label(env, NULL, i, &into), (char *)into.at);
    return 0;
}
"""


@pytest.fixture(scope="module")
def small() -> Artefact:
    return filled(classify(zoo.v1(0.25, 64), 4), labels=LABELS)


@pytest.fixture
def frames() -> list[Any]:
    random = np.random.default_rng(0)
    sizes = ((64, 64), (1, 1), (480, 640), (3, 200), (130, 7))
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture
def wasm(small: Artefact, tmp_path: Path) -> Callable[[str], Source]:
    """Builds a model for browsers in `tmp_path`."""

    def make(name: str) -> Source:
        source = compiled(small, "tested", family(needed(name)))
        write(source, tmp_path)
        build(source, TARGETS[name], tmp_path)
        return source

    return make


def node(script: str, place: Path) -> Any:
    """What a module prints as JSON."""
    (place / "script.mjs").write_text(script)
    done = subprocess.run(
        ["node", "script.mjs"], cwd=place, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_code_for_browsers_is_small(tmp_path: Path) -> None:
    target = needed("wasm")
    labels = tuple(f"class number {i:05}" for i in range(1001))
    for width, side in ((1.0, 224), (0.25, 128)):
        model = filled(classify(zoo.v1(width, side), len(labels)), labels=labels)
        for each in (model, in_bytes(model)):
            source = compiled(each, "tested", family(target, each.dtype))
            write(source, tmp_path)
            assert build(source, target, tmp_path).file.stat().st_size <= 64_000 + source.text_bytes


@pytest.mark.slow
def test_an_arm_processor_takes_dot_products_where_it_has_them(small: Artefact, tmp_path: Path) -> None:
    """Cortex-A53 has none, and ends a program that asks for one; A76 has them."""
    target, model = needed("aarch64"), in_bytes(small)
    facts = compile_model(model, tmp_path / "out", quiet, name="tested", target="aarch64")
    assert facts["isas_verified"] == ["neon_dot", "neon"]
    source = compiled(model, "tested", family(target, "int8"))
    write(source, tmp_path)
    found = [engine.isas for engine in foreign(source, target, tmp_path)]
    assert found == [("neon",), ("neon_dot", "neon")]


@pytest.mark.slow
@pytest.mark.parametrize("together", [False, True])
def test_products_of_the_least_bytes_stay_whole_on_arm(tmp_path: Path, together: bool) -> None:
    """-128 · -128 and another such are one more than 16 bits hold: the code has to know its weights."""
    target = needed("aarch64")
    stem, mixed = Conv(out=32, activation="relu"), Pointwise(out=40)
    nodes = (
        Node("stem", stem, ("image",)),
        Node("mixed", mixed, ("stem",)),
        Node("pool", Pool(), ("mixed",)),
    )
    net = Net("drawn", Shape(9, 9, 3), nodes, (Output("map", "mixed", "vector"),))
    model = in_bytes(filled(net))
    weight = model.weights["mixed.weight"].copy()
    weight[:, 8], weight[:, 12] = -128, -128 if together else -127
    zero = np.zeros(len(weight), np.int32)
    model = replace(model, weights={**model.weights, "mixed.weight": weight, "mixed.zero": zero})
    source = compiled(model, "tested", family(target, "int8"))
    write(source, tmp_path)
    for engine in foreign(source, target, tmp_path):
        agrees(engine, model)


def test_threads_in_webassembly_change_no_bit(wasm: Callable[[str], Source], tmp_path: Path) -> None:
    source = wasm("wasm-threads")
    x = np.random.default_rng(1).normal(0, 1, (64, 64, 3)).astype(np.float32)
    made = []
    for threads in (1, 2, 3):
        for engine in foreign(source, TARGETS["wasm-threads"], tmp_path, threads):
            made += [engine.input(x) for _ in range(20)]
    assert all(np.array_equal(one[name], made[0][name]) for one in made for name in one)


def test_javascript_takes_pixels_with_and_without_alpha(
    wasm: Callable[[str], Source], small: Artefact, frames: list[Any], tmp_path: Path
) -> None:
    wasm("wasm")
    frame = frames[2]
    alpha = np.full((*frame.shape[:2], 1), 7, np.uint8)
    (tmp_path / "rgb").write_bytes(frame.tobytes())
    (tmp_path / "rgba").write_bytes(np.concatenate([frame, alpha], axis=2).tobytes())
    (tmp_path / "levels").write_bytes(prepare(frame, small.preprocess).tobytes())
    told = node(
        """
        import { readFileSync } from "node:fs";
        import { load, digest } from "./tested.mjs";
        const net = await load();
        const ran = (file, width) => Array.from(net.run(readFileSync(file), width, 480).logits);
        const error = (what) => { try { what(); return null; } catch (e) { return e.message; } };
        const errors = [
            error(() => ran("rgb", 641)), error(() => net.run(new Uint8Array(0), 0, 0)),
            error(() => net.run(new Uint8Array(3 * 9000), 9000, 1)), error(() => net.use("abacus")),
            await load({ threads: 2 }).catch((e) => e.message),
            await load({ threads: 0.5 }).catch((e) => e.message), error(() => net.run(null, 1, 1)),
            error(() => net.runLevels(null)),
        ];
        const { labels, outputs, about } = net;
        const rgb = ran("rgb", 640), rgba = ran("rgba", 640);
        const levels = Array.from(net.runLevels(readFileSync("levels")).logits);
        net.close();
        errors.push(error(() => ran("rgb", 640)));
        console.log(JSON.stringify({ rgb, rgba, levels, labels, outputs, errors,
                                     digest, same: about.digest === digest }));
        """,
        tmp_path,
    )
    assert told["rgb"] == told["rgba"] == told["levels"]
    assert told["rgb"] == pytest.approx(NumpyEngine(small)(frame)["logits"].tolist(), abs=1e-5)
    assert tuple(told["labels"]) == LABELS
    assert told["outputs"][0] == {"name": "logits", "dtype": "float32", "shape": [4], "scale": 1, "zero": 0}
    assert told["same"]
    for error, words in zip(
        told["errors"],
        (
            *("has 923", "sides below 1", "above 8192", "instruction set", "2 threads cannot"),
            *("0.5 threads cannot", "an array of bytes", "has 12288 bytes", "a null pointer"),
        ),
        strict=True,
    ):
        assert words in error


def test_weights_of_another_model_are_refused(
    wasm: Callable[[str], Source], small: Artefact, tmp_path: Path
) -> None:
    wasm("wasm")
    other = compiled(filled(small.net, 1), "tested", family(TARGETS["wasm"])).weights
    script = """import { load } from "./tested.mjs";
        console.log(JSON.stringify(await load().catch((e) => e.message)));"""
    for weights, wanted in ((bytes(64), "not as long"), (other, "weights of another model")):
        (tmp_path / "tested.weights").write_bytes(weights)
        assert wanted in node(script, tmp_path)


@pytest.mark.slow
def test_the_example_builds_for_arm_by_the_cross_compiler_alone(
    small: Artefact, frames: list[Any], tmp_path: Path
) -> None:
    target = needed("aarch64")
    write(compiled(small, "tested", family(target)), tmp_path)
    words = [*ZIG, *target.program, *FLAGS, *WARNINGS, "main.c", "tested.c", "-o", "example", "-lpthread"]
    subprocess.run(words, cwd=tmp_path, check=True)
    for frame in frames:
        (tmp_path / "frame.rgb").write_bytes(frame.tobytes())
        size = [str(frame.shape[1]), str(frame.shape[0])]
        told = subprocess.run(
            ["qemu-aarch64", "./example", "frame.rgb", *size], cwd=tmp_path, capture_output=True, check=True
        ).stdout.decode()
        logits = NumpyEngine(small)(frame)["logits"]
        found = [line.split(maxsplit=1)[1] for line in told.splitlines()]
        assert found == [LABELS[i] for i in np.argsort(-logits, kind="stable")]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O3"])
def test_plain_c_keeps_to_the_standard(small: Artefact, tmp_path: Path, level: str, dtype: str) -> None:
    model = in_bytes(small, asymmetric=True) if dtype == "int8" else small
    write(compiled(model, "tested", family(TARGETS["c"], dtype)), tmp_path)
    # What a model tells of itself is one string, longer than every compiler has to take.
    asked = [*WARNINGS, level, "-Wpedantic", "-Wno-overlength-strings", "-Wshadow", "-std=c11"]
    for compiler in (["cc"], *([ZIG] if find_spec("ziglang") is not None else [])):
        words = [*compiler, *asked, "-c", "tested.c", "-o", "tested.o"]
        subprocess.run(words, cwd=tmp_path, check=True)


def quiet(*_: object) -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize(("name", "lacking"), [("aarch64", "qemu-aarch64"), ("wasm", "node")])
def test_what_nothing_here_can_run_is_built_and_said_to_be_unverified(
    small: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lacking: str
) -> None:
    needed(name)
    monkeypatch.setattr(runner.shutil, "which", lambda name: None)
    facts = compile_model(small, tmp_path, quiet, name="tested", target=name)
    assert facts["verified_on"] is None
    assert lacking in facts["unverified"]
    assert facts["isas_verified"] == facts["ran_by"] == []
    assert facts["largest_error"] == {}
    assert json.loads((tmp_path / "certificate.json").read_text()) == facts
    assert (tmp_path / facts["library"]).exists()


def test_a_program_that_ends_or_differs_leaves_nothing_behind(
    small: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = needed("wasm")
    for runners, words in (((("false",),), "false .* ended with 1"), ((("node", "-e", "quit"),), "quit")):
        broken = {field: getattr(target, field) for field in Target.__slots__} | {"runners": runners}
        monkeypatch.setitem(TARGETS, "wasm", Target(**broken))  # type: ignore[index]
        with pytest.raises(RuntimeError, match=words):
            compile_model(small, tmp_path / "out", quiet, name="tested", target="wasm")
        assert not (tmp_path / "out").exists()


def test_more_threads_than_a_target_has_are_refused(small: Artefact, tmp_path: Path) -> None:
    for name in ("c", "wasm"):
        with pytest.raises(ValueError, match=f"--threads 2: --target {name} has at most 1"):
            compile_model(small, tmp_path / "out", quiet, name="tested", target=name, threads=2)
    assert not (tmp_path / "out").exists()


def test_the_host_has_the_instruction_sets_of_its_machine() -> None:
    host = TARGETS["host"]
    found = {
        machine: family(host, machine=machine).name for machine in ("x86_64", "AMD64", "aarch64", "riscv64")
    }
    assert found == {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "aarch64", "riscv64": "c"}
    assert loads(host, "riscv64")
    assert loads(TARGETS["aarch64"], "arm64")
    assert not loads(TARGETS["aarch64"], "x86_64")
    assert not loads(TARGETS["wasm"], "x86_64")


def test_a_device_is_a_name_for_a_target_and_a_slip_is_answered_with_the_nearest() -> None:
    assert {named(device).name for device in DEVICES} <= set(TARGETS)
    assert not set(DEVICES) & set(TARGETS)
    assert named("raspberry-pi-4").name == named("aarch64").name == "aarch64"
    for wrong, words in {
        "rasberry-pi4": "unknown target 'rasberry-pi4'; did you mean raspberry-pi-4 or ",
        "Raspberry Pi": "'Raspberry Pi' may be raspberry-pi-3, ",
        "android": "did you mean android-arm64 or android-arm32?",
        "windos": r"did you mean windows-x86-64\?",
        "": "unknown target ''; see `mobilenets devices`",
    }.items():
        with pytest.raises(ValueError, match=words):
            named(wrong)


def test_every_target_is_in_the_documents_with_what_verifies_it() -> None:
    compiler = (DOCS / "compiler.md").read_text()
    assert [name for name in TARGETS if not re.search(rf"^\|[^|]*`{name}`", compiler, re.MULTILINE)] == []
    devices = (DOCS / "devices.md").read_text()
    told = {
        row[0]: row[1:]
        for row in re.findall(r"^\| `([\w-]+)` \| ([^|]+) \| ([^|]+) \|$", devices, re.MULTILINE)
    }
    for name in {device.target for device in DEVICES.values()}:
        of = ", ".join(f"`{device.name}`" for device in DEVICES.values() if device.target == name)
        runners = [f"`{shlex.join(words[:3])}`" for words in TARGETS[name].runners]
        assert told[name] == (of, ", ".join(runners) or TARGETS[name].proof), name


def test_every_target_is_told_with_what_it_is_for() -> None:
    assert all(target in told() for target in TARGETS)
    rows = {row["name"]: row for row in listed_targets()}
    assert list(rows) == list(TARGETS)
    assert all(len(target.says.split()) > 2 for target in TARGETS.values())
    assert rows["cortex-m7"]["verified"] == "under qemu-system-arm"
    assert rows["macos-arm64"]["verified"] == "not run: its form is checked"
    assert rows["x86-64"]["verified"] == "run here"
