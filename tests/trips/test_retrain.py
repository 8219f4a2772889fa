"""From a folder, a zip or a CSV of real pictures to a model whose every number can be had again."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
ODD = ('a "quoted" one', "new\nline", "<b>&amp;", "🌳 木", "[bold]x")


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_retraining_says_all_that_it_measured(taught: Any) -> None:
    facts = taught.facts
    assert set(facts["accuracy"]) == {"train", "val", "test"}
    assert all(0 <= share <= 1 for share in facts["accuracy"].values())
    assert facts["accuracy"]["test"] >= 0.7  # features of ImageNet tell a face from a bonsai
    assert facts["top5"] == 1.0
    assert {"scan", "features", "fit", "total"} <= set(facts["seconds"])
    assert facts["seconds"]["total"] >= sum(facts["seconds"][part] for part in ("scan", "features", "fit"))
    assert facts["images"] == {"used": 200, "set_aside": 0}
    assert facts["counts"] == {"train": [32] * 5, "val": [4] * 5, "test": [4] * 5}
    assert 50 < facts["peak_rss_mb"] < 1500
    assert Path(facts["model"]) == taught.model
    joules = pytest.approx(2.1 * facts["seconds"]["total"], abs=0.1)
    assert facts["energy"] == {"joules": joules, "watts": 2.1, "watts_from": "stated"}
    assert "Energy, up to this page: " in (taught.out / "report.html").read_text()
    low, high = facts["interval"]
    assert low <= facts["accuracy"]["test"] <= high
    assert json.loads((taught.out / "run.json").read_text()) == facts


def test_the_split_that_it_writes_gives_exactly_the_accuracy_that_it_reports(ask: Ask, taught: Any) -> None:
    facts = ask("evaluate", taught.model, taught.out / "split.csv", "--json").facts
    assert facts["top1"] == taught.facts["accuracy"]["test"]
    assert facts["top5"] == taught.facts["top5"]
    assert facts["interval"] == taught.facts["interval"]
    assert facts["n"] == taught.facts["test_pictures"] == 20
    assert facts["calibration_error"] == pytest.approx(taught.facts["calibration_error"]["after"], abs=1e-3)


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(ask: Ask, taught: Any, body25: Path, tmp_path: Path) -> None:
    told = ask("retrain", taught.folder, "--out", tmp_path, "--weights", body25, "--unknown", "--json")
    assert (tmp_path / "model.safetensors").read_bytes() == taught.model.read_bytes()
    assert told.facts["digest"] == taught.facts["digest"]


def test_where_all_features_are_known_torch_is_not_even_loaded(
    taught: Any, surroundings: dict[str, str], body25: Path, tmp_path: Path
) -> None:
    """Loading it would take longer than the rest of such a run."""
    text = "import sys; from mobilenets.entry import run; run(sys.argv[1:]); print('torch' in sys.modules)"
    command = ("retrain", str(taught.folder), "--out", str(tmp_path), "--weights", str(body25))
    told = subprocess.run(
        [sys.executable, "-c", text, *command], capture_output=True, env=surroundings, check=True, text=True
    )
    assert "test accuracy" in told.stdout
    assert told.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_features_are_recalled_and_not_computed_when_only_the_seed_changes(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    """After the first run the store refuses every row, and a run that had one to keep would say so."""
    cache = tmp_path / "cache"
    folder = slice_of(tmp_path / "set", 3, 8)
    parts, notes = [], []
    for number, options in enumerate((("--seed", 0), ("--seed", 1), ("--geometry", "crop"))):
        out = tmp_path / f"out{number}"
        told = ask(
            *("retrain", folder, "--out", out, "--weights", body25, *options, "--json"),
            env={"MOBILENETS_CACHE": str(cache)},
        )
        notes.append(any("computed again" in note for note in told.facts["notes"]))
        parts.append({(row["file"].rpartition("/")[2], row["label"]) for row in _rows(out / "split.csv")})
        if number == 0:
            refusal = (
                "CREATE TRIGGER no BEFORE INSERT ON rows WHEN new.space != 'digests' "
                "BEGIN SELECT RAISE(ABORT, 'computed again'); END"
            )
            with closing(sqlite3.connect(cache / "features.sqlite")) as base:
                kept = base.execute("SELECT count(*) FROM rows WHERE space != 'digests'")
                assert kept.fetchone() == (2 * 24,)
                base.execute(refusal)
            folder = folder.rename(tmp_path / "moved")  # features go by content, not by place
    assert notes == [False, False, True]
    assert parts[0] != parts[1]


@pytest.mark.slow
def test_a_zip_a_csv_and_a_folder_of_the_same_pictures_teach_the_same_model(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 3, 10)
    pictures = sorted(folder.rglob("*.webp"))
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in pictures:
            archive.write(path, f"photos/{path.relative_to(folder)}")
    with (tmp_path / "set.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "label"))
        rows.writerows((path.relative_to(tmp_path), path.parent.name) for path in pictures)
    made = {}
    for name in ("set", "set.zip", "set.csv"):
        out = tmp_path / f"out-{name}"
        told = ask("retrain", tmp_path / name, "--out", out, "--weights", body25, "--json").facts
        assert told["images"] == {"used": 30, "set_aside": 0}
        made[name] = (out / "model.safetensors").read_bytes()
        assert (out / "report.html").stat().st_size > 10_000
    assert made["set"] == made["set.zip"]
    assert made["set"] == made["set.csv"]
    csv_split = tmp_path / "out-set.csv" / "split.csv"
    assert ask("evaluate", tmp_path / "out-set.csv/model.safetensors", csv_split, "--json").facts["n"] == 3


@pytest.mark.slow
def test_parts_of_its_own_are_kept_whether_folders_or_a_column(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    for part, (first, each) in {"train": (0, 6), "val": (10, 2), "test": (20, 3)}.items():
        slice_of(folder / part, 3, each, first=first)
    facts = ask("retrain", folder, "--out", tmp_path / "a", "--weights", body25, "--json").facts
    assert facts["counts"] == {"train": [6] * 3, "val": [2] * 3, "test": [3] * 3}
    assert {row["file"].split("/")[-3] for row in _rows(tmp_path / "a" / "split.csv")} == {"test"}
    found = ask("evaluate", tmp_path / "a" / "model.safetensors", folder, "--json").facts
    assert (found["n"], found["part"]) == (9, "test")
    assert found["top1"] == facts["accuracy"]["test"]
    with (tmp_path / "set.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        for path in sorted(folder.rglob("*.webp")):
            rows.writerow((path.relative_to(tmp_path), path.parent.name, path.parent.parent.name))
    other = ask("retrain", tmp_path / "set.csv", "--out", tmp_path / "b", "--weights", body25, "--json").facts
    assert other["counts"] == facts["counts"]
    assert other["digest"] == facts["digest"]


@pytest.mark.slow
@pytest.mark.parametrize("names", [ODD], ids=["odd"])
def test_labels_of_any_text_survive_every_way_to_the_answer(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder = slice_of(tmp_path / "set with spaces ö", 5, 10, names=names)
    long = "n" * 245 + ".webp"
    shutil.copy(sorted((folder / names[0]).iterdir())[0], folder / names[0] / "x.webp")
    (folder / names[0] / "x.webp").rename(folder / names[0] / long)
    out = tmp_path / "out [x]"
    facts = ask(
        "retrain", folder, "--out", out, "--weights", body25, "--geometry", "letterbox", "--json"
    ).facts
    assert facts["classes"] == sorted(names)
    found = ask("evaluate", out / "model.safetensors", out / "split.csv", "--json").facts
    assert found["top1"] == facts["accuracy"]["test"]
    answer = ask("predict", out / "model.safetensors", folder / names[0] / long, "--json").facts
    assert {p["label"] for p in answer["results"][0]["predictions"]} == set(names)
    assert "letterbox" in ask("info", out / "model.safetensors").out
    text = (out / "report.html").read_text()
    assert "<b>&amp;" not in text
    assert "&lt;b&gt;&amp;amp;" in text


@pytest.mark.slow
def test_blanks_around_the_name_of_a_class_folder_do_not_part_it_from_its_csv(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 3, 10, names=("Faces ", "ant", " barrel", "", ""))
    facts = ask("retrain", folder, "--out", tmp_path / "out", "--weights", body25, "--json").facts
    assert facts["classes"] == ["Faces", "ant", "barrel"]
    found = ask("evaluate", tmp_path / "out/model.safetensors", tmp_path / "out/split.csv", "--json").facts
    assert found["top1"] == facts["accuracy"]["test"]


@pytest.mark.slow
def test_too_few_pictures_to_measure_on_give_null_and_never_a_made_up_number(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 3, 2)
    told = ask(
        "retrain",
        folder,
        "--out",
        tmp_path / "out",
        "--weights",
        body25,
        "--unknown",
        "--json",
        "--threads",
        1,
    )
    facts = told.facts
    assert facts["options"]["threads"] == 1
    assert facts["accuracy"]["val"] is None
    assert facts["accuracy"]["test"] is None
    assert facts["top5"] is None
    assert facts["interval"] is None
    assert set(facts["unknown"].values()) == {None}
    assert any("no validation pictures" in note for note in facts["notes"])
    row = ask("predict", tmp_path / "out" / "model.safetensors", folder, "--json").facts["results"][0]
    assert len(row["predictions"]) == 3
    assert "unknown" not in row


@pytest.mark.slow
def test_a_class_that_only_the_test_part_has_is_named(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set" / "train", 2, 5).parent
    slice_of(folder / "test", 3, 2, first=20)
    facts = ask("retrain", folder, "--out", tmp_path / "out", "--weights", body25, "--json").facts
    assert facts["counts"]["test"] == [2, 2, 2]
    assert any(note.startswith("without a picture in train") and "barrel" in note for note in facts["notes"])


@pytest.mark.slow
def test_results_inside_the_data_set_never_become_its_pictures(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    """In one of its classes, and beside the lone folder around all classes, which is still seen through."""
    bare = slice_of(tmp_path / "set", 3, 8)
    around = slice_of(tmp_path / "around" / "photos", 3, 8).parent
    digests = set()
    for root, out in ((bare, bare / "ant"), (around, around / "out")):
        facts = ask("retrain", root, "--out", out, "--weights", body25, "--json").facts
        digests.add(facts["digest"])
        found = ask("doctor", root, "--json").facts
        for seen in (facts["counts"]["train"], list(found["counts"].values())):
            assert len(seen) == 3
        assert facts["images"]["used"] == found["images"] == 24
        assert list(found["counts"]) == facts["classes"] == ["Faces", "ant", "barrel"]
    assert len(digests) == 1


@pytest.mark.slow
def test_fine_tuning_with_every_option_ends_in_a_model_that_scores_as_it_says(
    ask: Ask, slice_of: Any, body25: Path, tmp_path: Path
) -> None:
    """One class has a single picture; classes weigh alike; pictures are cropped."""
    folder = slice_of(tmp_path / "set", 4, 10)
    for spare in sorted((folder / "ant").iterdir())[1:]:
        spare.unlink()
    out = tmp_path / "out"
    facts = ask(
        *("retrain", folder, "--out", out, "--weights", body25, "--json", "--finetune", 1, "--unknown"),
        *("--class-weights", "--geometry", "crop", "--smoothing", 0.1, "--split", "60/20/20", "--seed", 3),
    ).facts
    assert [epoch["epoch"] for epoch in facts["epochs"]] == [1]
    assert facts["epochs"][0]["loss"] > 0
    assert [counts[1] for counts in facts["counts"].values()] == [1, 0, 0]
    assert "finetune" in facts["seconds"]
    assert not (out / "tuning.safetensors").exists()
    found = ask("evaluate", out / "model.safetensors", out / "split.csv", "--json").facts
    assert found["top1"] == facts["accuracy"]["test"]
    inside = ask("info", out / "model.safetensors", "--json").facts
    assert inside["threshold"] == facts["unknown"]["threshold"]
    assert inside["preprocess"]["geometry"] == "crop"
    assert inside["recipe"]["finetune"] == 1
    assert inside["recipe"]["class_weights"] is True


@pytest.mark.slow
def test_a_model_that_was_taught_is_itself_a_body_to_teach_from(
    ask: Ask, taught: Any, slice_of: Any, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 2, 8)
    facts = ask("retrain", folder, "--out", tmp_path / "out", "--weights", taught.model, "--json").facts
    assert facts["classes"] == ["Faces", "ant"]
    source = ask("info", tmp_path / "out" / "model.safetensors", "--json").facts["source"]
    assert taught.facts["source"]["file"] in json.dumps(source)


@pytest.mark.slow
def test_a_sweep_compares_what_there_are_weights_for_and_names_what_is_missing(
    ask: Ask, material: Path, slice_of: Any, tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    for name in ("mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1_0.5_160_quant.tflite"):
        shutil.copy(material / "weights" / name, weights)
    (weights / "notes.txt").write_text("not a body")
    folder, out = slice_of(tmp_path / "set", 3, 8), tmp_path / "out"
    facts = ask(
        *("retrain", folder, "--out", out, "--sweep", "--weights", weights, "--resolution", 128, "--json")
    ).facts
    assert [(row["width"], row["resolution"]) for row in facts["sweep"]] == [(0.25, 128), (0.5, 128)]
    assert facts["sweep"][0]["macs"] < facts["sweep"][1]["macs"]
    assert sum("no weights" in note for note in facts["notes"]) == 2
    assert {row["width"] for row in _rows(out / "sweep.csv")} == {"0.25", "0.5"}
    best = max(facts["sweep"], key=lambda row: (row["val_accuracy"], -row["macs"]))
    assert facts["model"] == best["model"]
    assert (out / "model.safetensors").read_bytes() == Path(best["model"]).read_bytes()
    for row in facts["sweep"]:
        assert ask("info", row["model"], "--json").facts["macs"] == row["macs"]
        assert Path(row["model"]).stat().st_size == row["size_bytes"]
    assert "0.5" in (out / "report.html").read_text()


def test_where_no_weights_are_to_be_had_the_body_of_this_package_stands_in_and_a_line_says_so(
    ask: Ask, slice_of: Any, tmp_path: Path
) -> None:
    env = {"MOBILENETS_CACHE": str(tmp_path / "cache"), "MOBILENETS_OFFLINE": "1"}
    words = ("retrain", slice_of(tmp_path / "set", 3, 10), "--out", tmp_path / "out")
    told = ask(*words, env=env)
    assert "stands in for them" in told.out + told.err
    facts = ask(*words, "--json", env=env).facts
    assert facts["source"]["name"] == "mobilenets/v1-0.5-128"
    assert sum("stands in for them" in note for note in facts["notes"]) == 1
    assert facts["net"]["resolution"] == 128
    given = ask(*words, "--weights", "mobilenets/v1-0.25-128", "--json", env=env).facts
    assert not [note for note in given["notes"] if "stands in" in note]


@pytest.mark.slow
def test_a_network_from_random_weights_learns_signs_that_are_drawn_here(ask: Ask, tmp_path: Path) -> None:
    """The demo's road with fewer pictures and epochs; `make demo` goes the whole of it."""
    pytest.importorskip("torch")
    from mobilenets.data.signs import FACES, render

    render(tmp_path / "signs", 4)
    facts = ask(
        *("retrain", tmp_path / "signs", "--out", tmp_path / "out", "--weights", "random", "--finetune", 1),
        *("--width", 0.25, "--resolution", 64, "--split", "50/25/25", "--json"),
    ).facts
    assert len(facts["classes"]) == len(FACES)
    assert facts["source"]["name"] == "random weights"
    found = ask("evaluate", tmp_path / "out/model.safetensors", tmp_path / "out/split.csv", "--json").facts
    assert found["top1"] == facts["accuracy"]["test"]


