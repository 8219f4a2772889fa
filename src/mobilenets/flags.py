"""Options of a command, a dataclass each: as flags for Typer, and read from a plain line without it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar, get_type_hints

JSON = "Print one JSON object instead of tables."
Options = TypeVar("Options")


def flags(*kinds: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose trailing `**options` are the fields of `kinds`, a flag or an argument each."""
    import typer

    def asked(field: Field[Any]) -> Any:
        default = ... if field.default is MISSING else field.default
        if field.metadata.get("argument"):
            return typer.Argument(default, help=field.metadata["help"])
        name = _spelled(field)
        spelled = f"{name}/--no-{name[2:]}" if default is True else name
        return typer.Option(default, spelled, help=field.metadata["help"], min=field.metadata["least"])

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        hints = get_type_hints(command, include_extras=True)
        made = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        for kind in kinds:
            types = get_type_hints(kind)
            made += [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=asked(field),
                    annotation=types[field.name],
                )
                for field in fields(kind)
            ]

        def run(**given: Any) -> None:
            command(**given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
        return run

    return decorate


def plain(kind: type[Options], words: Sequence[str]) -> Options | None:
    """The options that a line gives, where it is so plain that Typer can only read the same; None elsewhere.

    Plain are switches, whole numbers in range and arguments, each given once, all there. Help, mistakes and
    whatever else there is are Typer's, which alone takes longer to import than a compiled model to answer.
    """
    types = get_type_hints(kind)
    named = {_spelled(f): f for f in fields(kind) if not f.metadata.get("argument")}  # type: ignore[arg-type]
    found: dict[str, Any] = {}
    loose: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "-" or not word.startswith("-"):
            loose.append(word)
            continue
        name, given, value = word.partition("=")
        field = named.get(name)
        if field is None or field.name in found:
            return None
        if types[field.name] is bool and not given:
            found[field.name] = True
        elif types[field.name] is int and (number := _number(value if given else next(rest, ""), field)):
            found[field.name] = number
        else:
            return None
    for field in fields(kind):  # type: ignore[arg-type]
        if field.metadata.get("argument"):
            if not loose:
                return None
            found[field.name] = loose.pop(0) if types[field.name] is str else [loose.pop(0) for _ in loose[:]]
    return None if loose else kind(**found)


def _number(text: str, field: Field[Any]) -> int | None:
    """A whole number above zero that is not below the least; None for anything else."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        return None
    return number if (number := int(text)) >= (field.metadata["least"] or 1) else None


def _spelled(field: Field[Any]) -> str:
    return f"--{field.name.replace('_', '-')}"
