"""What a user may set: a field of a dataclass that carries the words the command line shows for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from typing import Any, TypeVar

Options = TypeVar("Options")


def flag(default: Any, text: str, least: int | None = None) -> Any:
    """A field with its default, given by its name; a number of at least `least`."""
    return field(default=default, metadata={"help": text, "least": least})


def argument(text: str) -> Any:
    """A field that is given by its place, and must be: a text, or the texts that are left."""
    return field(metadata={"help": text, "argument": True})


def taken(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The dataclass `kind` from those of the options that are its fields."""
    own = {one.name: given[one.name] for one in fields(kind) if one.name in given}  # type: ignore[arg-type]
    return kind(**own)


def dealt(given: Mapping[str, Any], kinds: Sequence[type[Any]], *further: str) -> tuple[Any, ...]:
    """One of each of the dataclasses, each with what is its own of the options given.

    Raises ValueError for an option of none of them; it lists those there are, and `further` ones.
    """
    known = [one.name for kind in kinds for one in fields(kind)]
    if strange := [name for name in given if name not in known]:
        raise ValueError(f"unknown options: {', '.join(strange)}; known: {', '.join([*known, *further])}")
    return tuple(taken(kind, given) for kind in kinds)
