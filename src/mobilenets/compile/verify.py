"""How far a compiled model's outputs are from the reference's, on frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.engine import Engine
from mobilenets.infer.resize import Frame

Outputs = Mapping[str, NDArray[np.float32]]
AGREE = 1e-4
"""Largest difference that float32 in another order explains, in parts of the largest value of an output."""
ROUGH = 0.1
"""The same for products in bfloat16, whose numbers have eight bits."""
SAME = 0.0
"""What integers may differ by."""


class Tried(Engine, Protocol):
    """An engine that can be told by which instruction set to run."""

    def use(self, isa: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Difference:
    """Of one output over all frames: its largest difference, and its largest value."""

    largest: float
    of: float

    @property
    def relative(self) -> float:
        return self.largest / self.of if self.of else self.largest


def compared(
    engine: Tried, isas: Sequence[str], reference: Engine, frames: Sequence[Frame], most: float = AGREE
) -> dict[str, Difference]:
    """The largest difference of each output by any of the instruction sets.

    Raises RuntimeError where one is more than `most`, in parts of the largest value, or no number.
    """
    found: dict[str, Difference] = {}
    for frame in frames:
        wanted = reference(frame)
        for isa in isas:
            engine.use(isa)
            add(found, engine(frame), wanted)
    hold(found, most, "the compiled model")
    return found


def add(found: dict[str, Difference], got: Outputs, wanted: Outputs) -> None:
    """Take the outputs of one more frame into account."""
    for name, value in wanted.items():
        largest, of = float(np.abs(got[name] - value).max()), float(np.abs(value).max())
        before = found.get(name, Difference(0.0, 0.0))
        # numpy's maximum, unlike Python's, lets no NaN pass.
        found[name] = Difference(float(np.maximum(before.largest, largest)), max(before.of, of))


def hold(found: Mapping[str, Difference], most: float, told: str) -> None:
    """Raises RuntimeError where one is more than `most`, in parts of the largest value, or no number."""
    for name, difference in found.items():
        if not difference.relative <= most:
            raise RuntimeError(
                f"{name} of {told} differs from the reference by {difference.largest:.2g} "
                f"of {difference.of:.2g}: nothing was written"
            )


def largest(found: Sequence[Mapping[str, Difference]]) -> dict[str, Difference]:
    """Of each output the largest difference by any of several engines."""
    names = dict.fromkeys(name for one in found for name in one)
    return {name: max((one[name] for one in found), key=lambda d: d.largest) for name in names}
