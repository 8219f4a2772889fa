"""A model file comes back as it was written or is refused with the reason; it is written whole or not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.infer.artefact import (
    FORMAT,
    Artefact,
    ArtefactError,
    digest,
    from_bytes,
    load,
    save,
    to_bytes,
)
from mobilenets.infer.engine import NumpyEngine
from mobilenets.infer.quantise import quantise
from mobilenets.infer.sealed import KEY, SEAL, pack, unpack, write_whole
from mobilenets.spec import zoo
from mobilenets.spec.net import tensors
from mobilenets.spec.preprocess import Preprocess
from mobilenets.spec.text import json_text


def small(seed: int = 0, **fields: Any) -> Artefact:
    draw = np.random.default_rng(seed)
    net = zoo.net("v1-cifar", 0.01, 8, 3)
    weights = {
        name: np.abs(draw.normal(0.3, 0.3, shape)).astype(np.float32) + np.float32(0.01)
        for name, shape in tensors(net).items()
    }
    kept: dict[str, Any] = {
        "preprocess": Preprocess(height=8, width=8, geometry="stretch"),
        "labels": ("cat", "<script>", "Schloß 城 🏰"),
        "threshold": 0.25,
        "source": {"from": "nowhere", "licence": "Apache-2.0"},
        "recipe": {"seed": seed},
        "scores": {"test": 0.1 + 0.2},
    }
    return Artefact(net=net, weights=weights, **(kept | fields))


def same(one: Artefact, other: Artefact) -> bool:
    weights = one.weights.keys() == other.weights.keys() and all(
        one.weights[name].tobytes() == other.weights[name].tobytes() for name in one.weights
    )
    return weights and replace(one, weights={}) == replace(other, weights={})


MODEL = small()
BYTES = to_bytes(MODEL)


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(top: dict[str, Any], body: bytes) -> bytes:
    header = json.dumps(top).encode()
    return struct.pack("<Q", len(header)) + header + body


def test_a_model_comes_back_as_it_was_written(tmp_path: Path) -> None:
    save(MODEL, tmp_path / "deep" / "er" / "model.safetensors")
    again = load(tmp_path / "deep" / "er" / "model.safetensors")
    assert same(again, MODEL)
    assert digest(again) == digest(MODEL)


def test_the_same_model_gives_the_same_bytes() -> None:
    assert to_bytes(from_bytes(BYTES)) == BYTES
    shuffled = dict(reversed(list(MODEL.weights.items())))
    assert to_bytes(replace(MODEL, weights=shuffled)) == BYTES


def test_any_safetensors_reader_opens_the_file(tmp_path: Path) -> None:
    save(MODEL, tmp_path / "m.safetensors")
    read = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert {name: value.shape for name, value in read.items()} == tensors(MODEL.net)
    np.testing.assert_array_equal(read["head.weight"], MODEL.weights["head.weight"])


def test_the_numbers_of_a_file_start_where_a_reader_can_map_them() -> None:
    (length,) = struct.unpack("<Q", BYTES[:8])
    top, body = parts(BYTES)
    assert (8 + length) % 8 == 0
    starts = [entry["data_offsets"][0] for name, entry in top.items() if name != "__metadata__"]
    assert all(start % 4 == 0 for start in starts)
    assert len(body) == sum(4 * int(np.prod(shape)) for shape in tensors(MODEL.net).values())


def test_the_digest_changes_with_what_decides_the_outputs_and_with_nothing_else() -> None:
    assert digest(small(labels=("a", "b", "c"), threshold=None, recipe={}, scores={})) == digest(MODEL)
    assert digest(small(1)) != digest(MODEL)
    assert digest(small(preprocess=Preprocess(height=8, width=8))) != digest(MODEL)


def test_a_byte_altered_anywhere_is_refused_or_changes_nothing() -> None:
    start = len(BYTES) - len(parts(BYTES)[1])
    for place in (*range(start), *range(start, len(BYTES), 5)):
        altered = bytearray(BYTES)
        altered[place] ^= 1 << (place % 8)
        try:
            read = from_bytes(bytes(altered))
        except ArtefactError:
            continue
        assert same(read, MODEL), f"byte {place} altered and not noticed"


@given(st.integers(0, len(BYTES) - 1), st.integers(0, 255), st.integers(0, 40), st.binary(max_size=40))
def test_bytes_changed_added_or_taken_away_are_refused_or_change_nothing(
    place: int, value: int, taken: int, added: bytes
) -> None:
    altered = BYTES[:place] + added + bytes([value]) + BYTES[place + taken :]
    try:
        read = from_bytes(altered)
    except ArtefactError as error:
        told = str(error)
    else:
        told = ""
        assert same(read, MODEL)
    assert "\n" not in told


def test_every_truncation_is_refused() -> None:
    for length in {*range(100), *range(100, len(BYTES), 37), len(BYTES) - 1}:
        with pytest.raises(ArtefactError, match=r"truncated|no model|no safetensors|shorter"):
            from_bytes(BYTES[:length])


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(ArtefactError, match="digest"):
        from_bytes(BYTES + b"\0")


def _meta(**changes: object) -> Callable[[dict[str, Any]], None]:
    return lambda meta: meta.update(changes)


REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a future version": (_meta(format=FORMAT + 1), f"format is {FORMAT + 1}.*reads {FORMAT}"),
    "no version": (lambda meta: meta.pop("format"), "format is None"),
    "an unknown entry": (_meta(colour=1), "unknown.*colour"),
    "a missing entry": (lambda meta: meta.pop("labels"), "misses.*labels"),
    "labels that are a text": (_meta(labels="abc"), "no list of texts"),
    "labels that are numbers": (_meta(labels=[1, 2, 3]), "no list of texts"),
    "too few labels": (_meta(labels=["a", "b"]), "2 labels"),
    "a threshold above all logits": (_meta(threshold=1e30), "threshold is 1e\\+30"),
    "a threshold that is a text": (_meta(threshold="high"), "threshold is 'high'"),
    "a threshold that is no number": (_meta(threshold=float("nan")), "threshold is nan"),
    "scores that are a list": (_meta(scores=[]), "scores is no table"),
    "a net that is none": (_meta(net=[]), "net: not an object"),
    "preprocessing for another size": (
        lambda meta: meta["preprocess"].update(height=9),
        "preprocessing makes 9 × 8",
    ),
    "another width": (lambda meta: meta["net"]["nodes"][0].update(out=9), "wrong shape: .*stem"),
    "one layer more": (
        lambda meta: meta["net"]["nodes"][-1].update(name="tail"),
        "missing: tail.*extra: head|no node",
    ),
    "a grey input": (lambda meta: meta["net"].update(input=[8, 8, 1]), "1 channels|wrong shape"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_sealed_file_with_wrong_content_is_refused_with_the_reason(what: str) -> None:
    change, reason = REFUSED[what]
    meta, kept = unpack(BYTES)
    change(meta)
    text = json.dumps(meta)
    data = pack(json.loads(text), kept) if what != "a threshold that is no number" else _sealed(text, kept)
    with pytest.raises(ArtefactError, match=reason) as error:
        from_bytes(data)
    assert "\n" not in str(error.value)


def _sealed(text: str, kept: dict[str, Any]) -> bytes:
    """A file with this text and a seal that fits: what a hostile writer can make."""
    top, body = parts(pack({}, kept))
    top["__metadata__"] = {KEY: text, SEAL: seal(text, top, body)}
    return joined(top, body)


def seal(text: str, top: dict[str, Any], body: bytes) -> str:
    """The seal by docs/artefact.md, written again from its words."""
    table = [(entry["data_offsets"], name, entry) for name, entry in top.items() if name != "__metadata__"]
    lines = [text]
    for (start, end), name, entry in sorted(table, key=lambda row: (row[0], row[1])):
        lines.append(
            "\t".join([name, entry["dtype"], ",".join(map(str, entry["shape"])), str(start), str(end)])
        )
    return hashlib.sha256("".join(line + "\n" for line in lines).encode() + body).hexdigest()


def test_the_seal_is_what_the_documentation_says() -> None:
    top, body = parts(BYTES)
    entries = top["__metadata__"]
    assert seal(entries[KEY], top, body) == entries[SEAL]


def _tensors(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (dict(MODEL.weights) | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("head.bias", None, "missing: head.bias"),
        ("tail.bias", np.zeros(3, np.float32), "extra: tail.bias"),
        ("head.bias", np.zeros(4, np.float32), r"wrong shape: head.bias \[4\] \(want \[3\]\)"),
        ("head.bias", np.zeros((3, 1), np.float32), "wrong shape: head.bias"),
        ("head.bias", np.zeros(3, np.int32), "int32, not float32"),
    ],
)
def test_tensors_that_do_not_fit_the_network_are_refused_by_name(name: str, value: Any, reason: str) -> None:
    meta, _ = unpack(BYTES)
    with pytest.raises(ArtefactError, match=reason):
        from_bytes(pack(meta, _tensors(**{name: value})))
    if value is None or value.dtype == np.float32:
        with pytest.raises(ValueError, match=reason):
            to_bytes(replace(MODEL, weights=_tensors(**{name: value})))


def test_a_variance_below_zero_is_refused() -> None:
    values = np.array(MODEL.weights["stem.norm.running_var"])
    values[0] = -1e-3
    with pytest.raises(ValueError, match=r"stem\.norm\.running_var.*variance below zero"):
        to_bytes(replace(MODEL, weights=_tensors(**{"stem.norm.running_var": values})))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path, value: float) -> None:
    bad = _tensors(**{"head.bias": np.array([0, value, 0], np.float32)})
    with pytest.raises(ValueError, match=r"head\.bias.*not finite"):
        save(replace(MODEL, weights=bad), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []
    meta, _ = unpack(BYTES)
    with pytest.raises(ArtefactError, match=r"head\.bias.*not finite"):
        from_bytes(pack(meta, bad))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04" + bytes(100),
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 200_000) + b"[" * 200_000,
        joined({"__metadata__": {KEY: "{}"}}, b""),
        joined({"__metadata__": {KEY: "{}", SEAL: ""}}, b""),
        joined({"__metadata__": {KEY: 3, SEAL: ""}}, b""),
        joined({"__metadata__": [], "a": 1}, b""),
        joined({"__metadata__": {KEY: "{}", SEAL: ""}, "a": 1}, b""),
        joined({"__metadata__": {KEY: "{}", SEAL: ""}, "a": {"dtype": "F32", "shape": 3}}, b""),
        _sealed("[" * 100_000, {}),
        _sealed("not json", {}),
        _sealed("[]", {}),
        safetensors.numpy.save({"a": np.zeros(3, np.float32)}),
    ],
)
def test_what_is_no_model_is_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(ArtefactError) as error:
        from_bytes(data)
    assert str(error.value)


def test_a_model_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(BYTES[:-1])
    with pytest.raises(ArtefactError, match=r"bad\.safetensors: truncated"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.safetensors")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte, really mounted; skips where that is not allowed."""
    place = tmp_path / "disk"
    place.mkdir()
    tool = shutil.which("mount")
    if tool is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    if subprocess.run([tool, "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_on_a_full_disk_the_old_file_stays_whole(tiny_disk: Path) -> None:
    path = tiny_disk / "model.safetensors"
    save(MODEL, path)
    big = small(labels=(), source={"padding": "x" * (2 << 20)})
    with pytest.raises(OSError, match="No space") as error:
        save(big, path)
    assert error.value.errno == errno.ENOSPC
    assert [file.name for file in tiny_disk.iterdir()] == ["model.safetensors"]
    assert same(load(path), MODEL)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_whatever_step_fails_the_old_file_stays_and_no_part_file_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str
) -> None:
    path = tmp_path / "model.safetensors"
    save(MODEL, path)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, full)
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space") as caught:
            save(small(1), path)
    assert caught.value.filename == str(path)  # a full disk does not say which
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert same(load(path), MODEL)


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(MODEL, path)
    script = (
        "import os, pathlib\n"
        "from mobilenets.infer.sealed import write_whole\n"
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        f"write_whole(pathlib.Path({str(path)!r}), b'new' * 100000)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    assert same(load(path), MODEL)


def test_a_file_written_whole_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "one", b"x")
    (tmp_path / "two").write_bytes(b"x")
    assert (tmp_path / "one").stat().st_mode == (tmp_path / "two").stat().st_mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such pipes")
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a device or a pipe") as found:
        write_whole(tmp_path / "pipe", b"x")
    assert found.value.filename == str(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_very_long_or_unicode_name_is_written(tmp_path: Path) -> None:
    for name in ("城" * 60 + ".safetensors", "n" * 243 + ".safetensors"):
        save(MODEL, tmp_path / name)
        assert same(load(tmp_path / name), MODEL)


JAVASCRIPT = """
const data = require('fs').readFileSync(process.argv[2]);
const length = Number(data.readBigUInt64LE(0));
const top = JSON.parse(data.subarray(8, 8 + length).toString('utf8'));
const { __metadata__: entries, ...table } = top;
const hash = require('crypto').createHash('sha256');
hash.update(entries.mobilenets + '\\n', 'utf8');
const rows = Object.entries(table).sort(([, a], [, b]) => a.data_offsets[0] - b.data_offsets[0]);
for (const [name, { dtype, shape, data_offsets }] of rows)
  hash.update([name, dtype, shape.join(','), ...data_offsets].join('\\t') + '\\n', 'utf8');
hash.update(data.subarray(8 + length));
const { labels, net } = JSON.parse(entries.mobilenets);
console.log(JSON.stringify([hash.digest('hex'), entries.sha256, labels, net.nodes.length]));
"""


def test_javascript_reads_the_file_and_computes_the_same_seal(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    (tmp_path / "seal.js").write_text(JAVASCRIPT)
    for model in (
        MODEL,
        small(2, labels=('tab\tline\nquote"', "\u2028", "𝄞"), recipe={"lr": 1e-7, "n": 10**15}),
        quantise(MODEL, np.arange(5 * 8 * 8 * 3, dtype=np.uint8).reshape(5, 8, 8, 3)),
    ):
        save(model, tmp_path / "m.safetensors")
        done = subprocess.run(
            [node, tmp_path / "seal.js", tmp_path / "m.safetensors"], capture_output=True, check=True
        )
        computed, stored, labels, nodes = json.loads(done.stdout)
        assert computed == stored
        assert tuple(labels) == model.labels
        assert nodes == len(model.net.nodes)


def test_a_model_read_from_its_file_answers_as_before() -> None:
    frame = np.random.default_rng(3).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    before, after = NumpyEngine(MODEL)(frame), NumpyEngine(from_bytes(BYTES))(frame)
    assert before.keys() == after.keys() == {"logits", "features"}
    for name in before:
        assert before[name].tobytes() == after[name].tobytes()


@pytest.mark.parametrize(
    "make",
    [
        lambda: small(preprocess=Preprocess(height=9, width=8)),
        lambda: small(labels=("one",)),
    ],
)
def test_parts_that_do_not_belong_together_make_no_model(make: Callable[[], Artefact]) -> None:
    with pytest.raises(ValueError, match=r"preprocessing makes|labels for"):
        make()


def test_names_that_are_no_text_are_kept_and_the_file_stays_utf_8() -> None:
    odd = "caf\udce9 \udcff.jpg"  # bytes of a file's name that are no UTF-8, as Python holds them
    meta = {"source": {"file": odd}, "plain": "caf\u00e9 \U0001f600"}
    data = pack(meta, {"t": np.zeros(2, np.float32)})
    assert unpack(data)[0] == meta
    length = int.from_bytes(data[:8], "little")
    data[8 : 8 + length].decode("utf-8")  # other readers ask for that
    assert safetensors.numpy.load(data)["t"].tolist() == [0, 0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_has_not_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_text({"top1": value})
    with pytest.raises(ValueError, match="JSON"):
        pack({"top1": value}, {})
