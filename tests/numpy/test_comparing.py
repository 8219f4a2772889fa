"""The field compared: figures have sources, counts are those printed, the front is right, times say whose."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.comparing import ORDERS, Clock, chosen, compare, front
from mobilenets.costs.count import cost
from mobilenets.report.compare import cells, head, numbered, text
from mobilenets.report.labels import AWAY, Box, around, placed
from mobilenets.spec import zoo
from mobilenets.spec.published import SCORES

RACE = Path(__file__).parents[2] / "results" / "race.csv"
# Millions of multiply-accumulates and of parameters as printed, rounded or cut: arXiv:1704.04861, tables 4 to
# 8; arXiv:1801.04381, table 4, and slim's README; arXiv:1905.02244, table 3; torchvision; arXiv:1707.01083,
# tables 2 and 5; arXiv:1610.02357, table 3.
PRINTED = {
    "v1 1 at 224": (569, 4.2),
    "v1 1 at 192": (418, 4.2),
    "v1 1 at 160": (291, 4.2),
    "v1 1 at 128": (186, 4.2),
    "v1 0.75 at 224": (325, 2.6),
    "v1 0.5 at 224": (149, 1.3),
    "v1 0.5 at 160": (77, 1.3),
    "v1 0.25 at 224": (41, 0.5),
    "v1-shallow": (307, 2.9),
    "v2 1 at 224": (300, None),
    "v2 1.4 at 224": (582, None),
    "v2 0.35 at 160": (30, None),
    "v3-large 0.75 at 224": (155, 4.0),
    "v3-small 1 at 224": (56, 2.5),
    "v3-large-minimalistic": (209, 3.9),
    "squeezenet-1.0": (819, 1.2),
    "shufflenet-v1 0.5 at 224": (38, None),
    "shufflenet-v1 1.5 at 224": (292, None),
    "shufflenet-v1 2 at 224": (524, None),
    "xception": (None, 22.9),
}


def silent(_: str, __: int, ___: int) -> None:
    """Progress that nobody watches."""


def asked(*names: str, sort: str = "macs", **clock: Any) -> dict[str, Any]:
    return compare(names, Clock(**clock), sort, silent)


def test_every_accuracy_has_a_source_and_none_is_told_twice() -> None:
    assert len({(one.net, one.width, one.resolution) for one in SCORES}) == len(SCORES)
    for one in SCORES:
        assert one.source
        if one.top1 is None:
            assert one.source.startswith("no figure was found")
            assert one.int8 is None
        else:
            assert 0.4 < one.top1 < 0.81
            assert one.top1 - 0.03 < (one.int8 or one.top1) <= one.top1
    known = {one.net for one in SCORES if one.top1 is not None}
    assert known == {*zoo.NETS, *zoo.COUNTED} - {"v1-cifar"}  # of CIFAR alone


def test_rows_have_the_counts_that_were_printed() -> None:
    rows = {row["name"]: row for row in asked()["rows"]}
    assert len(rows) == len(SCORES)
    for name, (macs, params) in PRINTED.items():
        counted = rows[name]["macs"]
        assert macs in (None, round(counted / 1e6), counted // 10**6), name
        assert params in (None, round(rows[name]["params"] / 1e6, 1)), name
    for row in rows.values():
        whole = cost(zoo.net(row["net"], row["width"], row["resolution"]))
        assert (row["macs"], row["params"]) == (whole.macs, whole.params)
        assert (row["float32_bytes"], row["int8_bytes"]) == (whole.float32_bytes, whole.int8_bytes)


def test_known_weights_stand_beside_the_network_of_their_size_alone() -> None:
    rows = {row["name"]: row for row in asked()["rows"]}
    assert (rows["v1 1 at 224"]["weights"], rows["v1 1 at 224"]["weights_accuracy"]) == (
        "timm/mobilenetv1_100",
        0.75382,
    )
    assert rows["v1 1 at 192"]["weights"] is None
    assert rows["v4-conv-medium"]["weights_accuracy"] == 0.79928


POINTS = st.lists(st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9).map(float)), max_size=12)


@given(POINTS)
def test_on_the_front_is_who_is_beaten_by_nobody(points: list[tuple[int, float | None]]) -> None:
    found = front(points)
    assert [points[place] for place in found] == sorted(points[place] for place in found)
    best = {points[place] for place in found}
    for cost_, accuracy in points:
        if accuracy is None:
            continue
        beaten = any(
            c <= cost_ and a is not None and a >= accuracy and (c, a) != (cost_, accuracy) for c, a in points
        )
        assert ((cost_, accuracy) in best) == (not beaten)


def test_the_fields_front_goes_up_and_nothing_lies_above_it() -> None:
    found = asked()
    rows = {row["name"]: row for row in found["rows"]}
    line = [(rows[name]["macs"], rows[name]["accuracy"]) for name in found["front"]]
    assert line == sorted(line)
    assert [accuracy for _, accuracy in line] == sorted({accuracy for _, accuracy in line})
    assert found["front"][-1] == "v4-conv-medium"
    assert "v1 1 at 224" not in found["front"]
    assert [row["name"] for row in asked("v1")["rows"] if row["front"]] != []


def test_on_a_device_every_latency_is_a_forecast_with_an_interval_and_says_what_it_rests_on() -> None:
    found = asked(device="raspberry-pi-4", threads=4, dtype="int8")
    for row in found["rows"]:
        assert row["low_ms"] < row["latency_ms"] < row["high_ms"]
        assert (row["latency_is"], row["latency_by"], row["latency_not"]) == ("forecast", "ncnn", None)
    notes = " ".join(found["notes"])
    assert "forecasts are estimates, from 41 published figures" in notes
    assert "figures are of v1, v2: how far off forecasts of other networks are" in notes
    assert "nobody has measured" not in " ".join(asked("v1", "v2", device="raspberry-pi-4")["notes"])


def test_rows_that_were_measured_take_the_place_of_forecasts_and_say_so() -> None:
    found = asked("v1", rows=(RACE,), threads=2, dtype="int8")
    rows = {row["name"]: row for row in found["rows"]}
    with RACE.open(encoding="utf-8", newline="") as file:
        own = {
            row["model"]: float(row["latency_ms"])
            for row in csv.DictReader(file)
            if (row["engine"], row["dtype"], row["threads"]) == ("ours", "int8", "2")
            and row["model"].startswith("v1 ")
        }
    told = {name: row["latency_ms"] for name, row in rows.items() if row["latency_is"] == "measured"}
    assert told == {name.replace(" 1.0 ", " 1 "): ms for name, ms in own.items()}
    assert found["says"].startswith("the machine of the rows")
    wider = asked("v2", rows=(RACE,), threads=2, dtype="int8")
    by_name = {row["name"]: row["latency_is"] for row in wider["rows"]}
    assert [name for name, how in by_name.items() if how == "measured"] == ["v2 1 at 224"]
    assert set(by_name.values()) == {"forecast", "measured"}
    other = asked("squeezenet-1.0", rows=(RACE,), threads=2, dtype="int8")
    assert {row["latency_is"] for row in other["rows"]} == {"forecast"}
    (told_of,) = [note for note in other["notes"] if "nobody has measured" in note]
    assert all(f" {net}" in told_of for net in ("v1", "v2", "v3-large", "v3-small"))


def test_rows_too_few_to_forecast_by_leave_a_dash_with_the_reason(tmp_path: Path) -> None:
    with RACE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(row for row in rows if row["model"] == "v1 0.5 at 160")
    found = asked("v1", rows=(path,))
    told = {row["name"]: (row["latency_is"], row["latency_not"]) for row in found["rows"]}
    assert told.pop("v1 0.5 at 160") == ("measured", None)
    assert set(told.values()) == {
        (None, "not measured in rows.csv, whose rows are too few to forecast others by")
    }
    assert any(note.startswith("no latency of v1 ") for note in found["notes"])
    with pytest.raises(ValueError, match=r"--rows: none of ours in float32 on 3 threads; there are ours in"):
        asked(rows=(path,), threads=3)


def test_what_does_not_fit_into_a_microcontroller_has_no_latency_there() -> None:
    rows = {row["name"]: row for row in asked(device="stm32h747", dtype="int8")["rows"]}
    assert rows["v1 0.25 at 128"]["latency_is"] == "forecast"
    assert rows["vgg16"]["latency_ms"] is None
    assert rows["vgg16"]["latency_not"] == "its weights do not fit into 2048 KB"
    assert rows["v1 0.5 at 224"]["latency_not"] == "its maps do not fit into 512 KB"


def test_without_a_device_and_rows_it_says_how_to_come_by_latencies() -> None:
    found = asked("v1")
    assert {row["latency_ms"] for row in found["rows"]} == {None}
    assert any("--device NAME forecasts them" in note for note in found["notes"])
    assert not any(column.startswith("ms") for column in head(found))


@pytest.mark.parametrize("order", ORDERS)
def test_rows_come_in_the_order_asked_for_and_what_is_not_known_last(order: str) -> None:
    rows = asked(sort=order, device="stm32h747", dtype="int8")["rows"]
    key = {"accuracy": "accuracy", "latency": "latency_ms", "name": "net"}.get(order, order)
    values = [row[key] for row in rows]
    known = [value for value in values if value is not None]
    assert values == known + [None] * (len(values) - len(known))
    assert known == sorted(known, reverse=order == "accuracy")


def test_a_name_stands_for_a_network_or_for_all_that_begin_so() -> None:
    assert {one.net for one in chosen(["v1"])} == {"v1"}
    assert {one.net for one in chosen(["v3-"])} == {one for one in zoo.NETS if one.startswith("v3-")}
    assert {one.net for one in chosen(["ShuffleNet-v2", "alexnet"])} == {"shufflenet-v2", "alexnet"}
    with pytest.raises(ValueError, match=r"^unknown network 'squeezent'; did you mean squeezenet-1\.\d"):
        chosen(["v1", "squeezent"])
    with pytest.raises(ValueError, match=r"^unknown network 'qq'; known: v1, v1-full"):
        chosen(["qq"])


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_counted(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "field").write_text("a file")
    steps: list[str] = []

    def heard(stage: str, _: int, __: int) -> None:
        steps.append(stage)

    with pytest.raises(NotADirectoryError, match="field"):
        compare(["v2"], Clock(), "macs", heard, out=tmp_path / "field")
    assert not steps


def test_the_text_has_a_line_for_each_row_and_every_number_of_a_source_is_explained() -> None:
    found = asked("v1", "v3", device="raspberry-pi-4")
    lines = [line for line in text(found, "x.png").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(found["rows"])
    assert {line.count("|") for line in lines} == {1 + len(head(found))}
    explained = {line.partition(":")[0].removeprefix("source ") for line in numbered(found)}
    assert {cells(row, found)[-1] for row in found["rows"]} == explained


PLACES = st.tuples(st.floats(0, 400), st.floats(0, 300))


@given(
    st.lists(st.tuples(PLACES, st.tuples(st.floats(5, 90), st.floats(5, 12))), max_size=25),
    st.sampled_from((AWAY[1], AWAY[-1])),
)
def test_no_label_lies_on_another_on_a_point_or_beyond_the_edge(drawn: list[Any], reach: float) -> None:
    points, sizes = [point for point, _ in drawn], [size for _, size in drawn]
    edge, marks = Box(0, 0, 400, 300), [around(x, y, 2) for x, y in points]
    found = placed(points, sizes, [reach] * len(points), edge, marks)
    assert len(found) == len(points)
    there = [box for box in found if box is not None]
    for number, box in enumerate(there):
        assert box.within(edge)
        assert not any(box.meets(mark) for mark in marks)
        assert not any(box.meets(other) for other in there[:number])
    for (x, y), box in zip(points, found, strict=True):
        if box is not None:
            assert max(box.left - x, x - box.right, box.bottom - y, y - box.top) <= reach + 1e-6


def test_a_lone_point_has_its_label_beside_it() -> None:
    box = placed([(50, 50)], [(20, 8)], [AWAY[-1]], Box(0, 0, 100, 100), [around(50, 50, 2)])[0]
    assert box == Box(53, 46, 73, 54)
