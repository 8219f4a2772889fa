"""The camera app of a published deployment's task, in headless Chromium: agreement, sizes, times, a peer.

    python benchmarks/app.py --data DATA [--frames 100] [--starts 10] [--runs 300]

V1 0.5 is retrained on DATA/data/road-or-not.tar at 128 from DATA/weights, quantised, and made an app and an
Android package. A film of its test pictures, half of each class, stands for the camera: each frame that the
app answered is matched with its picture, and the app's word compared with the class and with what the
reference says of the picture itself. A frame's time is the app's own, from its pixels to scores. Starts are
from navigation to the first answer, all files in the service worker's keeping. onnxruntime-web runs the
same network in the same page, prepared input in memory for all, at one thread and two: in heats, each engine
in a worker of its own that ends before the next begins, since threads that wait for work take it from others.
Rows go to results/app.csv.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from retrain import COMMAND
from rows import keep, told
from web import VERSION, packages

from mobilenets.app.serving import TYPES
from mobilenets.bench.formats import qdq
from mobilenets.data.calibration import listed, pictures
from mobilenets.infer import artefact
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.image import decode, normalise
from mobilenets.train.meter import machine_line

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "shared"))
from browser import browsing, film, served, until  # noqa: E402

WEIGHTS = "mobilenet_v1_0.5_160_quant.tflite"
SIZE = (640, 480)
EACH = 4
THREADS = (1, 2)
HEATS = 6
LIMIT_S = 240
WATCH = """
globalThis.seen = [];
const small = new OffscreenCanvas(16, 12).getContext("2d", { willReadFrequently: true });
globalThis.onseen = ({ pixels, width, height, label, ms }) => {
    globalThis.first ??= performance.now();
    const whole = new OffscreenCanvas(width, height);
    whole.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
    small.drawImage(whole, 0, 0, 16, 12);
    seen.push({ small: [...small.getImageData(0, 0, 16, 12).data], label, ms });
};
"""
ENGINES = {"ours int8": "ours", "onnxruntime-web float32": "float32", "onnxruntime-web int8": "int8"}
RACE = """
async (given) => {
    const worker = new Worker("race.mjs", { type: "module" });
    return new Promise((done, failed) => {
        worker.onmessage = ({ data }) => (worker.terminate(), data.error ? failed(data.error) : done(data));
        worker.onerror = ({ message }) => failed(message);
        worker.postMessage(given);
    });
}
"""


def made(data: Path, place: Path) -> tuple[Path, Path, dict[str, Any]]:
    """The pictures, a model retrained on them, and what was told of the app and the package of it."""
    with tarfile.open(data / "data" / "road-or-not.tar") as archive:
        archive.extractall(place, filter="data")
    folder, model = place / "road-or-not", place / "out" / "model.safetensors"
    retrain = ["retrain", folder, "--weights", data / "weights" / WEIGHTS, "--resolution", 128]
    told([*retrain, "--out", place / "out"])
    words = ["app", model, "--dtype", "int8", "--calibrate", folder, "--title", "Road or not"]
    return folder, model, told([*words, "--out", place / "site", "--apk", place / "road.apk"])


def chosen(out: Path, count: int) -> list[tuple[str, Path]]:
    """As many test pictures of each class, in turns."""
    with (out / "split.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["label"], out / row["file"]) for row in csv.DictReader(file) if row["split"] == "test"]
    classes = sorted({label for label, _ in rows})
    own = [[row for row in rows if row[0] == label][: count // len(classes)] for label in classes]
    return [row for together in zip(*own, strict=True) for row in together]


def agreement(address: str, camera: Path, shown: list[tuple[str, Path]], model: Any) -> list[dict[str, Any]]:
    """Rows for each class: how often the app said what the reference says of the picture, and the truth."""
    frames = [decode(file.read_bytes()) for _, file in shown]
    reference = NumpyEngine(model)
    said = [model.labels[int(reference(frame)["logits"].argmax())] for frame in frames]
    from PIL import Image

    small = np.stack(
        [
            np.asarray(Image.fromarray(frame).resize(SIZE).resize((16, 12), Image.Resampling.BOX))
            for frame in frames
        ]
    ).astype(np.int32)
    with browsing(camera, permissions=["camera"]) as context:
        page = context.new_page()
        page.add_init_script(WATCH)
        page.goto(address)
        until(page, "globalThis.seen?.length", LIMIT_S)
        page.uncheck("#smooth")
        page.evaluate("seen.length = 0")
        until(page, f"seen.length >= {3 * EACH * len(frames)}", LIMIT_S)
        seen = page.evaluate("seen")
        isolated = page.evaluate("crossOriginIsolated")
    found: dict[int, str] = {}
    for one in seen:
        levels = np.array(one["small"], np.int32).reshape(12, 16, 4)[:, :, :3]
        found[int(np.abs(small - levels).sum((1, 2, 3)).argmin())] = one["label"]
    times = sorted(one["ms"] for one in seen)
    rows = []
    for label in model.labels:
        own = [index for index in found if shown[index][0] == label]
        rows.append(
            {
                "what": f"frames of {label}",
                "n": len(own),
                "as_reference": sum(found[index] == said[index] for index in own) / len(own),
                "as_labelled": sum(found[index] == label for index in own) / len(own),
            }
        )
    rows.append({"what": "a frame, ms", "n": len(times), "isolated": isolated, **spread(times)})
    return rows


def spread(times: list[float]) -> dict[str, float]:
    """Median, tenth and ninety-fifth percentile."""
    low, middle, high = np.percentile(times, [10, 50, 95])
    return {"p10_ms": round(low, 3), "p50_ms": round(middle, 3), "p95_ms": round(high, 3)}


def starts(address: str, camera: Path, count: int) -> dict[str, Any]:
    """Milliseconds from navigation to the first answer, with everything in the service worker's keeping."""
    taken = []
    with browsing(camera, permissions=["camera"]) as context:
        for turn in range(count + 2):
            page = context.new_page()
            page.add_init_script(WATCH)
            page.goto(address)
            until(page, "globalThis.first", LIMIT_S)
            until(page, "navigator.serviceWorker.controller !== null", LIMIT_S)
            if turn >= 2:  # the first fills the cache, the second remembers what was measured
                taken.append(page.evaluate("first"))
            page.close()
    return {"what": "navigation to the first answer, warm, ms", "n": count, **spread(taken)}


