"""JSON as text."""

from __future__ import annotations

import json
from typing import Any


def json_text(value: Any, **layout: Any) -> str:
    """JSON that any encoding of Unicode can hold. Raises ValueError for a number that is not finite.

    Names of files may hold bytes that are no text, in Python halves of characters: they come as escapes,
    which every reader of JSON knows.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, **layout)
    return text.encode("utf-8", "backslashreplace").decode()


def visible(text: str) -> str:
    """The same, with what a terminal would obey instead of show (and newlines) written out as escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
