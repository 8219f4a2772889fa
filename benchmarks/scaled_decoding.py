"""What JPEG decoding at ½, ¼ or ⅛ scale costs in accuracy: ImageNet-500, read both ways.

    python benchmarks/scaled_decoding.py --data FOLDER [--out results/scaled_decoding.csv]

FOLDER has `data/imagenet-500.tar` and `weights/*.tflite`. The pictures there are small (short side ≤ 256), so
each is first enlarged until it is just decoded at ½ scale (bicubic, JPEG of quality 95). For a network of 128
pixels that changes little: what it can see lies in the pictures as they came.
The interval is 95 %, of the paired difference in top-1 (scaled − full).
"""

from __future__ import annotations

import argparse
import io
import math
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rows import keep

from mobilenets.infer import imagenet, tflite
from mobilenets.infer.image import decode, normalise, prepare
from mobilenets.infer.walk import Walk
from mobilenets.spec.preprocess import Preprocess
from mobilenets.train.meter import machine_line

FILES = ("mobilenet_v1_0.25_128_quant.tflite", "mobilenet_v1_1.0_224_quant.tflite")
TIMES = 4
"""Side of the part that is read, in sides of the network's input: the least at which ½ scale is allowed."""


def enlarged(data: bytes, pre: Preprocess) -> bytes:
    """An encoded picture as a JPEG so large that it is just decoded at ½ scale."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        times = math.ceil(TIMES * pre.height / pre.fraction) / min(picture.size)
        size = (math.ceil(picture.width * times), math.ceil(picture.height * times))
        picture.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(out, "JPEG", quality=95)
    return out.getvalue()


def compared(weights: Path, tar: Path) -> dict[str, Any]:
    """Top-1 of one file of weights on pictures read both ways."""
    model = tflite.read(weights.read_bytes())
    walk = Walk(model.net, model.weights)
    classes = {wnid: number for number, wnid in enumerate(imagenet.wnids())}
    answers: list[tuple[int, int, int]] = []
    seconds, scales = [0.0, 0.0], set()
    with tarfile.open(tar) as archive:
        for member in (member for member in archive if member.isfile()):
            content = archive.extractfile(member)
            data = enlarged(content.read() if content is not None else b"", model.preprocess)
            found, sides = [], []
            for way, target in enumerate((None, model.preprocess)):
                begun = time.perf_counter()
                frame = decode(data, target)
                seconds[way] += time.perf_counter() - begun
                sides.append(frame.shape[0])
                x = normalise(prepare(frame, model.preprocess)[None], model.preprocess)
                found.append(int(walk(x)["logits"].argmax()))
            scales.add(round(sides[0] / sides[1]))
            answers.append((classes[Path(member.name).parent.name], found[0], found[1]))
            if len(answers) % 50 == 0:
                print(f"{weights.name}: {len(answers)} pictures", file=sys.stderr)
    truth, full, scaled = np.array(answers).T
    n = len(truth)
    difference = (scaled == truth).astype(float) - (full == truth)
    half = 1.96 * float(difference.std(ddof=1)) / math.sqrt(n)
    return {
        "weights": weights.name,
        "resolution": model.net.resolution,
        "scale": "1/" + " ".join(map(str, scales)),
        "n": n,
        "top1_full": f"{(full == truth).mean():.4f}",
        "top1_scaled": f"{(scaled == truth).mean():.4f}",
        "difference": f"{difference.mean():+.4f}",
        "low": f"{difference.mean() - half:+.4f}",
        "high": f"{difference.mean() + half:+.4f}",
        "same_top1": f"{(full == scaled).mean():.4f}",
        "decode_full_ms": f"{seconds[0] / n * 1e3:.2f}",
        "decode_scaled_ms": f"{seconds[1] / n * 1e3:.2f}",
        "machine": machine_line(),
        "command": "python benchmarks/scaled_decoding.py --data DATA",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/scaled_decoding.csv"))
    args = parser.parse_args()
    tar = args.data / "data" / "imagenet-500.tar"
    for name in FILES:
        keep(args.out, compared(args.data / "weights" / name, tar))


if __name__ == "__main__":
    main()
