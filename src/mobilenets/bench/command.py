"""`mobilenets bench`: a model's name in, a race out, its rows kept where a folder is given."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mobilenets import energy
from mobilenets.bench import record, ssh
from mobilenets.bench.board import measured_there
from mobilenets.bench.measure import measured
from mobilenets.bench.options import BenchOptions, BoardOptions
from mobilenets.bench.subject import opened
from mobilenets.data.digests import Progress
from mobilenets.energy import PowerOptions

HERE, UNSTATED = BoardOptions(), PowerOptions()


def bench(
    model: str,
    asked: BenchOptions,
    out: Path | None,
    progress: Progress,
    *,
    command: str,
    board: BoardOptions = HERE,
    power: PowerOptions = UNSTATED,
) -> dict[str, Any]:
    """Race `model`, here or on a board, and give what came out as JSON values; with `out` rows, plots and a
    page go there."""
    if out is not None and find_spec("matplotlib") is None:
        raise ValueError("--out draws, which needs matplotlib: pip install 'mobilenets[bench]'")
    if out is not None and out.exists() and not out.is_dir():
        raise NotADirectoryError(20, "a file is in its way; give another --out", str(out))
    subject = opened(
        model,
        width=asked.width,
        resolution=asked.resolution,
        seed=asked.seed,
        calibrate=asked.calibrate,
        progress=lambda done, total: progress("download", done, total or done),
    )
    drawn = energy.told(power.watts, board.where)
    if board.on is not None:
        found = measured_there(ssh.host(board.on), subject, asked, drawn, progress, command)
    else:
        found = measured(subject, asked, drawn, progress, command)
    if board.where is not None:
        found["device"] = board.where.name
    if out is not None:
        record.write(found, out)
    return found
