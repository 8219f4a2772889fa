"""Where maps lie in the arena: one block of memory, used again as soon as what lay there has been read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from mobilenets.compile.isa import Family
from mobilenets.compile.program import LARGE, steps
from mobilenets.compile.step import Gated, Inverted, Map, Separable, Stem, Step, maps_of, reads
from mobilenets.spec.net import Net

LINE = 64
"""Bytes of a cache line; every map begins at one."""
TIGHT = (LARGE, 4 * LARGE, 16 * LARGE, inf)
"""What is tried of `steps`' bounds where memory is scarce."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the arena, held from one step to another, both included."""

    name: str
    begin: int
    bytes: int
    first: int
    last: int


def planned(
    net: Net, family: Family, floats: Collection[str] = (), taught: Collection[str] = ()
) -> tuple[Map, tuple[Step, ...], tuple[Span, ...]]:
    """The image, the steps and the places of a folded network's maps; see `program.steps`.

    Where memory is scarce as many maps are whole as it takes least with: rows of one lie beside all else.
    """
    kept = [output.node for output in net.outputs]
    found = []
    for large in TIGHT if family.tight else (LARGE,):
        image, program = steps(net, family.layout, family.scratch_bytes, floats, large, taught)
        found.append((image, program, spans(image, program, kept)))
    return min(found, key=lambda one: maps_bytes(one[2]) + scratch_bytes(one[1]))


def spans(image: Map, program: Sequence[Step], kept: Sequence[str]) -> tuple[Span, ...]:
    """Each map's place for as long as it is needed; a map of `kept` stays to the end.

    The largest are placed first, each at the lowest address where nothing alive at the same time lies.
    """
    wanted: list[tuple[int, str, int, int]] = []
    read = {one.name: index for index, step in enumerate(program) for one in reads(step)}
    for index, made in enumerate(maps_of(image, program)):
        last = len(program) if made.name in kept else read.get(made.name, index - 1)
        wanted.append((bytes_of(made), made.name, index - 1, last))
    placed: list[Span] = []
    for size, name, first, last in sorted(wanted, key=lambda want: (-want[0], want[2])):
        alive = sorted(
            (span.begin, span.begin + span.bytes)
            for span in placed
            if span.first <= last and first <= span.last
        )
        begin = 0
        for taken, free in alive:
            if begin + size <= taken:
                break
            begin = max(begin, free)
        placed.append(Span(name, begin, size, first, last))
    return tuple(placed)


def maps_bytes(placed: Sequence[Span]) -> int:
    """What all of it takes."""
    return max(span.begin + span.bytes for span in placed)


def scratch_bytes(program: Sequence[Step]) -> int:
    """What each thread needs beside it, for rows between the parts of a step."""
    return max((sum(map(bytes_of, rows_of(step))) for step in program), default=0)


def rows_of(step: Step) -> tuple[Map, ...]:
    """The maps of which a step holds rows in a scratch, in their order there."""
    match step:
        case Separable() | Stem() | Gated():
            return (step.product.source,)
        case Inverted():
            return step.joint.product.source, step.wide.target, *rows_of(step.expand)
        case _:
            return ()


def begins(placed: Sequence[Span]) -> Mapping[str, int]:
    """The first byte of each map."""
    return {span.name: span.begin for span in placed}


def bytes_of(made: Map) -> int:
    past = LINE if made.bytes == 1 else 0  # of pixels narrower than a vector kernels touch what follows
    return -(-(made.bytes * made.values + past) // LINE) * LINE
