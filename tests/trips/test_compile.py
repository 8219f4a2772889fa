"""A taught model compiled, asked from Python, certified, and what happens where that cannot be."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.infer import artefact
from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.net import tensors
from mobilenets.spec.op import Depthwise
from mobilenets.spec.preprocess import Preprocess

Ask = Callable[..., Any]
Refuse = Callable[..., str]

if shutil.which("cc") is None:
    pytest.skip("no C compiler on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def compiled(ask: Ask, taught: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The taught model compiled for this machine: its folder and what the command said."""
    out = tmp_path_factory.mktemp("compiled")
    return out, ask("compile", taught.model, "--out", out, "--name", "five", "--json").facts


def test_a_compiled_model_answers_as_the_model_file_does(ask: Ask, taught: Any, compiled: Any) -> None:
    out, facts = compiled
    wanted = ask("predict", taught.model, taught.folder, "--json").facts["results"]
    got = ask("predict", out / "five.so", taught.folder, "--json").facts["results"]
    assert len(got) == len(wanted) > 20
    for one, other in zip(got, wanted, strict=True):
        assert one["file"] == other["file"]
        assert [p["label"] for p in one["predictions"]] == [p["label"] for p in other["predictions"]]
        scores = [p["score"] for p in other["predictions"]]
        assert [p["score"] for p in one["predictions"]] == pytest.approx(scores, abs=1e-4)
    model = ask("info", taught.model, "--json").facts
    assert facts["digest"] == model["digest"]
    assert ask("info", out / "five.so", "--json").facts["digest"] == model["digest"]


