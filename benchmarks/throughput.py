"""Pictures a second while training, beside a plain eager float32 loop on the same pictures, in turns.

    python benchmarks/throughput.py --data FOLDER [--turns 5] [--seconds 12]

FOLDER has `data/tiny-imagenet-22k.tar`. The plain loop is what a first script does: torch's own modules laid
out as they come (NCHW), float32, all cores in each layer, crops and mirrors, SGD. Ours is
`train.loop.learn` by the recipe `modern`, with its views, its norms' statistics and its average of weights.
Both see levels that are decoded already. Rows are added to results/throughput.csv.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rows import keep
from torch import nn

from mobilenets.data.catalog import scan
from mobilenets.data.crew import keep_freed_memory
from mobilenets.data.decoded import Decoded, decoded
from mobilenets.data.digests import digests
from mobilenets.model.module import module, random_weights
from mobilenets.spec import zoo
from mobilenets.spec.net import Net
from mobilenets.spec.op import Conv, Dense, Depthwise, Pointwise, Pool
from mobilenets.spec.preprocess import SLIM
from mobilenets.spec.recipes import RECIPES
from mobilenets.train import loop
from mobilenets.train.body import one_thread
from mobilenets.train.finetune import half_is_native
from mobilenets.train.meter import cores, machine_line
from mobilenets.training import compiled_norms

NETS = (("v1", 1.0, 224, 64), ("v1", 0.25, 128, 128))
PICTURES = 2000


def plain_module(net: Net) -> nn.Module:
    """The same network in torch's own layers."""
    layers: list[nn.Module] = []
    channels = net.input.channels
    for node in net.nodes:
        op = node.op
        match op:
            case Conv() | Depthwise():
                out = op.out if isinstance(op, Conv) else channels
                groups = channels if isinstance(op, Depthwise) else 1
                layers += [
                    nn.Conv2d(channels, out, op.kernel, op.stride, op.kernel // 2, groups=groups, bias=False),
                    nn.BatchNorm2d(out),
                    nn.ReLU6(inplace=True),
                ]
                channels = out
            case Pointwise():
                layers += [
                    nn.Conv2d(channels, op.out, 1, bias=False),
                    nn.BatchNorm2d(op.out),
                    nn.ReLU6(inplace=True),
                ]
                channels = op.out
            case Pool():
                layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            case Dense():
                layers.append(nn.Linear(channels, op.out))
            case _:
                raise ValueError(f"{node.name}: the plain loop is for V1")
    return nn.Sequential(*layers)


def plain(net: Net, pictures: Decoded, truth: NDArray[np.int64], batch: int) -> Iterator[int]:
    """A step of the plain loop each time it is asked; gives the pictures of the step."""
    made = plain_module(net).train()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=4e-5)
    draw = np.random.default_rng(0)
    side = net.input.height
    while True:
        which = draw.integers(0, len(pictures), batch)
        levels = torch.from_numpy(pictures.rows(which)).permute(0, 3, 1, 2).float()
        top, left = (int(draw.integers(0, levels.shape[2] - side + 1)) for _ in range(2))
        x = levels[:, :, top : top + side, left : left + side]
        x = x.flip(3) if draw.random() < 0.5 else x
        loss = nn.functional.cross_entropy(
            made((x.contiguous() - 127.5) / 127.5), torch.from_numpy(truth[which])
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield batch


class Enough(Exception):  # noqa: N818  # no error: it ends a loop that would go on
    """The time is up."""


def ours(net: Net, pictures: Decoded, truth: NDArray[np.int64], batch: int, seconds: float) -> float:
    """Pictures a second of `train.loop.learn`, its first step left out."""
    recipe = replace(RECIPES["modern"], batch=batch, norm_batch=batch // 2, epochs=10_000)
    device = torch.device("cpu")
    where = loop.Where(device, cores(), half_is_native(device), norms=compiled_norms())
    state = loop.begun(module(net, random_weights(net, 0)), recipe, where)
    pre = replace(SLIM, height=net.input.height, width=net.input.width, geometry="stretch")
    begun = [0.0, 0.0]

    def each(taken: loop.Taken) -> None:
        if not begun[0]:
            begun[0] = time.perf_counter()
            return
        begun[1] += taken.pictures
        if time.perf_counter() - begun[0] > seconds:
            raise Enough

    with one_thread(), suppress(Enough):
        list(
            loop.learn(
                state,
                recipe,
                loop.Lessons(pictures, truth, int(truth.max()) + 1),
                pre,
                where,
                seed=0,
                objective=loop.cross_entropy,
                judged=lambda made: None,
                each=each,
            )
        )
    return begun[1] / (time.perf_counter() - begun[0])


def plain_rate(steps: Iterator[int], seconds: float) -> float:
    """Pictures a second over whole steps, the first left out."""
    next(steps)
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        done += next(steps)
    return done / (time.perf_counter() - begun)


def main() -> None:
    """Each network, both loops in turns."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--turns", type=int, default=5)
    asked.add_argument("--seconds", type=float, default=12.0)
    given = asked.parse_args()
    keep_freed_memory()  # as `mobilenets train` does; the plain loop gains by it too
    command = shlex.join(
        [
            *("python", "benchmarks/throughput.py", "--data", "DATA"),
            *("--turns", str(given.turns), "--seconds", f"{given.seconds:g}"),
        ]
    )
    with tempfile.TemporaryDirectory() as place:
        with tarfile.open(given.data / "data" / "tiny-imagenet-22k.tar") as archive:
            archive.extractall(place, filter="data")
        catalog = scan(next(Path(place).iterdir()))
        items = catalog.items[:: len(catalog.items) // PICTURES]
        catalog = replace(catalog, items=tuple(items))
        names = sorted({item.label for item in items})
        truth = np.array([names.index(item.label) for item in items])
        keys = digests(catalog, cores(), None)
        for name, width, resolution, batch in NETS:
            net = zoo.net(name, width, resolution, len(names))
            side = round(resolution * 8 / 7)
            stored = replace(SLIM, height=side, width=side, geometry="stretch")
            pictures, _ = decoded(
                catalog,
                items,
                stored,
                Path(place) / "kept",
                workers=cores(),
                progress=lambda *_: None,
                keys=keys,
            )
            loops: dict[str, Callable[[], float]] = {
                "ours": lambda: ours(net, pictures, truth, batch, given.seconds),  # noqa: B023
                "plain torch": lambda: plain_rate(plain(net, pictures, truth, batch), given.seconds),  # noqa: B023
            }
            found: dict[str, list[float]] = {kind: [] for kind in loops}
            for _ in range(given.turns):
                for kind, measured in loops.items():
                    found[kind].append(measured())
            middle = {kind: statistics.median(rates) for kind, rates in found.items()}
            for kind, rates in found.items():
                row = {
                    "net": name,
                    "width": width,
                    "resolution": resolution,
                    "engine": kind,
                    "images_per_second": round(middle[kind], 1),
                    "low": round(min(rates), 1),
                    "high": round(max(rates), 1),
                    "times": round(middle[kind] / middle["plain torch"], 2),
                    "turns": given.turns,
                    "machine": machine_line(),
                    "torch": torch.__version__,
                    "command": command,
                }
                keep(Path(__file__).parents[1] / "results" / "throughput.csv", row)


if __name__ == "__main__":
    main()
