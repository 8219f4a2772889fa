"""A user's mistake is one line that names it, and exit code 2; never a traceback, never half a result."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Ask = Callable[..., Any]
Refuse = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("cost",), "net"),
        (("cost", "v9"), "v1-shallow"),
        (("cost", "v1", "v2"), "v2"),
        (("cost", "v1", "--nope"), "--nope"),
        (("cost", "v1", "--width", "0"), "width"),
        (("cost", "v1", "--width", "-1"), "width"),
        (("cost", "v1", "--width", "1e9"), "width"),
        (("cost", "v1", "--width", "nan"), "width"),
        (("cost", "v1", "--width", "wide"), "--width"),
        (("cost", "v1", "--resolution", "0"), "resolution"),
        (("cost", "v1", "--resolution", "-5"), "resolution"),
        (("cost", "v1", "--resolution", "100000"), "resolution"),
        (("cost", "v1", "--resolution", "1.5"), "--resolution"),
        (("cost", "v1", "--classes", "0"), "class"),
        (("cots", "v1"), "cots"),
        (("--nope",), "--nope"),
        (("models", "v1"), "v1"),
        (("doctor",), "folder"),
        (("doctor", "nowhere"), "nowhere"),
        (("evaluate", "nowhere.safetensors", "."), "nowhere.safetensors"),
        (("predict", "nowhere.safetensors", "."), "nowhere.safetensors"),
        (("info", "nowhere"), "nowhere"),
        (("info", ""), "folder"),
        (("info", "a\nb"), "no such file"),
        (("info", "n" * 5000), "nnnn"),
        (("info", "/dev/null"), "empty"),
        (("retrain", "."), "--out"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_mistake_on_the_command_line_is_named(
    refuse: Refuse, tmp_path: Path, arguments: tuple[str, ...], word: str
) -> None:
    assert word in refuse(*arguments, cwd=tmp_path)


def test_no_threads_is_refused_by_every_command_that_has_them(
    refuse: Refuse, body25: Path, five: Path, tmp_path: Path
) -> None:
    assert "threads" in refuse("doctor", five, "--threads", 0)
    assert "threads" in refuse("evaluate", body25, five, "--threads", -1)
    assert "--threads" in refuse("retrain", five, "--out", tmp_path, "--weights", body25, "--threads", 0)


SENSELESS = [
    (("--width", "0.5"), "width"),
    (("--net", "v9"), "v9"),
    (("--net", "v1-shallow"), "v1-shallow"),
    (("--resolution", "0"), "--resolution"),
    (("--resolution", "-4"), "--resolution"),
    (("--resolution", "100000"), "--resolution"),
    (("--split", "nonsense"), "80/10/10"),
    (("--split", "80/10"), "80/10/10"),
    (("--split", "0/50/50"), "train"),
    (("--split", "80/10/-10"), "80/10/10"),
    (("--device", "tpu"), "cpu, cuda, mps"),
    (("--finetune", "-1"), "--finetune"),
    (("--smoothing", "nan"), "--smoothing"),
    (("--geometry", "wobble"), "letterbox"),
    (("--seed", "-1", "--finetune", "1"), "--seed"),
    (("--sweep", "--width", "0"), "width"),
    (("--weights", "random"), "--finetune"),
    (("--weights", "randm"), "mobilenets models"),
    (("--weights", "random", "--finetune", "1", "--width", "0"), "width"),
]


def test_a_retraining_that_makes_no_sense_is_refused_and_writes_nothing(
    refuse_each: Any, five: Path, body25: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "out"
    lines = refuse_each(
        *(("retrain", five, "--out", out, "--weights", body25, *options) for options, _ in SENSELESS)
    )
    for line, (options, word) in zip(lines, SENSELESS, strict=True):
        assert word in line, options
    assert not out.exists()


def test_a_device_that_is_not_there_is_refused(
    refuse: Refuse, five: Path, body25: Path, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    away = next(
        name
        for name, there in (("mps", torch.backends.mps.is_available()), ("cuda", torch.cuda.is_available()))
        if not there
    )
    line = refuse("retrain", five, "--out", tmp_path / "o", "--weights", body25, "--device", away)
    assert f"--device {away}" in line
    assert "--device cpu" in line


def test_missing_weights_name_all_four_places(
    refuse: Refuse, five: Path, cache: Path, tmp_path: Path
) -> None:
    line = refuse("retrain", five, "--out", tmp_path / "o", "--width", 0.75, "--resolution", 128)
    places = (
        "1. the option",
        "2. the cache: keras/mobilenet_7_5_128",
        "3. a download",
        "4. the packaged body",
    )
    for place in (*places, str(cache), "offline"):
        assert place in line


def test_a_data_set_that_is_none_is_refused_with_what_to_do(
    refuse_each: Any, five: Path, body25: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    picture = sorted((five / "ant").iterdir())[0]
    for folder in ("empty", "lone/ant", "hollow/cat", "hollow/dog"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lone" / "ant" / "1.webp").write_bytes(picture.read_bytes())
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "bad.csv").write_text("file,label,split\na.jpg,cat,tomorrow\n")
    (tmp_path / "only head.csv").write_text("file,label\n")
    (tmp_path / "hollow" / "cat" / "a.jpg").write_bytes(b"")
    (tmp_path / "hollow" / "dog" / "b.jpg").write_bytes(b"no picture")
    cases = {
        tmp_path / "empty": "class folder",
        five / "ant": "outside any class folder",
        picture: "neither a folder, a zip nor a CSV",
        tmp_path / "lone": "1 class (ant), at least 2",
        tmp_path / "broken.zip": "damaged zip",
        tmp_path / "bad.csv": "line 2",
        tmp_path / "only head.csv": "rows are file,label",
        tmp_path / "hollow": "cat/a.jpg (the file has no bytes) and 1 more",
    }
    lines = refuse_each(
        *(("retrain", folder, "--out", tmp_path / "out", "--weights", body25) for folder in cases)
    )
    for line, (folder, word) in zip(lines, cases.items(), strict=True):
        assert word in line
        assert str(folder) in line


def test_an_out_that_cannot_be_a_folder_is_refused(
    refuse: Refuse, five: Path, body25: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        line = refuse("retrain", five, "--out", out, "--weights", body25)
        assert "another --out" in line
        assert str(out) in line
    assert file.read_text() == "mine"


def test_an_out_that_cannot_be_written_is_refused(
    refuse: Refuse, five: Path, body25: Path, closed: Path
) -> None:
    assert str(closed) in refuse("retrain", five, "--out", closed, "--weights", body25)


def test_a_model_of_other_classes_lists_the_difference(
    refuse: Refuse, taught: Any, slice_of: Any, tmp_path: Path
) -> None:
    folder = slice_of(tmp_path / "set", 2, 1, names=("Faces", "wasp", "", "", ""))
    line = refuse("evaluate", taught.model, folder)
    assert "does not know wasp" in line
    assert "ant, barrel, bonsai, crab" in line


def test_pictures_that_are_none_are_named(refuse: Refuse, taught: Any, tmp_path: Path) -> None:
    assert "no such file" in refuse("predict", taught.model, tmp_path / "nowhere.jpg")
    assert "without pictures" in refuse("predict", taught.model, tmp_path)
    assert "-: " in refuse("predict", taught.model, "-", stdin=b"garbage")
    assert "no bytes" in refuse("predict", taught.model, "-", stdin=b"")
    assert "--top" in refuse("predict", taught.model, "-", "--top", 0)
    assert "folder" in refuse("predict", tmp_path, "-")


def test_a_path_that_is_none_keeps_no_other_from_its_answer(ask: Any, taught: Any, tmp_path: Path) -> None:
    picture = sorted((taught.folder / "bonsai").iterdir())[0]
    told = ask("predict", taught.model, tmp_path / "nowhere.jpg", picture, "--json", code=2)
    assert "nowhere.jpg: no such file" in told.err
    wrong, right = told.facts["results"]
    assert wrong == {"file": str(tmp_path / "nowhere.jpg"), "error": "no such file or folder"}
    assert right["predictions"][0]["label"] == "bonsai"
    # What was found in a folder was not asked for by name: it is told, and the rest is as good as it was.
    shutil.copy(picture, tmp_path / "tree.jpg")
    (tmp_path / "cut.jpg").write_bytes(picture.read_bytes()[:300])
    told = ask("predict", taught.model, tmp_path, "--json")
    assert "cut.jpg: " in told.err
    assert ["error" in row for row in told.facts["results"]] == [True, False]


def test_one_bad_picture_among_good_ones_is_named_and_the_others_are_answered(
    ask: Ask, taught: Any, tmp_path: Path
) -> None:
    good = sorted((taught.folder / "ant").iterdir())[0]
    (tmp_path / "bad.jpg").write_text("no picture")
    told = ask("predict", taught.model, good, tmp_path / "bad.jpg", "--json")
    rows = told.facts["results"]
    assert [("error" in row, "predictions" in row) for row in rows] == [(False, True), (True, False)]
    assert told.err.count("\n") == 1
    assert "bad.jpg" in told.err


def _resealed(data: bytes, **changed: object) -> bytes:
    """The same file with other metadata, sealed as a later program would."""
    from mobilenets.infer.sealed import pack, unpack

    meta, tensors = unpack(data)
    return pack({**meta, **changed}, tensors)


@pytest.mark.parametrize("command", ["info", "predict", "evaluate", "retrain"])
def test_a_model_file_that_is_not_whole_is_refused_by_every_command(
    refuse: Refuse, taught: Any, tmp_path: Path, command: str
) -> None:
    data = taught.model.read_bytes()
    flipped = bytearray(data)
    flipped[-1000] ^= 1
    (length,) = struct.unpack("<Q", data[:8])
    renamed = bytearray(data)
    place = data.index(b"Faces")
    renamed[place : place + 5] = b"Fakes"
    broken = {
        "empty": (b"", "empty"),
        "short": (data[:4], "no file of weights"),
        "cut in its header": (data[: length // 2], "truncated"),
        "cut in its data": (data[:-100], "truncated"),
        "altered weights": (bytes(flipped), "altered"),
        "altered labels": (bytes(renamed), "altered"),
        "of a future version": (_resealed(data, format=99), "update mobilenets"),
        "with more in it": (_resealed(data, surprise=1), "surprise"),
        "text": (json.dumps({"not": "a model"}).encode(), "weights"),
    }
    rest = {
        "info": (),
        "predict": (taught.folder / "ant",),
        "evaluate": (taught.folder,),
        "retrain": ("--out", tmp_path / "out"),
    }[command]
    # Each kind of damage through `info`; the other commands read by the same door, so two of them do.
    chosen = (
        broken if command == "info" else {k: broken[k] for k in ("cut in its data", "of a future version")}
    )
    for name, (content, word) in chosen.items():
        file = tmp_path / f"{name}.safetensors"
        file.write_bytes(content)
        if command == "retrain":
            line = refuse("retrain", taught.folder, "--weights", file, *rest)
        else:
            line = refuse(command, file, *rest)
        assert word in line, name
        assert file.name in line


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("coco_ssd_mobilenet_v1_1.0_quant_2018_06_29.tflite", "Detection"),
        ("MobileFaceNet.onnx", "ONNX"),
        ("imagenet_labels.txt", "no file of weights"),
    ],
)
def test_files_of_other_networks_are_refused_with_the_reason(
    refuse: Refuse, material: Path, file: str, word: str
) -> None:
    line = refuse("info", material / "weights" / file)
    assert word in line
    assert file in line


def test_commands_that_learn_say_what_to_install_where_torch_is_missing(
    refuse: Refuse, without: Any, five: Path, body25: Path, tmp_path: Path
) -> None:
    line = refuse("retrain", five, "--out", tmp_path / "o", "--weights", body25, env=without("torch"))
    assert "mobilenets[train]" in line
