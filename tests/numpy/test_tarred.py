"""A folder of WebDataset's shards is a data set like any other, as far as its shards are whole."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenets.data.catalog import Item, scan
from mobilenets.data.decoded import decoded
from mobilenets.data.digests import digests
from mobilenets.data.store import Store
from mobilenets.infer.image import decode
from mobilenets.spec.preprocess import Preprocess


def picture(level: int, kind: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (5, 4), (level, 0, 0)).save(made, kind)
    return made.getvalue()


def write(path: Path, files: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of six pictures each, of classes 3 and 12."""
    for number in range(2):
        files = {}
        for k in range(6):
            files[f"{number}-{k}.png"] = picture(20 * k + number)
            files[f"{number}-{k}.cls"] = b"12" if k % 2 else b"3\n"
        write(tmp_path / "set" / f"{number:03}.tar", files)
    return tmp_path / "set"


def test_pictures_are_found_with_their_classes_and_read(folder: Path) -> None:
    catalog = scan(folder)
    assert catalog.labels == ("12", "3")
    assert catalog.set_aside == ()
    assert len(catalog.items) == 12
    assert {item.part for item in catalog.items} == {None}
    for item in catalog.items:
        shard, _, name = item.file.partition("/")
        number, k = int(name[0]), int(name[2])
        assert shard == f"{number:03}.tar"
        assert item.label == ("12" if k % 2 else "3")
        for reader in (catalog, catalog.bare()):
            assert decode(reader.read(item))[0, 0].tolist() == [20 * k + number, 0, 0]


def test_what_webdataset_writes_is_read(tmp_path: Path) -> None:
    """With its writer of shards, which splits and encodes by itself."""
    dataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    (tmp_path / "set").mkdir()
    frames = [np.full((8, 9, 3), 10 * k, np.uint8) for k in range(10)]
    with dataset.ShardWriter(str(tmp_path / "set" / "train-%06d.tar"), maxcount=4, verbose=0) as writer:
        for k, frame in enumerate(frames):
            writer.write(
                {"__key__": f"deep/er/{k:04}", "png": frame, "cls": k % 3, "json": {"label": "other"}}
            )
    catalog = scan(tmp_path / "set")
    assert len(list((tmp_path / "set").iterdir())) == 3
    assert catalog.labels == ("0", "1", "2")
    for item in catalog.items:
        k = int(Path(item.file).stem)
        assert np.array_equal(decode(catalog.read(item)), frames[k])
        assert item.label == str(k % 3)


def test_classes_may_be_told_by_json_and_parts_by_the_names_of_shards(tmp_path: Path) -> None:
    for part, name in (("train", "set-train-0.tar"), ("val", "set_validation_0.tar"), ("test", "TEST.tar")):
        facts = {"label": "cat"} if part == "train" else {"height": 4, "class_name": " dog "}
        files = {f"a/{part}.x.json": b"{", f"a/{part}.json": json.dumps(facts).encode()}
        write(
            tmp_path / name, files | {f"a/{part}.JPG": picture(9, "JPEG"), "b.png": picture(1), "c.cls": b"1"}
        )
    catalog = scan(tmp_path)
    assert {(item.part, item.label) for item in catalog.items} == {
        ("train", "cat"),
        ("val", "dog"),
        ("test", "dog"),
    }
    assert {one.kind for one in catalog.set_aside} == {"no-class"}
    assert len(catalog.set_aside) == 3


@pytest.mark.parametrize("harm", ["cut", "header", "garbage", "empty"])
def test_of_a_damaged_shard_the_whole_part_is_used_and_the_rest_named(folder: Path, harm: str) -> None:
    data = bytearray((folder / "001.tar").read_bytes())
    match harm:
        case "cut":
            del data[5 * 1024 + 300 :]  # in the head of the sixth file
        case "header":
            data[4 * 1024 + 10] ^= 255
        case "garbage":
            data[:] = b"no tar file at all " * 100
        case "empty":
            data.clear()
    (folder / "001.tar").write_bytes(data)
    catalog = scan(folder)
    (aside,) = [one for one in catalog.set_aside if one.kind != "no-class"]
    assert (aside.file, aside.kind) == ("001.tar", "damaged")
    whole = sum(item.file.startswith("001") for item in catalog.items)
    assert whole == (2 if harm in ("cut", "header") else 0)
    assert len(catalog.items) == 6 + whole
    for item in catalog.items:
        decode(catalog.read(item))


