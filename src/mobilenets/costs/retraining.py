"""How long a retraining takes on a device that is not here: each part of one that ran carried over.

The body is forecast as any network is. Reading pictures, fitting the head and the rest are scaled by stated
rates, which are known of kinds of core only, so that their share has a wide interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mobilenets.costs.count import Cost
from mobilenets.costs.device import PEAKS, Device
from mobilenets.costs.forecast import forecast

MIPS: Mapping[str, float] = {"a53": 0.70, "a72": 1.02, "a76": 1.33, "skylake": 1.24}
"""7-zip's rating in MIPS a MHz, one thread of one core: Raspberry Pi 3B+ and Rock64, Raspberry Pi 4, ROCK 5B,
Pentium G4600 (ThomasKaiser/sbc-bench, Sorted-Results.md)."""
REACHED = 0.6
"""Share of the most a core can do which is taken to be reached by products of matrices."""
WIDE = 2.0
"""By how many times what is scaled may be off, either way: an assumption, wide enough for work that only one
core does and for processors that do half or twice as much in a cycle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A retraining as it was measured, its features alone.

    `decode_s` are seconds of one core to read and prepare all `pictures`, `fit_s` seconds of the head,
    `rest_s` those of one core for what is left: files listed, the body built, pictures judged, a page made.
    `mips` is a core's rating, `gmacs` what products of float32 matrices reach on all cores, in billions of
    multiply-accumulates a second.
    """

    pictures: int
    decode_s: float
    fit_s: float
    rest_s: float
    mips: float
    gmacs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Retraining:
    """Seconds of a retraining on a device, from `low` to `high`, and by part; `watts` where known."""

    device: str
    seconds: float
    low: float
    high: float
    body_s: float
    decode_s: float
    fit_s: float
    rest_s: float
    watts: float | None
    notes: tuple[str, ...]

    def joules(self, seconds: float) -> float | None:
        """What it takes in so many seconds."""
        return None if self.watts is None else self.watts * seconds


def retraining(counted: Cost, device: Device, parts: Parts) -> Retraining:
    """The same retraining on a device, all its cores at work; `counted` is the body.

    Raises ValueError where nothing is known of the device's cores in float32.
    """
    one = forecast(counted, device, "float32", device.cores)
    if device.kind not in MIPS:
        raise ValueError(f"{device.name}: how fast its cores read pictures is not known; it cannot retrain")
    slower = parts.mips / (MIPS[device.kind] * 1e3 * device.ghz)
    reached = REACHED * PEAKS[device.kind]["float32"] * device.ghz * device.cores
    body = parts.pictures * one.ms / 1e3
    decode = parts.decode_s * slower / device.cores
    fit = parts.fit_s * parts.gmacs / reached
    rest = parts.rest_s * slower
    scaled = decode + fit + rest
    return Retraining(
        device=device.name,
        seconds=body + scaled,
        low=parts.pictures * one.low / 1e3 + scaled / WIDE,
        high=parts.pictures * one.high / 1e3 + scaled * WIDE,
        body_s=body,
        decode_s=decode,
        fit_s=fit,
        rest_s=rest,
        watts=device.busy_w,
        notes=(
            f"{device.name}: the body's share is a forecast of {one.runtime} in float32 on {device.cores} "
            f"cores, from {one.rests_on}",
            f"{device.name}: a core reads pictures, builds the body and judges {slower:.2g} times as slowly "
            f"as here; heads are fitted at {reached:.3g} billion multiply-accumulates a second, here at "
            f"{parts.gmacs:.3g}; all of this may be off by a factor of {WIDE:g}",
            *(f"{device.name}: {note}" for note in one.notes if not note.startswith("energy")),
            *(
                [f"{device.name}: power {device.busy_w:g} W: {device.sources['power']}"]
                if device.busy_w is not None
                else []
            ),
        ),
    )
