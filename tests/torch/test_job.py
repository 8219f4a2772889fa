"""The main job writes what was measured, null where nothing was, and text that any reader takes."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed")

import mobilenets
from mobilenets import job
from mobilenets.choosing import chosen
from mobilenets.costs.choose import Budget
from mobilenets.costs.count import cost
from mobilenets.data.digests import Progress
from mobilenets.infer.artefact import Artefact, load, save
from mobilenets.model.module import random_weights
from mobilenets.spec import zoo
from mobilenets.spec.preprocess import Preprocess
from mobilenets.train.body import TorchEngine

QUICK: dict[str, Any] = {
    "net": "v1",
    "weights": "random",
    "finetune": 1,
    "threads": 1,
    "split": "80/0/20",
}


def silent(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of ten pictures; the cache lies beside them."""
    monkeypatch.setenv("MOBILENETS_CACHE", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    for number in range(20):
        place = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(place)
    return tmp_path / "photos"


def test_a_sweep_without_validation_pictures_claims_nothing_of_them(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = job.sweep(folder, out, {**QUICK, "watts": 2.0}, silent, widths=(0.25,), resolutions=(40, 32))
    assert run.energy is not None
    assert run.energy["watts"] == 2
    assert run.energy["joules"] == pytest.approx(2 * run.seconds["total"], abs=0.06)  # of both, kept to 0.1 J
    assert "--watts 2" in run.command
    assert [(v.resolution, v.val_accuracy) for v in run.sweep] == [(40, None), (32, None)]
    assert all(v.test_accuracy is not None for v in run.sweep)
    told = json.loads((out / job.RECORD).read_text(encoding="utf-8"))
    assert [row["val_accuracy"] for row in told["sweep"]] == [None, None]
    assert told["accuracy"]["val"] is None
    assert told["report"] == job.as_json(run)["report"] == str(out / job.REPORT)  # what compares them
    one = json.loads((out / "v1-0.25-40" / job.RECORD).read_text(encoding="utf-8"))
    assert one["report"] == str(out / "v1-0.25-40" / job.REPORT)
    assert told["epochs"][0]["val_accuracy"] is None
    rows = list(csv.DictReader(io.StringIO((out / job.SWEEP).read_text(encoding="utf-8"))))
    assert [row["val_accuracy"] for row in rows] == ["", ""]
    # None of them is better on what there is not: the cheapest is shown, and it is said.
    assert run.net["resolution"] == 32
    assert any("no validation pictures: of the sweep the cheapest" in note for note in run.notes)
    # What it wrote a choice for a device reads.
    choice = chosen("raspberry-pi-4", Budget(), "int8", 1, out / job.SWEEP, [], "ours")
    scored = {("v1", row.width, row.resolution): row.test_accuracy for row in run.sweep}
    assert {one.variant: one.accuracy for one in choice.fitting} == scored
    assert choice.fitting[0].size_kb == cost(zoo.net("v1", 0.25, 40, len(run.labels))).int8_bytes / 1024
    assert "<svg" in (out / job.REPORT).read_text(encoding="utf-8")


def test_a_sweep_from_one_file_tries_its_width_and_from_a_folder_only_the_networks_own(
    folder: Path, tmp_path: Path
) -> None:
    bodies = tmp_path / "bodies"
    bodies.mkdir()
    for name, width in (("v1", 0.25), ("v1-shallow", 0.5)):
        net = zoo.body(name, width, 32)
        save(
            Artefact(net, random_weights(net, 0), Preprocess(height=32, width=32)),
            bodies / f"{name}.safetensors",
        )
    options = {"split": "80/10/10", "threads": 1}
    for weights in (bodies, bodies / "v1.safetensors"):
        out = tmp_path / f"out {weights.name}"
        run = job.sweep(folder, out, {**options, "weights": str(weights)}, silent, resolutions=(32,))
        assert [row.width for row in run.sweep] == [0.25]
        assert sum("left out of the sweep: width" in note for note in run.notes) == 3
        told = shlex.split(run.command)
        assert told[:5] == ["mobilenets", "retrain", str(folder), "--out", str(out)]
        assert {"--sweep", str(weights)} <= set(told)
        one = json.loads((out / "v1-0.25-32" / job.RECORD).read_text(encoding="utf-8"))["command"]
        assert shlex.split(one)[-2:] == ["--weights", str(bodies / "v1.safetensors")]
        assert "--sweep" not in one


@pytest.mark.skipif(sys.platform != "linux", reason="only here may a name be any bytes")
def test_folders_whose_names_are_no_text_are_learned_from_and_written_to(
    folder: Path, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/photos\xff"))
    folder.rename(odd)
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/out\xfe"))
    run = job.retrain(odd, out, {**QUICK, "width": 0.25, "resolution": 32}, silent, command=f"retrain {odd}")
    told = json.loads((out / job.RECORD).read_bytes().decode("utf-8"))
    assert told["model"] == run.model == str(out / "model.safetensors")  # the escape reads back as the name
    assert told["command"] == f"retrain {odd}"
    assert load(out / "model.safetensors").labels == ("a", "b")


@pytest.mark.parametrize("kind", ["shards", "zip"])
def test_a_report_shows_pictures_out_of_archives_and_no_table_names_them(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    files = sorted(folder.rglob("*.png"))
    if kind == "zip":
        given, out = tmp_path / "set.zip", tmp_path / "out"
        with zipfile.ZipFile(given, "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        given = tmp_path / "set"
        given.mkdir()
        out = given / "out"  # among the shards there is a folder when the report is written
        for number in range(3):
            with tarfile.open(given / f"{number}.tar", "w") as tar:
                for file in files[number::3]:
                    tar.add(file, f"deep/{file.stem}.png")
                    head = tarfile.TarInfo(f"deep/{file.stem}.cls")
                    head.size = 1
                    tar.addfile(head, io.BytesIO(file.parent.name.encode()))
    options = {**QUICK, "width": 0.25}
    if kind == "zip":
        out.mkdir()
        (out / job.SPLIT).write_text("an earlier run's")
        run = job.retrain(given, out, {**options, "resolution": 32}, silent)
    else:
        run = job.sweep(given, out, options, silent, resolutions=(32,))
    assert [note for note in run.notes if "split.csv" in note] == [
        f"no split.csv: it cannot name pictures inside {'a zip' if kind == 'zip' else 'shards'}"
    ]
    assert json.loads((out / job.RECORD).read_bytes())["notes"] == run.notes
    assert not list(tmp_path.rglob(job.SPLIT))
    page = (out / job.REPORT).read_text(encoding="utf-8")
    assert '<div class="shot"><img' in page
    assert "no longer there" not in page


def test_a_counter_that_may_not_be_read_is_named_where_nothing_else_tells_the_power(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job.energy, "counter", lambda *, gpu: (None, "it is closed"))
    given = {**QUICK, "width": 0.25, "resolution": 32}
    assert "no energy: it is closed" in job.retrain(folder, tmp_path / "out", given, silent).notes
    stated = job.retrain(folder, tmp_path / "out", {**given, "watts": 2.0}, silent)
    assert not any("closed" in note for note in stated.notes)


class Rough(TorchEngine):
    """A body whose features are off by what no score would hide."""

    def prepared(self, levels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        off = np.random.default_rng(0).normal(0, 1, 256).astype(np.float32)
        return {name: value + off for name, value in super().prepared(levels).items()}


def test_what_is_judged_has_the_features_of_the_model_that_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, int]] = []

    def bodies(
        model: Artefact, streams: int, images: int, progress: Progress, *, rough: bool = False
    ) -> TorchEngine:
        asked.append((rough, images))
        engine = Rough(model) if rough else TorchEngine(model)
        engine.exact = not rough
        return engine

    monkeypatch.setattr(job, "compiled_body", bodies)
    monkeypatch.setattr("mobilenets.train.judge.VERIFIED_PICTURES", 4)
    net = zoo.v1(0.25, 32)
    save(
        Artefact(net, random_weights(net, 0), Preprocess(height=32, width=32)), tmp_path / "body.safetensors"
    )
    given = {"weights": str(tmp_path / "body.safetensors"), "threads": 1, "split": "60/20/20"}
    run = job.retrain(folder, tmp_path / "out", given, silent)
    model = mobilenets.load(tmp_path / "out" / "model.safetensors")
    for file, scores in zip(run.test.files, run.test.scores, strict=True):
        told = {p.label: p.score for p in model(folder / file).predictions}
        np.testing.assert_allclose([told["a"], told["b"]], scores, atol=1e-4)
    assert asked[0] == (True, 20)
    assert asked[1][0] is False
    assert len(run.test.files) <= asked[1][1] <= len(run.test.files) + 4
    assert len(asked) == 2
    job.retrain(folder, tmp_path / "other", {**given, "seed": 1}, silent)  # judges other pictures
    before = len(asked)
    again = job.retrain(folder, tmp_path / "again", given, silent)
    assert len(asked) == before  # all of it is known, and the same comes of it
    assert again.digest == run.digest
