"""Checkpoints of a training run: its whole state in one sealed file, refused where it is of another run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mobilenets.infer.sealed import ArtefactError, pack, unpack, write_whole
from mobilenets.train.loop import State
from mobilenets.train.run import Epoch

VERSION = 1
UNSAID: dict[str, Any] = {"norms": "torch"}
"""What holds of those that were written before it was said."""
PARTS = ("student", "averaged", "moved")


def save(state: State, path: Path, about: Mapping[str, Any]) -> None:
    """Write the state, whole or not at all; `about` is what a run that goes on must have in common."""
    tensors = {f"student.{name}": _numpy(value) for name, value in state.student.state_dict().items()}
    tensors |= {f"averaged.{name}": _numpy(value) for name, value in state.averaged.state_dict().items()}
    tensors |= {f"moved.{name}": _numpy(value) for name, value in state.stepper.state().items()}
    meta = {
        "training": VERSION,
        "about": dict(about),
        "step": state.step,
        "losses": state.losses,
        "first": state.first,
        "lost": state.lost,
        "epochs": [asdict(epoch) for epoch in state.epochs],
    }
    write_whole(path, pack(meta, tensors))


def told(path: Path) -> Mapping[str, Any]:
    """What a checkpoint says that a run must have in common; nothing where it is none of ours."""
    try:
        meta, _ = unpack(path.read_bytes())
    except (OSError, ArtefactError):
        return {}
    return UNSAID | meta["about"] if meta.get("training") == VERSION else {}


def restore(state: State, path: Path, about: Mapping[str, Any]) -> None:
    """Take over the state that `path` holds. Raises ValueError where it holds none, or one of another run."""
    try:
        meta, tensors = unpack(path.read_bytes())
    except ArtefactError as error:
        raise ValueError(f"{path}: no checkpoint to go on from: {error}; --anew begins anew") from error
    if meta.get("training") != VERSION:
        raise ValueError(
            f"{path}: no checkpoint of a training that this version can go on from; --anew begins anew"
        )
    kept, now = UNSAID | meta["about"], UNSAID | dict(about)
    other = [
        f"{name} was {kept.get(name)!r} and is {now.get(name)!r}"
        for name in sorted({*kept, *now})
        if kept.get(name) != now.get(name)
    ]
    if other:
        raise ValueError(f"{path} is of another run: {'; '.join(other)}; give what it was, or --anew")
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = torch.from_numpy(value.copy())
    state.student.load_state_dict(parts["student"])
    state.averaged.load_state_dict(parts["averaged"])
    state.stepper.restore(parts["moved"])
    state.step, state.losses[:] = int(meta["step"]), meta["losses"]
    state.first, state.lost = meta.get("first"), int(meta.get("lost", 0))
    state.epochs[:] = [Epoch(**epoch) for epoch in meta["epochs"]]


def _numpy(value: Tensor) -> NDArray[Any]:
    # Filters lie channels last; a file has them in the order of their shape.
    return np.ascontiguousarray(value.detach().cpu().numpy())
