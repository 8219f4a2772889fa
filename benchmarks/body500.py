"""What a body knows of ImageNet's thousand classes, by the classifier of the large network it learned from.

    python benchmarks/body500.py --data FOLDER [--pictures 5000]

A linear map from a body's features to those of V1 1.0/224 is fitted by least squares on pictures of
FOLDER/data/tiny-imagenet-22k.tar, on which the bodies that come along have learned; the large network's
classifier then reads what the map makes of FOLDER/data/imagenet-500.tar, one picture of every second class,
on which they have not. How much the map is held small is chosen by its error on every tenth picture. ImageNet
weights of the same networks go the same way; they, and the large network, have most likely seen these
pictures. Rows are added to results/body500.csv.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from imagenet500 import pictures, top
from numpy.typing import NDArray
from retrain import COMMAND
from rows import keep

from mobilenets.infer import adopt, weights
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.resize import Frame
from mobilenets.infer.score import interval
from mobilenets.model.module import module
from mobilenets.train.meter import machine_line

ROWS = Path(__file__).parents[1] / "results" / "body500.csv"
LARGE = "mobilenet_v1_1.0_224_quant.tflite"
BODIES = {
    "packaged": ("mobilenets/v1-0.25-128", "mobilenets/v1-0.5-128"),
    "imagenet": ("mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1_0.5_160_quant.tflite"),
}
HELD = tuple(10.0**power for power in range(-5, 2))
"""What is tried of the ridge, as shares of a feature's variance."""
BATCH = 32


def tiny(tar: Path, count: int) -> Iterator[Frame]:
    """So many of the pictures to learn from, evenly out of all."""
    with tarfile.open(tar) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and "/train/" in m.name]
        for member in sorted(members, key=lambda m: m.name)[:: max(1, len(members) // count)][:count]:
            content = archive.extractfile(member)
            if content is not None:
                yield decode(content.read())


def features(model: Artefact, frames: Sequence[Frame], called: str) -> NDArray[np.float64]:
    """What lies below the classifier, [n, channels]."""
    made, found = module(model.net, model.weights).eval(), []
    with torch.inference_mode():
        for first in range(0, len(frames), BATCH):
            some = np.stack([prepare(frame, model.preprocess) for frame in frames[first : first + BATCH]])
            x = torch.from_numpy(normalise(some, model.preprocess)).permute(0, 3, 1, 2)
            found.append(made(x)["features"].flatten(1).double().numpy())
            print(f"\r{called} {first + len(some)}/{len(frames)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return np.concatenate(found)


def mapped(
    x: NDArray[np.float64], y: NDArray[np.float64], seen: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """What the map from x to y makes of `seen`, and how small it was held."""
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, seen, centre = (x - mean) / spread, (seen - mean) / spread, y.mean(axis=0)
    apart = np.arange(len(x)) % 10 == 0

    def solved(rows: NDArray[np.bool_], held: float) -> NDArray[np.float64]:
        gram = x[rows].T @ x[rows] + held * rows.sum() * np.eye(x.shape[1])
        return np.asarray(np.linalg.solve(gram, x[rows].T @ (y[rows] - centre)))

    errors = {
        held: float(np.square(x[apart] @ solved(~apart, held) + centre - y[apart]).mean()) for held in HELD
    }
    best = min(errors, key=lambda held: errors[held])
    return seen @ solved(np.ones(len(x), bool), best) + centre, best


def main() -> None:
    """Both bodies, then ImageNet's weights of the same networks."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--pictures", type=int, default=5000)
    given = asked.parse_args()
    files = given.data / "weights"
    large = adopt.in_floats(adopt.read(files / LARGE))
    known = list(tiny(given.data / "data" / "tiny-imagenet-22k.tar", given.pictures))
    labelled = list(pictures(given.data / "data" / "imagenet-500.tar", 500))
    truth, judged = np.array([label for label, _ in labelled]), [frame for _, frame in labelled]
    wanted = features(large, known, LARGE)
    weight, bias = (large.weights[f"head.{part}"].astype(np.float64) for part in ("weight", "bias"))
    for kind, names in BODIES.items():
        for name in names:
            given_as = name if kind == "packaged" else str(files / name)
            body = adopt.in_floats(weights.load(weights.find(given_as, "v1", 0.25, 128)))
            seen, how = mapped(features(body, known, name), wanted, features(body, judged, name))
            logits = (seen @ weight.T + bias).astype(np.float32)
            first, five = top(logits, truth, 1).mean(), top(logits, truth, 5).mean()
            low, high = interval(float(first), len(truth))
            keep(
                ROWS,
                {
                    "net": f"v1 {body.net.width:g} at {body.net.resolution}",
                    "beginning": kind,
                    "weights": Path(name).name,
                    "fitted_on": len(known),
                    "held": how,
                    "n": len(truth),
                    "top1": round(float(first), 4),
                    "top1_low": round(low, 4),
                    "top1_high": round(high, 4),
                    "top5": round(float(five), 4),
                    "machine": machine_line(),
                    "command": COMMAND,
                },
            )


if __name__ == "__main__":
    main()