def head(name: str, kind: bytes, size: int) -> bytes:
    """A tar's head of this size, in the base that has room for any."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % (1 << 96) if size < 0 else (0x80 << 88) | size).to_bytes(12, "big")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize(
    "harm",
    [
        *({"GNU.sparse.map": "a,b"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        *({"size": "-512"}, {"size": "-5120"}, {"size": "9" * 30}),
        *(head("x", b"0", 1 << 80), head("x", b"0", -512), head("x", b"S", -512)),
        *(head("x", b"x", 1 << 80), head("x", b"L", 1 << 62), head("x", b"L", 1) * 3000),
    ],
    ids=lambda harm: str(harm)[:40] if isinstance(harm, dict) else f"{harm[156:157]!r}, {len(harm)} bytes",
)
def test_a_shard_whose_heads_are_nonsense_is_named_and_its_whole_part_is_used(
    folder: Path, harm: dict[str, str] | bytes
) -> None:
    data = (folder / "001.tar").read_bytes()[: 4 * 1024]  # two samples
    made = io.BytesIO()
    if isinstance(harm, dict):
        with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
            info = tarfile.TarInfo("x")
            info.pax_headers = dict(harm)
            tar.addfile(info)
    else:
        made.write(harm + bytes(1024))
    (folder / "001.tar").write_bytes(data + made.getvalue())
    catalog = scan(folder)
    (aside,) = catalog.set_aside
    assert (aside.file, aside.kind) == ("001.tar", "damaged")
    assert "file ()" not in aside.reason
    assert sum(item.file.startswith("001") for item in catalog.items) == 2
    assert [item.file for item in catalog.items if item.file.startswith("000")] == [
        f"000.tar/0-{k}.png" for k in (1, 3, 5, 0, 2, 4)
    ]


def test_a_shard_that_is_cut_while_it_is_in_use_is_a_picture_that_cannot_be_read(folder: Path) -> None:
    catalog = scan(folder)
    (folder / "001.tar").write_bytes((folder / "001.tar").read_bytes()[:3000])
    with pytest.raises(OSError, match=r"001.tar is cut short"):
        catalog.read(catalog.items[-1])
    (folder / "001.tar").unlink()
    with pytest.raises(OSError, match="No such file"):
        catalog.read(catalog.items[-1])


def test_what_is_too_large_for_a_picture_is_set_aside_unread(folder: Path) -> None:
    """A gigabyte and a byte, as its head says; on the disk it takes no room."""
    size = (1 << 30) + 1
    with (folder / "001.tar").open("r+b") as file:
        file.seek(12 * 1024)  # where the last sample ends
        for name, length in (("huge.png", size), ("huge.cls", 1)):
            file.write(head(name, b"0", length))
            file.seek(-(-length // 512) * 512 - 1, io.SEEK_CUR)
            file.write(b"\0")
        file.write(bytes(1024))
    catalog = scan(folder)
    (aside,) = catalog.set_aside
    assert (aside.file, aside.kind) == ("001.tar/huge.png", "too-large")
    assert aside.reason == f"{size} bytes are too many for a picture"
    assert len(catalog.items) == 12
    with pytest.raises(OSError, match="too many for a picture"):
        catalog.read(Item("001.tar/huge.png", "1"))


def test_no_shard_is_listed_again_to_read_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, and though pictures sorted by class come from all of them in turn."""
    for number in range(70):
        files = {f"{k}.png": picture(70 * k + number) for k in range(2)}
        write(tmp_path / f"{number:03}.tar", files | {f"{k}.cls": b"%d" % k for k in range(2)})
    catalog = scan(tmp_path)
    opened: list[object] = []
    monkeypatch.setattr(tarfile, "open", lambda *how, **more: opened.append(how))
    for _ in range(2):
        levels = [decode(catalog.bare().read(item))[0, 0, 0] for item in catalog.items]
    assert levels == list(range(140))
    assert opened == []


