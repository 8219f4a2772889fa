"""A choice says what it rests on: a sweep's scores, rows of a race, the device's own memories."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mobilenets.choosing import Choice, breaks, chosen, sweep_scores, unbuilt
from mobilenets.costs.choose import Budget
from mobilenets.costs.count import cost
from mobilenets.spec import zoo

RACE = Path(__file__).parents[2] / "results" / "race.csv"
COLUMNS = ("width", "resolution", "val_accuracy", "test_accuracy", "model")


def asked(device: str = "raspberry-pi-4", **how: Any) -> Choice:
    limits = {name: how.pop(name) for name in list(how) if name.endswith(("_ms", "_kb", "_mj"))}
    usual: dict[str, Any] = {"dtype": None, "threads": 1, "scores": None, "rows": [], "runtime": "ours"}
    return chosen(device, Budget(**limits), **usual | how)


def swept(place: Path, rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any] | None = None) -> Path:
    """A sweep.csv, and the run.json beside it."""
    path = place / "sweep.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    if record is not None:
        (place / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return path


def test_scores_of_a_sweep_are_of_the_test_part_or_of_validation_where_nothing_was_tested(
    tmp_path: Path,
) -> None:
    record = {"net": {"name": "v1-shallow"}, "classes": ["a", "b", "c"]}
    some = [
        {"width": 0.25, "resolution": 96, "val_accuracy": 0.5, "test_accuracy": 0.6},
        {"width": 0.5, "resolution": 96, "val_accuracy": 0.7},
    ]
    found = sweep_scores(swept(tmp_path, some, record))
    assert found.by_variant == {("v1-shallow", 0.25, 96): 0.6}
    assert (found.part, found.left_out, found.classes) == ("test", 1, 3)
    found = sweep_scores(swept(tmp_path, [{**row, "test_accuracy": ""} for row in some], record))
    assert found.by_variant == {("v1-shallow", 0.25, 96): 0.5, ("v1-shallow", 0.5, 96): 0.7}
    assert (found.part, found.left_out) == ("validation", 0)
    made = asked(scores=tmp_path / "sweep.csv", dtype="int8")
    assert made.scores.endswith("sweep.csv, of validation pictures")
    assert [one.variant for one in made.fitting] == [("v1-shallow", 0.5, 96), ("v1-shallow", 0.25, 96)]
    # Its own head has three classes; the published one would have a thousand.
    assert made.fitting[1].size_kb == cost(zoo.net("v1-shallow", 0.25, 96, 3)).int8_bytes / 1024


def test_a_sweep_without_any_score_and_what_is_no_sweep_are_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sweep\.csv: has no variant with an accuracy"):
        sweep_scores(swept(tmp_path, [{"width": 0.25, "resolution": 96}]))
    with pytest.raises(ValueError, match=r"sweep\.csv: no sweep\.csv of .*could not convert"):
        sweep_scores(swept(tmp_path, [{"width": "wide", "resolution": 96, "test_accuracy": 1}]))
    (tmp_path / "sweep.csv").write_text("a,b\n1,2\n")
    (tmp_path / "sweep.csv").write_text("width,resolution,test_accuracy,val_accuracy,file\n0.25,96,0.9,0.9\n")
    with pytest.raises(ValueError, match=r"sweep\.csv: .* a line that is cut off"):
        sweep_scores(tmp_path / "sweep.csv")
    (tmp_path / "sweep.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column 'test_accuracy'"):
        sweep_scores(tmp_path / "sweep.csv")


def test_a_microcontroller_limits_a_choice_by_its_memories_and_says_so() -> None:
    found = asked("stm32h747")
    assert found.budget.limits == {"size_kb": 2048, "ram_kb": 512}
    assert found.fitting
    assert all(one.size_kb <= 2048 and one.ram_kb <= 512 for one in found.fitting)
    assert any(
        "its own memories are limits: 512 KB of RAM and 2048 KB of flash" in note for note in found.notes
    )
    assert any(note.startswith("float32 is left out: nothing is known of STM32Cube") for note in found.notes)
    assert not any("memories" in note for note in asked("raspberry-pi-4").notes)


def test_what_the_compiler_refuses_is_marked_by_the_compilers_own_word() -> None:
    found = asked(threads=4)
    assert {one.variant[0] for one in found.fitting} == {"v1", "v2"}
    for one in found.fitting:
        assert one.refused == unbuilt(zoo.net(*one.variant))
        assert one.as_json()["refused"] == one.refused
    refused = {one.refused for one in found.fitting} - {None}
    assert all(any(str(reason) in note for note in found.notes) for reason in refused)


def test_measured_rows_count_and_forecast_what_they_lack() -> None:
    found = asked(rows=[RACE], threads=2, latency_ms=1000)
    told = {(one.variant, one.dtype): one for one in found.fitting}
    own = told[("v1", 0.5, 160), "int8"]
    assert own.measured
    with RACE.open(encoding="utf-8", newline="") as file:
        last = [
            float(row["latency_ms"])
            for row in csv.DictReader(file)
            if (row["model"], row["engine"], row["dtype"], row["threads"])
            == ("v1 0.5 at 160", "ours", "int8", "2")
        ][-1]
    assert own.latency_ms == last
    other = told[("v2", 0.5, 160), "int8"]
    assert not other.measured
    assert other.runtime == "ours"
    assert other.latency_ms < 2 * last  # of the machine of the rows, not of a Raspberry Pi
    assert any("rows of ours in race.csv; they forecast others" in note for note in found.notes)
    with pytest.raises(ValueError, match="--rows: none of ours on 3 threads"):
        asked(rows=[RACE], threads=3)


def test_too_few_rows_leave_forecasts_as_they_were(tmp_path: Path) -> None:
    with RACE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row for row in rows if row["model"] == "v1 0.5 at 160")
    found = asked(rows=[path])
    assert {one.variant for one in found.fitting if one.measured} == {("v1", 0.5, 160)}
    assert {one.runtime for one in found.fitting if not one.measured} == {"ncnn"}
    assert any("too few to forecast others by" in note for note in found.notes)
    with pytest.raises(ValueError, match="no figures were found"):
        asked("stm32l4r5")
    alone = asked("stm32l4r5", rows=[path])
    assert {(one.variant, one.measured) for one in alone.fitting} == {(("v1", 0.5, 160), True)}


def test_where_nothing_fits_the_closest_says_which_limits_it_breaks_and_by_how_much() -> None:
    found = asked(latency_ms=1, size_kb=100)
    assert not found.fitting
    assert found.closest is not None
    told = breaks(found.closest, found.budget)
    assert set(told) == {"latency_ms", "size_kb"}
    assert told["latency_ms"]["times"] == pytest.approx(found.closest.latency_ms)
    assert told["size_kb"] == {
        "takes": pytest.approx(found.closest.size_kb),
        "limit": 100,
        "times": pytest.approx(found.closest.size_kb / 100),
    }
    assert found.as_json()["closest"]["breaks"] == told


def test_more_threads_than_a_board_has_cores_are_refused() -> None:
    with pytest.raises(ValueError, match="raspberry-pi-4 has 4 cores, not 5"):
        asked(threads=5)
