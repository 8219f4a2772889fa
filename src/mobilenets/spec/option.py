"""What a user may set: a field of a dataclass that carries the words the command line shows for it."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def flag(default: Any, text: str, least: int | None = None) -> Any:
    """A field with its default, given by its name; a number of at least `least`."""
    return field(default=default, metadata={"help": text, "least": least})


def argument(text: str) -> Any:
    """A field that is given by its place, and must be: a text, or the texts that are left."""
    return field(metadata={"help": text, "argument": True})
