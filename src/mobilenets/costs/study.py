"""What a published study of this retraining printed: MobileNet V1 on Caltech-101, on boards and a laptop.

The study itself was not at hand. These are the figures of its table that others quote; the rest of the table
is not known, and nothing stands here for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mobilenets.costs.device import DEVICES, STUDY
from mobilenets.spec.option import flag

QUOTED = f"{STUDY}, as it is quoted"
RESOLUTION = 224
"""Pixels a side. The study's own were not found: this is V1's published size."""
WIDTHS = (0.25, 0.5, 0.75, 1.0)
NAMED = ("m8s-pro", "raspberry-pi-3", "macbook-i5")
"""Its devices, as far as they are told, by their names in `costs.device`."""
Span = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """A row of the study's table, or all of it where `device` is empty; None is what was not found.

    Spans run from the least to the most, equal where one figure is known.
    """

    device: str = ""
    width: float | None = None
    watts: float | None = None
    seconds: Span | None = None
    accuracy: Span | None = None
    source: str = QUOTED

    @property
    def joules(self) -> float | None:
        """Watts times seconds, where one of each is known."""
        if self.watts is None or self.seconds is None or self.seconds[0] != self.seconds[1]:
            return None
        return self.watts * self.seconds[0]


PRINTED: tuple[Printed, ...] = (
    Printed(
        device="m8s-pro",
        watts=DEVICES["m8s-pro"].busy_w,
        seconds=(3123.0, 3123.0),
        source=f"{QUOTED}: its best board, 2.1 W for 3123 s; that it is this one is told by the watts",
    ),
    Printed(seconds=(387.0, 5611.0), accuracy=(0.883, 0.933)),
)
"""Which width the 3123 s were taken with is not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What is retrained, and for which devices it is forecast."""

    weights: str | None = flag(None, "A folder of weight files, one of each width; known ones unless given.")
    widths: str = flag(",".join(f"{width:g}" for width in WIDTHS), "Width multipliers.")
    resolution: int | None = flag(
        None, "Input side in pixels; that of the weights nearest to 224 unless given."
    )
    watts: float | None = flag(
        None, "What this machine draws meanwhile; without it nothing is said of energy."
    )
    devices: str = flag(",".join(NAMED), "Names of `mobilenets devices` to forecast for.")
    seed: int = flag(0, "Seed of the split.")
    threads: int | None = flag(
        None, "Threads and worker processes; as many as there are cores unless given.", 1
    )
    resume: bool = flag(False, "Take the widths that an earlier run finished here as they are.")
