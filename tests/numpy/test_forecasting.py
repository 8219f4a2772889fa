"""Factors found again in figures that they made, and rows of a race that forecast networks nobody raced."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from mobilenets import measured
from mobilenets.costs.count import cost
from mobilenets.costs.device import Device, Memory, device
from mobilenets.costs.forecast import Factors, forecast, known_factors
from mobilenets.forecasting import Figure, errors, fit, left_out, spread
from mobilenets.spec import zoo

RESULTS = Path(__file__).parents[2] / "results"
BOARD = Device(name="a board", says="", kind="own", cores=4, ghz=1.5, memory=Memory(2.0, 5.0))
TRUE = Factors(
    runtime="a runtime",
    product={"own": {"float32": 3.1, "int8": 5.2}},
    depthwise={"own": {"float32": 0.7, "int8": 1.3}},
    overhead=2e4,
    scaling=0.9,
    read=0.8,
    write=1.7,
    overlap=0.3,
    spread=0,
    rests_on="",
)
NETS = [("v1", width, side) for width, side in product((0.25, 0.5, 1.0), (96, 160, 224))] + [("v2", 1.0, 224)]
OTHERS = [("v1", 0.75, 192), ("v1", 0.35, 128), ("v2", 0.5, 160)]


def figure(net: tuple[str, float, int], dtype: str, threads: int, noise: float = 1.0) -> Figure:
    counted = cost(zoo.net(*net))
    ms = forecast(counted, BOARD, dtype, threads, TRUE).ms * noise
    return Figure(BOARD, counted, dtype, threads, ms, f"{net}")


def test_factors_are_found_again_in_figures_that_they_made() -> None:
    given = [
        figure(net, dtype, threads) for net in NETS for dtype in ("float32", "int8") for threads in (1, 4)
    ]
    start = replace(
        TRUE,
        product={"own": {"float32": 6.0, "int8": 6.0}},
        depthwise={"own": {"float32": 1.5, "int8": 1.5}},
        overhead=3e4,
        scaling=0.95,
        read=1.0,
        write=1.0,
        overlap=0.1,
    )
    found = fit(given, start)
    others = [
        figure(net, dtype, threads) for net in OTHERS for dtype in ("float32", "int8") for threads in (1, 2)
    ]
    assert np.abs(errors(others, start)).max() > 0.3
    assert np.abs(errors(others, found)).max() < 0.01
    for kind, (true, own) in {"product": (TRUE.product, found.product)}.items():
        for dtype, rate in true["own"].items():
            assert own["own"][dtype] == pytest.approx(rate, rel=0.05), (kind, dtype)
    assert found.scaling == pytest.approx(TRUE.scaling, rel=0.02)


def test_an_interval_is_as_wide_as_what_is_left_out_is_off() -> None:
    random = np.random.default_rng(0)
    still = [figure(net, "float32", 1) for net in NETS]
    noisy = [replace(one, ms=one.ms * exp(random.normal(0, 0.2))) for one in still]
    assert spread(left_out(still, TRUE)) < 0.01
    assert 0.1 < spread(left_out(noisy, TRUE)) < 0.6


def test_every_device_counts_the_same_in_an_interval() -> None:
    """A board that is twice as slow as its factors say is not outvoted by the many figures of others."""
    given = [figure(net, "float32", 1) for net in NETS]
    given += [replace(one, device=replace(BOARD, name="another")) for one in given]
    given.append(replace(given[0], device=replace(BOARD, name="a slow one"), ms=2 * given[0].ms))
    assert spread(left_out(given, TRUE)) == pytest.approx(log(2), abs=0.02)


@pytest.mark.parametrize("name", ["raspberry-pi-4", "xiaomi-mi-a1", "raspberry-pi-5", "stm32h747"])
def test_a_fit_and_a_forecast_mean_the_same_milliseconds(name: str) -> None:
    where = device(name)
    factors = next(one for one in known_factors() if where.kind in one.product)
    for net, dtype in product((("v1", 0.5, 128), ("v2", 1.0, 224)), factors.product[where.kind]):
        counted = cost(zoo.net(*net))
        found = forecast(counted, where, dtype, where.cores, factors).ms
        off = errors([Figure(where, counted, dtype, where.cores, found)], factors)
        assert off.tolist() == pytest.approx([0], abs=1e-12)


def test_boards_with_a_cortex_a76_that_no_fit_has_seen_lie_within_the_interval() -> None:
    factors = next(one for one in known_factors() if "a76" in one.product)
    with (RESULTS / "published.csv").open(encoding="utf-8", newline="") as file:
        figures = [
            Figure(
                device(row["device"]),
                cost(zoo.net(row["net"], float(row["width"]), int(row["resolution"]), int(row["classes"]))),
                row["dtype"],
                int(row["threads"]),
                float(row["ms"]),
            )
            for row in csv.DictReader(file)
            if device(row["device"]).kind == "a76"
        ]
    start = replace(factors, overhead=3e4, scaling=0.95, read=1.0, write=1.0, overlap=0.1)
    start = replace(
        start,
        product={"a76": {"float32": 6, "float16": 12, "int8": 16}},
        depthwise={"a76": {"float32": 3, "float16": 6, "int8": 3}},
    )
    off = []
    for name in {one.device.name for one in figures}:
        rest = [one for one in figures if one.device.name != name]
        off += np.abs(errors([one for one in figures if one.device.name == name], fit(rest, start))).tolist()
    assert len(off) == 19
    assert median(off) < 0.1
    assert sum(error <= factors.spread for error in off) / len(off) >= 0.8


def test_half_of_the_race_forecasts_the_other_half() -> None:
    rows = [row for row in measured.read([RESULTS / "race.csv"]) if row.engine == "ours"]
    rows = [row for row in rows if row.net.startswith("v1 ")]  # nobody has measured how others fare
    for threads in (1, 2):
        own = [row for row in rows if row.threads == threads]
        nets = sorted({row.net for row in own})
        given = [row for row in own if nets.index(row.net) % 2 == 0]
        others = [row for row in own if row not in given]
        assert len({row.net for row in given}) == len({row.net for row in others}) == 8
        where, factors = measured.factors(given, "int8", threads)
        found = [forecast(row.counted, where, row.dtype, threads, factors) for row in others]
        off = [abs(one.ms / row.ms - 1) for one, row in zip(found, others, strict=True)]
        assert median(off) <= 0.08
        within = [one.low <= row.ms <= one.high for one, row in zip(found, others, strict=True)]
        assert sum(within) / len(within) >= 0.8


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., Path]:
    """A file of rows as a race keeps them."""

    def make(name: str, *lines: Mapping[str, Any]) -> Path:
        path = tmp_path / name
        usual = {"engine": "ours", "dtype": "float32", "threads": 1, "machine": "2 cores"}
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["model", "macs", *usual, "latency_ms", "more"])
            writer.writeheader()
            writer.writerows(usual | line for line in lines)
        return path

    return make


def line(net: tuple[str, float, int], ms: float, classes: int = 1000, **more: Any) -> dict[str, Any]:
    name, width, side = net
    macs = cost(zoo.net(*net, classes)).macs
    return {"model": f"{name} {width:g} at {side}", "macs": macs, "latency_ms": ms} | more


def test_rows_tell_network_classes_and_the_last_that_was_measured(rows: Callable[..., Path]) -> None:
    first = rows("one.csv", line(("v1", 0.5, 160), 2.0), line(("v2", 1.0, 96), 9.0, classes=7))
    then = rows("two.csv", line(("v1", 0.5, 160), 1.5), line(("v1", 0.5, 160), 3.0, threads=2))
    found = measured.read([first, then])
    assert [(row.variant, row.classes, row.threads, row.ms) for row in found] == [
        (("v2", 1.0, 96), 7, 1, 9.0),
        (("v1", 0.5, 160), 1000, 1, 1.5),
        (("v1", 0.5, 160), 1000, 2, 3.0),
    ]
    assert found[0].counted.macs == cost(zoo.net("v2", 1.0, 96, 7)).macs
    assert measured.took(found, 2) == {(("v1", 0.5, 160), "float32"): 3.0}


@pytest.mark.parametrize("slower", [0.02, 1.0, 30.0, 1e4])
def test_a_machine_of_any_speed_is_told_by_its_rows(rows: Callable[..., Path], slower: float) -> None:
    def ms(net: tuple[str, float, int]) -> float:
        return forecast(cost(zoo.net(*net)), BOARD, "float32", 1, TRUE).ms * slower

    path = rows("rows.csv", *(line(net, ms(net)) for net in NETS))
    where, factors = measured.factors(measured.read([path]), "float32", 1)
    for net in OTHERS:
        found = forecast(cost(zoo.net(*net)), where, "float32", 1, factors)
        assert found.ms == pytest.approx(ms(net), rel=0.05)
        assert found.low <= ms(net) <= found.high
    assert factors.rests_on == "10 rows of ours in rows.csv, measured on 2 cores"


def test_too_few_rows_and_rows_that_are_none_are_refused_in_a_line(rows: Callable[..., Path]) -> None:
    few = rows("few.csv", *(line(net, 5.0) for net in NETS[:3]))
    told = "3 networks of ours in float32 on 1 thread, 4 are needed .* measured are 3 of ours in float32"
    with pytest.raises(ValueError, match=rf"few\.csv: {told}"):
        measured.factors(measured.read([few]), "float32", 1)
    with pytest.raises(ValueError, match="0 networks of litert in int8 on 2 threads"):
        measured.factors(measured.read([few]), "int8", 2, "litert")
    two = rows("two.csv", *(line(net, 5.0, machine=f"{1 + net[1]:.0f} cores") for net in NETS))
    with pytest.raises(ValueError, match="rows of several machines: 1 cores; 2 cores: give those of one"):
        measured.factors(measured.read([two]), "float32", 1)
    good = line(NETS[0], 1.0)
    for wrong, words in (
        ({**good, "latency_ms": "nan"}, "a latency of nan ms"),
        ({**good, "latency_ms": ""}, "could not convert"),
        ({**good, "model": "v7 1 at 224"}, "unknown network 'v7'"),
        ({**good, "model": "mine"}, "not enough values"),
        ({**good, "macs": 12345}, r"12,345 multiply-accumulates are not those of v1 0\.25"),
        ({**good, "threads": "many"}, "invalid literal"),
    ):
        with pytest.raises(ValueError, match=rf"wrong\.csv, line 2: no rows\.csv of .*{words}"):
            measured.read([rows("wrong.csv", wrong)])
    cut = rows("cut.csv", good, {**good, "threads": 2})
    text = cut.read_text().rstrip()
    cut.write_text(text[: text.rindex(",")])
    with pytest.raises(ValueError, match=r"cut\.csv, line 3: .* a line that is cut off"):
        measured.read([cut])
    with pytest.raises(ValueError, match="no rows of `mobilenets bench`"):
        measured.read([rows("none.csv")])
    other = few.with_name("other.csv")
    other.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"other\.csv, line 2: .* no column 'model'"):
        measured.read([other])