def race(site: Path, app: dict[str, Any], model: Any, folder: Path, runs: int) -> list[dict[str, Any]]:
    """Rows of each engine, by turns, at equal threads."""
    shutil.copy(Path(__file__).with_suffix(".mjs"), site / "race.mjs")
    (site / "race.html").write_text("<!doctype html><title>race</title>")
    shutil.copytree(packages() / "onnxruntime-web" / "dist", site / "ort")
    source = site.parent / "subject"
    source.mkdir()
    artefact.save(model, source / "model.safetensors")
    np.save(source / "calibration.npy", pictures(listed(folder), model.preprocess, most=64).levels)
    levels = np.load(source / "calibration.npy")[:1]
    (site / "levels.bin").write_bytes(levels.tobytes())
    planes = normalise(levels, model.preprocess).transpose(0, 3, 1, 2)
    (site / "planes.bin").write_bytes(np.ascontiguousarray(planes).tobytes())
    for dtype in ("float32", "int8"):
        qdq.write(source, site / f"{dtype}.onnx", dtype)
    (site / "shape.json").write_text(json.dumps(planes.shape))
    wanted = int(NumpyEngine(model).prepared(levels)["logits"][0].argmax())
    taken: dict[tuple[int, str], list[float]] = {(n, name): [] for n in THREADS for name in ENGINES}
    TYPES[".mjs"] = TYPES[".js"]  # the app itself has none of that name
    with served(site) as address, browsing(None) as context:
        page = context.new_page()
        page.goto(f"{address}race.html")
        for heat in range(HEATS):
            turned = list(taken)[heat % len(taken) :] + list(taken)[: heat % len(taken)]
            for threads, name in turned:
                given = {"engine": ENGINES[name], "threads": threads, "folder": app["variants"][0]["folder"]}
                found = page.evaluate(RACE, given | {"runs": runs // HEATS})
                assert int(np.argmax(found["answer"])) == wanted, (name, found["answer"])
                taken[threads, name] += found["taken"]
    return [
        {"what": f"{name}, ms", "threads": threads, "n": len(times), **spread(times)}
        for (threads, name), times in taken.items()
    ]


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, required=True)
    asked.add_argument("--frames", type=int, default=100)
    asked.add_argument("--starts", type=int, default=10)
    asked.add_argument("--runs", type=int, default=300)
    asked.add_argument("--rows", type=Path, default=ROOT / "results" / "app.csv")
    given = asked.parse_args()
    columns = (
        "what",
        "n",
        "threads",
        "isolated",
        "as_reference",
        "as_labelled",
        "p10_ms",
        "p50_ms",
        "p95_ms",
        "bytes",
    )
    facts = {"peer": f"onnxruntime-web {VERSION}", "machine": machine_line(), "command": COMMAND}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        folder, model_file, app = made(given.data, place)
        rows: list[dict[str, Any]] = [
            {"what": "all of it on disk", "bytes": app["bytes"]},
            {"what": "all of it over the wire (gzip)", "bytes": app["gzip_bytes"]},
            {"what": "code on disk", "bytes": app["code_bytes"]},
            {"what": "Android package", "bytes": app["apk"]["bytes"]},
        ]
        from mobilenets.compiling import typed

        whole = artefact.load(model_file)
        model, _ = typed(whole, "int8", folder, lambda *_: None)
        assert artefact.digest(model) == app["variants"][0]["digest"]
        shown = chosen(place / "out", given.frames)
        camera = film(place / "road.y4m", [decode(file.read_bytes()) for _, file in shown], *SIZE, each=EACH)
        with served(place / "site") as address:
            rows += agreement(address, camera, shown, model)
            rows.append(starts(address, camera, given.starts))
        raced = race(place / "site", app, whole, folder, given.runs)
        rows += raced
        for row in rows:
            keep(given.rows, {name: row.get(name) for name in columns} | facts)
        for threads in THREADS:
            own, *others = (row["p50_ms"] for row in raced if row["threads"] == threads)
            print(f"{threads} threads: {min(others) / own:.2f} times as fast as onnxruntime-web's best")
        print(f"median start {median([row['p50_ms'] for row in rows if 'navigation' in row['what']]):.0f} ms")


if __name__ == "__main__":
    main()
