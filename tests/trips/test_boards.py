"""Devices that are not here, from the command line: forecasts, choices for a budget, measured rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

RACE = Path(__file__).parents[2] / "results" / "race.csv"
PI = ("--device", "raspberry-pi-4")


@pytest.mark.parametrize(
    ("model", "more", "dtype"),
    [
        ("mobilenet_v1_0.25_128_quant.tflite", (), "int8"),
        ("mobilenet_v1_0.25_128_quant.tflite", ("--dtype", "float32"), "float32"),
        ("mobilenet_v1_0.25_224_float.tflite", (), "float32"),
        ("v1", (), "float32"),
    ],
)
def test_a_model_is_forecast_in_the_type_it_computes_in(
    ask: Callable[..., Any], material: Path, model: str, more: Sequence[str], dtype: str
) -> None:
    where = material / "weights" / model
    told = ask("forecast", where if where.exists() else model, *PI, *more, "--json").facts
    assert told["dtype"] == dtype
    assert told["measured"] is False
    assert told["low"] < told["ms"] < told["high"]


def test_rows_that_were_measured_forecast_this_machine(ask: Callable[..., Any]) -> None:
    size = ("--width", 0.5, "--resolution", 160)
    told = ask("forecast", "v1", *size, "--rows", RACE, "--json").facts
    assert told["device"] == "this machine"
    assert told["runtime"] == "ours"
    assert told["energy_mj"] is None
    assert "rows of ours in race.csv, measured on" in told["rests_on"]
    own = next(float(note.split()[-2]) for note in told["notes"] if note.startswith("measured, by the rows"))
    assert told["low"] < own < told["high"]
    other = ask("forecast", "v1", *size, "--rows", RACE, "--runtime", "ncnn", "--json").facts
    assert other["ms"] > told["ms"]


def test_a_choice_in_words_says_what_is_measured_what_is_not_and_what_breaks(ask: Callable[..., Any]) -> None:
    said = ask("choose", *PI, "--threads", 2, "--rows", RACE, "--latency-ms", 0.5).out
    assert "measured" in said
    assert "forecast" in said
    said = ask("choose", *PI, "--latency-ms", 1).out
    assert "nothing fits a picture 1 ms on Raspberry Pi 4B" in said
    assert "% over 1" in said
    assert "an upper bound" in said


def test_mistakes_about_devices_are_one_line(refuse_each: Callable[..., list[str]], tmp_path: Path) -> None:
    wrong = {
        ("forecast", "v1"): "--device NAME",
        ("forecast", "v1", "--device", "rasberry-pi-4"): "did you mean raspberry-pi-4",
        ("forecast", "v1", *PI, "--threads", 9): "has 4 cores",
        ("forecast", "v1", *PI, "--dtype", "bytes"): "nothing is known of ncnn in bytes",
        ("forecast", "v1", "--rows", tmp_path / "none.csv"): "none.csv",
        ("forecast", "v1", "--rows", RACE, "--threads", 7): "0 networks of ours in float32 on 7 threads",
        ("forecast", "v1", "--rows", RACE, "--runtime", "abacus"): "0 networks of abacus",
        ("forecast", "v1", *PI, "--runtime", "ncnn"): "--runtime ncnn: is of measured rows",
        ("choose", *PI, "--runtime", "ours"): "give them with --rows",
        ("choose", *PI, "--latency-ms", "nan"): "--latency-ms nan: a limit is a number above 0",
        ("choose", *PI, "--size-kb", 0): "--size-kb 0",
        ("choose", *PI, "--ram-kb", "inf"): "--ram-kb inf",
        ("choose", *PI, "--scores", tmp_path / "none.csv"): "none.csv",
        ("choose", "--device", "khadas-vim3", "--energy-mj", 3): "its power is not known",
        ("choose", "--device", "stm32l4r5"): "no figures were found",
        ("compare", "v3-larg", "v9"): "unknown network 'v9'",
        ("compare", "--sort", "beauty"): "--sort beauty: unknown; known: macs, accuracy",
        ("compare", "--dtype", "bytes"): "--dtype bytes: unknown",
        ("compare", "--device", "rasberry-pi-4"): "did you mean raspberry-pi-4",
        ("compare", *PI, "--threads", 9): "has 4 cores",
        ("compare", *PI, "--dtype", "float16"): "nothing is known of ncnn in float16",
        ("compare", "--rows", tmp_path / "none.csv"): "none.csv",
        ("compare", "--runtime", "ncnn"): "--runtime ncnn: is of measured rows",
    }
    for said, word in zip(refuse_each(*wrong), wrong.values(), strict=True):
        assert word in said


def test_the_field_is_compared_in_a_table_a_picture_and_a_page(
    ask: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    out = tmp_path / "field"
    told = ask("compare", "v1", "v3", "alexnet", "--rows", RACE, "--threads", 2, "--out", out, "--json").facts
    assert told["device"] == "this machine"
    assert {row["latency_is"] for row in told["rows"]} == {"measured", "forecast"}
    assert told["files"] == sorted(told["files"], key=told["files"].index)
    assert {path.name for path in out.iterdir()} == set(told["files"])
    with (out / "compare.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], int(row["macs"])) for row in rows] == [
        (row["name"], row["macs"]) for row in told["rows"]
    ]
    assert json.loads((out / "compare.json").read_bytes())["rows"] == told["rows"]
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "compare.html").read_text(encoding="utf-8")
    assert "var(--s1)" in page
    assert "http" not in page.split("</style>")[1].split("Where figures are from</h2>")[0]
    for name in told["front"]:
        assert f'<td class="t">{name}</td>' in page
    said = ask("compare", "v1", "--sort", "accuracy").out
    assert said.index("v1 1 at 224") < said.index("v1 0.25 at 128")
    assert "source 1: tensorflow/models" in said
