"""Devices by name, and forecasts against figures that no fit has seen."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.costs.count import cost
from mobilenets.costs.device import ALIASES, DEVICES, TABLE, device
from mobilenets.costs.forecast import Forecast, forecast, known_factors, power_w
from mobilenets.spec import zoo

PUBLISHED = Path(__file__).parents[2] / "results" / "published.csv"
LEFT_OUT = ("raspberry-pi-3", "raspberry-pi-4", "a53-2ghz")


def figures() -> Iterator[tuple[dict[str, str], Forecast]]:
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            net = zoo.net(row["net"], float(row["width"]), int(row["resolution"]), int(row["classes"]))
            where = device(row["device"])
            yield row, forecast(cost(net), where, row["dtype"], int(row["threads"]))


def test_figures_that_no_fit_has_seen_are_forecast_within_a_fifth_most_of_them() -> None:
    rests = " ".join(factors.rests_on for factors in known_factors())
    assert not [name for name in LEFT_OUT if name in rests.replace(",", "").split()]
    off, within = [], []
    for row, found in figures():
        if row["device"] not in LEFT_OUT:
            continue
        ms = float(row["ms"])
        off.append(abs(found.ms / ms - 1))
        within.append(found.low <= ms <= found.high)
    assert len(off) == 16
    assert median(off) <= 0.20
    assert max(off) <= 0.45
    assert sum(within) / len(within) >= 0.8


def test_a_forecast_names_the_runtime_of_the_figures_it_rests_on() -> None:
    for row, found in figures():
        assert found.runtime == row["runtime"]
        assert "published figures" in found.rests_on


def test_layers_add_up_and_each_says_what_most_of_it_is() -> None:
    found = forecast(cost(zoo.net("v1")), device("raspberry-pi-4"), threads=4)
    assert found.ms == pytest.approx(sum(layer.ms for layer in found.layers))
    assert found.low < found.ms < found.high
    assert {layer.bound for layer in found.layers} <= {"compute", "memory", "overhead"}


def test_a_sum_of_maps_reads_all_of_them() -> None:
    net = zoo.net("v2")
    row = next(row for row in cost(net).rows if row.kind == "add")
    node = next(node for node in net.nodes if node.name == row.name)
    where, factors = device("raspberry-pi-4"), known_factors()[0]
    assert where.memory is not None
    assert len(node.inputs) == 2
    found = next(one for one in forecast(cost(net), where).layers if one.name == row.name)
    values = row.input.elements
    moved = 4 * values * (2 * factors.read / where.memory.read + factors.write / where.memory.fill) * 1e-6
    worked = 2 * values / factors.depthwise["a72"]["float32"] / where.ghz * 1e-6
    waited = factors.overhead / where.ghz * 1e-6
    hidden = (1 - factors.overlap) * min(moved, worked)
    assert found.ms == pytest.approx(max(moved, worked) + hidden + waited)


@pytest.mark.parametrize("name", [one.name for one in TABLE if one.busy_w is not None])
def test_power_grows_with_the_cores_that_work_as_far_as_idle_is_known(name: str) -> None:
    where, counted = device(name), cost(zoo.net("v1", 0.25, 96))
    power = [power_w(where, threads) for threads in range(1, where.cores + 1)]
    assert power[-1] == where.busy_w
    if where.idle_w is None:
        assert set(power) == {where.busy_w}
    else:
        steps = {round(b - a, 9) for a, b in zip([where.idle_w, *power], power, strict=False)}  # type: ignore[operator,list-item]
        assert steps == {round((where.busy_w - where.idle_w) / where.cores, 9)}  # type: ignore[operator]
    if where.kind not in {kind for factors in known_factors() for kind in factors.product}:
        return
    for threads, watts in enumerate(power, 1):
        found = forecast(counted, where, "int8", threads)
        assert watts is not None
        assert found.energy_mj == pytest.approx(found.ms * watts)
        told = next(note for note in found.notes if note.startswith("energy"))
        assert f"{watts:.3g} W" in told
        assert where.sources["power"] in told
        assert ("an upper bound" in told) == (where.idle_w is None and where.cores > 1)
        assert ("W idle" in told) == (where.idle_w is not None)


@given(
    width=st.sampled_from((0.25, 0.5, 0.75)),
    side=st.sampled_from((96, 128, 160, 192)),
    name=st.sampled_from([one.name for one in TABLE if one.kind in ("a53", "a72")]),
    dtype=st.sampled_from(("float32", "int8")),
)
def test_more_work_takes_longer_and_more_threads_less(width: float, side: int, name: str, dtype: str) -> None:
    where = device(name)
    one = forecast(cost(zoo.net("v1", width, side)), where, dtype)
    assert forecast(cost(zoo.net("v1", width + 0.25, side)), where, dtype).ms > one.ms
    assert forecast(cost(zoo.net("v1", width, side + 32)), where, dtype).ms > one.ms
    assert forecast(cost(zoo.net("v1", width, side)), where, dtype, where.cores).ms < one.ms
    assert forecast(cost(zoo.net("v1", width, side)), replace(where, ghz=2 * where.ghz), dtype).ms < one.ms


def test_what_is_not_known_of_a_device_is_said() -> None:
    found = forecast(cost(zoo.net("v1")), device("xiaomi-mi-a1"), threads=8)
    assert any("its memory is taken for that of other boards" in note for note in found.notes)
    assert found.energy_mj is None
    with pytest.raises(ValueError, match=r"stm32l4r5: no figures were found to forecast from"):
        forecast(cost(zoo.net("v1")), device("stm32l4r5"))
    with pytest.raises(ValueError, match=r"stm32h747: nothing is known of STM32Cube\.AI 10 in float32"):
        forecast(cost(zoo.net("v1")), device("stm32h747"))
    with pytest.raises(ValueError, match="raspberry-pi-4 has 4 cores, not 5"):
        forecast(cost(zoo.net("v1")), device("raspberry-pi-4"), threads=5)


def test_devices_go_by_name_alias_and_beginning() -> None:
    assert device("Raspberry Pi 4").name == device("raspberry_pi_4b").name == "raspberry-pi-4"
    assert device("xiaomi").name == device("snapdragon-625").name == "xiaomi-mi-a1"
    assert set(ALIASES.values()) <= set(DEVICES)
    assert not set(ALIASES) & set(DEVICES)
    for wrong, words in {
        "raspberry-pi-": "may be raspberry-pi-3, raspberry-pi-4",
        "rasberry-pi-4": "did you mean raspberry-pi-4",
        "pi": "did you mean raspberry-pi-3, .* or orange-pi-5",
        "pi 4": r"did you mean raspberry-pi-4\?",
        "phone": r"did you mean a53-2ghz\?",
        "cortex": "see `mobilenets devices`",
        "abacus": "see `mobilenets devices`",
        "": "see `mobilenets devices`",
    }.items():
        with pytest.raises(ValueError, match=words):
            device(wrong)


def test_every_figure_of_a_device_has_its_source() -> None:
    for one in TABLE:
        if one.memory is not None:
            assert "memory" in one.sources, one.name
            assert one.memory.fill > one.memory.copy > 0, one.name
        if one.busy_w is not None or one.idle_w is not None:
            assert "power" in one.sources, one.name
        if one.ram_kb is not None:
            assert "size" in one.sources, one.name
        assert "clock" in one.sources or one.name == "a53-2ghz", one.name
