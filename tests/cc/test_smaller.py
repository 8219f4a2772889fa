"""Of all smaller networks the one that fits a microcontroller and keeps most."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenets.compile.part import Part
from mobilenets.compile.smaller import CODE_BYTES, needs, smaller
from mobilenets.compile.source import compiled
from mobilenets.compile.target import TARGETS, family
from mobilenets.costs.count import cost
from mobilenets.infer.artefact import Artefact
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.preprocess import Preprocess

from .cases import ZOO
from .conftest import filled, in_bytes


@pytest.mark.parametrize("target", ["cortex-m7", "cortex-m4"])
@pytest.mark.parametrize("number", range(len(ZOO)))
def test_what_a_network_needs_is_told_from_its_shapes_as_the_passes_find_it(number: int, target: str) -> None:
    model = filled(ZOO[number])
    for one in (model, in_bytes(model)):
        chosen = family(TARGETS[target], one.dtype)
        source = compiled(one, "tested", chosen)
        found = needs(one.net, one.preprocess, chosen, in_bytes=bool(one.scales))
        assert (found.weight_bytes, found.ram_bytes) == (len(source.weights), source.arena_bytes)


def test_of_the_changes_that_fit_a_part_the_one_that_keeps_most_is_offered() -> None:
    def offered(model: Artefact, flash_kb: int, ram_kb: int) -> str:
        return smaller(model, TARGETS["cortex-m7"], Part("a part", flash_kb << 10, ram_kb << 10))

    model = filled(classify(zoo.v1(0.5, 160), 10))
    assert offered(model, 8192, 8192) == "it fits in int8"
    assert offered(filled(classify(zoo.v1(0.25, 160), 10)), 2048, 900) == "it fits in int8"
    assert offered(in_bytes(model), 2048, 300) == "it fits at 128 px"
    assert offered(in_bytes(model), 600, 8192) == "it fits at width 0.25"
    assert offered(model, 600, 80) == "it fits in int8, at 96 px, at width 0.25"
    assert offered(model, 100, 8192) == "nothing smaller of it does"


@settings(max_examples=8, deadline=None)
@given(flash_kb=st.integers(200, 6000), ram_kb=st.integers(60, 2500))
def test_what_is_offered_fits_and_nothing_that_keeps_more_would(flash_kb: int, ram_kb: int) -> None:
    """Every smaller width and side tried anew, from a network's own passes."""
    target, part = TARGETS["cortex-m7"], Part("a part", flash_kb << 10, ram_kb << 10)
    fitting = {"nothing smaller of it does": 0}
    for width, side, dtype in product((0.5, 0.25), (128, 96), ("float32", "int8")):
        net = classify(zoo.v1(width, side), 10)
        pre = Preprocess(height=side, width=side)
        found = needs(net, pre, family(target, dtype), in_bytes=dtype == "int8")
        if found.weight_bytes + CODE_BYTES <= part.flash_bytes and found.ram_bytes <= part.ram_bytes:
            words = ["in int8"] * (dtype == "int8") + [f"at {side} px"] * (side < 128)
            fitting[f"it fits {', '.join(words + ['at width 0.25'] * (width < 0.5))}"] = cost(net).macs
    fitting.pop("it fits ", None)  # as it is
    told = smaller(filled(classify(zoo.v1(0.5, 128), 10)), target, part)
    assert fitting[told] == max(fitting.values())
