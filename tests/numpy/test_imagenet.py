"""ImageNet's thousand classes: their order is the one that weights and data sets use."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

from mobilenets.infer import imagenet


def test_there_are_a_thousand_different_classes_in_sorted_order() -> None:
    wnids = imagenet.wnids()
    assert len(wnids) == imagenet.CLASSES == len(set(wnids))
    assert list(wnids) == sorted(wnids)
    assert all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids)
    assert len(set(imagenet.labels())) == imagenet.CLASSES


def test_well_known_classes_stand_at_their_well_known_numbers() -> None:
    # Class numbers as they are quoted everywhere.
    labels = imagenet.labels()
    starts = {0: "tench", 207: "golden retriever", 281: "tabby", 388: "giant panda", 999: "toilet tissue"}
    assert {i: labels[i].split(",")[0] for i in starts} == starts


def test_the_two_cranes_can_be_told_apart() -> None:
    assert [label for label in imagenet.labels() if label.startswith("crane")] == [
        "crane (n02012849)",
        "crane (n03126707)",
    ]


def test_the_order_is_that_of_tensorflows_label_file(material: Path) -> None:
    lines = (material / "weights" / "imagenet_labels.txt").read_text("utf-8").splitlines()
    assert lines[0] == "background"
    for wnid, label, line in zip(imagenet.wnids(), imagenet.labels(), lines[1:], strict=True):
        assert label in (line, f"{line} ({wnid})")


def test_the_packed_images_are_of_every_second_class(material: Path) -> None:
    with tarfile.open(material / "data" / "imagenet-500.tar") as tar:
        folders = {
            part for name in tar.getnames() for part in Path(name).parts if re.fullmatch(r"n\d{8}", part)
        }
    assert sorted(folders) == list(imagenet.wnids()[::2])
