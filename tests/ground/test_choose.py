"""The variant for a budget: what fits really fits, and nothing better was left out."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.costs.choose import PUBLISHED, Budget, candidates, chosen
from mobilenets.costs.device import device
from mobilenets.spec.net import Net

FOUND = candidates(device("raspberry-pi-4"), threads=4)
LIMIT = st.none() | st.floats(0.5, 5000)


@given(latency=LIMIT, size=LIMIT, ram=LIMIT, energy=LIMIT)
def test_what_fits_is_within_every_limit_and_the_best_comes_first(
    latency: float | None, size: float | None, ram: float | None, energy: float | None
) -> None:
    budget = Budget(latency_ms=latency, size_kb=size, ram_kb=ram, energy_mj=energy)
    fitting, closest = chosen(FOUND, budget)
    for one in FOUND:
        within = all((one.takes(name) or 0) <= limit for name, limit in budget.limits.items())
        assert (one in fitting) == within
    scores = [one.accuracy for one in fitting]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert (closest is None) == bool(fitting)
    if closest is not None:
        assert closest.over(budget) == min(one.over(budget) for one in FOUND) > 1


def test_the_whole_zoo_is_answered_for_within_two_seconds() -> None:
    begun = time.process_time()
    found = candidates(device("raspberry-pi-3"), threads=4)
    chosen(found, Budget(latency_ms=50, size_kb=2000))
    assert time.process_time() - begun < 2
    assert len(found) == 2 * len(PUBLISHED)


def test_scores_of_ones_own_take_the_place_of_the_published() -> None:
    own = {("v1", 0.25, 96): 0.9, ("v1", 0.5, 96): 0.8}
    found = candidates(device("stm32h747"), scores=own, classes=2)
    assert {one.variant for one in found} == set(own)
    assert {one.dtype for one in found} == {"int8"}  # nobody's figures are in float32
    fitting, _ = chosen(found, Budget())
    assert [one.accuracy for one in fitting] == [0.9, 0.8]


def test_what_is_not_known_is_not_promised() -> None:
    with pytest.raises(ValueError, match="khadas-vim3: its power is not known"):
        chosen(candidates(device("khadas-vim3")), Budget(energy_mj=1))
    with pytest.raises(ValueError, match=r"stm32h747: nothing is known of STM32Cube\.AI 10 in float32"):
        candidates(device("stm32h747"), ("float32",))
    with pytest.raises(ValueError, match="--dtype float64: unknown; known: float32, int8"):
        candidates(device("raspberry-pi-4"), ("float64",))
    quiet = replace(device("raspberry-pi-4"), busy_w=None, sources={})
    assert all(one.energy_mj is None for one in candidates(quiet))


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["latency_ms", "size_kb", "ram_kb", "energy_mj"])
def test_a_limit_is_a_number_above_nought(name: str, limit: float) -> None:
    with pytest.raises(ValueError, match=f"^--{name.replace('_', '-')} .*: a limit is a number above 0$"):
        Budget(**{name: limit})


def test_memories_of_a_microcontroller_are_limits_unless_less_is_asked_for() -> None:
    where = device("stm32f746")
    assert Budget().on(where) == Budget(size_kb=1024, ram_kb=320)
    assert Budget(ram_kb=100, size_kb=5000).on(where) == Budget(size_kb=1024, ram_kb=100)
    assert Budget(latency_ms=5).on(device("raspberry-pi-4")) == Budget(latency_ms=5)


def test_what_was_measured_takes_the_place_of_a_forecast_and_says_so() -> None:
    where, key = device("raspberry-pi-4"), (("v1", 0.5, 128), "int8")
    found = candidates(where, threads=4, measured={key: 1.25}, runtime="ours")
    own = [one for one in found if one.measured]
    assert [(one.variant, one.dtype, one.latency_ms, one.runtime) for one in own] == [(*key, 1.25, "ours")]
    assert own[0].low_ms is own[0].high_ms is None
    assert own[0].energy_mj == pytest.approx(1.25 * 7.2)
    assert len(found) == len(FOUND)
    for one, other in zip(found, FOUND, strict=True):
        assert one.measured or one == other
    fitting, _ = chosen(found, Budget(latency_ms=1.3))
    assert own[0] in fitting


def test_a_board_that_nobody_published_figures_of_has_those_that_were_measured() -> None:
    where = device("stm32l4r5")
    with pytest.raises(ValueError, match="no figures were found"):
        candidates(where)
    found = candidates(where, measured={(("v1", 0.25, 128), "int8"): 400.0}, runtime="ours")
    assert [(one.variant, one.latency_ms) for one in found] == [(("v1", 0.25, 128), 400.0)]
    with pytest.raises(ValueError, match="stm32l4r5: none of these variants was measured, nor figures"):
        candidates(where, scores={("v1", 0.5, 96): 0.5}, measured={(("v1", 0.25, 128), "int8"): 400.0})


def test_why_a_variant_cannot_be_compiled_is_kept_with_it() -> None:
    def refused(net: Net) -> str | None:
        return "sums" if net.name == "v2" else None

    found = candidates(device("raspberry-pi-4"), refused=refused)
    assert {(one.variant[0], one.refused) for one in found} == {("v1", None), ("v2", "sums")}
    assert found[-1].as_json()["refused"] == "sums"


def test_what_comes_closest_breaks_a_limit_by_as_much_as_it_says() -> None:
    budget = Budget(latency_ms=1, size_kb=10_000)
    fitting, closest = chosen(FOUND, budget)
    assert not fitting
    assert closest is not None
    assert closest.shares(budget) == {
        "latency_ms": pytest.approx(closest.latency_ms),
        "size_kb": pytest.approx(closest.size_kb / 10_000),
    }
    assert closest.over(budget) == pytest.approx(closest.latency_ms)
