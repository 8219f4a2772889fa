"""What the files of compiled models are called."""

from __future__ import annotations

SUFFIXES = (".so", ".dylib", ".dll")