def test_a_compiled_model_is_asked_without_what_it_does_not_need(
    surroundings: dict[str, str], taught: Any, compiled: Any
) -> None:
    """Imports are most of a cold start: Typer, other formats and the reference walk stay out."""
    rooms = ("cli", "data", "compile", "costs", "spec.net", "spec.codec")
    rooms += tuple(f"infer.{one}" for one in ("artefact", "walk", "integer", "engine", "adopt", "weights"))
    needless = {"typer", "click", "pydantic", "rich", "safetensors", "torch", "h5py"}
    needless |= {f"mobilenets.{room}" for room in rooms}
    text = (
        "import sys\n"
        "from mobilenets.entry import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    picture = sorted((taught.folder / "bonsai").iterdir())[0]
    for options in ([], ["--json", "--top", "2"]):
        done = subprocess.run(
            [sys.executable, "-c", text, "predict", str(compiled[0] / "five.so"), str(picture), *options],
            capture_output=True,
            env=surroundings,
            check=True,
            text=True,
        )
        assert "bonsai" in done.stdout
        assert needless.isdisjoint(done.stderr.split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_compiled_model_adds_60_megabytes_at_most_to_the_interpreter(
    ask: Ask, surroundings: dict[str, str], taught: Any, material: Path, tmp_path: Path, dtype: str
) -> None:
    """V1 1.0 at 224, the command line and all. VmHWM is this process's own peak, before and after."""
    weights = material / "weights" / "mobilenet_v1_1.0_224_quant.tflite"
    ask("compile", weights, "--dtype", dtype, "--name", "v1", "--out", tmp_path)
    text = (
        "import sys\n"
        "def peak():\n"
        "    lines = open('/proc/self/status').read().splitlines()\n"
        "    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM'))\n"
        "bare = peak()\n"
        "from mobilenets.entry import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "print((peak() - bare) * 1024 / 1e6, file=sys.stderr)"
    )
    picture = sorted((taught.folder / "bonsai").iterdir())[0]
    done = subprocess.run(
        [sys.executable, "-c", text, "predict", str(tmp_path / "v1.so"), str(picture)],
        capture_output=True,
        env=surroundings,
        check=True,
        text=True,
    )
    added_mb = float(done.stderr.splitlines()[-1])
    print(f"memory that a compiled V1 in {dtype} adds: {added_mb:.1f} MB")  # noqa: T201  # seen with -s
    assert added_mb <= 60


def test_a_certificate_says_what_was_built_and_how_far_it_is_from_the_reference(compiled: Any) -> None:
    out, facts = compiled
    kept = json.loads((out / "certificate.json").read_text())
    assert kept == facts
    assert set(kept["largest_error"]) == {"logits", "features"}
    assert all(error["relative"] < 1e-4 for error in kept["largest_error"].values())
    assert kept["weight_bytes"] == (out / "five.weights").stat().st_size
    assert kept["code_bytes"] <= 200_000
    assert kept["frames"] == 16
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["five.c", "five.h", "five.so", "five.weights", "main.c", "certificate.json"]
    )


@pytest.mark.parametrize(
    ("target", "runners", "isas"),
    [
        ("c", ["this machine"], ["plain"]),
        ("aarch64", ["qemu-aarch64 -cpu cortex-a53", "qemu-aarch64 -cpu cortex-a76"], ["neon"]),
        ("armv7", ["qemu-arm -cpu cortex-a7"], ["neon"]),
        ("wasm", ["node"], ["simd128"]),
        ("wasm-threads", ["node"], ["simd128"]),
    ],
)
def test_a_model_compiled_for_another_target_gives_the_references_answers(
    ask: Ask, taught: Any, tmp_path: Path, target: str, runners: list[str], isas: list[str]
) -> None:
    """Verified on pictures by whatever can run it here; the folder is named from where the user stands."""
    if target != "c":
        pytest.importorskip("ziglang")
    for words in runners:
        command = words.split()[0]
        if target != "c" and shutil.which(command) is None:
            pytest.skip(f"no {command} on this machine")
    threads = "2" if target == "wasm-threads" else "1"
    words = ("--images", taught.folder, "--name", "five", "--threads", threads, "--json")
    facts = ask("compile", taught.model, "--out", "made", "--target", target, *words, cwd=tmp_path).facts
    assert facts["ran_by"] == runners
    assert facts["isas_verified"] == isas
    assert facts["unverified"] is None
    assert f"pictures of {taught.folder}" in facts["verified_on"]
    assert facts["frames"] >= 2
    assert set(facts["largest_error"]) == {"logits", "features"}
    assert all(error["relative"] < 1e-4 for error in facts["largest_error"].values())
    assert facts["code_bytes"] <= (64 << 10 if "wasm" in target else 200_000)
    library = [] if target == "c" else ["five.wasm" if "wasm" in target else "five.so"]
    example = "five.mjs" if "wasm" in target else "main.c"
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == sorted(
        ["five.c", "five.h", "five.weights", example, "certificate.json", *library]
    )


def test_a_body_is_compiled_without_its_head(ask: Ask, taught: Any, tmp_path: Path) -> None:
    picture = sorted(taught.folder.rglob("*.webp"))[0]
    facts = ask(
        "compile", taught.model, "--out", tmp_path, "--headless", "--images", picture.parent, "--json"
    ).facts
    assert facts["outputs"] == ["features"]
    assert "pictures of" in facts["verified_on"]
    library = next(tmp_path.glob("*.so"))
    got = ask("predict", library, picture, "--features", "--json").facts["results"][0]["features"]
    wanted = ask("predict", taught.model, picture, "--features", "--json").facts["results"][0]["features"]
    assert got == pytest.approx(wanted, abs=1e-3)


def test_one_library_for_every_x86_64_is_built_by_the_cross_compiler(
    ask: Ask, taught: Any, tmp_path: Path
) -> None:
    pytest.importorskip("ziglang")
    facts = ask("compile", taught.model, "--out", tmp_path, "--target", "x86-64", "--json").facts
    assert facts["target"] == "x86-64"
    assert "sse2" in facts["isas_verified"]
    picture = sorted(taught.folder.rglob("*.webp"))[0]
    assert ask("predict", next(tmp_path.glob("*.so")), picture, "--json").facts["results"]
    # Where a machine has no compiler of its own, that one serves it too.
    bare = {"PATH": str(tmp_path), "CC": ""}
    facts = ask("compile", taught.model, "--out", tmp_path / "bare", "--json", env=bare).facts
    assert "ziglang" in facts["command"]


def test_where_compiling_fails_nothing_is_left_behind(refuse: Refuse, taught: Any, tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert "nonesuch: no such C compiler" in refuse(
        "compile", taught.model, "--out", out, env={"CC": "nonesuch"}
    )
    assert "the C compiler failed" in refuse("compile", taught.model, "--out", out, env={"CC": "false"})
    spoken = {
        "echo 'fatal: the disk is on fire' >&2; exit 3": r"failed \(3\): .*fatal: the disk is on fire",
        "exit 0": "said that all was well and wrote nothing: .*broken-cc",
        'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"': "made cannot be used: .*: .*broken-cc",
    }
    broken = tmp_path / "broken-cc"
    for script, wanted in spoken.items():
        broken.write_text(f"#!/bin/sh\n{script}\n")
        broken.chmod(0o755)
        told = refuse("compile", taught.model, "--out", out, env={"CC": "./broken-cc"}, cwd=tmp_path)
        assert re.search(wanted, told), told
    assert "no C compiler" in refuse("compile", taught.model, "--out", out, env={"CC": str(taught.model)})
    assert "unknown target 'hots'; did you mean host?" in refuse(
        "compile", taught.model, "--out", out, "--target", "hots"
    )
    assert "no name for a C library" in refuse("compile", taught.model, "--out", out, "--name", "9 lives")
    assert "none of its pictures" in refuse(
        "compile", taught.model, "--out", out, "--images", _folder_of_nothing_good(tmp_path)
    )
    assert not out.exists()
    (tmp_path / "file").write_text("in the way")
    assert "in its way" in refuse("compile", taught.model, "--out", tmp_path / "file")
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "mine.txt").write_text("mine")
    refuse("compile", taught.model, "--out", kept, env={"CC": "false"})
    assert [p.name for p in kept.iterdir()] == ["mine.txt"]


def test_another_build_in_the_same_folder_leaves_nothing_of_the_first(
    ask: Ask, taught: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for target, library in (("host", ["one.so"]), ("c", [])):
        words = ("--out", tmp_path, "--name", "one", "--target", target)
        listed = ask("compile", taught.model, *words, "--json").facts["files"]
        there = {path.name for path in tmp_path.iterdir()} - {"mine.txt", "certificate.json"}
        assert there == set(listed) == {"one.c", "one.h", "one.weights", "main.c", *library}
    (tmp_path / "one.weights").write_text("mine too")  # what a user has changed since is the user's
    ask("compile", taught.model, "--out", tmp_path, "--name", "two", "--target", "c")
    assert {path.name for path in tmp_path.glob("one.*")} == {"one.weights"}
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_layer_that_cannot_be_compiled_is_named_and_nothing_is_written(
    refuse: Refuse, taught: Any, tmp_path: Path
) -> None:
    model = artefact.load(taught.model)
    wide = next(node for node in model.net.nodes if isinstance(node.op, Depthwise))
    nodes = tuple(
        replace(n, op=replace(n.op, kernel=9)) if n is wide else n  # type: ignore[type-var]
        for n in model.net.nodes
    )
    weights = {
        **model.weights,
        f"{wide.name}.weight": np.zeros((len(model.weights[f"{wide.name}.weight"]), 1, 9, 9), np.float32),
    }
    path, out = tmp_path / "wide.safetensors", tmp_path / "out"
    artefact.save(replace(model, net=replace(model.net, nodes=nodes), weights=weights), path)
    for words in ((), ("--dtype", "int8", "--calibrate", taught.folder)):
        told = refuse("compile", path, "--out", out, *words)
        assert f"{wide.name}: a kernel of 9 with stride 1 cannot be compiled" in told
        assert not out.exists()


def test_a_map_that_is_too_large_is_named_before_memory_is_asked_for(refuse: Refuse, tmp_path: Path) -> None:
    net = zoo.v1(1.25, 4096)
    weights = {name: np.ones(shape, np.float32) for name, shape in tensors(net).items()}
    path, out = tmp_path / "large.safetensors", tmp_path / "out"
    artefact.save(Artefact(net, weights, Preprocess(height=4096, width=4096)), path)
    told = refuse("compile", path, "--out", out)
    assert "block1.pointwise: makes (2048, 2048, 80), too large to be compiled" in told
    assert not out.exists()


def test_an_out_that_cannot_be_written_is_refused_before_anything_is_done(
    refuse: Refuse, taught: Any, tmp_path: Path, closed: Path
) -> None:
    words = ("--dtype", "int8", "--calibrate", tmp_path / "nowhere")
    for rest in ((), words):
        assert str(closed) in refuse("compile", taught.model, "--out", closed, *rest)


def test_a_compiled_model_is_not_compiled_again(refuse: Refuse, compiled: Any, tmp_path: Path) -> None:
    assert "compiled model already" in refuse("compile", compiled[0] / "five.so", "--out", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_what_is_no_compiled_model_is_refused(refuse: Refuse, compiled: Any, tmp_path: Path) -> None:
    whole = (compiled[0] / "five.so").read_bytes()
    for share in (2, 3, 30, 3000):
        (tmp_path / "cut.so").write_bytes(whole[: len(whole) // share])
        assert "cut.so: no library that" in refuse("info", tmp_path / "cut.so")
    (tmp_path / "text.so").write_text("no library")
    (tmp_path / "empty.so").write_bytes(b"")
    for name in ("text.so", "empty.so"):
        assert f"{name}: no library that" in refuse("info", tmp_path / name)


def _folder_of_nothing_good(place: Path) -> Path:
    folder = place / "bad"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"text")
    return folder
