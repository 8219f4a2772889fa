"""What a microcontroller has, and whether a network fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobilenets.compile.plan import LINE
from mobilenets.compile.step import padded
from mobilenets.spec.preprocess import Preprocess

STATE_BYTES = 116
"""Of `struct state` where pointers have 32 bits."""
LEVELS_BYTES = 4 * 3 * 256


@dataclass(frozen=True, slots=True)
class Part:
    """A microcontroller: its memories, of RAM the largest stretch."""

    name: str
    flash_bytes: int
    ram_bytes: int


def arena_bytes(pre: Preprocess, maps_bytes: int, *, integers: bool) -> int:
    """What `arena_size` gives on a processor of 32 bits, for frames of the input's size and one thread.

    `maps_bytes` are those of the maps and of the scratch.
    """
    lines = min(pre.height, 11)
    pieces = (
        STATE_BYTES + (0 if integers else LEVELS_BYTES),
        *(4 * pre.width, 4 * 7 * pre.width, 4 * pre.height, 4 * 7 * pre.height, 4 * lines, 4 * 3 * pre.width),
        3 * pre.width * lines,
        maps_bytes,
    )
    return sum(padded(piece, LINE) for piece in pieces)


def fit(part: Part, flash_bytes: int, ram_bytes: int, change: Callable[[], str], *, code: bool) -> None:
    """Raises ValueError with the numbers where a network is larger, and with the `change` that mends it.

    `code` is whether its code is counted.
    """
    flash = "weights and code of this network take" if code else "the weights of this network take"
    for taken, needed, there, memory in (
        (flash, flash_bytes, part.flash_bytes, "flash"),
        ("the arena of this network takes", ram_bytes, part.ram_bytes, "RAM"),
    ):
        if needed > there:
            raise ValueError(f"{taken} {needed} bytes of {memory}, the {part.name} has {there}; {change()}")