@pytest.mark.slow
def test_a_v2_learns_is_asked_again_and_is_compiled(ask: Ask, refuse: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from mobilenets.data.signs import render

    render(tmp_path / "signs", 4)
    how = ("--width", 0.35, "--resolution", 48, "--split", "50/25/25", "--json")
    random = ("--net", "v2", "--weights", "random", "--finetune", 1)
    model = tmp_path / "out/model.safetensors"
    facts = ask("retrain", tmp_path / "signs", "--out", tmp_path / "out", *random, *how).facts
    found = ask("evaluate", model, tmp_path / "out/split.csv", "--json").facts
    assert found["top1"] == facts["accuracy"]["test"]
    again = ("--net", "v2", "--weights", model)
    facts = ask("retrain", tmp_path / "signs", "--out", tmp_path / "again", *again, *how).facts
    found = ask(
        "evaluate", tmp_path / "again/model.safetensors", tmp_path / "again/split.csv", "--json"
    ).facts
    assert found["top1"] == facts["accuracy"]["test"]
    bytes_ = ("--dtype", "int8", "--calibrate", tmp_path / "signs")
    for dtype, options, most in (("float32", (), 1e-4), ("int8", bytes_, 0.0)):
        facts = ask("compile", model, "--out", tmp_path / dtype, *options, "--json").facts
        assert facts["verified_on"]
        assert all(error["relative"] <= most for error in facts["largest_error"].values())
    said = refuse("retrain", tmp_path / "signs", "--out", tmp_path / "none", "--net", "v2", "--width", 0.6)
    assert "no published weights for v2" in said
