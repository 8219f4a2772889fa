"""What bytes of a map stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST = 255


@dataclass(frozen=True, slots=True)
class Scale:
    """What bytes stand for: value = step · (byte − zero)."""

    step: float
    zero: int

    def __post_init__(self) -> None:
        if not (0 < self.step < np.inf and 0 <= self.zero <= MOST):
            raise ValueError(f"a scale of step {self.step!r} and zero {self.zero!r}")

    def values(self, quantities: NDArray[Any]) -> NDArray[np.float32]:
        """The numbers that bytes stand for."""
        return np.asarray(np.float32(self.step) * (quantities.astype(np.float32) - np.float32(self.zero)))
