"""The arena: what is alive together never overlaps, and nothing is larger than it has to be."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenets.compile import isa, plan
from mobilenets.compile.kernel import split
from mobilenets.compile.pack import panels, taps, widths
from mobilenets.compile.program import LARGE_ROWS, steps
from mobilenets.compile.source import compiled
from mobilenets.compile.step import Inverted, Separable, Stem, Sum, made, maps_of, reads
from mobilenets.infer.fold import fold
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import Net, Node, Output
from mobilenets.spec.op import Add, Conv, Depthwise, Pointwise, Pool, Shape

from .conftest import filled


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(("v1", "v1", *zoo.NETS)),
    width=st.sampled_from((0.25, 0.5, 1.0)),
    side=st.integers(32, 260),
    scratch=st.integers(1, 1 << 19),
)
def test_tensors_alive_together_never_overlap(name: str, width: float, side: int, scratch: int) -> None:
    net = zoo.net(name, width, side, 10)
    net, _ = fold(net, filled(net).weights)
    image, program = steps(net, isa.X86.layout, scratch)
    kept = [output.node for output in net.outputs]
    placed = plan.spans(image, program, kept)
    assert len({span.name for span in placed}) == len(placed)
    for one, other in combinations(placed, 2):
        together = one.first <= other.last and other.first <= one.last
        apart = one.begin + one.bytes <= other.begin or other.begin + other.bytes <= one.begin
        assert apart or not together, (one, other)
    # What a step reads and makes is there while it runs, and an output to the end.
    known = {span.name: span for span in placed}
    for index, step in enumerate(program):
        for one in (*reads(step), made(step)):
            assert known[one.name].first <= index <= known[one.name].last
            assert one.bytes * one.values <= known[one.name].bytes
            assert known[one.name].begin % 64 == 0
        if isinstance(step, Separable | Stem | Inverted):
            rows = sum(one.bytes * one.values for one in plan.rows_of(step))
            assert 0 < rows <= plan.scratch_bytes(program)
    assert all(known[name].last == len(program) for name in kept)
    assert plan.maps_bytes(placed) <= sum(span.bytes for span in placed)


def test_the_arena_of_v1_is_little_more_than_its_two_largest_neighbours() -> None:
    net = classify(zoo.v1(1.0, 224), 1000)
    net, _ = fold(net, filled(net).weights)
    image, program = steps(net, isa.X86.layout, isa.X86.scratch_bytes)
    placed = plan.spans(image, program, [output.node for output in net.outputs])
    most = max(sum(one.bytes * one.values for one in (*reads(step), made(step))) for step in program)
    assert most <= plan.maps_bytes(placed) <= 1.1 * most


@pytest.mark.parametrize(("scratch", "blocks"), [(4 << 10, 13), (256 << 10, 4), (8 << 20, 0)])
def test_maps_too_large_for_a_cache_are_never_whole(scratch: int, blocks: int) -> None:
    net = classify(zoo.v2(1.0, 224), 1000)
    net, _ = fold(net, filled(net).weights)
    image, program = steps(net, isa.X86.layout, scratch)
    joined = [step for step in program if isinstance(step, Inverted)]
    assert len(joined) == blocks
    whole = {one.name for one in maps_of(image, program)}
    for step in joined:
        band, filtered = step.wide.target, step.joint.filter
        assert band.name not in whole
        assert band.shape.height == (step.rows - 1) * filtered.stride + filtered.kernel
        assert step.joint.product.target.shape.height % step.rows == 0
        assert step.rows == 1 or band.bytes * band.values <= LARGE_ROWS * scratch
    if blocks:
        at_once = plan.maps_bytes(plan.spans(image, program, ["logits"])) + plan.scratch_bytes(program)
        assert at_once < 2 << 20  # 5.9 MB where block2.expand lies there whole
    assert isinstance(program[0], Inverted if blocks else Stem)


@given(count=st.integers(1, 500), most=st.integers(1, 40))
def test_a_split_is_whole_even_and_as_coarse_as_it_can_be(count: int, most: int) -> None:
    parts = split(count, most)
    assert sum(parts) == count
    assert max(parts) <= most
    assert max(parts) - min(parts) <= 1
    assert len(parts) == -(-count // most)


def test_panels_hold_biases_first_and_then_a_weight_for_each_channel() -> None:
    weight = np.arange(1, 1 + 20 * 3, dtype=np.float32).reshape(20, 3)
    bias = -np.arange(1, 21, dtype=np.float32)
    made = panels(weight, bias, room=20, panel=8)
    assert widths(20, 8) == [8, 8, 4]
    first, last = made[: 8 * 4].reshape(4, 8), made[-4 * 4 :].reshape(4, 4)
    assert np.array_equal(first[0], bias[:8])
    assert np.array_equal(first[1:], weight[:8].T)
    assert np.array_equal(last[1:], weight[16:].T)


def test_taps_lie_channel_by_channel_with_zeros_to_whole_vectors() -> None:
    weight = np.arange(18, dtype=np.float32).reshape(2, 1, 3, 3)
    made = taps(weight, np.array([7, 8], np.float32), room=4).reshape(10, 4)
    assert np.array_equal(made[:, :2], np.vstack([[7, 8], weight.reshape(2, 9).T]))
    assert not made[:, 2:].any()


@pytest.mark.parametrize(("side", "filters"), [(128, 0), (224, 2)])
def test_depthwise_layers_are_joined_with_what_follows_them_but_on_small_maps_of_odd_height(
    side: int, filters: int
) -> None:
    net = zoo.v1(0.25, side)
    net, _ = fold(net, filled(net).weights)
    _, program = steps(net, isa.X86.layout, isa.X86.scratch_bytes)
    kinds = [type(step).__name__ for step in program]
    assert kinds.count("Filter") == filters  # two layers of 7 × 7
    assert kinds.count("Separable") == 13 - filters
    assert isinstance(program[0], Stem)


@pytest.mark.parametrize("side", [128, 160, 192, 224])
def test_four_threads_have_work_at_every_step_and_two_as_much(side: int) -> None:
    net, _ = fold(zoo.v1(1.0, side), filled(zoo.v1(1.0, side)).weights)
    for step in steps(net, isa.X86.layout, isa.X86.scratch_bytes)[1]:
        if isinstance(step, Separable | Stem) and step.product.target.shape.height > 2:
            blocks, rest = divmod(step.product.target.shape.height, step.product.rows)
            assert blocks >= 4
            assert (blocks % 2, rest) == (0, 0)


@pytest.mark.parametrize(
    ("op", "word"),
    [
        (Conv(out=4, kernel=9), "kernel of 9"),
        (Depthwise(), "a depthwise layer on the image"),
        (Pool(), "a mean on the image"),
    ],
    ids=["kernel", "depthwise", "mean"],
)
def test_what_no_kernel_is_written_for_is_refused_by_its_name(op: Conv | Depthwise | Pool, word: str) -> None:
    nodes = (Node("strange", op, ("image",)), Node("pool", Pool(), ("strange",)))
    net = Net("odd", Shape(32, 32, 3), nodes, (Output("features", "pool", "vector"),))
    with pytest.raises(ValueError, match=f"strange.*{word}"):
        steps(net, isa.X86.layout, isa.X86.scratch_bytes)


def test_an_activation_that_no_kernel_is_written_for_is_refused_by_its_name() -> None:
    nodes = (Node("bent", Conv(out=4, activation="swish"), ("image",)),)
    net = Net("odd", Shape(8, 8, 3), nodes, (Output("map", "bent", "vector"),))
    with pytest.raises(ValueError, match=r"^bent: the activation swish cannot be compiled yet$"):
        steps(net, isa.X86.layout, isa.X86.scratch_bytes)


def test_a_sum_joins_the_product_before_it_where_nothing_else_reads_that() -> None:
    net, _ = fold(zoo.v2(0.35, 96), filled(zoo.v2(0.35, 96)).weights)
    _, program = steps(net, isa.X86.layout, isa.X86.scratch_bytes)
    sums = [node.name for node in net.nodes if isinstance(node.op, Add)]
    assert len(sums) == 10
    assert [made(step).name for step in program if len(reads(step)) == 2] == sums
    assert not any(isinstance(step, Sum) for step in program)


def test_a_map_that_is_an_output_keeps_its_place_and_tells_how_far_its_rows_are_apart() -> None:
    nodes = (Node("mixed", Pointwise(out=3), ("image",)), Node("after", Conv(out=2), ("mixed",)))
    net = Net("odd", Shape(8, 6, 3), nodes, (Output("boxes", "mixed", "vector"),))
    source = compiled(filled(net), "odd", isa.X86)
    assert source.outputs == {"boxes": (8, 6, 3)}
    assert "boxes [8×6×3]" in source.header
    pixel = isa.X86.layout.apart(3)
    row = (6 + 2) * pixel  # a zero on either side
    assert f'{{"boxes", "float32", 3, {{8, 6, 3, 1}}, 1.0f, 0, {{{row}, {pixel}, 1, 1}}}}' in source.code
