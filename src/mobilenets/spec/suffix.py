"""What the files of compiled models are called."""

from __future__ import annotations

COMPILED = (".so", ".dylib", ".dll")
