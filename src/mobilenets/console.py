"""How the command line speaks: progress and errors on stderr, tables or one JSON object on stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mobilenets.spec.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

QUIET_S = 2.0
"""What is over by then shows no progress."""
LINE_S = 5.0
"""Seconds between two lines of progress where stderr is no terminal."""
PIPED_COLUMNS = 400
ROW_COLUMNS = 12


class StoppedError(Exception):
    """A user has stopped what can be gone on with; the text says how."""


class Reporter:
    """Progress of the stages of one command; called with a stage, how much is done and how much there is.

    A `quiet` one says nothing: of several processes with one work, one speaks.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._begun = time.monotonic()
        self._spoke = self._begun - LINE_S  # the first line comes as soon as there is something to wait for
        self._console: Console | None = None
        self._bar: Progress | None = None
        self._tasks: dict[str, Any] = {}
        self._rows = 0

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._quiet or now - self._begun < QUIET_S:
            return
        if self._console is None:
            from rich.console import Console  # imported by the command that has something to show

            self._console = Console(stderr=True)
        if self._console.is_terminal:
            self._draw(self._console, stage, done, total)
        elif now - self._spoke >= LINE_S:
            self._spoke = now
            _line(f"{stage} {done}/{total}")

    def row(self, head: Sequence[str], cells: Sequence[str]) -> None:
        """A row of a table that grows while a command goes on; its head comes before the first."""
        if self._quiet:
            return
        wide = [max(ROW_COLUMNS, len(name)) for name in head]
        for line in ([head] if not self._rows else []) + [cells]:
            text = "  ".join(cell.rjust(size) for cell, size in zip(line, wide, strict=True))
            if self._bar is not None:
                self._bar.console.print(text, highlight=False)
            else:
                _line(text)
        self._rows += 1

    def download(self, done: int, total: int | None) -> None:
        """Progress of a download in bytes, as `infer.weights` tells it."""
        self("download", done, total or done)

    def _draw(self, console: Console, stage: str, done: int, total: int) -> None:
        if self._bar is None:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total)
        self._bar.update(self._tasks[stage], completed=done, total=total)


def say_json(value: Any) -> None:
    """One JSON object on stdout."""
    from mobilenets.spec.text import json_text

    say(json_text(value))


def say(text: str) -> None:
    """A line on stdout, as it is."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """One line on stderr."""
    _line(f"mobilenets: {visible(' '.join(str(text).split()))}")


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1, title: str | None = None
) -> None:
    """A table on stdout; the first `left` columns are texts, the others numbers."""
    from rich.console import Console
    from rich.table import Table

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
