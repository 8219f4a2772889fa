"""Pictures of the camera app at the size of a phone, for README and docs/app.md.

    python benchmarks/screens.py --data DATA --out docs

The app of app.py, in headless Chromium with a film for its camera: looking in light and dark, teaching two
new classes with pictures of Caltech-101, without a camera, and held sideways.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from app import made
from PIL import Image

from mobilenets.infer.image import decode

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "shared"))
from browser import added, browsing, film, handed, opened, served, until

PHONE = {"viewport": {"width": 412, "height": 915}, "device_scale_factor": 1.5, "has_touch": True}
WIDE = {**PHONE, "viewport": {"width": 915, "height": 412}}
CLASSES = ("bonsai", "crab")
EXAMPLES = 20
ROAD = 26
"""Which of the pictures of roads is shown: one with a road and a horizon."""
GAP = 24
SETTLED_MS = 3000


def taught(page: Any, pictures: Path) -> None:
    """Two new classes, from files."""
    page.click("#teach")
    for number, name in enumerate(CLASSES):
        added(page, name)
        handed(page, ".files", sorted((pictures / name).iterdir())[1 : 1 + EXAMPLES], number)
        count = f"document.querySelectorAll('.count')[{number}].textContent"
        until(page, f"{count}.startsWith('{EXAMPLES} ')")
    page.evaluate("scrollTo(0, 0)")


def beside(files: list[Path], out: Path) -> None:
    """Pictures in a row, on a ground that both light and dark stand out from."""
    pictures = [Image.open(file).convert("RGB") for file in files]
    width = sum(one.width + GAP for one in pictures) + GAP
    ground = Image.new("RGB", (width, max(one.height for one in pictures) + 2 * GAP), "#8a929a")
    at = GAP
    for one in pictures:
        ground.paste(one, (at, GAP))
        at += one.width + GAP
    ground.save(out, quality=88)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--out", type=Path, required=True)
    given = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        folder, _, _ = made(given.data, place)
        with tarfile.open(given.data / "data" / "caltech101.tar") as archive:
            members = [one for one in archive if Path(one.name).parent.name in CLASSES and one.isfile()]
            archive.extractall(place, members, filter="data")
        caltech = next(file for file in place.rglob(CLASSES[0])).parent
        scenes = {
            "road": sorted((folder / "road").iterdir())[ROAD],
            "bonsai": sorted((caltech / "bonsai").iterdir())[0],
        }
        films = {
            name: film(place / f"{name}.y4m", [decode(file.read_bytes())]) for name, file in scenes.items()
        }
        shots = (
            ("light", films["road"], PHONE),
            ("dark", films["road"], {**PHONE, "color_scheme": "dark"}),
            ("teach", films["bonsai"], PHONE),
            ("trouble", None, PHONE),
            ("wide", films["road"], WIDE),
        )
        with served(place / "site") as address:
            for name, camera, how in shots:
                with browsing(camera, **how, permissions=["camera"] if camera else []) as context:
                    page = opened(context, address) if camera else context.new_page()
                    if camera is None:
                        page.goto(address)
                        page.wait_for_selector("#trouble", state="visible")
                    if name == "teach":
                        taught(page, caltech)
                    page.wait_for_timeout(SETTLED_MS)
                    page.screenshot(path=place / f"{name}.png")
        beside(
            [place / f"{name}.png" for name in ("light", "teach", "dark", "trouble")], given.out / "app.jpg"
        )
        beside([place / "wide.png"], given.out / "app-wide.jpg")


if __name__ == "__main__":
    main()
