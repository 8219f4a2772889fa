"""`mobilenets bench`: a model's name in, a race out, its rows kept where a folder is given."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mobilenets.bench import record
from mobilenets.bench.measure import measured
from mobilenets.bench.options import BenchOptions
from mobilenets.bench.subject import opened
from mobilenets.data.digests import Progress


def bench(
    model: str, asked: BenchOptions, out: Path | None, progress: Progress, *, command: str
) -> dict[str, Any]:
    """Race `model` and give what came out as JSON values; with `out` rows, plots and a page go there."""
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
    found = measured(subject, asked, progress, command)
    if out is not None:
        record.write(found, out)
    return found
