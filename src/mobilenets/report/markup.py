"""Numbers as a person says them, and the pieces of HTML a report is made of."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
THUMBNAIL = 240
MOST_SHOWN = 12
GAP = "\u00a0"
"""Between a number and its unit: a space at which no line breaks."""


def document(title: str, header: str, found: Iterable[tuple[str, str]]) -> str:
    """A whole page that fetches nothing: a header, and a section for each title whose HTML is not empty."""
    sections = [(f"part{index}", name, text) for index, (name, text) in enumerate(found) if text]
    links = " ".join(f'<a href="#{part}">{escape(name)}</a>' for part, name, _ in sections)
    body = "".join(f'<section id="{p}"><h2>{escape(name)}</h2>{text}</section>' for p, name, text in sections)
    style = files("mobilenets.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>{header}<nav>{links}</nav>{body}</main></body></html>\n"
    )


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction as per cent; a dash where nothing was measured."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.{digits}f}{GAP}%"


def number(share: float | None) -> float:
    """A fraction for a chart: not a number where nothing was measured."""
    return math.nan if share is None else share


def plural(count: int, word: str) -> str:
    """A word for one of them or for many."""
    return word if count == 1 else f"{word}s"


def megabytes(count: float) -> str:
    """Bytes in millions, kilobytes below one."""
    return f"{count / 1e6:.2f}{GAP}MB" if count >= 1e6 else f"{count / 1e3:.1f}{GAP}KB"


def millions(count: float) -> str:
    """A count in millions, with three digits that mean something."""
    value = count / 1e6
    digits = 0 if value >= 100 else 1 if value >= 10 else 2
    return f"{value:.{digits}f}{GAP}M"


def duration(seconds: float) -> str:
    """Seconds as a person says them; a dash where nothing was measured."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.1f}{GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{GAP}min {rest}{GAP}s"
    return f"{minutes // 60}{GAP}h {minutes % 60}{GAP}min"


def kilojoules(joules: float) -> str:
    """Energy as a person says it."""
    return f"{joules:.0f}{GAP}J" if joules < 1000 else f"{joules / 1000:.1f}{GAP}kJ"


def thumbnail(frame: NDArray[np.uint8]) -> str:
    """A picture as a `data:` address, its longer side at most THUMBNAIL pixels."""
    from PIL import Image

    small = Image.fromarray(frame)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def readable(value: object) -> str:
    """A setting or a fact in a line of words."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case dict():
            return ", ".join(f"{key} {_inner(inner)}" for key, inner in value.items()) or "none"
        case list() | tuple():
            shown = [readable(inner) for inner in value[:MOST_SHOWN]]
            between = "; " if any("," in text for text in shown) else ", "
            return (between.join(shown) or "none") + (f" … ({len(value)})" if len(value) > MOST_SHOWN else "")
        case _:
            return str(value)


def _inner(value: object) -> str:
    return f"({readable(value)})" if isinstance(value, dict | list | tuple) else readable(value)


def facts(known: Iterable[tuple[str, str]]) -> str:
    """Big values over their names, escaped here."""
    return "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in known)


def listing(rows: Iterable[tuple[str, object]]) -> str:
    """Names and values, escaped here."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(readable(v))}</dd>" for k, v in rows) + "</dl>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1, best: Sequence[int] = ()) -> str:
    """Rows of cells that are HTML already; the first `text` columns are words, the rest numbers."""

    def cell(tag: str, index: int, value: str) -> str:
        return f'<{tag} class="t">{value}</{tag}>' if index < text else f"<{tag}>{value}</{tag}>"

    def line(number: int, row: Sequence[str]) -> str:
        cells = "".join(cell("td", index, value) for index, value in enumerate(row))
        return f'<tr class="best">{cells}</tr>' if number in best else f"<tr>{cells}</tr>"

    top = "".join(cell("th", i, escape(name)) for i, name in enumerate(head))
    body = "".join(line(number, row) for number, row in enumerate(rows))
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def bar(share: float, kind: str = "") -> str:
    """A bar as long as a share of its cell."""
    return f'<span class="bar {kind}"><i style="--p:{100 * min(max(share, 0), 1):.1f}%"></i></span>'
