"""The demo: road signs drawn here, taught to the small V1 of this package, nothing from outside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mobilenets.data import signs

PER_CLASS = 60
EPOCHS = 20
OPTIONS: dict[str, Any] = {
    "net": "v1",
    "width": 0.25,
    "resolution": 128,
    "weights": "mobilenets/v1-0.25-128",
    "finetune": EPOCHS,
    "mirror": False,  # a turn to the right must not be shown as one to the left
    "seed": 0,
}


def pictures(out: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Draw the signs into `out/signs`, unless they are all there; the folder."""
    folder = out / "signs"
    done = folder / ".complete"
    if not done.exists():
        signs.render(folder, PER_CLASS, progress=progress)
        done.touch()
    return folder
