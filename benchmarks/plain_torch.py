"""The same retraining as a plain torch script would do it: what `mobilenets retrain` is timed against.

    python benchmarks/plain_torch.py FOLDER --weights FILE [--seed S] [--loader-workers N]

Pillow decodes and resizes, the body runs eagerly in NCHW float32 on batches of 32, the head is the same
regression with the same choice of strength, on the same split sizes. With --loader-workers a DataLoader
decodes in processes of its own. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mobilenets.data.catalog import scan
from mobilenets.data.split import split
from mobilenets.infer import adopt
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.score import top
from mobilenets.spec.head import headless
from mobilenets.spec.op import Conv, Depthwise, Pool
from mobilenets.train.head import Regression, choose

BATCH = 32
SIDE = 224


class Pictures(Dataset[torch.Tensor]):
    """Each picture as a float32 tensor [3, 224, 224] in −1…1."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as picture:
            resized = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        return torch.from_numpy((np.asarray(resized, np.float32) - 127.5) / 127.5).permute(2, 0, 1)


def network(model: Artefact) -> nn.Sequential:
    """The body as torch tutorials write it: padding, convolution, ReLU6, pooling."""
    layers: list[nn.Module] = []
    channels = 3
    for node in headless(model.net).nodes:
        op = node.op
        if isinstance(op, Pool):
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            continue
        weight = torch.from_numpy(np.array(model.weights[f"{node.name}.weight"]))
        stride, kernel = getattr(op, "stride", 1), weight.shape[2]
        padding = 1 if kernel == 3 and stride == 1 else 0
        if isinstance(op, Conv | Depthwise) and stride == 2:
            layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
        groups = channels if isinstance(op, Depthwise) else 1
        layer = nn.Conv2d(channels, weight.shape[0], kernel, stride, padding, groups=groups)
        layer.weight.data = weight
        layer.bias.data = torch.from_numpy(np.array(model.weights[f"{node.name}.bias"]))  # type: ignore[union-attr]
        layers += [layer, nn.ReLU6()]
        channels = weight.shape[0]
    return nn.Sequential(*layers).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loader-workers", type=int, default=0)
    args = parser.parse_args()
    begun = time.perf_counter()
    catalog = scan(args.folder)
    body = network(adopt.read(args.weights))
    loader = DataLoader(
        Pictures([args.folder / item.file for item in catalog.items]), BATCH, num_workers=args.loader_workers
    )
    with torch.no_grad():
        x = torch.cat([body(batch) for batch in loader]).numpy()
    features_s = time.perf_counter() - begun
    labels = [item.label for item in catalog.items]
    truth = np.array([catalog.labels.index(label) for label in labels])
    part = np.array(split(labels, range(len(labels)), [None] * len(labels), seed=args.seed))
    train, val, test = (part == name for name in ("train", "val", "test"))
    regression = Regression(x[train], truth[train], len(catalog.labels))
    chosen = choose(regression, x[val], truth[val])
    accuracy = top(chosen.head(x[test]), truth[test])
    total = time.perf_counter() - begun
    print(json.dumps({"accuracy": accuracy, "seconds": {"features": features_s, "total": total}}))


if __name__ == "__main__":
    main()
