"""Curves of a run that was cut off and went on are those of a run that was not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="needs tensorboardX")

from mobilenets.console import Reporter  # noqa: E402 - after the lines that skip
from mobilenets.curves import EVENTS, STEPS, Curves  # noqa: E402
from mobilenets.train.loop import Taken  # noqa: E402
from mobilenets.train.run import Epoch  # noqa: E402

A_EPOCH, EPOCHS = 5, 4
STEPS_IN_ALL = A_EPOCH * EPOCHS


def told(out: Path, first: int, end: int, *, resume: bool) -> None:
    """What a run says that takes the steps from `first` to before `end`."""
    curves = Curves(out, Reporter(quiet=True), resume=resume)
    for step in range(first, end):
        ends = (step + 1) % A_EPOCH == 0
        now = {"step": step, "loss": step / 8, "rate": 1.0, "pictures": 4, "seconds": 0.5, "waited": 0.0}
        curves.step(Taken(**now, steps=STEPS_IN_ALL, ends=ends))
        if ends:
            curves.epoch(Epoch((step + 1) // A_EPOCH, 0.5, (step + 1) / 64, 1.0), EPOCHS)
    curves.close()


def shown(out: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard draws: where a session starts, all from its step on that was told before is void."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((out / EVENTS).iterdir()):
        with path.open("rb") as file:
            while head := file.read(12):
                event = event_pb2.Event.FromString(file.read(struct.unpack("<Q", head[:8])[0]))
                file.read(4)
                if event.session_log.status == event_pb2.SessionLog.START:
                    for tag, rows in found.items():
                        found[tag] = [row for row in rows if row[0] < event.step]
                for value in event.summary.value:
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.mark.parametrize("kept", [5, 7, 10, 12])
def test_what_was_told_after_the_state_that_is_gone_on_from_is_void(tmp_path: Path, kept: int) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    for out in (whole, parted):
        out.mkdir()
    told(whole, 0, STEPS_IN_ALL, resume=False)
    told(parted, 0, 13, resume=False)  # past the end of its second epoch
    told(parted, kept, STEPS_IN_ALL, resume=True)
    assert shown(parted) == shown(whole)
    assert shown(whole)["validation"] == [(4, 5 / 64), (9, 10 / 64), (14, 15 / 64), (19, 20 / 64)]
    assert (parted / STEPS).read_text() == (whole / STEPS).read_text()
