"""From a folder to a network that was trained whole: what it leaves, what it refuses, how it goes on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.console import StoppedError
from mobilenets.infer import artefact
from mobilenets.infer.sealed import unpack
from mobilenets.spec.training import RunOptions
from mobilenets.train.keeper import unfinished
from mobilenets.training import train

Ask = Callable[..., Any]
CLASSES = ("n01443537", "n01629819", "n01641577")
TINY = ("--width", 0.25, "--resolution", 32, "--batch", 16, "--threads", 1)


@pytest.fixture(scope="session")
def trained(tiny: Path, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One training from random weights: where it lies and what `--json` said."""
    out = tmp_path_factory.mktemp("trained") / "out"
    return out, ask("train", tiny, "--out", out, *TINY, "--epochs", 4, "--json").facts


def steps(out: Path) -> list[tuple[str, str, str]]:
    """Step, loss and rate of each row; times are the machine's."""
    with (out / "steps.csv").open(newline="") as file:
        return [(row["step"], row["loss"], row["share_of_rate"]) for row in csv.DictReader(file)]


def test_a_training_says_what_it_measured_and_leaves_its_curves(trained: Any) -> None:
    out, facts = trained
    assert facts["kind"] == "training"
    assert set(facts["accuracy"]) == {"train", "val", "test"}
    assert facts["accuracy"]["train"] is None
    assert all(0 <= facts["accuracy"][part] <= 1 for part in ("val", "test"))
    assert facts["images_per_second"] > 0
    assert 0 <= facts["waiting"] <= 1
    stages = {"scan", "decode", "train", "judge", "report"}
    assert stages < set(facts["seconds"])
    assert facts["seconds"]["total"] >= sum(facts["seconds"][name] for name in stages)
    assert not {"c", "refitted", "tried", "sweep", "unknown"} & set(facts)
    assert Path(facts["model"]) == out / "model.safetensors"
    assert Path(facts["report"]).exists()
    assert json.loads((out / "run.json").read_text()) == facts
    rows = steps(out)
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    assert len(rows) == 4 * (sum(facts["counts"]["train"]) // 16)
    losses = [float(row[1]) for row in rows]
    for epoch, known in enumerate(facts["epochs"]):
        own = losses[epoch * len(rows) // 4 : (epoch + 1) * len(rows) // 4]
        assert known["loss"] == pytest.approx(np.mean(own))
    assert not list(out.glob("*checkpoint*"))
    assert not list(out.glob("best*"))
    unfinished(out, RunOptions())  # a run that came to its end stands in nobody's way
    best = max(facts["epochs"], key=lambda one: (one["val_accuracy"], one["epoch"]))
    last = out / "last.safetensors"
    assert last.exists() == (best["epoch"] != facts["epochs"][-1]["epoch"])
    if last.exists():
        assert artefact.load(last).labels == artefact.load(out / "model.safetensors").labels


def test_its_events_are_tensorboards(trained: Any) -> None:
    """Records as TensorFlow frames them: length, its check, an event, its check."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")
    out, _ = trained
    (file,) = (out / "events").iterdir()
    found: dict[str, list[tuple[int, float]]] = {}
    with file.open("rb") as stream:
        while head := stream.read(12):
            event = event_pb2.Event.FromString(stream.read(struct.unpack("<Q", head[:8])[0]))
            stream.read(4)
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    assert set(found) == {"loss", "rate", "images_per_second", "validation"}
    rows = steps(out)
    assert [step for step, _ in found["loss"]] == [int(row[0]) for row in rows]
    expected = [float(row[1]) for row in rows]
    assert [loss for _, loss in found["loss"]] == pytest.approx(expected, rel=1e-6)
    assert len(found["validation"]) == 4


def test_its_model_is_judged_asked_and_compiled_as_any_other(
    trained: Any, tiny: Path, ask: Ask, tmp_path: Path
) -> None:
    out, facts = trained
    assert ask("info", out / "model.safetensors", "--json").facts["digest"] == facts["digest"]
    judged = ask("evaluate", out / "model.safetensors", out / "split.csv", "--json").facts
    assert judged["top1"] == facts["accuracy"]["test"]
    assert judged["n"] == facts["test_pictures"] == 23
    picture = next((tiny / "val" / CLASSES[0]).iterdir())
    (answer,) = ask("predict", out / "model.safetensors", picture, "--json").facts["results"]
    assert {one["label"] for one in answer["predictions"]} == set(CLASSES)
    if shutil.which("cc") is not None:
        ask("compile", out / "model.safetensors", "--out", tmp_path / "c", "--json")
        (library,) = (tmp_path / "c").glob("*.so")
        assert ask("evaluate", library, out / "split.csv", "--json").facts["top1"] == judged["top1"]


def test_its_report_speaks_of_a_training(trained: Any) -> None:
    out, facts = trained
    page = (out / "report.html").read_text()
    for text in (
        "trained on",
        "All weights, by the recipe modern",
        "pictures a second",
        "decoding every picture",
    ):
        assert text in page
    for text in ("retrained on", "Fine-tuning", "logistic regression", "C =", "Features by"):
        assert text not in page
    assert "Validation accuracy and training loss by epoch" in page
    assert f"<pre>{facts['command']}</pre>" in page
    assert facts["command"].startswith("mobilenets train ")


@pytest.mark.slow
def test_given_weights_get_their_norms_back_and_are_trained_on(
    ask: Ask, refuse: Any, tiny: Path, material: Path, tmp_path: Path
) -> None:
    """A folded V1 of ImageNet; one epoch at a small rate keeps what it knows of three fish and newts."""
    weights = material / "weights" / "mobilenet_v1_0.25_224_float.tflite"
    how = ("--resolution", 64, "--batch", 16, "--epochs", 3, "--rate", 0.005, "--threads", 1)
    facts = ask("train", tiny, "--out", tmp_path, "--weights", weights, *how, "--json").facts
    assert facts["net"]["width"] == 0.25
    assert facts["accuracy"]["test"] > 0.5
    assert (
        ask("evaluate", tmp_path / "model.safetensors", tmp_path / "split.csv", "--json").facts["top1"]
        == (facts["accuracy"]["test"])
    )


def test_mistakes_are_told_in_one_line_before_work_is_done(
    refuse_each: Any, tiny: Path, trained: Any, slice_of: Any, tmp_path: Path
) -> None:
    empty = shutil.copytree(tiny, tmp_path / "empty")
    shutil.rmtree(empty / "train" / CLASSES[1])
    one = slice_of(tmp_path / "one", 1, 4)
    others = slice_of(tmp_path / "others", 2, 4)
    out = ("--out", tmp_path / "out")
    model = trained[0] / "model.safetensors"
    cases: list[tuple[tuple[object, ...], str]] = [
        ((tiny, "--epochs", 0), "for '--epochs'"),
        ((tiny, "--threads", 0), "for '--threads'"),
        ((tiny, "--batch", 0), "for '--batch'"),
        ((tiny, "--resolution", 0), "for '--resolution'"),
        ((tiny, "--resolution", 5000), "--resolution 5000: give 1 to 4096 pixels"),
        ((tiny, "--rate", -1), "a learning rate is a number above 0"),
        ((tiny, "--rate", "nan"), "a learning rate is a number above 0"),
        ((tiny, "--recipe", "none"), "known: paper-v1, modern"),
        ((tiny, "--net", "v9"), "v9"),
        ((tiny, "--width", 0), "width"),
        ((tiny, "--device", "tpu"), "known: cpu, cuda, mps"),
        ((tiny, "--split", "a/b/c"), "--split a/b/c"),
        ((tiny, "--recipe", "cifar-study", "--resolution", 64), "36 at most"),
        ((tiny, *TINY[:4], "--batch", 1, "--threads", 1), "--batch: 1 at a time"),
        ((tiny, "--resume"), "no checkpoint to go on from"),
        ((tiny, "--resume", "--anew"), "give one of them"),
        ((tmp_path / "nothing",), "nothing"),
        ((empty, *TINY), f"train part of {CLASSES[1]}"),
        ((one, *TINY), "at least 2 are needed"),
        ((others, "--teacher", model, *TINY), "it lacks Faces, ant and has"),
        ((tiny, "--teacher", tmp_path / "no.so"), "no such file"),
        ((tiny, "--teacher", model, "--distil", "hard"), "known are soft, features"),
        ((tiny, "--teacher", model, "--temperature", 0), "give 0.1 to 100"),
        ((tiny, "--teacher", model, "--teacher-weight", 2), "between 0 and 1"),
        ((tiny, "--weights", tmp_path / "no.tflite"), "no.tflite"),
        ((tiny, "--temperature", 3), "give --teacher MODEL"),
        ((tiny, "--cutmix", -1), "mix.cutmix must lie in 0"),
        ((tiny, "--erase", 2), "erase must lie in 0"),
        ((tiny, "--net", "v2", "--weights", model), "give --net v1 --width 0.25, or other weights"),
        ((tiny, "--qat"), "learns on from a trained model"),
        ((tiny, "--qat", "--weights", tmp_path / "no"), "no such file; it takes a model of `train`"),
        ((tiny, "--qat", "--weights", model, "--width", 0.5), "--qat --width: the network is that of"),
        ((tiny, "--qat", "--weights", model, "--teacher", model, "--distil", "features"), "--distil soft"),
    ]
    told = refuse_each(*(("train", *case, *out) for case, _ in cases))
    for (case, expected), line in zip(cases, told, strict=True):
        assert expected in line, (case, line)
    assert not (tmp_path / "out").exists()
    assert "came to its end" in refuse_each(("train", tiny, "--resume", "--out", trained[0]))[0]


@pytest.mark.slow
def test_odd_pictures_are_learned_from_and_broken_ones_named(ask: Ask, tmp_path: Path) -> None:
    """Grey, CMYK, palettes, sixteen bits, one pixel; two pictures a class leave none to judge by."""
    draw = np.random.default_rng(0)
    for number, label in enumerate("ab"):
        place = tmp_path / "set" / label
        place.mkdir(parents=True)
        levels = draw.integers(0, 256, (40, 30, 3)).astype(np.uint8)
        levels[..., number] //= 4
        frame = Image.fromarray(levels)
        frame.convert("L").save(place / "grey.png")
        frame.convert("CMYK").save(place / "print.jpg")
        frame.convert("P").save(place / "palette.gif")
        frame.crop((0, 0, 1, 1 + number)).save(place / "pixel.png")
        Image.fromarray(levels[..., 0].astype(np.uint16) * 257).save(place / "deep.png")
        (place / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    facts = ask("train", tmp_path / "set", "--out", tmp_path / "out", *TINY, "--epochs", 2, "--json").facts
    assert facts["images"] == {"used": 10, "set_aside": 2}
    single = tmp_path / "single"
    for label in "ab":
        (single / label).mkdir(parents=True)
        shutil.copy(tmp_path / "set" / label / "grey.png", single / label / "1.png")
    facts = ask(
        "train", single, "--out", tmp_path / "one", *TINY, "--epochs", 1, "--batch", 500, "--json"
    ).facts
    assert facts["accuracy"] == {"train": None, "val": None, "test": None}
    assert any("no validation pictures" in note for note in facts["notes"])


@pytest.mark.slow
def test_an_absurd_rate_names_the_step_the_pictures_and_the_way_on(
    ask: Ask, tiny: Path, tmp_path: Path
) -> None:
    told = ask(
        *("train", tiny, "--out", tmp_path / "out", *TINY, "--epochs", 6, "--recipe", "paper-v1"),
        *("--rate", 1e36),
        code=2,
    )
    line = told.err.splitlines()[-1]
    assert line.startswith("mobilenets: training diverged in step ")
    assert "train/n0" in line
    assert "give a lower --rate, and --anew" in line
    told = ask(
        *("train", tiny, "--out", tmp_path / "far", *TINY, "--epochs", 60, "--recipe", "paper-v1"),
        *("--rate", 1e6),
        code=2,
    )
    line = told.err.splitlines()[-1]
    assert "times the first" in line
    listed = tmp_path / "far" / "diverged.txt"
    if f"listed in {listed}" in line:
        files = listed.read_text().splitlines()
        assert files[:3] == line.split("its pictures were ")[1].split(" and ")[0].split(", ")
    state = tmp_path / "far" / "checkpoint.safetensors"
    if state.exists():
        _, tensors = unpack(state.read_bytes())
        assert max(float(np.abs(v).max()) for name, v in tensors.items() if ".norm." not in name) < 1e3


@pytest.fixture(scope="module")
def calm(tiny: Path, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    out = tmp_path_factory.mktemp("calm") / "out"
    ask("train", tiny, "--out", out, *TINY, "--epochs", 6, "--deterministic")
    return out


KEPT_OFTEN = "import mobilenets.train.keeper as k; k.KEEP_S = 0.0\n"
START = "import sys; from mobilenets.entry import run; sys.exit(run(sys.argv[1:]))"


def started(environment: dict[str, str], *words: object) -> subprocess.Popen[bytes]:
    """A training that keeps its state after every step."""
    return subprocess.Popen(
        [sys.executable, "-c", KEPT_OFTEN + START, *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def reached(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 200
    while len(steps(out)) < step if (out / "steps.csv").exists() else True:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_training_that_is_killed_and_interrupted_ends_as_if_undisturbed(
    surroundings: dict[str, str], tiny: Path, calm: Path, refuse: Any, ask: Ask, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("train", tiny, "--out", out, *TINY, "--epochs", 6, "--deterministic")
    for number, (step, how) in enumerate(((3, signal.SIGKILL), (9, signal.SIGINT))):
        more = ("--resume",) if number else ()
        process = started(surroundings, *command, *more)
        reached(out, step, process)
        process.send_signal(how)
        _, told = process.communicate(timeout=60)
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert told.decode().splitlines()[-1] == (
                "mobilenets: interrupted; the same command with --resume goes on"
            )
        assert (out / "checkpoint.safetensors").exists()
    assert "--resume goes on with it, --anew begins anew" in refuse(*command)
    other = refuse(*command, "--resume", "--seed", 1, "--width", 0.5, "--rate", 0.5)
    assert "of another run: " in other
    assert "seed was 0 and is 1" in other
    assert "net was 'v1 0.25 at 32' and is 'v1 0.5 at 32'" in other
    assert "steps.rate was 0.02 and is 0.5" in other
    ask(*command, "--resume")
    assert steps(out) == steps(calm)
    assert (out / "model.safetensors").read_bytes() == (calm / "model.safetensors").read_bytes()
    assert not list(out.glob("*checkpoint*")) + list(out.glob(".*part"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="workers are found in /proc")
def test_a_worker_that_is_killed_is_replaced_and_changes_nothing(
    surroundings: dict[str, str], tiny: Path, calm: Path, tmp_path: Path
) -> None:
    """Each of the first workers that read pictures, as soon as it is there: the system does so for memory."""
    out, killed = tmp_path / "out", set[int]()
    words = ("train", tiny, "--out", out, *TINY, "--epochs", 6, "--deterministic", "--threads", 2)
    process = started({**surroundings, "MOBILENETS_CACHE": str(tmp_path / "cache")}, *words)
    while len(killed) < 2 and process.poll() is None:
        for worker in workers_of(process.pid) - killed:
            os.kill(worker, signal.SIGKILL)
            killed.add(worker)
    _, told = process.communicate(timeout=200)
    assert len(killed) == 2
    assert process.returncode == 0, told.decode()
    assert [(step, rate) for step, _, rate in steps(out)] == [(step, rate) for step, _, rate in steps(calm)]
    losses = [[float(loss) for _, loss, _ in steps(where)] for where in (out, calm)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def workers_of(parent: int) -> set[int]:
    """Processes of a crew that a process has started and that have begun to serve."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            own = (place / "stat").read_text().rpartition(")")[2].split()
            if int(own[1]) == parent and b"serve()" in (place / "cmdline").read_bytes():
                found.add(int(place.name))
    return found


def test_what_another_run_left_is_not_taken_for_this_ones(
    tiny: Path, quiet: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stopped before it kept anything, or after: only then is there something to go on with."""
    state = tmp_path / "checkpoint.safetensors"
    state.write_bytes(b"of another run")

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def stopped_later(*_: object, **__: object) -> None:
        os.utime(state, ns=(1, 1))
        raise KeyboardInterrupt

    for run, said in ((stopped, "no step was kept yet"), (stopped_later, "--resume in place of --anew goes")):
        monkeypatch.setattr("mobilenets.train.whole.train", run)
        with pytest.raises(StoppedError, match=said):
            train(tiny, tmp_path, {"anew": True}, quiet, cache=tmp_path / "cache")


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_state_and_says_so(
    surroundings: dict[str, str], tiny: Path, calm: Path, ask: Ask, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be had here")
    try:
        out = disk / "out"
        command = ("train", tiny, "--out", out, *TINY, "--epochs", 6, "--deterministic")
        process = started(surroundings, *command)
        reached(out, 5, process)
        (disk / "filler").write_bytes(b"")
        with (disk / "filler").open("wb") as filler:
            while True:
                try:
                    filler.write(bytes(1 << 16))
                    filler.flush()
                except OSError:
                    break
        _, told = process.communicate(timeout=120)
        assert "Traceback" not in told.decode()
        line = told.decode().splitlines()[-1]
        assert process.returncode == 2
        assert line.startswith("mobilenets: ")
        assert "No space left on device" in line
        assert "Traceback" not in told.decode()
        (disk / "filler").unlink()
        ask(*command, "--resume")
        assert steps(out) == steps(calm)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def launched(environment: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "mobilenets", *map(str, words)),
        ],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_two_processes_of_torchrun_leave_what_one_leaves_and_go_on_where_it_was_killed(
    surroundings: dict[str, str], unpacked: Callable[[Path, int], Path], ask: Ask, tmp_path: Path
) -> None:
    """The command line is the same; the first process alone speaks and writes."""
    folder = unpacked(tmp_path / "set", 48)
    how = ("--width", 0.25, "--resolution", 32, "--threads", 1, "--epochs", 4, "--batch", 120, "--no-half")
    one = ask("train", folder, "--out", tmp_path / "one", *how, "--json").facts
    told = launched(surroundings, "train", folder, "--out", tmp_path / "two", *how, "--json")
    assert told.returncode == 0, told.stderr
    facts = json.loads(told.stdout)
    assert facts["engine"] == "torch, cpu, 2 processes of 1 thread, norms in C"
    assert facts["command"].startswith("torchrun --nproc-per-node 2 -m mobilenets train ")
    assert told.stderr.count("epoch  ") == 1
    process = started(surroundings, "train", folder, "--out", tmp_path / "cut", *how)
    reached(tmp_path / "cut", 2, process)
    process.kill()
    process.communicate(timeout=60)
    told = launched(surroundings, "train", folder, "--out", tmp_path / "cut", *how, "--resume", "--json")
    assert told.returncode == 0, told.stderr
    taken = [steps(tmp_path / out) for out in ("one", "two", "cut")]
    for other in taken[1:]:
        assert [(step, rate) for step, _, rate in other] == [(step, rate) for step, _, rate in taken[0]]
        losses = [[float(loss) for _, loss, _ in rows] for rows in (other, taken[0])]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    for found in (facts, json.loads(told.stdout)):
        assert found["epochs"][-1]["loss"] == pytest.approx(one["epochs"][-1]["loss"], rel=1e-3)


@pytest.mark.slow
def test_students_of_a_teacher_learn_softly_and_by_features(
    ask: Ask, trained: Any, tiny: Path, cache: Path, tmp_path: Path
) -> None:
    model = trained[0] / "model.safetensors"
    for distil in ("soft", "features"):
        how = ("--teacher", model, "--distil", distil, "--teacher-views", 2)
        facts = ask("train", tiny, "--out", tmp_path / distil, *TINY, "--epochs", 2, *how, "--json").facts
        assert facts["seconds"]["teacher"] > 0
        assert facts["options"]["distil"] == distil
        page = (tmp_path / distil / "report.html").read_text()
        assert f"({distil})" in page
        assert "asking the teacher" in page
        assert (
            ask("info", tmp_path / distil / "model.safetensors", "--json").facts["digest"] == facts["digest"]
        )
    assert len(list((cache / "decoded").glob("said-*.npy"))) == 2
