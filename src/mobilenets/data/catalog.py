"""What pictures a data set holds, under which labels: class folders, a zip of them, a CSV, or shards."""

from __future__ import annotations

import csv
import io
import lzma
import os
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from mobilenets.data import tarred

PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names and CSV entries that name a part of the data set."""
PICTURES = frozenset(
    f".{kind}"
    for kind in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib"),
        *("tif", "tiff", "ppm", "pgm", "pbm", "pnm", "avif", "heic", "heif"),
    )
)
"""Suffixes of what is taken for a picture; a file without a suffix is tried too."""
CLUTTER = frozenset(("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin"))
"""What operating systems leave behind: passed over without a word, like every name that starts with a dot."""
MOST_FILE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class SetAside:
    """A file that was not used, and why."""

    file: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True)
class Item:
    """One picture: its path from the root or name in the archive, its label, its part where one is given.

    `within` is where it lies in its shard: to look for it there is to read the heads of all that is in it.
    """

    file: str
    label: str
    part: str | None = None
    within: tarred.Place | None = None

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.file).suffix.lower()


@dataclass(frozen=True, slots=True)
class Catalog:
    """The pictures of a data set, sorted by label and file; nothing has been decoded yet.

    `root` is the folder that files are relative to, or the zip file where `packed`. Where `sharded` a file's
    path begins with the tar file that it is in.
    """

    root: Path
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    set_aside: tuple[SetAside, ...]
    packed: bool = False
    sharded: bool = False

    def bare(self) -> Catalog:
        """Enough of it to read items by: what a worker process needs."""
        return replace(self, items=(), set_aside=())

    def place(self, item: Item) -> Path:
        """The file on disk that a picture is, or is inside of."""
        if self.packed:
            return self.root
        return self.root / (item.file.partition("/")[0] if self.sharded else item.file)

    def read(self, item: Item) -> bytes:
        """The bytes of one picture, in any process. Raises OSError where they cannot be read."""
        if self.packed:
            return _unpacked(self.root, item.file)
        path = self.place(item)
        within = item.within
        if within is None and self.sharded:
            within = tarred.place(path, item.file.partition("/")[2])
        size = path.stat().st_size if within is None else within.size
        if size > MOST_FILE_BYTES:
            raise OSError(f"{size} bytes are too many for a picture")
        return path.read_bytes() if within is None else tarred.read(path, within)


@dataclass(frozen=True, slots=True)
class _Listing:
    """Files and folders below a root, as parts of their paths; `names` has the name to read a file by."""

    files: list[tuple[str, ...]]
    folders: list[tuple[str, ...]]
    aside: list[SetAside]
    names: dict[tuple[str, ...], str]


def scan(path: Path) -> Catalog:
    """What `path` holds: a folder of class folders, perhaps below train, val and test; a zip of one; a CSV;
    a folder of WebDataset's shards.

    A folder below a class folder belongs to that class. A lone folder around all class folders is passed.
    Shards are tar files with no folder of pictures beside them, each picture with a `.cls` or a `.json` of
    its stem; their names may tell parts (`train-000.tar`).
    The CSV has rows `file,label[,split]`, files relative to the CSV, with or without that line on top.
    What cannot be used is set aside by name. Raises ValueError where no picture with a label is found.
    """
    if path.is_dir():
        listing = _walk(path)
        tops = [name for name, *more in listing.files if not more]
        inner = {PurePosixPath(name).suffix.lower() for _, *more in listing.files for name in more[-1:]}
        if inner.isdisjoint(PICTURES) and any(name.endswith(tarred.SUFFIX) for name in tops):
            return replace(_sorted(path, *_unsharded(path, listing), packed=False), sharded=True)
        return _sorted(path, *_arranged(listing), packed=False)
    if not path.is_file():
        raise ValueError(f"{path}: no such folder, zip or CSV; check the path")
    if path.suffix.lower() == ".csv":
        return _sorted(path.parent, *_table(path), packed=False, shown=path)
    if zipfile.is_zipfile(path):
        return _sorted(path, *_arranged(_members(path)), packed=True)
    raise ValueError(
        f"{path}: neither a folder, a zip nor a CSV of file,label; a damaged zip must be fetched again"
    )


def usable(catalog: Catalog, least_classes: int = 2) -> None:
    """Raises ValueError where the catalog has fewer classes than there must be."""
    if len(catalog.labels) < least_classes:
        found = f"class{'' if len(catalog.labels) == 1 else 'es'} ({', '.join(catalog.labels) or 'none'})"
        raise ValueError(
            f"{catalog.root}: usable pictures of {len(catalog.labels)} {found}, at least {least_classes} "
            f"are needed{_why(catalog.set_aside)}; "
            "put the pictures of each class into a folder named after it"
        )


def _sorted(
    root: Path, items: Iterable[Item], aside: Iterable[SetAside], *, packed: bool, shown: Path | None = None
) -> Catalog:
    ordered = tuple(sorted(items, key=lambda item: (item.label, item.file)))
    left = tuple(sorted(aside, key=lambda one: one.file))
    if not ordered:
        if shown is not None:
            raise ValueError(f"{shown}: no row names a picture{_why(left)}; rows are file,label[,split]")
        raise ValueError(
            f"{root}: no picture inside a class folder{_why(left)}; "
            "put the pictures of each class into a folder named after it"
        )
    return Catalog(root, tuple(sorted({item.label for item in ordered})), ordered, left, packed)


def _why(aside: tuple[SetAside, ...]) -> str:
    more = f" and {len(aside) - 1} more" if len(aside) > 1 else ""
    return f"; set aside: {aside[0].file} ({aside[0].reason}){more}" if aside else ""


def _walk(root: Path) -> _Listing:
    """Every file below a folder. Links are followed, but no folder is entered twice, so a loop ends."""
    listing = _Listing([], [], [], {})
    seen: set[tuple[int, int]] = set()
    pending: list[tuple[str, ...]] = [()]
    # Links are entered last, so that a folder is known by its own path where it has one.
    linked: list[tuple[str, ...]] = []
    while pending or linked:
        place = pending.pop() if pending else linked.pop(0)
        folder = root.joinpath(*place)
        try:
            facts = folder.stat()
            if (facts.st_dev, facts.st_ino) in seen:
                reason = "a link to a folder that was read already"
                listing.aside.append(SetAside("/".join(place), "link", reason))
                continue
            seen.add((facts.st_dev, facts.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if not place:
                raise ValueError(
                    f"{root}: cannot be read ({error.strerror}); check its permissions"
                ) from error
            reason = f"the folder cannot be read: {error.strerror}"
            listing.aside.append(SetAside("/".join(place), "unreadable-folder", reason))
            continue
        if place:
            listing.folders.append(place)
        for entry in entries:
            _enter(entry, place, listing, pending, linked)
    return listing


def _enter(
    entry: os.DirEntry[str],
    place: tuple[str, ...],
    listing: _Listing,
    pending: list[tuple[str, ...]],
    linked: list[tuple[str, ...]],
) -> None:
    if _clutter(entry.name):
        return
    path = (*place, entry.name)
    if not _speakable(entry.name):
        listing.aside.append(
            SetAside(_spoken("/".join(path)), "bad-name", "its name is not UTF-8; rename it")
        )
        return
    try:
        if entry.is_dir():
            (linked if entry.is_symlink() else pending).append(path)
        elif entry.is_file():
            listing.files.append(path)
            listing.names[path] = "/".join(path)
        else:
            what = "a link that leads nowhere" if entry.is_symlink() else "neither a file nor a folder"
            listing.aside.append(SetAside("/".join(path), "not-a-file", what))
    except OSError as error:
        listing.aside.append(SetAside("/".join(path), "unreadable", f"cannot be read: {error.strerror}"))


def _members(path: Path) -> _Listing:
    listing = _Listing([], [], [], {})
    try:
        infos = list(_archive(path).NameToInfo.values())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise ValueError(f"{path}: a zip that cannot be read ({error}); get it again") from error
    for info in infos:
        place = tuple(
            part for part in PurePosixPath(info.filename.replace("\\", "/")).parts if part not in "/.."
        )
        if not place or any(_clutter(part) for part in place):
            continue
        if not _speakable(info.filename):
            listing.aside.append(
                SetAside(_spoken(info.filename), "bad-name", "its name is not UTF-8; rename it")
            )
        elif info.is_dir():
            listing.folders.append(place)
        elif info.flag_bits & 1:
            listing.aside.append(SetAside(info.filename, "encrypted", "encrypted; zip it without a password"))
        elif info.file_size > MOST_FILE_BYTES:
            reason = f"{info.file_size} bytes are too many for a picture"
            listing.aside.append(SetAside(info.filename, "too-large", reason))
        else:
            listing.files.append(place)
            listing.names[place] = info.filename
    known = set(listing.folders)
    implied = {place[:depth] for place in (*listing.files, *known) for depth in range(1, len(place))} - known
    listing.folders.extend(sorted(implied))
    return listing


def _arranged(listing: _Listing) -> tuple[list[Item], list[SetAside]]:
    """Labels from the places of files: class/…, or part/class/… where the folders on top are parts."""
    aside = list(listing.aside)
    pictures = []
    for place in listing.files:
        if PurePosixPath(place[-1]).suffix.lower() in PICTURES or "." not in place[-1]:
            pictures.append(place)
        else:
            aside.append(SetAside(listing.names[place], "not-a-picture", "not a picture by its suffix"))
    depth = _wrapped(listing.folders, listing.files, pictures)
    tops = {place[depth] for place in listing.folders if len(place) == depth + 1}
    inner = {place[depth] for place in listing.folders if len(place) == depth + 2}
    parts = {top for top in tops if top.casefold() in PARTS and top in inner}
    own_parts = bool(parts) and (
        all(top.casefold() in PARTS for top in tops) or len({PARTS[top.casefold()] for top in parts}) > 1
    )
    items = []
    for place in pictures:
        file = listing.names[place]
        below = place[depth:]
        if own_parts and below[0] not in parts:
            aside.append(SetAside(file, "no-class", "lies beside the train, val and test folders"))
        elif len(below) < (3 if own_parts else 2):
            aside.append(SetAside(file, "no-class", "lies outside any class folder"))
        elif own_parts:
            items.append(Item(file, _label(below[1]), PARTS[below[0].casefold()]))
        else:
            items.append(Item(file, _label(below[0])))
    aside.extend(_empty(listing.folders, items, depth + own_parts))
    return items, aside


def _wrapped(
    folders: list[tuple[str, ...]], files: list[tuple[str, ...]], pictures: list[tuple[str, ...]]
) -> int:
    """How many lone folders lie around the class folders, as in many archives.

    A folder of files none of which is a picture is no neighbour: results are often written beside the
    wrapper.
    """
    depth = 0
    while True:
        other = {place[: depth + 1] for place in files} - {place[: depth + 1] for place in pictures}
        tops = {place[depth] for place in folders if len(place) == depth + 1 and place not in other}
        if len(tops) > 1 or any(top.casefold() in PARTS for top in tops):
            return depth
        if not tops or any(len(place) <= depth + 2 for place in pictures):
            return 0  # a lone folder with pictures is a class
        depth += 1


def _empty(folders: Iterable[tuple[str, ...]], items: Iterable[Item], depth: int) -> Iterator[SetAside]:
    used = {item.label for item in items}
    for place in sorted(folders):
        if len(place) == depth + 1 and _label(place[depth]) not in used:
            yield SetAside("/".join(place), "empty-class", "the folder holds no picture")


def _unsharded(root: Path, listing: _Listing) -> tuple[list[Item], list[SetAside]]:
    aside = list(listing.aside)
    items = []
    for name in sorted("/".join(place) for place in listing.files):
        if "/" in name or not name.endswith(tarred.SUFFIX):
            aside.append(SetAside(name, "not-a-picture", "lies beside the shards"))
            continue
        try:
            shard = tarred.shard(root / name)
            found = tarred.samples(root / name, shard, PICTURES)
        except OSError as error:
            aside.append(SetAside(name, "unreadable", f"cannot be read: {error.strerror or error}"))
            continue
        if shard.damage:
            aside.append(SetAside(name, "damaged", f"{shard.damage}; what is whole of it is used"))
        part = tarred.part(name, PARTS)
        for sample in found:
            file, size = f"{name}/{sample.name}", sample.place.size
            if size > MOST_FILE_BYTES:
                aside.append(SetAside(_spoken(file), "too-large", f"{size} bytes are too many for a picture"))
            elif not sample.label:
                aside.append(SetAside(file, "no-class", "neither a .cls nor a .json names one"))
            elif not _speakable(sample.name):
                aside.append(SetAside(_spoken(file), "bad-name", "its name is not UTF-8"))
            else:
                items.append(Item(file, _label(sample.label), part, sample.place))
    if None in {item.part for item in items} or len({item.part for item in items}) < 2:
        items = [replace(item, part=None) for item in items]
    return items, aside


def _table(path: Path) -> tuple[list[Item], list[SetAside]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        top = text.split("\n", 1)[0]
        delimiter = ";" if ";" in top and "," not in top else ","
        rows = list(enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 1))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path}: no CSV ({error}); rows are file,label[,split]") from error
    rows = [
        (number, [cell.strip() for cell in row]) for number, row in rows if any(cell.strip() for cell in row)
    ]
    columns = {"file": 0, "label": 1, "split": 2}
    if rows and {"file", "label"} <= {cell.casefold() for cell in rows[0][1]}:
        columns = {cell.casefold(): place for place, cell in enumerate(rows.pop(0)[1])}
    items: dict[tuple[str, str], Item] = {}
    aside: list[SetAside] = []
    for number, row in rows:
        cells = {name: row[place] if place < len(row) else "" for name, place in columns.items()}
        file, label, part = cells["file"], cells["label"], cells.get("split", "")
        if part and part.casefold() not in PARTS:
            raise ValueError(f"{path}: line {number}: split {part!r} is none of train, val, test")
        why = _unlistable(path.parent, file, label)
        if why is not None:
            aside.append(SetAside(file or f"line {number}", *why))
        elif (file, label) in items:
            aside.append(SetAside(file, "listed-twice", f"listed again in line {number}"))
        else:
            items[file, label] = Item(file, _label(label), PARTS[part.casefold()] if part else None)
    return list(items.values()), aside


def _unlistable(root: Path, file: str, label: str) -> tuple[str, str] | None:
    """Kind and reason why a row of the CSV cannot be used, if so."""
    if not file or not label:
        return "no-class", "the row names no file" if not file else "the row gives no label"
    try:
        if not stat.S_ISREG((root / file).stat().st_mode):
            return "not-a-file", "the row names no plain file"
    except (OSError, ValueError) as error:
        return "missing", f"cannot be found: {getattr(error, 'strerror', None) or error}"
    return None


def _clutter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in CLUTTER


def _label(name: str) -> str:
    """One spelling for a name that one system writes composed and another decomposed.

    A CSV's cells lose their outer blanks, and so do folders' names.
    """
    return unicodedata.normalize("NFC", name).strip() or name


def _speakable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spoken(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _archive(path: Path) -> zipfile.ZipFile:
    """The zip as it lies there now, opened once a process and once for each state of the file."""
    seen = path.stat()
    return _opened(path, (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns), os.getpid())


@lru_cache(maxsize=4)
def _opened(path: Path, state: tuple[int, ...], process: int) -> zipfile.ZipFile:
    """One open archive a process: a forked child sharing its parent's file would move its read position."""
    return zipfile.ZipFile(path)


def _unpacked(path: Path, member: str) -> bytes:
    try:
        archive = _archive(path)
        if archive.getinfo(member).file_size > MOST_FILE_BYTES:
            raise OSError("too many bytes for a picture")
        return archive.read(member)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, ValueError) as error:
        raise OSError(f"cannot be unpacked: {error}") from error  # a damaged name is a UnicodeDecodeError
    except (NotImplementedError, RuntimeError) as error:  # a method or a password that zipfile lacks
        raise OSError(f"cannot be unpacked: {error}") from error