def test_of_a_shard_that_became_another_nothing_is_read_but_what_lies_where_it_lay(folder: Path) -> None:
    catalog = scan(folder)
    twelve, three = catalog.items[0], catalog.items[-1]  # the second picture of one, the fifth of the other
    assert (twelve.file, three.file) == ("000.tar/0-1.png", "001.tar/1-4.png")
    write(
        folder / "000.tar", {"0-0.png": picture(1), "0-0.cls": b"3", "0-2.png": picture(2), "z": bytes(9999)}
    )
    write(folder / "001.tar", {"longer": bytes(20000), "1-4.png": picture(99)})
    for item in (twelve, three):
        with pytest.raises(OSError, match="is another file than it was; run again"):
            catalog.read(item)
    assert decode(catalog.read(replace(three, within=None)))[0, 0, 0] == 99  # by its name alone
    with pytest.raises(OSError, match=r"000.tar does not hold it"):
        catalog.read(replace(twelve, within=None))


def test_a_tar_file_among_class_folders_makes_no_shards_of_them(folder: Path) -> None:
    (folder / "cat").mkdir()
    (folder / "cat" / "1.png").write_bytes(picture(1))
    catalog = scan(folder)
    assert [item.file for item in catalog.items] == ["cat/1.png"]
    assert {one.file for one in catalog.set_aside} == {"000.tar", "001.tar"}


def test_results_beside_shards_are_no_class(folder: Path) -> None:
    before = scan(folder)
    (folder / "out" / "events").mkdir(parents=True)
    for name in ("run.json", "report.html", "events/events.out.tfevents.1.host", "left.tar"):
        (folder / "out" / name).write_bytes(b"{}")
    catalog = scan(folder)
    assert catalog.sharded
    assert catalog.items == before.items
    assert {one.file for one in catalog.set_aside} - {one.file for one in before.set_aside} == {
        "out/run.json",
        "out/report.html",
        "out/events/events.out.tfevents.1.host",
        "out/left.tar",
    }


def test_shards_without_a_usable_picture_are_refused_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "0.tar", {"a.png": picture(1), "b.cls": b"1"})
    with pytest.raises(ValueError, match=r"0.tar/a.png \(neither a .cls nor a .json names one\)"):
        scan(tmp_path)


def test_digests_and_decoding_go_through_shards_and_what_was_kept_in_shards_is_a_data_set(
    folder: Path, tmp_path: Path
) -> None:
    catalog = scan(folder)
    store = Store(tmp_path / "cache.sqlite")
    keys = digests(catalog, 2, store, now=0.0)
    assert len(set(keys)) == 12
    target = Preprocess(height=4, width=5, geometry="stretch")

    def quiet(stage: str, done: int, total: int) -> None:
        """Nobody looks."""

    for limit in (1 << 30, 0):
        pictures, lost = decoded(
            *(catalog, catalog.items, target, tmp_path / "kept"),
            workers=1,
            progress=quiet,
            keys=keys,
            limit_bytes=limit,  # type: ignore[arg-type]
        )
        assert lost == {}
        made = pictures.rows(np.arange(12))
        assert np.array_equal(made, [decode(catalog.read(item)) for item in catalog.items])
    store.close()
    (tmp_path / "kept2").mkdir()
    write(
        tmp_path / "kept2" / "plain.tar",
        {"a.bmp": picture(7, "BMP"), "a.cls": b"5", "c.bmp": picture(9, "BMP"), "c.cls": b"6"},
    )
    other = scan(tmp_path / "kept2")
    decoded(
        *(other, other.items, target, tmp_path / "kept3"),
        workers=0,
        progress=quiet,
        keys=digests(other, 1, None),
        limit_bytes=0,  # type: ignore[arg-type]
    )
    (place,) = (tmp_path / "kept3").iterdir()
    again = scan(place)
    assert [item.label for item in again.items] == ["0", "1"]
    assert [one.file for one in again.set_aside] == ["index.safetensors"]
