"""The benchmarks' data sets from their public originals, which you fetch yourself: shrunk copies in a tar.

    python benchmarks/prepare.py caltech101   101_ObjectCategories/ --out DATA
    python benchmarks/prepare.py imagenet-500 imagenet/train/       --out DATA
    python benchmarks/prepare.py road-or-not  roads/ 101_ObjectCategories/ --out DATA

Caltech-101 is at https://data.caltech.edu/records/mzrjq-6wc02, ImageNet at https://image-net.org (an account
is needed). caltech101: all 102 folders, short side at most 160. imagenet-500: the first picture of every
second class in the order of WordNet ids, short side at most 256. road-or-not: a thousand pictures of roads
from a folder of yours and a thousand from Caltech-101 in turn over its classes, short side at most 160. WebP
of quality 90. Writes DATA/data/SET.tar, whole or not at all; the benchmarks take DATA with --data. Pictures
that do not decode are named and left out.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator
from itertools import chain, islice, zip_longest
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".JPEG", ".JPG"}
QUALITY = 90
HALF = 1000
Pair = tuple[Path, str]


def pictures(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)


def classes(folder: Path) -> list[Path]:
    """The class folders of a data set, in order of their names."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def caltech101(source: Path) -> Iterator[Pair]:
    for folder in classes(source):
        for path in pictures(folder):
            yield path, f"caltech101/{folder.name}/{path.stem}.webp"


def imagenet500(source: Path) -> Iterator[Pair]:
    for folder in classes(source)[::2]:
        for path in pictures(folder)[:1]:
            yield path, f"imagenet-500/{folder.name}/{path.stem}.webp"


def road_or_not(roads: Path, others: Path) -> Iterator[Pair]:
    for number, path in enumerate(pictures(roads)[:HALF]):
        yield path, f"road-or-not/road/{number:04}.webp"
    in_turn = chain.from_iterable(zip_longest(*(pictures(folder) for folder in classes(others))))
    for number, path in enumerate(islice((path for path in in_turn if path is not None), HALF)):
        yield path, f"road-or-not/not-road/{number:04}.webp"


def shrunk(path: Path, short: int) -> bytes:
    """A picture as WebP with a short side of at most `short` pixels."""
    with Image.open(path) as picture:
        made = picture.convert("RGB")
    scale = short / min(made.size)
    if scale < 1:
        made = made.resize(
            (max(1, round(made.width * scale)), max(1, round(made.height * scale))), Image.Resampling.LANCZOS
        )
    data = io.BytesIO()
    made.save(data, "WEBP", quality=QUALITY)
    return data.getvalue()


def write(pairs: Iterator[Pair], target: Path, short: int) -> int:
    """Write the tar; how many pictures it holds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    count = 0
    with tarfile.open(part, "w") as archive:
        for path, name in pairs:
            try:
                data = shrunk(path, short)
            except (OSError, UnidentifiedImageError, ValueError) as error:
                print(f"left out: {path}: {error}", file=sys.stderr)
                continue
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
            count += 1
            if count % 500 == 0:
                print(f"{count} pictures", file=sys.stderr)
    if count == 0:
        part.unlink()
        raise SystemExit("no picture was found; the folders are not laid out as described in --help")
    part.replace(target)
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=("caltech101", "imagenet-500", "road-or-not"))
    parser.add_argument("source", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    wanted = 2 if args.set == "road-or-not" else 1
    if len(args.source) != wanted or not all(path.is_dir() for path in args.source):
        parser.error(f"{args.set} takes {wanted} folder(s) that exist")
    if args.set == "caltech101":
        pairs, short = caltech101(args.source[0]), 160
    elif args.set == "imagenet-500":
        pairs, short = imagenet500(args.source[0]), 256
    else:
        pairs, short = road_or_not(*args.source), 160
    target = args.out / "data" / f"{args.set}.tar"
    print(f"{write(pairs, target, short)} pictures in {target}")


if __name__ == "__main__":
    main()
