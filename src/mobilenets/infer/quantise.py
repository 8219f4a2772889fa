"""From float32 to bytes after training: what calibration pictures choose, and what they say it costs.

Choices start from the plainest; each further one is kept only where it lowers the error on pictures held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenets.infer.artefact import Artefact
from mobilenets.infer.calibrate import Maps, batches, in_threads, observe
from mobilenets.infer.fold import fold
from mobilenets.infer.image import normalise
from mobilenets.infer.integer import IntegerWalk, image_zero, refuse
from mobilenets.infer.resize import Frame
from mobilenets.infer.trial import Choice, Material, built
from mobilenets.infer.walk import Walk
from mobilenets.spec.net import Net, Output
from mobilenets.spec.op import Linear

HELD_OUT = 4
"""Every so many pictures one judges and does not calibrate."""
CHANGES: tuple[Mapping[str, Any], ...] = (
    {"corrected": True},
    {"rounding": "second-order"},
    {"equalised": "depthwise"},
    {"equalised": "all"},
    {"ranges": "percentile"},
    {"ranges": "mse"},
    {"spare": True},
    {"in_turn": True},
)
"""What is tried, one after the other, each on top of what was kept."""
Progress = Callable[[str, int, int], None]


def quantise(
    model: Artefact,
    levels: Frame,
    *,
    maps: Maps | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> Artefact:
    """The model in integers, calibrated on prepared pictures, uint8 [n, height, width, 3].

    A quarter of them is held out to choose by. `maps` runs the float network (numpy's walk unless given);
    `scores` of the result has the error of all that was tried, and those of the float model under `float32`.
    The same pictures in the same order give the same bytes, whatever `threads` says; each takes pictures of
    its own, so numpy's products are best held to one (OPENBLAS_NUM_THREADS=1).
    Raises ValueError where there is no picture, the model is quantised already, or a layer has no integers.
    """
    if model.scales:
        raise ValueError(f"{model.net.name}: quantised already")
    refuse(model.net)
    if not len(levels):
        raise ValueError(f"{model.net.name}: no pictures to calibrate on")
    folded = with_biases(model)
    run = float_maps(folded) if maps is None else maps
    judging = np.arange(len(levels)) % HELD_OUT == HELD_OUT - 1
    learn, judge = (levels[~judging], levels[judging]) if judging.any() else (levels, levels)
    zero = np.array(image_zero(model.preprocess), np.float32)
    material = Material(folded, learn, observe(folded.net, run, learn, zero, threads), threads)
    output = judged(model.net)
    parts = in_threads(lambda part: run(part, ())[output.name], batches(judge), threads)
    wanted = np.concatenate(list(parts)).astype(np.float64)
    best, choice, least = folded, Choice(), np.inf
    tried: dict[str, float] = {}
    for number, change in enumerate(({}, *CHANGES)):
        if progress is not None:
            progress("quantise", number, len(CHANGES) + 1)
        trial = replace(choice, **change)
        made = built(material, trial)
        error = tried[str(trial)] = round(error_of(answers(made, judge, output, threads), wanted, output), 6)
        if error < least:
            best, choice, least = made, trial, error
    if progress is not None:
        progress("quantise", len(CHANGES) + 1, len(CHANGES) + 1)
    told = {"criterion": CRITERIA[output.decode], "held_out": len(judge), "error": least, "tried": tried}
    before = {"float32": dict(model.scores)} if model.scores else {}
    return replace(
        best,
        recipe={**model.recipe, "quantised": {**asdict(choice), "pictures": len(learn)}},
        scores={**before, "quantised": told},
    )


CRITERIA = {
    "classes": "mean Kullback-Leibler divergence of the scores from the float model's",
    "vector": "square of the error over the square of what the float model gives",
}


def judged(net: Net) -> Output:
    """The output that errors are taken of: the logits; the first one of a body alone."""
    return next((o for o in net.outputs if o.decode == "classes"), net.outputs[0])


def error_of(found: NDArray[np.float64], wanted: NDArray[np.float64], output: Output) -> float:
    """How far the answers of a quantised model are from the float one's, as `CRITERIA` says."""
    if output.decode == "classes":
        ours, theirs = _log_softmax(found), _log_softmax(wanted)
        return float((np.exp(theirs) * (theirs - ours)).sum(1).mean())
    return float(((found - wanted) ** 2).sum() / max(float((wanted**2).sum()), 1e-30))


def answers(model: Artefact, levels: Frame, output: Output, threads: int = 1) -> NDArray[np.float64]:
    """What a quantised model gives, as numbers [n, channels]."""
    walk = IntegerWalk(model.net, model.weights, model.scales, model.preprocess)
    scale = model.scales.get(output.node)
    parts = list(in_threads(lambda part: walk(part)[output.name], batches(levels), threads))
    found = np.concatenate(parts if scale is None else [scale.values(part) for part in parts])
    return found.astype(np.float64)


def float_maps(model: Artefact) -> Maps:
    """The float network as numpy's walk runs it."""
    walk = Walk(model.net, model.weights)
    return lambda levels, names: walk(normalise(levels, model.preprocess), names)


def with_biases(model: Artefact) -> Artefact:
    """The model folded, and with a bias in every layer that has weights."""
    net, weights = fold(model.net, model.weights)
    for name, value in list(weights.items()):
        if name.endswith(".weight"):
            weights.setdefault(f"{name.removesuffix('.weight')}.bias", np.zeros(len(value), np.float32))
    nodes = (replace(n, op=replace(n.op, bias=True)) if isinstance(n.op, Linear) else n for n in net.nodes)
    return replace(model, net=replace(net, nodes=tuple(nodes)), weights=weights)


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
