"""Which classes are taken for which: the worst pairs, and the matrix of counts drawn for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

MOST_NAMED = 20
"""A matrix of more classes is drawn as a whole without names, and named for its most confused ones."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Pictures of the class `truth` that were called `said`: how many, of how many."""

    truth: int
    said: int
    pictures: int
    of: int


def worst_pairs(counts: NDArray[np.int64], most: int) -> list[Pair]:
    """From counts [true class, answered class] what happened most often; of equals, small classes first."""
    totals = counts.sum(axis=1)
    pairs = [
        Pair(int(i), int(j), int(counts[i, j]), int(totals[i])) for i, j in np.argwhere(counts) if i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.pictures, pair.of, pair.truth, pair.said))[:most]


def most_confused(counts: NDArray[np.int64], most: int) -> list[int]:
    """The classes that take part in most mistakes, in the order of the matrix."""
    wrong = counts - np.diag(np.diag(counts))
    part = wrong.sum(axis=0) + wrong.sum(axis=1)
    ranked = np.argsort(-part, kind="stable")[:most]
    return sorted(int(i) for i in ranked if part[i])


def drawn(counts: NDArray[np.int64], labels: Sequence[str]) -> str:
    """The matrix as HTML: a named table, or the whole without names and a named part."""
    if len(labels) <= MOST_NAMED:
        return _table(counts, labels, list(range(len(labels))))
    chosen = most_confused(counts, MOST_NAMED)
    whole = _overview(counts, labels)
    if not chosen:
        return whole
    return (
        f"{whole}<h3>The {len(chosen)} classes that take part in most mistakes</h3>"
        f"{_table(counts, labels, chosen)}"
    )


def _table(counts: NDArray[np.int64], labels: Sequence[str], chosen: Sequence[int]) -> str:
    others = [i for i in range(len(labels)) if i not in set(chosen)]
    head = "".join(f'<th class="up"><span>{escape(labels[j])}</span></th>' for j in chosen)
    if others:
        head += '<th class="up"><span><i>another class</i></span></th>'
    rows = []
    for i in chosen:
        total = int(counts[i].sum())
        cells = "".join(_cell(int(counts[i, j]), total, i == j) for j in chosen)
        if others:
            cells += _cell(int(counts[i, others].sum()), total, False)
        rows.append(f'<tr><th class="side">{escape(labels[i])}</th>{cells}</tr>')
    return (
        '<p class="soft">Rows: what it is; columns: what the model said; numbers: pictures.</p>'
        f'<div class="wide"><table class="matrix"><tr><td></td>{head}</tr>{"".join(rows)}</table></div>'
    )


def _cell(count: int, total: int, right: bool) -> str:
    if not count:
        return "<td></td>"
    share = round(100 * (0.15 + 0.85 * count / max(total, 1)))
    kind = ("hit" if right else "miss") + (" full" if share > 60 else "")
    return f'<td class="{kind}" style="--p:{share}%">{count}</td>'


def _overview(counts: NDArray[np.int64], labels: Sequence[str]) -> str:
    """Every class a row and a column of one unit; the name of a mistake shows when it is pointed at."""
    side = len(labels)
    totals = np.maximum(counts.sum(axis=1), 1)
    squares = []
    for i, j in np.argwhere(counts):
        share = counts[i, j] / totals[i]
        kind = "good" if i == j else "bad"
        told = f"{labels[i]} → {labels[j]}: {counts[i, j]} of {totals[i]}"
        squares.append(
            f'<rect x="{j}" y="{i}" width="1" height="1" fill="var(--{kind})" '
            f'fill-opacity="{0.25 + 0.75 * share:.2f}"><title>{escape(told)}</title></rect>'
        )
    return (
        f'<figure class="overview"><svg role="img" aria-label="Confusion matrix of {side} classes" '
        f'viewBox="-0.5 -0.5 {side + 1} {side + 1}"><rect x="-0.5" y="-0.5" width="{side + 1}" '
        f'height="{side + 1}" fill="none" stroke="var(--line)" stroke-width="0.3"/>{"".join(squares)}</svg>'
        f"<figcaption>All {side} classes in the order of their names: rows are what a picture is, columns "
        "what the model said; the diagonal is right. Point at a square for its names.</figcaption></figure>"
    )
