"""A trained model as a body that comes with the package: in bytes, without its classes.

    python benchmarks/packaged.py MODEL --data FOLDER [--pictures 400]

MODEL is what `mobilenets train --recipe body` left; FOLDER has `data/tiny-imagenet-22k.tar`, of whose
`train` so many pictures calibrate. Writes src/mobilenets/bodies/NET-WIDTH-RESOLUTION.safetensors. What the
body is worth is measured by benchmarks/body.py.
"""

from __future__ import annotations

import argparse
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobilenets.console import Reporter
from mobilenets.infer import artefact
from mobilenets.infer.image import decode, prepare
from mobilenets.infer.quantise import quantise
from mobilenets.infer.weights import BODIES
from mobilenets.spec.head import headless


def main() -> None:
    """Quantise, take off the head, write."""
    asked = argparse.ArgumentParser()
    asked.add_argument("model", type=Path)
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--pictures", type=int, default=400)
    given = asked.parse_args()
    model = artefact.load(given.model)
    levels = []
    with tarfile.open(given.data / "data" / "tiny-imagenet-22k.tar") as archive:
        members = [one for one in archive.getmembers() if one.isfile() and "/train/" in one.name]
        for place in np.linspace(0, len(members) - 1, given.pictures).astype(int):
            content = archive.extractfile(members[place])
            assert content is not None
            levels.append(prepare(decode(content.read(), model.preprocess), model.preprocess))
    with Reporter() as progress:
        made = quantise(model, np.stack(levels), progress=progress)
    net = headless(made.net)
    nodes = {node.name for node in net.nodes}
    body = replace(
        made,
        net=net,
        labels=(),
        weights={name: value for name, value in made.weights.items() if name.rpartition(".")[0] in nodes},
        scales={name: scale for name, scale in made.scales.items() if name in nodes},
        scores={},
    )
    BODIES.mkdir(exist_ok=True)
    path = BODIES / f"{net.name}-{net.width:g}-{net.resolution}.safetensors"
    artefact.save(body, path)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
