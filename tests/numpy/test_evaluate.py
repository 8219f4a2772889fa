"""A model is judged on the right pictures, class by class name, and says what it could not use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenets.data.catalog import scan
from mobilenets.data.evaluate import as_json, evaluate, matched
from mobilenets.infer import imagenet
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.ready import Model
from mobilenets.infer.score import interval
from mobilenets.spec.net import Net, Node, Output
from mobilenets.spec.op import Dense, Pool, Shape
from mobilenets.spec.preprocess import Preprocess

COLOURS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


def colours(labels: Sequence[str] = ("red", "green", "blue"), threshold: float | None = None) -> Model:
    """A model whose logits are four times the mean of each channel: it tells the strongest colour."""
    net = Net(
        "colours",
        Shape(4, 4, 3),
        (Node("pool", Pool(), ("image",)), Node("dense", Dense(out=3), ("pool",))),
        (Output("logits", "dense", "classes"), Output("features", "pool", "vector")),
    )
    weights = {"dense.weight": 4 * np.eye(3, dtype=np.float32), "dense.bias": np.zeros(3, np.float32)}
    pre = Preprocess(height=4, width=4, mean=(0.0,) * 3, std=(255.0,) * 3)
    return Model(Artefact(net, weights, pre, labels=tuple(labels), threshold=threshold))


def painted(root: Path, files: dict[str, str]) -> Path:
    """Pictures of one colour each, by path."""
    for file, colour in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5), COLOURS[colour]).save(root / file)
    return root


MOSTLY_RIGHT = {
    "red/a.png": "red",
    "red/b.png": "red",
    "red/c.png": "blue",
    "green/a.png": "green",
    "blue/a.png": "blue",
}


@pytest.mark.parametrize("threads", [1, 4])
def test_every_number_is_what_the_pictures_say(tmp_path: Path, threads: int) -> None:
    seen: list[tuple[str, int, int]] = []
    found = evaluate(
        colours(),
        scan(painted(tmp_path, MOSTLY_RIGHT)),
        threads=threads,
        progress=lambda *step: seen.append(step),
    )
    assert (found.n, found.top1, found.top5, found.part) == (5, 4 / 5, 1.0, None)
    assert found.interval == interval(4 / 5, 5)
    assert dict(found.per_class) == {"red": pytest.approx(2 / 3), "green": 1.0, "blue": 1.0}
    assert found.confusion.tolist() == [[2, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert found.unknown is None
    assert seen == [("evaluate", done, 5) for done in range(1, 6)]
    # Scores of exp(4 · 250/255) to exp(4 · 20/255); four of five right.
    best = np.exp(1000 / 255) / (np.exp(1000 / 255) + 2 * np.exp(80 / 255))
    assert found.calibration_error == pytest.approx(abs(best - 4 / 5), abs=1e-5)


def test_classes_are_matched_by_name_not_by_place(tmp_path: Path) -> None:
    painted(tmp_path, MOSTLY_RIGHT)
    found = evaluate(colours(("red", "green", "blue")), scan(tmp_path))
    # The same logits under other names: what was red is now called green.
    renamed = evaluate(colours(("green", "red", "blue")), scan(tmp_path))
    assert found.top1 == 4 / 5
    assert renamed.top1 == 1 / 5


def test_a_data_set_may_have_fewer_classes_than_the_model(tmp_path: Path) -> None:
    found = evaluate(colours(), scan(painted(tmp_path, {"blue/a.png": "blue"})))
    assert dict(found.per_class) == {"blue": 1.0}
    assert found.confusion.shape == (3, 3)


@pytest.mark.parametrize(
    ("folders", "part", "n"),
    [
        (("train/red/a", "val/red/b", "test/red/c", "test/red/d"), "test", 2),
        (("train/red/a", "val/red/b"), "val", 1),
        (("train/red/a", "train/blue/b"), None, 2),
    ],
)
def test_the_test_part_is_judged_where_there_is_one_else_val_else_all(
    tmp_path: Path, folders: tuple[str, ...], part: str | None, n: int
) -> None:
    found = evaluate(colours(), scan(painted(tmp_path, {f"{f}.png": f.split("/")[1] for f in folders})))
    assert (found.part, found.n) == (part, n)


def test_classes_the_model_does_not_know_are_refused_with_the_difference(tmp_path: Path) -> None:
    painted(tmp_path, {"rouge/a.png": "red", "green/a.png": "green"})
    with pytest.raises(ValueError, match="classes do not match") as error:
        evaluate(colours(), scan(tmp_path))
    assert str(error.value) == (
        "classes do not match: the model does not know rouge; "
        "it knows red, blue that the data set does not have; rename the folders"
    )


def test_a_long_difference_is_cut_short_and_none_left_over_is_said() -> None:
    with pytest.raises(ValueError, match=r"x7 and 12 more; it knows no others that") as error:
        matched(("a",), ["a", *(f"x{i}" for i in range(20))])
    assert "\n" not in str(error.value)


def test_a_model_without_names_has_nothing_to_be_judged_by() -> None:
    with pytest.raises(ValueError, match="names no classes"):
        matched((), ["red"])


def test_imagenets_classes_are_known_by_wordnet_id_too() -> None:
    names, ids = imagenet.labels(), imagenet.wnids()
    assert matched(names, [ids[7], ids[0]]) == {ids[7]: 7, ids[0]: 0}
    assert matched(names, [names[7]])[names[7]] == 7
    with pytest.raises(ValueError, match="n99999999"):
        matched(names, [ids[0], "n99999999"])
    with pytest.raises(ValueError, match=ids[0]):
        matched(("cat", *names[1:]), [ids[0]])  # not ImageNet's thousand


def test_of_two_classes_of_one_name_the_first_is_meant() -> None:
    assert matched(("crane", "dog", "crane"), ["crane"]) == {"crane": 0}


def test_what_cannot_be_used_is_set_aside_with_the_reason_and_the_rest_is_judged(tmp_path: Path) -> None:
    painted(tmp_path, MOSTLY_RIGHT)
    whole = (tmp_path / "red/a.png").read_bytes()
    (tmp_path / "red/cut.png").write_bytes(whole[:-30])
    (tmp_path / "red/none.png").write_bytes(b"")
    (tmp_path / "red/notes.txt").write_text("x")
    catalog = scan(tmp_path)
    (tmp_path / "red/b.png").unlink()
    found = evaluate(colours(), catalog)
    assert found.n == 4
    told = {aside.file: aside.kind for aside in found.set_aside}
    assert told == {
        "red/notes.txt": "not-a-picture",
        "red/b.png": "unreadable",
        "red/cut.png": "truncated",
        "red/none.png": "empty",
    }


def test_a_data_set_of_which_nothing_can_be_used_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    (tmp_path / "red/a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no picture of it can be used; see `mobilenets doctor`") as error:
        evaluate(colours(), scan(tmp_path))
    assert str(tmp_path) in str(error.value)


def test_with_a_threshold_the_share_of_doubtful_answers_is_told(tmp_path: Path) -> None:
    painted(tmp_path, MOSTLY_RIGHT)
    Image.new("RGB", (4, 4), (128, 128, 128)).save(tmp_path / "red/grey.png")
    found = evaluate(colours(threshold=3), scan(tmp_path))
    assert found.unknown == pytest.approx(1 / 6)


def test_the_record_is_json_of_the_same_numbers(tmp_path: Path) -> None:
    found = evaluate(colours(), scan(painted(tmp_path, MOSTLY_RIGHT)))
    told = as_json(found)
    assert (told["top1"], told["n"], told["part"]) == (0.8, 5, None)
    assert told["confusion"] == [[2, 0, 1], [0, 1, 0], [0, 0, 1]]
    assert told["labels"] == ["red", "green", "blue"]
