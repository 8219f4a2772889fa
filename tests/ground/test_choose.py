"""The variant for a budget: what fits really fits, and nothing better was left out."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.costs.choose import PUBLISHED, Budget, candidates, chosen
from mobilenets.costs.device import device

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
    quiet = replace(device("raspberry-pi-4"), busy_w=None, sources={})
    assert all(one.forecast.energy_mj is None for one in candidates(quiet))
