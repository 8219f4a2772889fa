"""Any file of weights is told by its content; what does not fit is refused in one line that says why."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as save_tensors

from mobilenets.infer import adopt, artefact, imagenet, timm
from mobilenets.infer.artefact import Artefact
from mobilenets.infer.recognise import without_norms
from mobilenets.infer.walk import Walk
from mobilenets.spec import head, zoo
from mobilenets.spec.net import Net, at_resolution, tensors
from mobilenets.spec.preprocess import Preprocess


def _random(net: Net, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in tensors(net).items():
        values = rng.standard_normal(shape)
        if name.endswith(("norm.weight", "running_var")):
            values = 0.5 + np.abs(values)
        elif len(shape) > 1:
            values *= np.sqrt(2 / np.prod(shape[1:]))
        made[name] = values.astype(np.float32)
    return made


def _model(net: Net, **more: object) -> Artefact:
    pre = Preprocess(height=net.input.height, width=net.input.width)
    return Artefact(net=net, weights=_random(net), preprocess=pre, **more)


def _as_timm(net: Net, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    theirs = timm.names(net)
    found = {theirs[name]: value for name, value in weights.items()}
    found["bn1.num_batches_tracked"] = np.array(7, np.int64)
    return found


def _timm_net(width: float = 0.25, classes: int = 1000, last: bool = False) -> Net:
    body = zoo.v1(width, 224, last=last, rounding="divisible", padding="symmetric", epsilon=1e-5)
    return head.classify(body, classes) if classes else body


def test_a_file_is_told_by_its_content_whatever_its_name_ends_in(tmp_path: Path, material: Path) -> None:
    lite = tmp_path / "weights.h5"
    shutil.copy(material / "weights" / "mobilenet_v1_0.25_128_quant.tflite", lite)
    assert adopt.read(lite).source["format"] == "tflite"
    ours = tmp_path / "model.tflite"
    artefact.save(_model(head.classify(zoo.v1(0.25, 32), 3), labels=("a", "b", "c")), ours)
    assert adopt.read(ours).source["format"] == "mobilenets"
    net = _timm_net()
    theirs = tmp_path / "model"
    theirs.write_bytes(save_tensors(_as_timm(net, _random(net))))
    assert adopt.read(theirs).source["format"] == "timm"


def test_the_source_names_the_file_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    artefact.save(_model(zoo.v1(0.25, 32), source={"licence": "Apache-2.0"}), path)
    source = adopt.read(path).source
    assert source["file"] == "one.safetensors"
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source["made_from"] == {"licence": "Apache-2.0"}


def test_a_timm_file_keeps_every_tensor_under_our_name() -> None:
    for net in (_timm_net(), _timm_net(last=True), _timm_net(classes=0), _timm_net(1.25, classes=5)):
        weights = _random(net)
        model = timm.read(save_tensors(_as_timm(net, weights)))
        assert model.net == net
        assert model.weights.keys() == weights.keys()
        assert all((model.weights[name] == weights[name]).all() for name in weights)
        assert model.labels == (imagenet.labels() if net.nodes[-1].op == _timm_net().nodes[-1].op else ())


def test_a_classifier_of_1001_classes_loses_its_background() -> None:
    net = _timm_net(classes=1001)
    weights = _random(net)
    model = timm.read(save_tensors(_as_timm(net, weights)))
    assert model.net.nodes[-1].op.out == 1000
    assert (model.weights["head.weight"] == weights["head.weight"][1:]).all()
    assert (model.weights["head.bias"] == weights["head.bias"][1:]).all()
    assert model.labels[0].startswith("tench")


def test_what_is_missing_extra_or_of_another_shape_is_listed() -> None:
    net = _timm_net()
    found = _as_timm(net, _random(net))
    del found["blocks.3.2.conv_pw.weight"]
    found["blocks.9.0.conv_dw.weight"] = np.zeros(3, np.float32)
    found["bn1.bias"] = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match="no") as error:
        timm.read(save_tensors(found))
    text = str(error.value)
    assert "missing: blocks.3.2.conv_pw.weight" in text
    assert "extra: blocks.9.0.conv_dw.weight" in text
    assert "wrong shape: bn1.bias is [5], wanted [8]" in text
    assert "\n" not in text


def test_values_that_are_not_finite_are_refused() -> None:
    net = _timm_net()
    found = _as_timm(net, _random(net))
    found["classifier.bias"][3] = np.nan
    with pytest.raises(ValueError, match=r"classifier.bias holds values that are not finite"):
        timm.read(save_tensors(found))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"PK\x03\x04rest", "zip archive"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "HDF5"),
        (b"version https://git-lfs.github.com/spec/v1", "no file of weights"),
        (b"\x10\0\0\0\0\0\0\0{bad json........", "header"),
        (b"\x1c\0\0\0TFL3", "damaged"),
        (b"hello", "no file of weights"),
    ],
)
def test_a_file_that_is_no_weights_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    if said == "HDF5":
        pytest.importorskip("h5py", reason="needs h5py")
    path = tmp_path / "weights.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        adopt.read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_a_folder_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a folder"):
        adopt.read(tmp_path)
    with pytest.raises(ValueError, match="No such file"):
        adopt.read(tmp_path / "none.tflite")


@settings(max_examples=100)
@given(at=st.integers(0, 1 << 30), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_safetensors_file_is_refused_or_holds_together(at: int, value: int, cut: bool) -> None:
    net = _timm_net(classes=0)
    data = bytearray(_saved(net))
    place = at % (len(data) if at % 2 else 6000)
    if cut:
        del data[place:]
    else:
        data[place] = value
    try:
        model = timm.read(bytes(data))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        Walk(model.net, model.weights)


@cache
def _saved(net: Net) -> bytes:
    return save_tensors(_as_timm(net, _random(net)))


# The body of a model for another network of the zoo.


def _features(net: Net, weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    return Walk(net, weights)(x)["features"]


@pytest.mark.parametrize("resolution", [33, 64])
def test_a_folded_body_gets_batch_norms_that_leave_the_function_unchanged(resolution: int) -> None:
    folded = head.classify(without_norms(zoo.v1(0.25, 32)), 7)
    model = _model(folded)
    net = zoo.v1(0.25, resolution)
    weights = adopt.body(model, net)
    assert weights.keys() == tensors(net).keys()
    x = np.random.default_rng(1).uniform(-1, 1, (2, resolution, resolution, 3)).astype(np.float32)
    plain = at_resolution(without_norms(zoo.v1(0.25, 32)), resolution)
    own = {name: value for name, value in model.weights.items() if not name.startswith("head.")}
    np.testing.assert_allclose(_features(net, weights, x), _features(plain, own, x), atol=1e-5)


def test_a_body_with_batch_norms_fits_a_folded_network_and_its_own() -> None:
    net = zoo.v1(0.25, 32)
    model = _model(head.classify(net, 4))
    x = np.random.default_rng(1).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    same = adopt.body(model, net)
    folded = adopt.body(model, without_norms(net))
    assert (same["stem.weight"] == model.weights["stem.weight"]).all()
    np.testing.assert_allclose(_features(without_norms(net), folded, x), _features(net, same, x), atol=1e-5)


def test_a_body_that_adds_other_maps_is_refused_with_both() -> None:
    net = zoo.v2(0.35, 32)
    other = replace(
        net,
        nodes=tuple(
            replace(node, inputs=("block8.add", "block9.project")) if node.name == "block10.add" else node
            for node in net.nodes
        ),
    )
    assert adopt.body(_model(net), net).keys() == tensors(net).keys()
    with pytest.raises(ValueError, match=r"block10\.add: the sum of block9\.add and block10\.project there"):
        adopt.body(_model(net), other)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (zoo.v1(0.5, 32), "different: stem: "),
        (zoo.v1_shallow(0.25, 32), "extra: block9.depthwise"),
        (zoo.v1(0.25, 32, last=True), "missing: last.pointwise"),
        (zoo.v1(0.25, 32, padding="symmetric"), "padding='symmetric'"),
        (zoo.v1(0.25, 32, activation="relu"), "activation='relu'"),
    ],
)
def test_a_body_of_another_network_is_refused_with_the_list(other: Net, said: str) -> None:
    with pytest.raises(ValueError, match="do not fit") as error:
        adopt.body(_model(zoo.v1(0.25, 32)), other)
    assert said in str(error.value)
