"""Asking models: a file of others, pictures from everywhere, features, and what a base install can do."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
HEAVY = ("torch", "scipy", "matplotlib", "simplejpeg", "h5py", "keras")
"""What a plain `pip install mobilenets` does not bring."""


@pytest.fixture(scope="module")
def imagenet(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twentieth picture of the five hundred, in folders named by WordNet id."""
    folder = tmp_path_factory.mktemp("imagenet")
    with tarfile.open(material / "data" / "imagenet-500.tar") as archive:
        members = sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
        archive.extractall(folder, members[::20])
    return folder / "imagenet-500"


def test_a_tflite_file_names_what_pictures_of_imagenet_show(ask: Ask, imagenet: Path, material: Path) -> None:
    """V1 0.5 at 160 knows 69 % of one picture a class; of these 25 it must know half."""
    model = material / "weights" / "mobilenet_v1_0.5_160_quant.tflite"
    rows = ask("predict", model, imagenet, "--json", "--top", 5).facts["results"]
    assert len(rows) == 25
    right = 0
    for row in rows:
        scores = [p["score"] for p in row["predictions"]]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert 0 <= sum(scores) <= 1 + 1e-6
        assert "unknown" not in row  # the file carries no threshold
        name = Path(row["file"]).stem.replace("_", " ").lower()
        right += name in row["predictions"][0]["label"].lower()
    assert right >= 12, right
    found = ask("evaluate", model, imagenet, "--json").facts
    assert found["n"] == 25
    assert found["top1"] >= 0.5
    assert found["top5"] >= 0.7
    assert len(found["interval"]) == 2


def test_stdin_a_file_and_a_folder_give_the_same_answer(ask: Ask, taught: Any, tmp_path: Path) -> None:
    picture = sorted((taught.folder / "bonsai").iterdir())[0]
    strange = tmp_path / "Fotos 木" / "tief" / "noch tiefer"
    strange.mkdir(parents=True)
    shutil.copy(picture, strange / "ein Bäumchen 🌳.webp")
    asked = ask("predict", taught.model, picture, "-", tmp_path, "--json", stdin=picture.read_bytes())
    rows = asked.facts["results"]
    assert [row["file"] for row in rows] == [str(picture), "-", str(strange / "ein Bäumchen 🌳.webp")]
    assert rows[0]["predictions"] == rows[1]["predictions"] == rows[2]["predictions"]
    assert rows[0]["predictions"][0]["label"] == "bonsai"
    assert sum(p["score"] for p in rows[0]["predictions"]) == pytest.approx(1, abs=1e-5)
    assert f"{picture}: " in ask("predict", taught.model, picture, "--top", 1).out


def test_a_model_with_a_threshold_says_unknown(ask: Ask, taught: Any, tmp_path: Path) -> None:
    """Flat grey is none of five classes: its greatest logit falls below the threshold."""
    import numpy as np
    from PIL import Image

    from mobilenets.infer.artefact import load, save

    threshold = taught.facts["unknown"]["threshold"]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    for level in (0, 128, 255):
        Image.new("RGB", (80, 80), (level, level, level)).save(tmp_path / f"grey{level}.png")
    known = sorted((taught.folder / "Faces").iterdir())[:3]
    told = ask("predict", taught.model, tmp_path, *known, "--json")
    rows = told.facts["results"]
    for row in rows:
        assert row["unknown"] == (row["logit"] < threshold)
    assert all(row["unknown"] for row in rows if Path(row["file"]).name.startswith("grey"))
    assert not all(row["unknown"] for row in rows[4:])
    assert "unknown; perhaps" in ask("predict", taught.model, tmp_path).out
    strict = tmp_path / "strict.safetensors"
    save(replace(load(Path(taught.model)), threshold=1e5), strict)
    assert all(row["unknown"] for row in ask("predict", strict, *known, "--json").facts["results"])


def test_features_are_1024_numbers_for_width_1_and_differ_between_pictures(
    ask: Ask, imagenet: Path, material: Path
) -> None:
    model = material / "weights" / "mobilenet_v1_1.0_224_quant.tflite"
    pictures = sorted(imagenet.rglob("*.webp"))[:2]
    rows = ask("predict", model, *pictures, "--features", "--json").facts["results"]
    assert [len(row["features"]) for row in rows] == [1024, 1024]
    assert all(0 <= value <= 6 for row in rows for value in row["features"])  # behind a ReLU6 and a mean
    assert rows[0]["features"] != rows[1]["features"]
    assert "predictions" not in rows[0]


def test_a_body_without_names_gives_features_and_says_so(ask: Ask, material: Path, imagenet: Path) -> None:
    model = material / "weights" / "vww_96_float.tflite"
    picture = sorted(imagenet.rglob("*.webp"))[0]
    told = ask("predict", model, picture, code=2)
    assert "--features" in told.err
    assert len(ask("predict", model, picture, "--features", "--json").facts["results"][0]["features"]) == 256


def test_a_base_install_runs_every_command_that_does_not_learn(
    ask: Ask, without: Any, taught: Any, slice_of: Any, tmp_path: Path
) -> None:
    env = without(*HEAVY)
    folder = slice_of(tmp_path / "set", 5, 2)
    assert ask("cost", "v1", "--json", env=env).facts["macs"]
    assert ask("models", "--json", env=env).facts["models"]
    assert ask("info", taught.model, "--json", env=env).facts["labels"]
    assert ask("doctor", folder, "--json", env=env).facts["images"] == 10
    assert ask("evaluate", taught.model, folder, "--json", env=env).facts["n"] == 10
    assert len(ask("predict", taught.model, folder, "--json", env=env).facts["results"]) == 10


def test_importing_the_package_imports_next_to_nothing(surroundings: dict[str, str]) -> None:
    text = "import sys, mobilenets; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, env=surroundings, check=True, text=True
    )
    assert {*HEAVY, "numpy", "PIL", "rich", "typer", "safetensors"}.isdisjoint(done.stdout.split())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_predicting_with_numpy_alone_stays_below_120_megabytes(
    surroundings: dict[str, str], without: Any, imagenet: Path, material: Path
) -> None:
    """V1 1.0 at 224, the command line and all, twenty-five pictures. VmHWM is this process's own peak."""
    text = (
        "import sys\n"
        "from mobilenets.entry import run\n"
        "code = run(sys.argv[1:])\n"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))\n"
        "print(int(peak.split()[1]) / 1024, file=sys.stderr)\n"
        "sys.exit(code)"
    )
    model = material / "weights" / "mobilenet_v1_1.0_224_quant.tflite"
    done = subprocess.run(
        [sys.executable, "-c", text, "predict", model, imagenet, "--json"],
        capture_output=True,
        env={**surroundings, **without(*HEAVY)},
        check=True,
        text=True,
    )
    peak_mb = float(done.stderr.splitlines()[-1])
    print(f"peak memory of predict: {peak_mb:.1f} MB")  # noqa: T201  # a figure worth seeing with -s
    assert peak_mb < 120
