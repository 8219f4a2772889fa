"""What a person reads of the field: a table as text, Markdown and a page, and accuracy against cost drawn."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from mobilenets.report import figure
from mobilenets.report.markup import document, facts, table

LEFT = 2
"""Columns that are words."""
NOTHING = "–"
Found = Mapping[str, Any]


def head(found: Found, full: bool = True) -> tuple[str, ...]:
    """The columns; those of a latency only where one is known, weights only where there is room for all."""
    own: tuple[str, ...] = (
        *("network", "front", "top-1", "its int8", "MACs", "params", "float32 file", "int8 file"),
    )
    if _timed(found):
        threads = f"{found['threads']} thread{'s' * (found['threads'] > 1)}"
        own += (f"ms, {found['dtype']}, {threads}", "is")
    return (*own, *(("best weights",) if full else ()), "source")


def cells(row: Mapping[str, Any], found: Found, full: bool = True) -> list[str]:
    """A row for `head`."""
    own = [
        row["name"],
        "front" if row["front"] else "",
        _share(row["accuracy"]),
        _share(row["accuracy_int8"]),
        _millions(row["macs"]),
        _millions(row["params"]),
        *(f"{row[key] / 1e6:.2f} MB" for key in ("float32_bytes", "int8_bytes")),
    ]
    if _timed(found):
        own += [_latency(row), row["latency_is"] or NOTHING]
    if full:
        best = row["weights"]
        own.append("" if best is None else f"{_share(row['weights_accuracy'])} {best}")
    return [*own, str(_sources(found)[row["source"]])]


def numbered(found: Found) -> list[str]:
    """The sources of accuracies, by the numbers that rows have."""
    return [f"source {number}: {source}" for source, number in _sources(found).items()]


def text(found: Found, picture: str) -> str:
    """The table, its sources and what it rests on, as Markdown."""
    rows = [head(found), ["---"] * LEFT + ["---:"] * (len(head(found)) - LEFT)]
    rows += [cells(row, found) for row in found["rows"]]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    where = "" if found["says"] is None else f" Latencies: {found['says']}."
    return "\n".join(
        [
            "# The field",
            f"Published accuracy and counted cost, {found['date']}.{where}",
            "",
            f"![Accuracy against multiply-accumulates]({picture})",
            "",
            *lines,
            "",
            *(f"- {told}" for told in [*numbered(found), *found["notes"]]),
            "",
            *([f"Made by `{found['command']}`.", ""] if found["command"] else []),
        ]
    )


def page(found: Found) -> str:
    """The same as a page, its chart in the page's own colours, by day and by night."""
    best = [number for number, row in enumerate(found["rows"]) if row["front"]]
    rows = [[escape(cell) for cell in cells(row, found)] for row in found["rows"]]
    known = [("networks and sizes", str(len(rows))), ("on the front", str(len(best)))]
    known += [("latencies", str(found["device"]))] if _timed(found) else []
    told = "".join(f"<p>{escape(note)}</p>" for note in [*numbered(found), *found["notes"]])
    header = f'<header><h1>The field</h1><div class="facts">{facts(known)}</div></header>'
    repeat = f"<pre>{escape(found['command'])}</pre>" if found["command"] else ""
    return document(
        "The field: accuracy and cost",
        header,
        [
            ("Accuracy against cost", f'<div class="field">{figure.field(found["rows"])}</div>'),
            ("Each network", f'<div class="field">{table(head(found), rows, LEFT, best)}</div>'),
            ("Where figures are from", told),
            ("Repeat it", repeat),
        ],
    )


def picture(found: Found) -> bytes:
    """Accuracy against multiply-accumulates, as a PNG on white."""
    return figure.field_png(found["rows"])


def _timed(found: Found) -> bool:
    return any(row["latency_ms"] is not None for row in found["rows"])


def _sources(found: Found) -> dict[str, int]:
    return {
        source: number
        for number, source in enumerate(dict.fromkeys(row["source"] for row in found["rows"]), 1)
    }


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def _millions(count: int) -> str:
    return (
        f"{count / 1e6:,.0f} M"
        if count >= 1e8
        else f"{count / 1e6:.1f} M"
        if count >= 1e7
        else f"{count / 1e6:.2f} M"
    )


def _latency(row: Mapping[str, Any]) -> str:
    if row["latency_ms"] is None:
        return NOTHING
    if row["low_ms"] is None:
        return f"{row['latency_ms']:.3g}"
    return f"{row['latency_ms']:.3g} ({row['low_ms']:.3g} to {row['high_ms']:.3g})"
