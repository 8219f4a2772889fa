"""What a body that comes with the package is worth: beside learning from nothing, and beside ImageNet's.

    python benchmarks/body.py SET BODY --data FOLDER [--imagenet FILE] [--seeds 0,1,2]
    [--finetune 12] [--scratch 60] [--learned 60 [--rate 0.01]]

SET is caltech101 (30 pictures a class learn, all others judge) or road-or-not (half and half), in
FOLDER/data/SET.tar; BODY and --imagenet are weights of one network, a file or a known name. For each seed the
same pictures go to `mobilenets retrain --weights BODY`, to the same with ImageNet's weights at the body's
resolution: both learn a head alone, a linear probe. With --finetune EPOCHS the body's weights are learned on
so long; with --scratch EPOCHS `mobilenets train` learns from random weights by the recipe `modern`, with
--learned EPOCHS from the body's, at --rate where it is given. Rows are added to results/body.csv as they
come.
"""

from __future__ import annotations

import argparse
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from retrain import COMMAND
from rows import keep, told

from mobilenets.infer import adopt, weights
from mobilenets.train.meter import machine_line

ROWS = Path(__file__).parents[1] / "results" / "body.csv"
LEARN = {"caltech101": 30, "road-or-not": 500}
"""Pictures of a class that learn."""
LEFT_OUT = ("BACKGROUND_Google",)


def split(source: Path, name: str, seed: int, into: Path) -> Path:
    """Folders `train` and `test` with links to the pictures."""
    for folder in sorted(path for path in source.iterdir() if path.is_dir() and path.name not in LEFT_OUT):
        files = sorted(folder.iterdir())
        order = np.random.default_rng([seed, len(files)]).permutation(len(files))
        for place, index in enumerate(order):
            part = into / ("train" if place < LEARN[name] else "test") / folder.name
            part.mkdir(parents=True, exist_ok=True)
            (part / files[index].name).symlink_to(files[index])
    return into


def main() -> None:
    """Each seed, each beginning."""
    asked = argparse.ArgumentParser()
    asked.add_argument("set", choices=LEARN)
    asked.add_argument("body")
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--imagenet")
    asked.add_argument("--seeds", default="0,1,2")
    asked.add_argument("--finetune", type=int, default=0)
    asked.add_argument("--scratch", type=int, default=0)
    asked.add_argument("--learned", type=int, default=0)
    asked.add_argument("--rate", type=float)
    given = asked.parse_args()
    body = adopt.in_floats(weights.load(weights.find(given.body, "v1", 0.25, 128)))
    width, side = f"{body.net.width:g}", str(body.net.resolution)
    begun = {
        "packaged": (given.body, 0),
        "packaged, tuned": (given.finetune and given.body, given.finetune),
        "imagenet": (given.imagenet, 0),
        "random": (given.scratch and "random", given.scratch),
        "packaged, learned on": (given.learned and given.body, given.learned),
    }
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(given.data / "data" / f"{given.set}.tar") as archive:
            archive.extractall(scratch, filter="data")
        for seed in map(int, given.seeds.split(",")):
            folder = split(Path(scratch) / given.set, given.set, seed, Path(scratch) / f"split-{seed}")
            for beginning, (start, epochs) in begun.items():
                if not start:
                    continue
                out = str(Path(scratch) / f"{beginning}-{seed}")
                if beginning in ("random", "packaged, learned on"):
                    words = ["train", str(folder), "--recipe", "modern", "--weights", str(start)]
                    words += ["--resolution", side, "--epochs", str(epochs), "--split", "100/0/0"]
                    words += ["--net", "v1", "--width", width] if start == "random" else []
                    words += ["--rate", str(given.rate)] if given.rate and start != "random" else []
                else:
                    words = ["retrain", str(folder), "--weights", str(start), "--resolution", side]
                    words += ["--finetune", str(epochs)]
                found = told([*words, "--out", out, "--seed", str(seed)])
                low, high = found["interval"]
                keep(
                    ROWS,
                    {
                        "set": given.set,
                        "net": f"v1 {width} at {side}",
                        "beginning": beginning,
                        "weights": Path(str(start)).name,
                        "seed": seed,
                        "learning_pictures": len(list((folder / "train").glob("*/*"))),
                        "test_accuracy": found["accuracy"]["test"],
                        "test_pictures": found["test_pictures"],
                        "interval_low": low,
                        "interval_high": high,
                        "epochs": epochs,
                        "machine": machine_line(),
                        "command": COMMAND,
                    },
                )


if __name__ == "__main__":
    main()
