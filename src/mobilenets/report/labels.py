"""Where labels of points go in a chart, so that none lies on another, on a point or beyond the edge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

AWAY = (3.0, 7.0, 13.0, 20.0, 28.0, 38.0)
"""How far from its point a label is tried, the nearest first."""
GAP = 4.0
"""Between two labels, to the left and to the right."""
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


class Box(NamedTuple):
    """Edges of a rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: Box) -> bool:
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )


def around(x: float, y: float, reach: float) -> Box:
    """The square about a point."""
    return Box(x - reach, y - reach, x + reach, y + reach)


def placed(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    reaches: Sequence[float],
    edge: Box,
    taken: Iterable[Box],
) -> list[Box | None]:
    """For each point the rectangle of its label, of these widths and heights; None where there is no room.

    Earlier points choose first, each the nearest free place no further away than its reach. `taken` is what
    labels keep off; from one another they keep a gap.
    """
    full = list(taken)
    found: list[Box | None] = []
    for (x, y), size, reach in zip(points, sizes, reaches, strict=True):
        place = next((box for box in _tried(x, y, *size, reach) if _free(box, edge, full)), None)
        found.append(place)
        if place is not None:
            full.append(Box(place.left - GAP, place.bottom - GAP / 4, place.right + GAP, place.top + GAP / 4))
    return found


def _tried(x: float, y: float, wide: float, tall: float, reach: float) -> Iterable[Box]:
    for away in (one for one in AWAY if one <= reach):
        for across, up in SIDES:
            slant = 0.75 if across and up else 1.0
            left = x + across * slant * away - (wide if across < 0 else wide / 2 if not across else 0)
            bottom = y + up * slant * away - (tall if up < 0 else tall / 2 if not up else 0)
            yield Box(left, bottom, left + wide, bottom + tall)


def _free(box: Box, edge: Box, full: Iterable[Box]) -> bool:
    return box.within(edge) and not any(box.meets(other) for other in full)
