"""A plain line reads as Typer reads it, and what is not plain is left to Typer."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.flags import flags, plain
from mobilenets.predicting import PredictOptions
from mobilenets.spec.option import taken

WORDS = st.sampled_from(
    (
        *("--top", "--top=2", "--top=", "--top=0", "--json", "--json=1", "--features", "--no-json", "--help"),
        *(
            "--",
            "-",
            "-h",
            "--t",
            "--to",
            "0",
            "1",
            "7",
            "-3",
            "+3",
            "007",
            "٣",
            "1_0",
            " 4",
            "5.0",
            "1e1",
            "",
        ),
        *("model.so", "a.jpg", "a b.jpg", "--jsonn", "--top7", "9999999999999", "photos/", "-j"),
    )
)


def by_typer(words: list[str]) -> PredictOptions | None:
    """What Typer makes of a line; None for help and mistakes."""
    found: list[PredictOptions] = []
    app = typer.Typer(add_completion=False, rich_markup_mode=None)

    def command(**options: Any) -> None:
        """Keeps what it is given."""
        found.append(taken(PredictOptions, options))

    app.command()(flags(PredictOptions)(command))
    try:
        app(words, standalone_mode=False)
    except Exception:  # a mistake, however this Typer names it
        return None
    return found[0] if found else None


@given(st.lists(WORDS, max_size=7))
def test_whatever_is_read_as_plain_typer_reads_the_same(words: list[str]) -> None:
    read = plain(PredictOptions, words)
    assert read is None or read == by_typer(words)


@pytest.mark.parametrize(
    "words",
    [
        ["m.so", "a.jpg"],
        ["m.so", "a.jpg", "b.jpg", "--top", "3", "--json"],
        ["--features", "m.so", "--top=1", "-"],
    ],
)
def test_a_plain_line_needs_no_typer(words: list[str]) -> None:
    read = plain(PredictOptions, words)
    assert read is not None
    assert read == by_typer(words)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["m.so"],
        ["--help"],
        ["m.so", "a.jpg", "--help"],
        ["m.so", "a.jpg", "--top"],
        ["m.so", "a.jpg", "--top", "0"],
        ["m.so", "a.jpg", "--top", "many"],
        ["m.so", "a.jpg", "--json", "--json"],
        ["m.so", "a.jpg", "--unheard-of"],
        ["m.so", "--", "-a.jpg"],
    ],
)
def test_help_mistakes_and_whatever_is_rare_are_left_to_typer(words: list[str]) -> None:
    assert plain(PredictOptions, words) is None
