"""How the command line speaks: progress and errors on stderr, tables or one JSON object on stdout."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_type_hints

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

QUIET_S = 2.0
"""What is over by then shows no progress."""
LINE_S = 5.0
"""Seconds between two lines of progress where stderr is no terminal."""
PIPED_COLUMNS = 400
Options = TypeVar("Options")


class Reporter:
    """Progress of the stages of one command; called with a stage, how much is done and how much there is."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._begun = time.monotonic()
        self._spoke = self._begun - LINE_S  # the first line comes as soon as there is something to wait for
        self._bar: Progress | None = None
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._begun < QUIET_S:
            return
        if self._console.is_terminal:
            self._draw(stage, done, total)
        elif now - self._spoke >= LINE_S:
            self._spoke = now
            _line(f"{stage} {done}/{total}")

    def download(self, done: int, total: int | None) -> None:
        """Progress of a download in bytes, as `infer.weights` tells it."""
        self("download", done, total or done)

    def _draw(self, stage: str, done: int, total: int) -> None:
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._tasks[stage], completed=done, total=total)


def flags(*kinds: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command whose trailing `**options` become one flag for each field of the dataclasses `kinds`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        hints = get_type_hints(command, include_extras=True)
        made = [parameter.replace(annotation=hints[parameter.name]) for parameter in own]
        for kind in kinds:
            types = get_type_hints(kind)
            for field in fields(kind):
                default = field.default if field.default is not MISSING else ...
                name = f"--{field.name.replace('_', '-')}"
                spelled = f"{name}/--no-{name[2:]}" if default is True else name
                option = typer.Option(default, spelled, help=field.metadata.get("help", ""))
                made.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=option,
                        annotation=types[field.name],
                    )
                )

        def run(**given: Any) -> None:
            command(**given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(made)  # type: ignore[attr-defined]  # what typer reads
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in made}
        return run

    return decorate


def taken(kind: type[Options], given: dict[str, Any]) -> Options:
    """The dataclass `kind` from those of the options that are its fields."""
    return kind(**{field.name: given[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def say_json(value: Any) -> None:
    """One JSON object on stdout."""
    from mobilenets.infer.sealed import json_text

    sys.stdout.write(json_text(value) + "\n")


def say(text: str) -> None:
    """A line on stdout, as it is."""
    Console(soft_wrap=True).print(text, markup=False, highlight=False)


def complain(text: str) -> None:
    """One line on stderr."""
    line = " ".join(str(text).split())
    _line(f"mobilenets: {line}")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1, title: str | None = None
) -> None:
    """A table on stdout; the first `left` columns are texts, the others numbers."""
    drawn = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(_escaped(cell) for cell in row))
    # Into a file or a pipe a table is as wide as it needs to be: 80 columns would break its words.
    Console(width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(drawn)


def percent(share: float | None, digits: int = 1) -> str:
    """A fraction for reading."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def size(count: float) -> str:
    """Bytes for reading."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _line(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def _escaped(cell: object) -> str:
    return str(cell).replace("[", "\\[")
