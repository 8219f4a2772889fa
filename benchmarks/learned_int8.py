"""What learning in bytes takes back: V1 0.25 in float32, quantised, and that after some steps of Adam.

    python benchmarks/learned_int8.py --data FOLDER [--steps 150] [--out results/learned_int8.csv]

FOLDER has `data/tiny-imagenet-22k.tar` (200 of ImageNet's classes, 64 × 64, here stretched to 128) and
`weights/mobilenet_v1_0.25_224_float.tflite`. Answers are the greatest logit of those classes. 3000 pictures
judge, the others teach, 128 of them calibrate. Two beginnings: every choice of the quantiser at its plainest,
and those that it makes by itself. The teacher is the float network, so that nothing but bytes is learned.
`agreement` is of the module in eval mode with numpy's integers on all pictures that judge, and `bytes_apart`
the largest share of values of one node in which they differ on the first 100. Intervals are 95 %, of the
paired difference to the float network in top-1.
"""

from __future__ import annotations

import argparse
import math
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rows import keep
from torch import nn

from mobilenets.infer import imagenet, tflite
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.calibrate import observe
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.integer import IntegerWalk, image_zero
from mobilenets.infer.quantise import float_maps, quantise, with_biases
from mobilenets.infer.resize import Frame
from mobilenets.infer.trial import Choice, Material, built
from mobilenets.model.faked import Faked, integers
from mobilenets.model.module import module
from mobilenets.spec.net import at_resolution
from mobilenets.spec.preprocess import Preprocess
from mobilenets.train.meter import machine_line

WEIGHTS = "mobilenet_v1_0.25_224_float.tflite"
SIDE, JUDGED, CALIBRATED, BATCH, RATE = 128, 3000, 128, 32, 1e-4


def pictures(tar: Path, pre: Preprocess) -> tuple[Frame, NDArray[np.int64]]:
    """All of the archive, prepared, and the number of each one's class."""
    classes = {wnid: number for number, wnid in enumerate(imagenet.wnids())}
    levels, truth = [], []
    with tarfile.open(tar) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            number = classes.get(Path(member.name).parent.name)
            if content is not None and number is not None:
                levels.append(prepare(decode(content.read()), pre))
                truth.append(number)
                if len(levels) % 2000 == 0:
                    print(f"{len(levels)} pictures", file=sys.stderr)
    return np.stack(levels), np.array(truth)


def plainest(model: Artefact, levels: Frame) -> Artefact:
    folded = with_biases(model)
    zero = np.array(image_zero(model.preprocess), np.float32)
    return built(Material(folded, levels, observe(folded.net, float_maps(folded), levels, zero)), Choice())


class Bench:
    """The pictures, and what is asked of networks on them."""

    def __init__(self, model: Artefact, levels: Frame, truth: NDArray[np.int64]) -> None:
        order = np.random.default_rng(0).permutation(len(levels))
        self.model, self.levels = model, levels
        self.judging, self.teaching = order[:JUDGED], order[JUDGED:]
        self.classes = np.unique(truth)
        self.right = np.searchsorted(self.classes, truth)[self.judging]
        self.teacher = module(model.net, model.weights).eval()
        self.floats = self.answers(self.teacher)

    def given(self, which: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(normalise(self.levels[which], self.model.preprocess)).permute(0, 3, 1, 2)

    def answers(self, made: nn.Module) -> NDArray[np.int64]:
        parts = np.array_split(self.judging, JUDGED // 100)
        with torch.inference_mode():
            rows = [made.eval()(self.given(part))["logits"].numpy()[:, self.classes] for part in parts]
        return np.concatenate(rows).argmax(1)

    def by_integers(self, model: Artefact) -> NDArray[np.int64]:
        engine, parts = NumpyEngine(model), np.array_split(self.judging, JUDGED // 20)
        rows = [engine.prepared(self.levels[part])["logits"][:, self.classes] for part in parts]
        return np.concatenate(rows).argmax(1)

    def bytes_apart(self, made: Faked, model: Artefact) -> float:
        """The largest share of values in which a node of the module is not the integers'."""
        names = [node.name for node in model.net.nodes]
        some = self.judging[:100]
        wanted = IntegerWalk(model.net, model.weights, model.scales, model.preprocess)(
            self.levels[some], names
        )
        with torch.inference_mode():
            found = made.eval()(self.given(some), names)
        shares = []
        for name in names:
            value = found[name].permute(0, 2, 3, 1) if found[name].dim() == 4 else found[name]
            zero = model.scales[name].zero if name in model.scales else 0
            shares.append(float((value.numpy().reshape(wanted[name].shape) + zero != wanted[name]).mean()))
        return max(shares)

    def learn(self, made: Faked, steps: int) -> float:
        """Seconds that it took."""
        optimizer = torch.optim.Adam(made.parameters(), lr=RATE)
        draw, begun = np.random.default_rng(1), time.perf_counter()
        made.train()
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
            x = self.given(draw.choice(self.teaching, BATCH, replace=False))
            with torch.no_grad():
                wanted = self.teacher(x)["logits"][:, self.classes].log_softmax(1)
            found = made(x)["logits"][:, self.classes].log_softmax(1)
            loss = nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            if step % 10 == 0:
                print(f"step {step}: divergence {float(loss.detach()):.3f}", file=sys.stderr)
        return time.perf_counter() - begun

    def told(self, answers: NDArray[np.int64]) -> tuple[str, str, str]:
        """Top-1, its difference to the float network's with an interval, the share of the same answers."""
        right, before = answers == self.right, self.floats == self.right
        apart = right.astype(float) - before
        half = 1.96 * float(apart.std(ddof=1)) / math.sqrt(JUDGED)
        interval = f"{apart.mean():+.4f} ({apart.mean() - half:+.4f} to {apart.mean() + half:+.4f})"
        return f"{right.mean():.4f}", interval, f"{(answers == self.floats).mean():.4f}"

    def row(self, begin: str, start: Artefact, steps: int) -> dict[str, Any]:
        made = Faked(start)
        before = self.told(self.by_integers(start))
        seconds = self.learn(made, steps)
        learned = integers(made)
        answers = self.by_integers(learned)
        after = self.told(answers)
        return {
            "weights": WEIGHTS,
            "resolution": SIDE,
            "begins_with": begin,
            "n": JUDGED,
            "float32_top1": f"{(self.floats == self.right).mean():.4f}",
            "int8_top1": before[0],
            "int8_difference": before[1],
            "int8_same": before[2],
            "steps": steps,
            "learned_top1": after[0],
            "learned_difference": after[1],
            "learned_same": after[2],
            "agreement": f"{(answers == self.answers(made)).mean():.4f}",
            "bytes_apart": f"{self.bytes_apart(made, learned):.2g}",
            "learn_s": f"{seconds:.0f}",
            "machine": machine_line(),
            "command": f"python benchmarks/learned_int8.py --data DATA --steps {steps}",
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("results/learned_int8.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    read = tflite.read((args.data / "weights" / WEIGHTS).read_bytes())
    pre = replace(read.preprocess, height=SIDE, width=SIDE, geometry="stretch")
    model = replace(read, net=at_resolution(read.net, SIDE), preprocess=pre)
    bench = Bench(model, *pictures(args.data / "data" / "tiny-imagenet-22k.tar", pre))
    calibrating = bench.levels[bench.teaching[:CALIBRATED]]
    keep(args.out, bench.row("the plainest", plainest(model, calibrating), args.steps))
    keep(args.out, bench.row("chosen", quantise(model, calibrating), args.steps))


if __name__ == "__main__":
    main()
