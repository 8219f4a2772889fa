"""The doctor finds what is planted, and nothing in a set where nothing is."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenets.data.catalog import Catalog, Item, SetAside, scan
from mobilenets.data.doctor import Diagnosis, Problem, duplicate_groups, examine
from mobilenets.data.look import look
from mobilenets.data.store import Store
from mobilenets.data.survey import SPACE, looks_of


class Deadly(Catalog):
    """A catalog on one file of which the process that reads it dies, as in a decoder that crashes."""

    __slots__ = ()

    def read(self, item: Item) -> bytes:
        if "deadly" in item.file:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(item)


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def saved(made: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer, kind, **options)
    return buffer.getvalue()


def planted(root: Path, files: dict[str, bytes]) -> Path:
    for file, data in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(data)
    return root


def healthy(count: int = 12, parts: tuple[str, ...] = ("",)) -> dict[str, bytes]:
    files = {}
    for place, name in enumerate([f"{part}{label}" for part in parts for label in ("cat", "dog")]):
        for k in range(count):
            files[f"{name}/{k}.jpg"] = saved(picture(1000 * place + k), quality=60 + k % 30)
    return files


def diagnosis(root: Path) -> Diagnosis:
    catalog = scan(root)
    return examine(catalog, looks_of(catalog, None, 0))


def found(told: Diagnosis) -> dict[str, Problem]:
    assert len({problem.kind for problem in told.problems}) == len(told.problems)
    return {problem.kind: problem for problem in told.problems}


def test_a_healthy_set_has_no_problem(tmp_path: Path) -> None:
    told = diagnosis(planted(tmp_path, healthy()))
    assert (told.images, told.classes, told.counts) == (24, 2, {"cat": 12, "dog": 12})
    assert told.problems == ()


def test_files_that_cannot_be_used_are_named_by_kind(tmp_path: Path) -> None:
    good = saved(picture(1))
    bad = {
        "cat/zero.jpg": b"",
        "cat/text.jpg": b"hello " * 99,
        "dog/cut.jpg": good[: len(good) // 2],
        "dog/notes.txt": b"x",
        "loose.jpg": good,
    }
    told = found(diagnosis(planted(tmp_path, healthy() | bad)))
    assert {kind: problem.files for kind, problem in told.items()} == {
        "empty": ("cat/zero.jpg",),
        "unreadable": ("cat/text.jpg",),
        "truncated": ("dog/cut.jpg",),
        "not-a-picture": ("dog/notes.txt",),
        "no-class": ("loose.jpg",),
    }
    assert told["empty"].severity == "error"
    assert told["not-a-picture"].severity == "note"


def test_odd_pictures_are_named_by_kind(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    frames = [picture(k) for k in (70, 71, 72)]
    deep = Image.fromarray(np.asarray(picture(60).convert("L")).astype(np.uint16) * 257)
    odd = {
        "cat/turned.jpg": saved(picture(50), exif=exif),
        "cat/grey.jpg": saved(picture(51).convert("L")),
        "cat/print.jpg": saved(picture(52).convert("CMYK")),
        "cat/palette.png": saved(picture(53).convert("P"), "PNG"),
        "dog/deep.png": saved(deep, "PNG"),
        "dog/clear.png": saved(picture(54).convert("RGBA"), "PNG"),
        "dog/moving.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "dog/named.png": saved(picture(55)),
        "dog/small.jpg": saved(picture(56, (31, 200))),
        "dog/dot.png": saved(picture(57, (1, 1)), "PNG"),
        "dog/large.jpg": saved(picture(58, (6000, 4200)), quality=20),
    }
    told = found(diagnosis(planted(tmp_path, healthy() | odd)))
    assert {kind: problem.files for kind, problem in told.items()} == {
        "turned": ("cat/turned.jpg",),
        "greyscale": ("cat/grey.jpg", "dog/deep.png"),
        "cmyk": ("cat/print.jpg",),
        "palette": ("cat/palette.png", "dog/moving.gif"),
        "16-bit": ("dog/deep.png",),
        "alpha": ("dog/clear.png",),
        "animated": ("dog/moving.gif",),
        "wrong-suffix": ("dog/named.png",),
        "tiny": ("dog/dot.png", "dog/small.jpg"),
        "large": ("dog/large.jpg",),
    }


def test_few_pictures_and_imbalance_count_what_can_be_used(tmp_path: Path) -> None:
    files = {f"cat/{k}.jpg": saved(picture(k)) for k in range(41)}
    files |= {f"dog/{k}.jpg": saved(picture(100 + k)) for k in range(4)} | {
        "dog/bad.jpg": b"",
        "emu/bad.jpg": b"",
    }
    told = diagnosis(planted(tmp_path, files))
    assert told.counts == {"cat": 41, "dog": 4, "emu": 0}
    problems = found(told)
    assert problems["few-pictures"].files == ("dog", "emu")
    assert "emu has 0" in problems["few-pictures"].detail
    assert problems["imbalance"].files == ("cat", "emu")


def test_duplicates_across_parts_and_labels_come_first(tmp_path: Path) -> None:
    files = healthy(12, ("train/", "test/"))
    made = picture(5007, (150, 100))
    files["train/cat/same.jpg"] = files["test/cat/same.jpg"] = saved(made)
    files["test/dog/near.webp"] = saved(made.resize((75, 50)), "WEBP", quality=60)
    twice = saved(picture(5008))
    files["train/dog/one.jpg"] = files["train/dog/two.jpg"] = twice
    told = diagnosis(planted(tmp_path, files))
    assert [problem.kind for problem in told.problems[:2]] == [
        "duplicates-across-parts",
        "conflicting-labels",
    ]
    problems = found(told)
    three = ("train/cat/same.jpg", "test/cat/same.jpg", "test/dog/near.webp")
    for kind in ("duplicates-across-parts", "conflicting-labels", "near-duplicates"):
        assert [set(group) for group in problems[kind].groups] == [set(three)]
    assert {frozenset(group) for group in problems["exact-duplicates"].groups} == {
        frozenset(three[:2]),
        frozenset(("train/dog/one.jpg", "train/dog/two.jpg")),
    }


def test_files_that_failed_are_no_duplicates_of_each_other() -> None:
    looks = [look(b"", ""), look(b"", ""), look(saved(picture(1)), ""), look(saved(picture(1)), "")]
    assert duplicate_groups(looks).tolist() == [0, 1, 2, 2]


@pytest.mark.parametrize("cue", ["file size", "dimensions", "format"])
def test_a_cue_that_tells_the_label_is_called_a_leak(tmp_path: Path, cue: str) -> None:
    files = {}
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for k in range(60):
            odd = label == "dog" and k % 10 < 9
            size = (96, 64) if odd and cue == "dimensions" else (64, 48)
            quality = 95 if odd and cue == "file size" else 40
            kind = "PNG" if odd and cue == "format" else "JPEG"
            noise = random.integers(0, 40, (size[1], size[0], 3), np.uint8)
            made = Image.fromarray(np.asarray(picture(k + 500 * (label == "dog"), size)) // 2 + noise)
            files[f"{label}/{k}.{kind.lower()}"] = saved(
                made, kind, **({"quality": quality} if kind == "JPEG" else {})
            )
    told = diagnosis(planted(tmp_path, files))
    shown = {one.cue: one for one in told.shortcuts}
    assert shown[cue].leaks
    assert shown[cue].accuracy >= 0.85
    assert cue in found(told)["leak"].detail
    assert not shown["4 × 4 thumbnail"].leaks


def test_the_shortcut_of_labels_by_chance_is_chance(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    items, looks = [], []
    for k in range(400):
        size = tuple(int(side) for side in random.integers(40, 120, 2))
        data = saved(picture(k, size), quality=int(random.integers(30, 95)))
        items.append(Item(f"{k}.jpg", "ab"[k % 2]))
        looks.append(look(data, ".jpg"))
    told = examine(Catalog(tmp_path, ("a", "b"), tuple(items), ()), looks)
    for one in told.shortcuts:
        assert one.interval[0] < 0.5 < one.interval[1] or one.accuracy < 0.5, one
    assert found(told).keys() <= {"near-duplicates"}


def test_looks_must_match_the_items(tmp_path: Path) -> None:
    catalog = scan(planted(tmp_path, healthy(2)))
    with pytest.raises(ValueError, match="3 looks for 4 pictures"):
        examine(catalog, looks_of(catalog, None, 0)[:3])


def test_a_file_on_which_the_decoder_dies_is_set_aside_alone(tmp_path: Path) -> None:
    files = healthy(10)
    files["cat/deadly.jpg"] = files["cat/0.jpg"]
    plain = scan(planted(tmp_path, files))
    catalog = Deadly(plain.root, plain.labels, plain.items, plain.set_aside)
    looks = looks_of(catalog, None, 2)
    problems = {item.file: seen.problem for item, seen in zip(catalog.items, looks, strict=True)}
    assert {file for file, problem in problems.items() if problem} == {"cat/deadly.jpg"}
    assert problems["cat/deadly.jpg"] == "crashed"
    assert examine(catalog, looks).problems[0].files == ("cat/deadly.jpg",)


def test_workers_and_no_workers_see_the_same_and_report_progress(tmp_path: Path) -> None:
    catalog = scan(planted(tmp_path, healthy(20) | {"cat/bad.jpg": b"no picture", "dog/zero.jpg": b""}))
    told: list[tuple[str, int, int]] = []
    assert looks_of(catalog, None, 2, lambda *step: told.append(step)) == looks_of(catalog, None, 0)
    assert told == [("look", k + 1, 42) for k in range(42)]


def test_a_file_that_vanishes_is_unreadable_and_not_a_crash(tmp_path: Path) -> None:
    catalog = scan(planted(tmp_path, healthy(3)))
    (tmp_path / "cat" / "1.jpg").unlink()
    looks = looks_of(catalog, None, 1)
    assert Counter(seen.problem for seen in looks) == {None: 5, "unreadable": 1}


def test_a_second_look_comes_from_the_store_and_failures_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = scan(planted(tmp_path / "set", healthy(5) | {"cat/bad.jpg": b"no picture"}))
    store = Store(tmp_path / "store.db")
    first = looks_of(catalog, store, 0)
    looked = []
    monkeypatch.setattr(
        "mobilenets.data.survey.look", lambda data, suffix: looked.append(data) or look(data, suffix)
    )
    assert looks_of(catalog, store, 0) == first
    assert looked == [b"no picture"]
    (tmp_path / "set" / "dog" / "new.jpg").write_bytes(saved(picture(99)))
    assert len(looks_of(scan(tmp_path / "set"), store, 0)) == 12
    assert len(looked) == 3
    key = f"{first[-1].digest}.jpg"
    assert list(store.get_many(SPACE, [key])) == [key]
    store.close()


def test_a_look_never_imports_torch() -> None:
    script = (
        "import sys, mobilenets.data.doctor, mobilenets.data.signs;"
        "print(sorted({'torch', 'scipy', 'simplejpeg'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert told.stdout.strip() == b"[]"


def test_what_the_catalog_set_aside_is_told_with_its_remedy(tmp_path: Path) -> None:
    aside = (
        SetAside("cat/pipe", "not-a-file", "neither a file nor a folder"),
        SetAside("x", "novel", "who knows"),
    )
    told = examine(Catalog(tmp_path, (), (), aside), [])
    assert [(problem.kind, problem.severity) for problem in told.problems] == [
        ("not-a-file", "error"),
        ("novel", "error"),
    ]
    assert all(problem.remedy for problem in told.problems)


def test_road_or_not_is_said_to_leak_by_its_dimensions(material: Path, tmp_path: Path) -> None:
    with tarfile.open(material / "data" / "road-or-not.tar") as tar:  # every fifth picture, for time
        tar.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 brought it
        tar.extractall(tmp_path, [m for n, m in enumerate(tar) if n % 5 == 0 and m.isfile()])
    catalog = scan(tmp_path)
    told = examine(catalog, looks_of(catalog, None, 2))
    shown = {one.cue: one for one in told.shortcuts}
    assert shown["file size and dimensions"].accuracy > 0.9
    assert shown["dimensions"].leaks
    assert found(told)["leak"].severity == "error"
    assert 0.7 < shown["4 × 4 thumbnail"].accuracy < 0.92
