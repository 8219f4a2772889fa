"""Pictures by path, as a command line names them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def pictures(paths: Sequence[str]) -> list[tuple[str, Callable[[], bytes] | str]]:
    """Each picture's name and a way to its bytes: files as named, folders searched, `-` read from stdin.

    A path that is not there, or a folder without pictures, has the reason in their place.
    """
    found: list[tuple[str, Callable[[], bytes] | str]] = []
    for path in paths:
        if path == "-":
            found.append((path, sys.stdin.buffer.read))
        elif Path(path).is_dir():
            from mobilenets.data.catalog import PICTURES

            inside = sorted(p for p in Path(path).rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
            found += [(str(p), p.read_bytes) for p in inside] or [(path, "a folder without pictures")]
        elif Path(path).is_file():
            found.append((path, Path(path).read_bytes))
        else:
            found.append((path, "no such file or folder"))
    return found
