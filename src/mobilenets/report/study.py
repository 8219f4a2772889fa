"""What a person reads of a study: its table as text and as Markdown, and a picture of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilenets.report import figure

HEAD = (
    *("device", "processor", "RAM", "", "width", "pixels", "watts", "seconds", "joules", "accuracy"),
    *("published: watts", "seconds", "joules", "accuracy"),
)
LEFT = 4
"""Columns that are texts."""


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row for `HEAD`; empty is what is not known."""
    return [
        row["device"],
        row["processor"],
        row["memory"] or "",
        row["how"],
        _plain(row["width"]),
        _plain(row["resolution"]),
        _plain(row["watts"]),
        _reaching(row["seconds"], row["seconds_low"], row["seconds_high"]),
        _reaching(row["joules"], row["joules_low"], row["joules_high"]),
        "" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f} %",
        _plain(row["published_watts"]),
        _span(row["published_seconds_low"], row["published_seconds_high"]),
        _span(row["published_joules"], row["published_joules"]),
        _span(row["published_accuracy_low"], row["published_accuracy_high"], 100, " %"),
    ]


def page(found: Mapping[str, Any]) -> str:
    """The table and what it rests on, as Markdown."""
    rule = ["---"] * LEFT + ["---:"] * (len(HEAD) - LEFT)
    rows = [cells(row) for row in found["rows"]]
    lines = [
        "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in (HEAD, rule, *rows)
    ]
    sources = dict.fromkeys(f"{row['how']}: {row['source']}" for row in found["rows"] if row["source"])
    return "\n".join(
        [
            "# Retraining, measured, forecast and published",
            f"MobileNet V1 on {found['folder']}, by {found['machine']}, {found['date']}.",
            "",
            *lines,
            "",
            "Empty is what is not known. Forecasts are estimates, from their least to their most.",
            "",
            *(f"- {text}" for text in [*found["notes"], *sources, *found["assumed"]]),
            "",
            "![Seconds and accuracy](study.png)",
            "",
            *([f"Made by `{found['command']}`.", ""] if found["command"] else []),
        ]
    )


def picture(found: Mapping[str, Any]) -> bytes:
    """Seconds and accuracy by width, ours and the study's, as a PNG."""
    return figure.retrainings_png(found["rows"], f"MobileNet V1 retrained on {Path(found['folder']).name}")


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _reaching(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return ""
    if low is None or high is None:
        return _number(value)
    return f"{_number(value)} ({_number(low)} to {_number(high)})"


def _span(low: float | None, high: float | None, times: float = 1, unit: str = "") -> str:
    if low is None or high is None:
        return ""
    same = low == high
    return f"{times * low:g}{unit}" if same else f"{times * low:g} to {times * high:g}{unit}"
