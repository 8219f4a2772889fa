"""Asking a model about pictures: what `mobilenets predict` takes and does."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mobilenets.console import Reporter, complain, percent, say, say_json
from mobilenets.flags import JSON
from mobilenets.spec.option import argument, flag
from mobilenets.spec.suffix import COMPILED


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """The options of `mobilenets predict`, as the command line gives them."""

    model: str = argument("A model file, or a name of `mobilenets models`.")
    paths: list[str] = argument("Pictures, folders of pictures, or - for one on stdin.")
    threads: int = flag(1, "Threads of a compiled model.", least=1)
    top: int = flag(5, "Labels for each picture.", least=1)
    features: bool = flag(False, "The body's features instead of labels.")
    json: bool = flag(False, JSON)


def predict(asked: PredictOptions) -> int:
    """Answer for each picture as it comes, or for all at the end as JSON; the command's exit code."""
    if asked.model.endswith(COMPILED):  # it does without numpy's products, and their threads only spin
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with _kept(), Reporter() as progress:
        from mobilenets.infer.ready import load
        from mobilenets.pictures import pictures

        ready = load(asked.model, progress.download, threads=asked.threads)
    if not asked.features and not ready.labels:
        raise ValueError(f"{asked.model}: a body without named classes; ask it for --features")
    results: list[dict[str, Any]] = []
    mistaken_paths = 0
    with Reporter() as progress:
        files = pictures(asked.paths)
        for done, (name, data) in enumerate(files, 1):
            row: dict[str, Any] = {"file": name}
            try:
                if isinstance(data, str):
                    mistaken_paths += 1
                    raise ValueError(data)
                picture = data()
                if asked.features:
                    row["features"] = [float(v) for v in ready.features(picture)]
                else:
                    answer = ready(picture, asked.top)
                    row["predictions"] = [{"label": p.label, "score": p.score} for p in answer.predictions]
                    if answer.unknown is not None:
                        row |= {"logit": answer.logit, "unknown": answer.unknown}
            except (ValueError, OSError) as error:
                row["error"] = str(error)
                complain(f"{name}: {error}")
            results.append(row)
            progress("predict", done, len(files))
            if not asked.json and "error" not in row:
                _show(row)
    if asked.json:
        say_json({"results": results})
    return 2 if mistaken_paths or all("error" in row for row in results) else 0


@contextmanager
def _kept() -> Iterator[None]:
    """What is made here lasts as long as the process: the collector need not search it, now or at the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _show(row: dict[str, Any]) -> None:
    """What is said of one picture."""
    if "features" in row:
        say(row["file"] + " " + " ".join(f"{value:.4g}" for value in row["features"]))
        return
    unknown = "unknown; perhaps " if row.get("unknown") else ""
    say(
        f"{row['file']}: {unknown}"
        + ", ".join(f"{p['label']} {percent(p['score'])}" for p in row["predictions"])
    )
