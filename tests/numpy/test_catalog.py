"""What a data set is found to hold: folders, zips, CSVs, and all that is odd about them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from mobilenets.data import catalog as catalog_module
from mobilenets.data.catalog import Item, scan, usable


def planted(root: Path, *files: str, data: bytes = b"x") -> Path:
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def zipped(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"" if name.endswith("/") else name.encode())
    return path


def kinds(root: Path) -> dict[str, str]:
    return {one.file: one.kind for one in scan(root).set_aside}


def test_items_are_sorted_by_label_and_then_by_file(tmp_path: Path) -> None:
    planted(tmp_path, "dog/b.jpg", "cat/z.png", "dog/a.jpg", "cat/10.png", "cat/9.png")
    found = scan(tmp_path)
    assert [item.file for item in found.items] == [
        "cat/10.png",
        "cat/9.png",
        "cat/z.png",
        "dog/a.jpg",
        "dog/b.jpg",
    ]
    assert found.labels == ("cat", "dog")
    assert found.set_aside == ()


def test_folders_below_a_class_belong_to_that_class(tmp_path: Path) -> None:
    planted(tmp_path, "cat/indoor/night/a.jpg", "cat/b.jpg", "dog/c.jpg")
    assert {item.file: item.label for item in scan(tmp_path).items} == {
        "cat/indoor/night/a.jpg": "cat",
        "cat/b.jpg": "cat",
        "dog/c.jpg": "dog",
    }


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_train_val_and_test_folders_are_parts_and_not_classes(tmp_path: Path, val: str) -> None:
    planted(tmp_path, "train/cat/a.jpg", f"{val}/cat/b.jpg", "test/dog/c.jpg", "extra/d.jpg", "train/e.jpg")
    found = scan(tmp_path)
    assert found.labels == ("cat", "dog")
    assert {item.file: item.part for item in found.items} == {
        "train/cat/a.jpg": "train",
        f"{val}/cat/b.jpg": "val",
        "test/dog/c.jpg": "test",
    }
    assert kinds(tmp_path) == {"extra/d.jpg": "no-class", "train/e.jpg": "no-class"}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    planted(tmp_path, "train/a.jpg", "plane/b.jpg", "bus/c.jpg")
    assert scan(tmp_path).labels == ("bus", "plane", "train")


def test_a_lone_folder_around_the_classes_is_passed(tmp_path: Path) -> None:
    planted(tmp_path, "pets-1.0/pets/cat/a.jpg", "pets-1.0/pets/dog/b.jpg")
    assert scan(tmp_path).labels == ("cat", "dog")
    zipped(tmp_path / "pets.zip", "pets/", "pets/train/cat/a.jpg", "pets/test/dog/b.jpg")
    packed = scan(tmp_path / "pets.zip")
    assert [(item.label, item.part) for item in packed.items] == [("cat", "train"), ("dog", "test")]


def test_clutter_is_passed_over_and_what_is_no_picture_is_named(tmp_path: Path) -> None:
    planted(
        tmp_path,
        *("cat/a.jpg", "cat/.DS_Store", "cat/Thumbs.db", ".git/x.jpg", "__MACOSX/cat/._a.jpg", "cat/._a.jpg"),
        *("README.txt", "cat/labels.json", "cat/notes.XML", "loose.jpg", "dog/noname"),
    )
    (tmp_path / "empty").mkdir()
    found = scan(tmp_path)
    assert [item.file for item in found.items] == ["cat/a.jpg", "dog/noname"]
    assert kinds(tmp_path) == {
        "README.txt": "not-a-picture",
        "cat/labels.json": "not-a-picture",
        "cat/notes.XML": "not-a-picture",
        "loose.jpg": "no-class",
        "empty": "empty-class",
    }


def test_an_empty_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no picture inside a class folder.*folder named after it"):
        scan(tmp_path)
    planted(tmp_path, "a.jpg", "b.jpg")
    with pytest.raises(ValueError, match=r"set aside: a\.jpg \(lies outside any class folder\) and 1 more"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "notes.txt"])
def test_what_is_no_data_set_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=name) as error:
        scan(tmp_path / name)
    assert "\n" not in str(error.value)


def test_one_class_can_be_scanned_but_not_learnt_from(tmp_path: Path) -> None:
    found = scan(planted(tmp_path, "cat/a.jpg", "cat/b.jpg"))
    usable(found, 1)
    with pytest.raises(ValueError, match=r"1 class \(cat\), at least 2 are needed"):
        usable(found)


def test_a_loop_of_links_ends_and_is_named(tmp_path: Path) -> None:
    planted(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (tmp_path / "cat" / "again").symlink_to(tmp_path)
    (tmp_path / "cat" / "self").symlink_to(tmp_path / "cat")
    (tmp_path / "dog" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "dog" / "round.jpg").symlink_to(tmp_path / "dog" / "round.jpg")
    found = scan(tmp_path)
    assert [item.file for item in found.items] == ["cat/a.jpg", "dog/b.jpg"]
    named = {one.file: one.kind for one in found.set_aside}
    assert named["cat/again"] == named["cat/self"] == "link"
    assert named["dog/gone.jpg"] == "not-a-file"
    assert "dog/round.jpg" in named


def test_a_linked_class_folder_is_followed(tmp_path: Path) -> None:
    planted(tmp_path / "elsewhere", "a.jpg")
    planted(tmp_path / "set", "dog/b.jpg")
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere")
    found = scan(tmp_path / "set")
    assert [(item.file, item.label) for item in found.items] == [("cat/a.jpg", "cat"), ("dog/b.jpg", "dog")]
    assert found.read(found.items[0]) == b"x"


def test_a_pipe_among_the_pictures_is_set_aside_and_not_opened(tmp_path: Path) -> None:
    planted(tmp_path, "cat/a.jpg")
    os.mkfifo(tmp_path / "cat" / "pipe.jpg")
    assert kinds(tmp_path) == {"cat/pipe.jpg": "not-a-file"}


def test_a_folder_without_permission_is_named() -> None:
    # Not in tmp_path: only its owner may enter that, and permissions bind no root, who becomes another here.
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        planted(root, "cat/a.jpg", "dog/b.jpg")
        for folder in (root, root / "cat"):
            folder.chmod(0o755)
        (root / "dog").chmod(0)
        own = os.geteuid()
        try:
            if own == 0:
                os.seteuid(65534)
            assert kinds(root) == {"dog": "unreadable-folder"}
        finally:
            os.seteuid(own)
            (root / "dog").chmod(0o755)


def test_a_folder_that_fails_to_open_is_named_and_the_rest_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(tmp_path, "cat/a.jpg", "dog/b.jpg")
    real = os.scandir

    def failing(path: Path) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(catalog_module.os, "scandir", failing)
    found = scan(tmp_path)
    assert [item.file for item in found.items] == ["cat/a.jpg"]
    assert [(one.file, one.kind) for one in found.set_aside] == [("dog", "unreadable-folder")]
    assert "Permission denied" in found.set_aside[0].reason
    monkeypatch.setattr(catalog_module.os, "scandir", lambda _: failing(Path("dog")))
    with pytest.raises(ValueError, match=r"cannot be read .*permissions"):
        scan(tmp_path)


def test_names_of_any_script_and_of_255_bytes_are_read(tmp_path: Path) -> None:
    label, long = "кошка 猫 🐈", "x" * 251 + ".jpg"
    planted(tmp_path, f"{label}/日本 語'\"\n.jpg", f"{label}/{long}", data=b"data")
    deep = "/".join(["d" * 100] * 12)
    planted(tmp_path, f"dog/{deep}/a.jpg", data=b"data")
    found = scan(tmp_path)
    assert found.labels == ("dog", label)
    assert [found.read(item) for item in found.items] == [b"data"] * 3


def test_composed_and_decomposed_spellings_are_one_label(tmp_path: Path) -> None:
    planted(tmp_path, "train/caf\u00e9/a.jpg", "test/cafe\u0301/b.jpg", "train/tea/c.jpg")
    assert scan(tmp_path).labels == ("caf\u00e9", "tea")


@pytest.mark.skipif(sys.platform != "linux", reason="only here may a name be any bytes")
def test_a_name_that_is_no_text_is_set_aside_in_words_that_can_be_printed(tmp_path: Path) -> None:
    planted(tmp_path, "cat/a.jpg")
    with open(os.fsencode(tmp_path) + b"/cat/\xff\xfe.jpg", "wb"):  # noqa: PTH123  # a name of bytes
        pass
    (one,) = scan(tmp_path).set_aside
    assert one.kind == "bad-name"
    assert one.file.encode() == rb"cat/\udcff\udcfe.jpg"


def test_a_zip_is_read_without_unpacking_and_by_other_processes_too(tmp_path: Path) -> None:
    zipped(
        tmp_path / "set.zip",
        "cat/a.jpg",
        "dog/b.jpg",
        "__MACOSX/cat/._a.jpg",
        "../dog/up.jpg",
        "/dog/root.jpg",
    )
    found = scan(tmp_path / "set.zip")
    assert [item.file for item in found.items] == ["cat/a.jpg", "../dog/up.jpg", "/dog/root.jpg", "dog/b.jpg"]
    script = (
        "import pickle, sys; c = pickle.loads(sys.stdin.buffer.read()); print([c.read(i) for i in c.items])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], input=pickle.dumps(found), capture_output=True, check=True
    )
    assert told.stdout.decode().strip() == str([found.read(item) for item in found.items])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.zip"]


def test_encrypted_and_absurdly_large_members_are_set_aside(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", "cat/a.jpg", "cat/secret.jpg", "cat/huge.jpg")
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"cat/secret.jpg"))
    data[at + 8] |= 1
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"cat/huge.jpg"))
    data[at + 24 : at + 28] = (3 << 30).to_bytes(4, "little")
    path.write_bytes(data)
    assert kinds(path) == {"cat/secret.jpg": "encrypted", "cat/huge.jpg": "too-large"}


def test_a_damaged_member_raises_oserror_and_a_damaged_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "set.zip", "cat/a.jpg", "dog/b.jpg")
    data = bytearray(path.read_bytes())
    data[data.index(b"cat/a.jpg") + 9] ^= 0xFF  # the first byte of the member's data
    path.write_bytes(data)
    found = scan(path)
    with pytest.raises(OSError, match="cannot be unpacked"):
        found.read(found.items[0])
    assert found.read(found.items[1]) == b"dog/b.jpg"
    (tmp_path / "cut.zip").write_bytes(data[:-9])
    with pytest.raises(ValueError, match=r"cut\.zip"):
        scan(tmp_path / "cut.zip")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_zip_damaged_anywhere_gives_what_is_whole_and_oserror_for_the_rest(
    tmp_path: Path, method: int
) -> None:
    """Every byte of the first member in turn, its header and name among them."""
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        archive.writestr("cat/a.jpg", bytes(range(64)))
        archive.writestr("dog/b.jpg", b"whole")
    data = (tmp_path / "set.zip").read_bytes()
    end, broken = data.index(b"PK\3\4", 4), 0
    for place in range(end):
        path = tmp_path / f"{place}.zip"
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        found = scan(path)
        try:
            assert found.read(found.items[0]) == bytes(range(64))
        except OSError:
            broken += 1
        assert found.read(found.items[1]) == b"whole"
    assert broken > end // 2


def test_a_csv_gives_files_labels_and_parts(tmp_path: Path) -> None:
    planted(tmp_path, "p/1.jpg", "p/2.jpg", "p/3, four.jpg", data=b"pixels")
    table = tmp_path / "set.csv"
    table.write_text(
        '\ufefffile,label,split\r\np/1.jpg,cat,train\r\np/2.jpg, dog ,valid\r\n"p/3, four.jpg",dog,\r\n'
    )
    found = scan(table)
    assert found.items == (
        Item("p/1.jpg", "cat", "train"),
        Item("p/2.jpg", "dog", "val"),
        Item("p/3, four.jpg", "dog", None),
    )
    assert found.read(found.items[2]) == b"pixels"
    table.write_text("p/1.jpg,cat\np/2.jpg,dog\n")
    assert [item.label for item in scan(table).items] == ["cat", "dog"]
    table.write_text("label;file\ncat;p/1.jpg\n")
    assert scan(table).items == (Item("p/1.jpg", "cat"),)


def test_rows_of_a_csv_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    planted(tmp_path, "1.jpg", "2.jpg")
    table = tmp_path / "set.csv"
    table.write_text("1.jpg,cat\n1.jpg,cat\n1.jpg,dog\n2.jpg,\nnone.jpg,cat\n.,cat\na\0b.jpg,cat\n")
    found = scan(table)
    assert [(item.file, item.label) for item in found.items] == [("1.jpg", "cat"), ("1.jpg", "dog")]
    assert sorted((one.file, one.kind) for one in found.set_aside) == [
        (".", "not-a-file"),
        ("1.jpg", "listed-twice"),
        ("2.jpg", "no-class"),
        ("a\0b.jpg", "missing"),
        ("none.jpg", "missing"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no row names a picture"),
        (b"file,label\n", "no row names a picture"),
        (b"1.jpg,cat,tomorrow\n", "line 1: split 'tomorrow' is none of"),
        ("1.jpg,caf\u00e9\n".encode("latin-1"), "not UTF-8 at byte 9"),
        (b"1.jpg," + b"x" * 200_000, "no CSV"),
    ],
)
def test_a_csv_that_is_no_list_of_pictures_is_refused(tmp_path: Path, text: bytes, why: str) -> None:
    planted(tmp_path, "1.jpg")
    (tmp_path / "set.csv").write_bytes(text)
    with pytest.raises(ValueError, match=why):
        scan(tmp_path / "set.csv")


def test_a_file_of_a_gibibyte_is_not_read_as_a_picture(tmp_path: Path) -> None:
    planted(tmp_path, "cat/a.jpg")
    os.truncate(tmp_path / "cat" / "a.jpg", (1 << 30) + 1)  # sparse: takes no room
    found = scan(tmp_path)
    with pytest.raises(OSError, match="too many for a picture"):
        found.read(found.items[0])


def test_caltech_101_has_its_published_classes_and_pictures(material: Path, tmp_path: Path) -> None:
    with tarfile.open(material / "data" / "caltech101.tar") as tar:
        zipped(tmp_path / "names.zip", *(member.name for member in tar if member.isfile()))
    found = scan(tmp_path / "names.zip")
    assert (len(found.items), len(found.labels)) == (9144, 102)
