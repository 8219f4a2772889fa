"""The report is one file that fetches nothing, escapes everything and shows every number of its run."""

from __future__ import annotations

import errno
import re
from dataclasses import fields, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from mobilenets.data.catalog import SetAside
from mobilenets.infer.score import interval, reliability
from mobilenets.report import figure, write_report
from mobilenets.report.confusion import most_confused, worst_pairs
from mobilenets.report.markup import readable
from mobilenets.report.sweep import front
from mobilenets.train.run import Epoch, Judged, Run, Variant

NASTY = "<script>alert(\"1\")</script> & '$x_1$' {0} %s"


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float32]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)


def a_run(classes: int = 4, tested: int = 60, margin: float = 1.5, **changes: Any) -> Run:
    """A made-up run; its scores are noise around the truth, `margin` above it."""
    draw = np.random.default_rng(classes)
    truth = np.arange(tested) % classes
    logits = draw.normal(0, 1, (tested, classes))
    logits[np.arange(tested), truth] += margin
    scores = softmax(logits)
    right = float((scores.argmax(axis=1) == truth).mean()) if tested else None
    known: dict[str, Any] = {
        "command": "mobilenets retrain pictures --out here --seed 7",
        "folder": "pictures",
        "model": "here/model.safetensors",
        "options": {"width": 0.75, "seed": 7},
        "labels": [f"class {i}" for i in range(classes)],
        "counts": {"train": [31] * classes, "val": [5] * classes, "test": [tested // classes] * classes},
        "set_aside": [SetAside("a/b.jpg", "truncated", "its pixels cannot be decoded")],
        "duplicates": 3,
        "accuracy": {"train": 0.9876, "val": 0.8765, "test": right},
        "top5": 0.9911,
        "interval": None if right is None else interval(right, tested),
        "test": Judged([f"c/{i}.png" for i in range(tested)], truth, scores),
        "choices": [(0.01, 0.81, 0.71), (0.1, 0.8765, 0.6543), (1.0, 0.84, 0.81)],
        "chosen_c": 0.1,
        "refitted": 0.5,
        "temperature": 1.234,
        "calibration_error": {"before": 0.0777, "after": 0.0222},
        "unknown": {"threshold": 0.417, "known_kept": 0.953, "strangers_turned_away": 0.817},
        "epochs": [Epoch(1, 1.5432, 0.84, 12.3), Epoch(2, 1.2345, 0.86, 12.4)],
        "net": {
            "name": "v1",
            "width": 0.75,
            "resolution": 160,
            "macs": 166_396_800,
            "params": 2_585_560,
            "float32_bytes": 10_342_240,
            "int8_bytes": 2_700_000,
            "activation_bytes": 3_456_000,
        },
        "source": {"from": "a.tflite", "licence": "Apache-2.0"},
        "seconds": {"scan": 1.5, "features": 33.3, "fit": 4.4, "total": 45.6},
        "peak_rss_mb": 812.0,
        "machine": {"cpu": "some CPU", "cores": "2"},
        "versions": {"torch": "2.13.0"},
        "digest": "0123abcd" * 8,
        "identity": "4567ef" * 8,
        "energy": {"joules": 6558.3, "watts": 2.1, "watts_from": "stated"},
        "engine": "an abacus",
        "sweep": [
            Variant(
                w,
                r,
                int(5e8 * w * r / 224),
                int(4e6 * w),
                int(1.6e7 * w),
                9.87 * w,
                "numpy",
                0.8,
                0.7 + w / 9,
                "m",
            )
            for w in (0.25, 1.0)
            for r in (128, 224)
        ],
        "notes": ["a note to be read"],
    }
    return Run(**(known | changes))


def shot(_: str) -> NDArray[np.uint8]:
    return np.full((30, 40, 3), 200, np.uint8)


def written(run: Run, folder: Path, pictures: Any = shot) -> str:
    write_report(run, folder / "report.html", pictures)
    return (folder / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Everything of a page that could fetch or run, every tag left open, and its text."""

    VOID = frozenset(("meta", "img", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if name == "id":
                self.ids.append(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


RUNS = {
    "four classes": a_run(),
    "two classes": a_run(2),
    "one class": a_run(1, accuracy={"test": 1.0}),
    "102 classes": a_run(102, 306),
    "no mistakes": a_run(margin=99),
    "all wrong": a_run(margin=-99),
    "102 classes without mistakes": a_run(102, 102, margin=99),
    "no test part": a_run(4, 0, top5=None, calibration_error={"before": None, "after": None}),
    "no sweep, no epochs, nothing set aside": a_run(
        sweep=[], epochs=[], set_aside=[], unknown=None, notes=[]
    ),
    "one variant, one epoch, one choice": a_run(
        sweep=[Variant(1.0, 224, 10**8, 10**6, 10**6, 5.0, "torch", 0.5, 0.5, "m")],
        epochs=[Epoch(1, 0.5, 0.5, 1.0)],
        choices=[(1.0, 0.5, 0.5)],
    ),
    "no validation part": a_run(
        accuracy={"train": 1.0, "val": None, "test": 0.5},
        counts={"train": [1] * 4, "val": [0] * 4, "test": [15] * 4},
        choices=[],
        unknown={"threshold": 0.5, "known_kept": None, "strangers_turned_away": None},
    ),
    "a sweep without a test part": a_run(
        sweep=[Variant(1.0, 224, 10**8, 10**6, 10**6, 5.0, "torch", None, None, "m")],
    ),
    "a minute and an hour": a_run(seconds={"scan": 0.0, "features": 7200.0, "total": 7265.0}),
    "no seconds": a_run(seconds={}),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_page_fetches_nothing_runs_nothing_and_closes_every_tag(name: str, tmp_path: Path) -> None:
    text = written(RUNS[name], tmp_path)
    page = Page(text)
    assert page.open == []
    assert page.handlers == []
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert "http:" not in text
    assert "https:" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(page.ids) == len(set(page.ids))
    anchors = {address[1:] for address in page.addresses if address.startswith("#")}
    assert anchors <= set(page.ids)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}"' in text
    assert "nan" not in page.text.lower().split()


def test_every_number_and_text_of_the_run_is_on_the_page(tmp_path: Path) -> None:
    run = RUNS["four classes"]
    text = Page(written(run, tmp_path)).text
    right = int((run.test.scores.argmax(axis=1) == run.test.truth).sum())
    wanted = {
        "command": [run.command],
        "folder": ["pictures"],
        "model": [run.model],
        "options": ["0.75", "7"],
        "labels": list(run.labels),
        "counts": ["training 124 31 … 31", "validation 20 5 … 5", "test 60 15 … 15"],
        "set_aside": ["truncated: 1 file", "a/b.jpg: its pixels cannot be decoded"],
        "duplicates": ["3 groups of near duplicates"],
        "accuracy": ["98.76 %", "87.65 %", f"{100 * run.accuracy['test']:.1f} %"],
        "top5": [],  # of four classes the true one is nearly always among five: not shown
        "interval": [f"{100 * run.interval[0]:.2f} %", f"{100 * run.interval[1]:.2f} %"],
        "test": [f"{right} of 60 test pictures", f"{60 - right} of 60 test pictures were named wrong"],
        "choices": ["0.6543", "81.00 %"],
        "chosen_c": ["C = 0.1"],
        "refitted": ["the mean of this one (50 %)"],
        "temperature": ["1.234"],
        "calibration_error": ["7.77 %", "2.22 %"],
        "unknown": ["threshold 0.417", "known kept 95.3 %", "strangers turned away 81.7 %"],
        "epochs": ["1.5432", "1.2345", "12.4 s"],
        "net": ["166 396 800", "2 585 560", "10.34 MB", "2.70 MB", "3.46 MB", "width 0.75", "160 × 160"],
        "source": ["a.tflite", "Apache-2.0"],
        "seconds": ["1.5 s", "33.3 s", "4.4 s", "45.6 s", "everything else 6.4 s"],
        "peak_rss_mb": ["812 MB"],
        "machine": ["some CPU"],
        "versions": ["torch 2.13.0"],
        "digest": [run.digest],
        "identity": [run.identity],
        "energy": ["total time, 6.6 kJ", "6.6 kJ, 2.1 W (stated) times the total"],
        "engine": ["Features by an abacus"],
        "kind": ["retrained on pictures"],
        "throughput": [],  # of a training: below
        "sweep": ["9.87", "81.11 %", "72.78 %", "500 M"],
        "notes": ["a note to be read"],
    }
    assert set(wanted) == {field.name for field in fields(Run)}
    missing = [f"{name}: {part}" for name, parts in wanted.items() for part in parts if part not in text]
    assert missing == []
    assert "98.76 %" in text
    assert "99.11 %" in Page(written(RUNS["102 classes"], tmp_path)).text  # its top five


def test_a_training_has_its_own_words_and_nothing_of_a_head_that_was_fitted(tmp_path: Path) -> None:
    options = {"recipe": "modern", "weights": "random", "teacher": "large.so", "distil": "soft"}
    run = a_run(
        kind="training",
        accuracy={"train": None, "val": 0.8765, "test": 0.8},
        choices=(),
        unknown=None,
        sweep=(),
        identity="",
        options=options,
        engine="torch, cpu, 2 threads",
        throughput={"images_per_second": 812.5, "waiting": 0.0123},
    )
    text = Page(written(run, tmp_path)).text
    for part in (
        *("trained on pictures", "87.65 %", "taught by large.so (soft)", "1.5432"),
        "All weights, by the recipe modern, from random weights",
        "Learned by torch, cpu, 2 threads: 812.5 pictures a second, 1.2 % of the time waiting for them.",
    ):
        assert part in text
    for part in ("retrained", "Fine-tuning", "regression", "C =", "Features by", "training –"):
        assert part not in text


def test_names_are_text_wherever_they_stand(tmp_path: Path) -> None:
    nasty = a_run(
        labels=[NASTY, "b", "", "Schloß 城"],
        folder=NASTY,
        command=NASTY,
        model=NASTY,
        set_aside=[SetAside(NASTY, NASTY, NASTY)],
        options={NASTY: NASTY},
        source={NASTY: NASTY},
        seconds={NASTY: 3.0, "total": 4.0},
        machine={NASTY: NASTY},
        versions={NASTY: NASTY},
        unknown={NASTY: 0.5},
        digest=NASTY,
        identity=NASTY,
        engine=NASTY,
        notes=[NASTY],
        margin=0.2,
        test=replace(a_run(margin=0.2).test, files=[NASTY] * 60),
        sweep=[Variant(1.0, 64, 10**8, 10**6, 10**6, 5.0, NASTY, 0.5, 0.5, NASTY)],
    )
    for run in (
        nasty,
        replace(nasty, labels=[*nasty.labels, *(f"x{i}{NASTY}" for i in range(98))], counts={}),
    ):
        grown = run
        if len(run.labels) > 4:
            scores = np.zeros((60, 102), np.float32)
            scores[:, :4] = run.test.scores
            grown = replace(run, test=replace(run.test, scores=scores), counts={"train": [1] * 102})
        text = written(grown, tmp_path)
        page = Page(text)
        assert "script" not in page.tags
        assert "<script" not in text
        assert page.open == []
        assert " ".join(NASTY.split()) in page.text
        assert unescape(NASTY) in page.text


def test_a_name_that_no_encoding_has_is_written_all_the_same(tmp_path: Path) -> None:
    run = a_run(labels=["\udcff", "b", "c", "d"], set_aside=[SetAside("\udcfe.jpg", "empty", "no bytes")])
    assert "?.jpg: no bytes" in Page(written(run, tmp_path)).text


def test_the_worst_mistakes_are_the_surest_ones_in_order(tmp_path: Path) -> None:
    asked: list[str] = []

    def remembered(file: str) -> NDArray[np.uint8] | None:
        asked.append(file)
        return None if len(asked) == 2 else shot(file)

    run = a_run(102, 306)
    said = run.test.scores.argmax(axis=1)
    wrong = [
        int(i)
        for i in np.argsort(-run.test.scores.max(axis=1), kind="stable")
        if said[i] != run.test.truth[i]
    ]
    text = written(run, tmp_path, remembered)
    assert asked == [run.test.files[i] for i in wrong[:24]]
    assert text.count('<img src="data:image/jpeg;base64,') == 23
    assert "no longer there" in text
    assert f"{len(wrong)} of 306 test pictures were named wrong; these are the 24 it was surest of" in text


def test_a_report_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(a_run(), path, shot)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    assert written(a_run(), tmp_path) == written(a_run(), tmp_path)


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    written(a_run(), tmp_path)
    assert dict(mpl.rcParams) == before


def test_no_chart_of_a_share_goes_on_above_all_of_it() -> None:
    svg = figure.regularisation([(0.1, 0.9, 1.0), (1.0, 1.0, 0.5), (10.0, 1.0, 0.6)], 1.0)
    ticks = [float(text) for text in re.findall(r">(\d+(?:\.\d+)?)</text>", svg)]
    assert 100 in ticks
    assert max(ticks) == 100


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        (True, "yes"),
        (False, "no"),
        (20240101, "20240101"),
        (128, "128"),
        (0.25, "0.25"),
        (["a, b", "c"], "a, b; c"),
        ({"mean": [1.0, 2.0], "of": {}}, "mean (1, 2), of (none)"),
        ({}, "none"),
    ],
)
def test_settings_and_facts_are_told_in_words(value: object, words: str) -> None:
    assert readable(value) == words


def test_of_a_long_list_the_first_are_told_and_how_many_there_are() -> None:
    assert readable(list(range(30))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 … (30)"


def test_the_worst_pairs_are_the_most_frequent_confusions_and_then_those_of_small_classes() -> None:
    counts = np.array([[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 1], [0, 0, 0, 0]])
    pairs = [(p.truth, p.said, p.pictures, p.of) for p in worst_pairs(counts, 9)]
    assert pairs == [(2, 0, 2, 4), (0, 1, 1, 2), (2, 3, 1, 4)]
    assert most_confused(counts, 2) == [0, 2]
    assert most_confused(np.diag([3, 4]), 2) == []


def test_scores_before_the_temperature_come_back_from_those_after(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    logits = np.random.default_rng(0).normal(0, 2, (60, 4))
    truth = np.arange(60) % 4
    run = a_run(temperature=2.5, test=Judged(["x"] * 60, truth, softmax(logits / 2.5)))
    drawn: list[NDArray[np.float64]] = []
    monkeypatch.setattr("mobilenets.report.figure.calibration", lambda *rows: drawn.extend(rows) or "")
    written(run, tmp_path)
    np.testing.assert_allclose(drawn[0], reliability(softmax(logits), truth, 4), rtol=1e-4)
    np.testing.assert_allclose(drawn[1], reliability(run.test.scores, truth, 4), rtol=1e-6)


def test_the_front_holds_what_nothing_cheaper_equals() -> None:
    assert front([(3, 0.9), (1, 0.5), (2, 0.5), (2, 0.7), (4, 0.8)]) == [1, 3, 0]
    assert front([]) == []
