"""The study's table from drawn pictures: measured, forecast, published, and gone on with after a kill."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mobilenets.costs.study import StudyOptions
from mobilenets.data import signs
from mobilenets.infer.artefact import Artefact, save
from mobilenets.model.module import random_weights
from mobilenets.spec import zoo
from mobilenets.spec.preprocess import Preprocess
from mobilenets.studying import study

SIZES = {0.25: 32, 0.5: 40}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "signs"
    signs.render(folder, 8)
    return folder


@pytest.fixture(scope="module")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body of random weights for each of two widths, each at a resolution of its own."""
    folder = tmp_path_factory.mktemp("bodies")
    for width, side in SIZES.items():
        net = zoo.body("v1", width, side)
        made = Artefact(net, random_weights(net, 0), Preprocess(height=side, width=side))
        save(made, folder / f"{width}.safetensors")
    return folder


def test_a_table_is_measured_here_forecast_for_devices_and_set_beside_what_was_published(
    ask: Callable[..., Any], drawn: Path, bodies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("study", drawn, "--weights", bodies, "--widths", "0.5,0.25", "--out", out, "--watts", 15)
    found = ask(*command, "--devices", "m8s-pro,macbook-i5", "--json").facts
    rows = found["rows"]
    assert [(row["device"], row["width"], row["how"]) for row in rows] == [
        ("this machine", 0.5, "measured"),
        ("this machine", 0.25, "measured"),
        ("m8s-pro", 0.5, "forecast"),
        ("m8s-pro", 0.25, "forecast"),
        ("macbook-i5", 0.5, "forecast"),
        ("macbook-i5", 0.25, "forecast"),
        ("m8s-pro", None, "published"),
        ("the study's table", None, "published"),
    ]
    for row in rows[:2]:
        own = json.loads((out / f"width-{row['width']:g}" / "run.json").read_text(encoding="utf-8"))
        assert row["seconds"] == own["seconds"]["total"]
        assert row["accuracy"] == own["accuracy"]["test"]
        assert row["resolution"] == SIZES[row["width"]] == own["net"]["resolution"]
        assert row["joules"] == pytest.approx(15 * row["seconds"])
        assert own["seconds"]["features"] > own["cold"]["start_s"] > 0  # nothing was recalled
    for row in rows[2:6]:
        assert row["seconds_low"] < row["seconds"] < row["seconds_high"]
        assert row["accuracy"] == next(one["accuracy"] for one in rows[:2] if one["width"] == row["width"])
        assert row["published_seconds_low"] is None  # of no width is it known
    assert rows[2]["joules"] == pytest.approx(2.1 * rows[2]["seconds"])
    assert rows[4]["joules"] is None
    assert rows[6]["seconds"] is None
    assert rows[6]["published_joules"] == pytest.approx(6558.3)
    assert any("15 W are as stated" in note for note in found["notes"])
    assert any("resolution of the weights" in note for note in found["notes"])
    with (out / "study.csv").open(encoding="utf-8", newline="") as file:
        kept = list(csv.DictReader(file))
    assert [row["seconds"] for row in kept[6:]] == ["", ""]
    assert float(kept[0]["seconds"]) == pytest.approx(rows[0]["seconds"], rel=1e-4)
    text = (out / "study.md").read_text(encoding="utf-8")
    assert text.count("| forecast |") == 4
    assert "387 to 5611" in text
    assert "88.3 to 93.3 %" in text
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")
    told = ask(*command, "--resume", "--devices", "m8s-pro")
    assert "6558.3" in told.out
    assert "stand below the table" in told.out


def test_a_study_that_was_cut_off_goes_on_with_the_widths_it_finished(
    drawn: Path, bodies: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    seen: list[str] = []

    def cut(stage: str, done: int, total: int) -> None:
        seen.append(stage.split(":", maxsplit=1)[0])
        if stage == "width 0.5 (2 of 2): fit":
            raise KeyboardInterrupt

    asked = {"weights": str(bodies), "widths": "0.25,0.5", "devices": "", "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        study(drawn, out, StudyOptions(**asked), cut)  # type: ignore[arg-type]
    record = out / "width-0.25" / "run.json"
    first = record.read_bytes()
    assert not (out / "study.csv").exists()
    (out / ".cold").mkdir()  # as a kill leaves it
    (out / ".cold" / "features.sqlite").write_text("of another width")
    seen.clear()
    found = study(drawn, out, StudyOptions(**asked, resume=True), lambda stage, *_: seen.append(stage))  # type: ignore[arg-type]
    assert record.read_bytes() == first
    assert not [stage for stage in seen if stage.startswith("width 0.25")]
    assert [row["width"] for row in found["rows"]] == [0.25, 0.5, None, None]
    assert not (out / ".cold").exists()
    assert found["rows"][0]["seconds"] == json.loads(first)["seconds"]["total"]
    seen.clear()
    other = {**asked, "widths": "0.25", "seed": 1}  # of another split nothing is taken
    study(drawn, out, StudyOptions(**other, resume=True), lambda stage, *_: seen.append(stage))  # type: ignore[arg-type]
    assert [stage for stage in seen if stage.startswith("width 0.25")]


def test_a_mistake_is_one_line_before_any_work(
    refuse_each: Callable[..., list[str]], drawn: Path, bodies: Path, tmp_path: Path
) -> None:
    start = ("study", drawn, "--weights", bodies)
    taken = tmp_path / "taken"
    taken.write_text("here")
    small = tmp_path / "small"
    (small / "a").mkdir(parents=True)
    asked = {
        ("--widths", "0.75"): "width 0.75: no weights of it in .* \\(there are: 0.25, 0.5\\)",
        ("--widths", "wide"): "--widths wide: give numbers",
        ("--widths", "0.25,-1"): "--widths 0.25,-1: give multipliers above 0",
        ("--watts", "0"): "--watts 0: a number above 0",
        ("--watts", "nan"): "--watts nan: a number above 0",
        ("--devices", "abacus"): "unknown device 'abacus'",
        ("--devices", "m8s-pro,stm32l4r5"): "stm32l4r5: no figures were found",
        ("--devices", "stm32h747"): "stm32h747: nothing is known of .* in float32",
        ("--weights", str(tmp_path / "nowhere")): "nowhere: No such file",
    }
    out = tmp_path / "out"
    commands = [(*start, "--widths", "0.25", "--out", out, *words) for words in asked]
    said = refuse_each(
        *commands,
        (*start, "--widths", "0.25", "--out", taken),
        ("study", small, "--weights", bodies, "--widths", "0.25", "--out", out),
    )
    words = [*asked.values(), "a file is in its way; give another --out", "no picture inside a class folder"]
    for line, expected in zip(said, words, strict=True):
        assert re.search(expected, line), line
    assert not out.exists()
