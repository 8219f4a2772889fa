"""Small, fast vision models that are trained on one's own pictures and run on phones and boards.

`cost` counts a network, `retrain` teaches one, `load` opens a model file, `evaluate` judges it. Everything
else is imported by the call that needs it: `import mobilenets` alone costs next to nothing.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Unpack

    from mobilenets.costs.count import Cost
    from mobilenets.data.digests import Progress
    from mobilenets.data.evaluate import Evaluation
    from mobilenets.infer.ready import Model
    from mobilenets.spec.recipe import RetrainOptions
    from mobilenets.train.run import Run

__all__ = ["__version__", "cost", "evaluate", "load", "retrain"]
__version__ = "0.1.0"


def cost(net: str, *, width: float = 1.0, resolution: int | None = None, classes: int | None = None) -> Cost:
    """MACs, parameters, bytes by layer of a network: `v1`, `v1-full`, `v1-shallow`, `v1-cifar` or `v2`.

    Resolution (pixels) and classes are the published ones unless given. Raises ValueError for an unknown name
    or a size that makes no network.
    """
    from mobilenets.costs.count import cost as count
    from mobilenets.spec import zoo

    return count(zoo.net(net, width, resolution, classes))


def load(model: str | PathLike[str], *, threads: int = 1) -> Model:
    """Open a model file, ours, `.tflite`, Keras' or timm's, or weights by a name of `mobilenets models`.

    `model(picture)` gives an answer with labels and scores, `model.features(picture)` float32 [channels]; a
    picture is a path, bytes, a Pillow image or RGB uint8 [height, width, 3]. Raises ValueError that says what
    is wrong. `threads` are those of a library that `mobilenets compile` built.
    """
    from mobilenets.infer.ready import load as opened

    return opened(model, threads=threads)


def evaluate(
    model: str | PathLike[str] | Model,
    folder: str | PathLike[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on labelled pictures: a folder of class folders, a zip of one, or a CSV.

    Raises ValueError that lists the difference where classes do not match by name.
    """
    from mobilenets.data.catalog import scan
    from mobilenets.data.crew import cores
    from mobilenets.data.evaluate import evaluate as judged
    from mobilenets.infer.ready import Model as Ready

    ready = model if isinstance(model, Ready) else load(model)
    return judged(ready, scan(Path(folder)), threads=threads or cores(), progress=progress)


def retrain(
    folder: str | PathLike[str],
    out: str | PathLike[str],
    *,
    progress: Progress | None = None,
    **options: Unpack[RetrainOptions],
) -> Run:
    """Teach a network the classes of a folder; writes model.safetensors, report.html and run.json to `out`.

    Options are those of `mobilenets retrain --help` with underscores, such as `width=0.5, finetune=5,
    seed=1`. Raises ValueError for what a user can mend, ModuleNotFoundError where torch is missing.
    """
    from mobilenets.job import retrain as job

    return job(Path(folder), Path(out), dict(options), progress or (lambda stage, done, total: None))
