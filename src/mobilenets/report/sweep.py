"""A sweep's part of the report: what each variant costs, what it scores, which ones nothing beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from mobilenets.report import figure
from mobilenets.report.markup import megabytes, millions, number, percent, plural, table
from mobilenets.train.run import Run, Variant


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of (cost, score) no other beats: nothing cheaper scores as much. Cheapest first."""
    best, kept = -math.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            kept.append(index)
    return kept


COSTS: tuple[tuple[str, Callable[[Variant], float]], ...] = (
    ("million multiply-accumulates", lambda v: v.macs / 1e6),
    ("milliseconds a picture", lambda v: v.latency_ms),
    ("million parameters", lambda v: v.params / 1e6),
    ("megabytes", lambda v: v.size_bytes / 1e6),
)


def section(run: Run) -> str:
    """Accuracy against each cost, and a table of all variants; nothing where there was no sweep."""
    if not run.sweep:
        return ""
    ordered = sorted(run.sweep, key=lambda v: (v.macs, v.latency_ms))
    scored = [v for v in ordered if v.test_accuracy is not None]
    widths = sorted({v.width for v in scored})
    charts = []
    for along, of in COSTS if scored else ():
        lines = {
            f"{width:g}": [
                (of(v), 100 * number(v.test_accuracy), str(v.resolution))
                for v in sorted(scored, key=lambda v: v.resolution)
                if v.width == width
            ]
            for width in widths
        }
        points = [(of(v), 100 * number(v.test_accuracy)) for v in scored]
        charts.append(f"<div>{figure.scatter(lines, along, [points[i] for i in front(points)])}</div>")
    kept = front([(v.latency_ms, number(v.test_accuracy)) for v in ordered])
    rows = [
        [
            f"{v.width:g}",
            str(v.resolution),
            percent(v.test_accuracy, 2),
            percent(v.val_accuracy, 2),
            f"{v.latency_ms:.2f}",
            millions(v.macs),
            millions(v.params),
            megabytes(v.size_bytes),
            "this page" if v.model == run.model else "",
            escape(v.model),
        ]
        for v in ordered
    ]
    head = ["width", "pixels", "test", "validation", "ms a picture", "MACs", "params", "size", "", "model"]
    validated = sum(run.counts.get("val", ()))
    chosen = (
        f"This page shows the one that is best on the {validated} validation {plural(validated, 'picture')}: "
        "choosing by the test part would flatter it. "
        if validated
        else ""
    )
    engines = ", ".join(sorted({v.latency_engine for v in ordered}))
    return (
        f"<p>{len(ordered)} {plural(len(ordered), 'variant')}, each measured; the numbers beside the points "
        "are pixels a side, the broad band joins those that nothing cheaper equals. In the table those that "
        f"nothing faster equals on the test part are shaded. {chosen}Times by: {escape(engines)}.</p>"
        f'<div class="charts">{"".join(charts)}</div>{table(head, rows, 0, kept)}'
    )
