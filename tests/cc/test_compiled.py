"""Compiled networks compute what the numpy walk computes, on every instruction set this processor has."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mobilenets.compile.build import FLAGS, WARNINGS, build, write
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.compiled import FORMAT, CompiledEngine
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import normalise, prepare
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net

from .cases import FAMILY, ZOO, graphs, inverted, networks
from .conftest import HOST, agrees, filled

Made = Callable[..., CompiledEngine]


@pytest.mark.parametrize("net", ZOO + FAMILY, ids=lambda net: f"{net.name}-{net.width:g}-{net.resolution}")
@pytest.mark.slow
def test_networks_of_the_zoo_give_the_references_outputs(made: Made, net: Net) -> None:
    model = filled(net)
    agrees(made(model), model)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(net=networks(), seed=st.integers(0, 99))
def test_any_chain_of_layers_gives_the_references_outputs(made: Made, net: Net, seed: int) -> None:
    model = filled(net, seed)
    agrees(made(model), model, seed)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(net=graphs(), seed=st.integers(0, 99))
def test_any_graph_of_layers_gives_the_references_outputs(made: Made, net: Net, seed: int) -> None:
    model = filled(net, seed)
    agrees(made(model), model, seed)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(net=inverted(), seed=st.integers(0, 99), scratch=st.integers(1, 4000), threads=st.integers(1, 3))
def test_maps_that_are_never_whole_give_the_references_outputs(
    made: Made, net: Net, seed: int, scratch: int, threads: int
) -> None:
    model = filled(net, seed)
    agrees(made(model, threads, scratch=scratch), model, seed)


@pytest.fixture(scope="module")
def small() -> Artefact:
    net = classify(zoo.v1(0.25, 64), 4)
    return filled(net, labels=("a", 'quo"te\\', "Bäumchen 🌳", "??/ trigraph"))


@pytest.mark.parametrize(
    "net", [zoo.v1(0.25, 64), zoo.v3_small(0.35, 97), zoo.v2(0.35, 97)], ids=lambda net: net.name
)
def test_threads_share_the_work_and_change_no_bit(made: Made, net: Net) -> None:
    # Of 97 pixels maps of 7 × 7 come, whose panels are shared out by parts.
    small = filled(classify(net, 5))
    x = np.random.default_rng(1).normal(0, 1, small.net.input).astype(np.float32)
    alone = made(small).input(x)
    for threads in (2, 3, 5, 7):
        engine = made(small, threads)
        for _ in range(30):
            got = engine.input(x)
            assert all(np.array_equal(got[name], alone[name]) for name in alone), threads


@pytest.mark.parametrize("geometry", ["stretch", "crop", "letterbox"])
def test_a_frame_of_any_size_is_prepared_as_the_reference_prepares_it(made: Made, geometry: str) -> None:
    model = filled(classify(zoo.v1(0.25, 33), 3), geometry=geometry)
    engine = made(model)
    random = np.random.default_rng(0)
    for height, width in (
        (33, 33),
        (1, 1),
        (2, 90),
        (90, 2),
        (480, 640),
        (67, 65),
        (32, 34),
        (700, 3),
        (10, 9),
    ):
        frame = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = engine.input(normalise(prepare(frame, model.preprocess), model.preprocess))
        got = engine(frame)
        assert all(np.array_equal(got[name], wanted[name]) for name in wanted), (height, width)


def test_a_pool_that_is_held_up_works_alone_and_changes_no_bit(made: Made, small: Artefact) -> None:
    frame = np.random.default_rng(3).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    wanted = made(small)(frame)
    engine = made(small, 2)
    beside = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)
    ]
    try:
        ends = time.monotonic() + 1
        while time.monotonic() < ends:
            got = engine(frame)
            assert all(np.array_equal(got[name], wanted[name]) for name in wanted)
    finally:
        for one in beside:
            one.kill()
            one.wait()


def test_frames_of_other_kinds_are_refused(made: Made, small: Artefact) -> None:
    engine = made(small)
    for frame in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="a frame is uint8"):
            engine(frame)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a frame of 40000 × 1; sides go to 32767"):
        engine(np.zeros((1, 40000, 3), np.uint8))
    with pytest.raises(ValueError, match="65 threads cannot be had"):
        made(small, 65)
    with pytest.raises(ValueError, match="takes float32"):
        engine.input(np.zeros((3, 64, 64), np.float32))
    with pytest.raises(ValueError, match="lacks"):
        engine.use("abacus")


def test_labels_come_back_as_they_were(made: Made, small: Artefact) -> None:
    assert made(small).model.labels == small.labels


def test_callers_in_several_threads_take_turns(made: Made, small: Artefact) -> None:
    engine, random = made(small), np.random.default_rng(0)
    frames = [random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8) for i in range(6)]
    wanted = [engine(frame)["logits"] for frame in frames]
    wrong: list[int] = []

    def ask(number: int) -> None:
        same = (np.array_equal(engine(frames[number])["logits"], wanted[number]) for _ in range(40))
        wrong.extend(number for right in same if not right)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(frames))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_build_in_the_place_of_another_is_not_mistaken_for_it(
    made: Made, small: Artefact, tmp_path: Path
) -> None:
    x = np.zeros((64, 64, 3), np.float32)
    path = tmp_path / "model.so"
    answers = []
    for seed in (0, 1):
        engine = made(filled(small.net, seed))
        built = max(tmp_path.glob("built*/tested.so"), key=lambda place: place.stat().st_mtime_ns)
        path.unlink(missing_ok=True)
        path.write_bytes(built.read_bytes())
        answers.append(CompiledEngine(path).input(x)["logits"])
        assert np.array_equal(answers[-1], engine.input(x)["logits"])
    assert not np.array_equal(*answers)


def test_a_library_of_another_version_is_refused_before_its_memory_is_read(
    small: Artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mobilenets.compile.source.FORMAT", FORMAT + 1)
    source = compiled(small, "later", HOST)
    write(source, tmp_path)
    library = build(source, TARGETS["host"], tmp_path).file
    with pytest.raises(ValueError, match=r"later\.so: built by another version of mobilenets; compile"):
        CompiledEngine(library)


def test_what_a_c_programmer_gets_wrong_is_an_error_code(made: Made, small: Artefact) -> None:
    engine = made(small)
    library, p = engine._library, ctypes.c_void_p
    library.tested_arena_size.restype = ctypes.c_size_t
    size = library.tested_arena_size(64, 64, 1)
    assert size > 0
    for impossible in ((0, 64, 1), (64, -1, 1), (64, 64, 0), (40000, 64, 1), (64, 64, 65)):
        assert library.tested_arena_size(*impossible) == 0
    memory = np.zeros(size + 128, np.uint8)
    at = memory.ctypes.data + -memory.ctypes.data % 64
    net = p()

    def init(net: object, arena: int | None, size: int, weights: int | None, *rest: int) -> int:
        return int(library.tested_init(net, p(arena), ctypes.c_size_t(size), p(weights), *rest))

    pointer = ctypes.byref(net)
    assert init(None, at, size, None, 64, 64, 1) == -1
    assert init(pointer, None, size, None, 64, 64, 1) == -1
    assert init(pointer, at, size - 1, None, 64, 64, 1) == -3
    assert init(pointer, at + 4, size, None, 64, 64, 1) == -3
    assert init(pointer, at, size, at + 4, 64, 64, 1) == -5
    assert init(pointer, at, size, None, 64, 64, 0) == -4
    assert init(pointer, at, size, None, 64, 0, 1) == -2
    assert init(pointer, at, size, None, 64, 64, 1) == 0
    frame = np.zeros((64, 64, 3), np.uint8)
    run = library.tested_run

    def tried(net: object, frame: int | None, width: int, height: int, stride: int) -> int:
        return int(run(net, p(frame), width, height, ctypes.c_ssize_t(stride)))

    here = frame.ctypes.data
    assert tried(None, here, 64, 64, 192) == -1
    assert tried(net, None, 64, 64, 192) == -1
    for size_ in ((0, 64, 192), (64, 0, 192), (65, 64, 195), (64, 65, 192), (64, 64, 191), (64, 64, -192)):
        assert tried(net, here, *size_) == -2
    assert tried(net, here, 32, 64, 192) == 0  # a window of a wider picture
    library.tested_output.restype = p
    assert library.tested_output(net, 2) is None
    assert library.tested_output(net, -1) is None
    library.tested_value.restype = ctypes.c_float
    values = [library.tested_value(net, 0, place) for place in range(4)]
    assert values == list((ctypes.c_float * 4).from_address(library.tested_output(net, 0)))
    assert [library.tested_value(net, *wrong) for wrong in ((0, 4), (0, -1), (2, 0), (-1, 0))] == [0.0] * 4
    assert library.tested_run_input(net, None) == library.tested_run_input(None, p(here)) == -1
    assert library.tested_run_levels(net, None) == library.tested_run_levels(None, p(here)) == -1
    assert library.tested_transform(net, None) == library.tested_use(net, None) == -1
    matrix = (ctypes.c_float * 6)()
    assert library.tested_transform(net, matrix) == 0
    assert list(matrix) == pytest.approx([2, 0, 0, 0, 1, 0])
    library.tested_free(net)
    library.tested_free(None)


@pytest.mark.slow
def test_sanitizers_find_nothing_and_the_example_gives_the_references_scores(
    small: Artefact, tmp_path: Path
) -> None:
    """AddressSanitizer and UBSan over the example, on frames of several sizes."""
    write(compiled(small, "tested", HOST), tmp_path)
    flags = [flag for flag in FLAGS if flag != "-O3"]
    words = ["cc", "-O1", "-g", *flags, *WARNINGS, "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    subprocess.run([*words, "main.c", "tested.c", "-o", "example", "-lpthread"], cwd=tmp_path, check=True)
    random, reference = np.random.default_rng(0), NumpyEngine(small)
    for height, width in ((64, 64), (1, 1), (480, 640), (3, 200), (130, 7)):
        frame = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (tmp_path / "frame.rgb").write_bytes(frame.tobytes())
        done = subprocess.run(
            ["./example", "frame.rgb", str(width), str(height)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        logits = reference(frame)["logits"]
        told = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
        assert [label for _, label in told] == [small.labels[i] for i in np.argsort(-logits, kind="stable")]
        assert [float(score) for score, _ in told] == pytest.approx(np.sort(logits)[::-1].tolist(), abs=2e-4)


def test_the_example_builds_by_a_plain_cc_from_its_folder_alone(small: Artefact, tmp_path: Path) -> None:
    write(compiled(small, "tested", HOST), tmp_path)
    words = ["-O2", *WARNINGS, "main.c", "tested.c", "-o", "example", "-lpthread"]
    subprocess.run(["cc", "-std=c99", *words], cwd=tmp_path, check=True)
    (tmp_path / "frame.rgb").write_bytes(bytes(30))
    told = subprocess.run(["./example", "frame.rgb", "5", "2"], cwd=tmp_path, capture_output=True, check=True)
    assert len(told.stdout.splitlines()) == 4
    cut = subprocess.run(["./example", "frame.rgb", "5", "3"], cwd=tmp_path, capture_output=True, check=False)
    assert cut.returncode == 1
    assert b"frame.rgb" in cut.stderr
    other = compiled(filled(small.net, 1, labels=small.labels), "tested", HOST)
    (tmp_path / "tested.weights").write_bytes(other.weights)
    mixed = subprocess.run(
        ["./example", "frame.rgb", "5", "2"], cwd=tmp_path, capture_output=True, check=False
    )
    assert (mixed.returncode, mixed.stdout) == (1, b"")
    assert b"error -5" in mixed.stderr
