"""Keras' files, written here by Keras itself from random weights: its forward pass is the oracle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.infer import adopt, imagenet
from mobilenets.infer.walk import Walk
from mobilenets.spec import zoo
from mobilenets.spec.published import PUBLISHED

ALPHAS = {"1_0": 1.0, "7_5": 0.75, "5_0": 0.5, "2_5": 0.25}
# Keras converts its tensors in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SIXTEEN = [(text, resolution) for text in ALPHAS for resolution in (224, 192, 160, 128)]


@pytest.fixture(scope="module")
def keras() -> Any:
    pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("h5py", reason="needs h5py")
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras", reason="needs keras")


def _built(keras: Any, alpha: float, resolution: int, **more: Any) -> Any:
    """Keras' network with random weights and statistics that keep its values about 1."""
    model = keras.applications.MobileNet(
        weights=None, alpha=alpha, input_shape=(resolution, resolution, 3), classifier_activation=None, **more
    )
    rng = np.random.default_rng(int(100 * alpha) + resolution)
    for variable in model.weights:
        values = rng.standard_normal(variable.shape)
        match variable.path.rpartition("/")[2]:
            case "gamma" | "moving_variance":
                values = 0.5 + np.abs(values)
            case "kernel":
                depthwise = "conv_dw" in variable.path
                values *= np.sqrt(2 / np.prod(variable.shape[:2] if depthwise else variable.shape[:3]))
            case _:
                values *= 0.3
        variable.assign(values.astype(np.float32))
    return model


def _values(value: Any) -> np.ndarray:
    import keras

    return keras.ops.convert_to_numpy(value)


def _legacy(model: Any, path: Path) -> None:
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, model)


def _as_keras_2(model: Any, path: Path) -> None:
    """As the published files are: `:0` behind every name, depthwise filters called so."""
    import h5py

    with h5py.File(path, "w") as file:
        for layer in model.layers:
            group = file.create_group(layer.name)
            for variable in layer.weights:
                name = variable.path.rpartition("/")[2]
                if "conv_dw" in layer.name and name == "kernel":
                    name = "depthwise_kernel"
                group.create_dataset(f"{layer.name}/{name}:0", data=_values(variable))


def _read_as_run(model: Any, path: Path, resolution: int, output: str) -> None:
    ours = adopt.read(path)
    assert ours.net.resolution == resolution
    x = np.random.default_rng(3).uniform(-1, 1, (2, resolution, resolution, 3)).astype(np.float32)
    theirs = _values(model(x))
    assert theirs.std() > 0.05
    np.testing.assert_allclose(Walk(ours.net, ours.weights)(x)[output], theirs, atol=1e-4)


@pytest.mark.parametrize(("text", "resolution"), SIXTEEN)
def test_every_published_file_name_is_read_with_its_width_and_resolution(
    keras: Any, tmp_path: Path, text: str, resolution: int
) -> None:
    path = tmp_path / f"mobilenet_{text}_{resolution}_tf.h5"
    assert any(entry.url.endswith(f"/{path.name}") for entry in PUBLISHED)
    _legacy(_built(keras, ALPHAS[text], resolution), path)
    model = adopt.read(path)
    assert (model.net.name, model.net.width, model.net.resolution) == ("v1", ALPHAS[text], resolution)
    assert model.net.rounding == "keras"
    assert model.labels == imagenet.labels()
    assert model.preprocess.mean == model.preprocess.std == (127.5,) * 3


@pytest.mark.parametrize(
    ("text", "resolution", "write"),
    [
        *((*file, _legacy) for file in SIXTEEN),
        *((*file, _as_keras_2) for file in zip(ALPHAS, (128, 160, 192, 224), strict=True)),
    ],
)
def test_logits_are_those_of_keras(
    keras: Any, tmp_path: Path, text: str, resolution: int, write: Callable[[Any, Path], None]
) -> None:
    model = _built(keras, ALPHAS[text], resolution)
    path = tmp_path / f"mobilenet_{text}_{resolution}_tf.h5"
    write(model, path)
    _read_as_run(model, path, resolution, "logits")


def test_features_without_a_top_are_those_of_keras(keras: Any, tmp_path: Path) -> None:
    model = _built(keras, 0.5, 160, include_top=False, pooling="avg")
    path = tmp_path / "mobilenet_5_0_160_tf_no_top.h5"
    _legacy(model, path)
    _read_as_run(model, path, 160, "features")
    assert adopt.read(path).labels == ()


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5"])
@pytest.mark.filterwarnings("ignore")  # Keras warns about its own old format
def test_keras_3_and_whole_model_files_are_read_too(keras: Any, tmp_path: Path, name: str) -> None:
    model = _built(keras, 0.25, 224, classes=7)
    path = tmp_path / name
    model.save_weights(path) if name.endswith(".weights.h5") else model.save(path)
    _read_as_run(model, path, 224, "logits")
    assert adopt.read(path).labels == ()


LATER = (
    ("v2", "MobileNetV2", 0.5, {}),
    ("v2", "MobileNetV2", 1.4, {}),
    ("v3-large", "MobileNetV3Large", 0.75, {}),
    ("v3-large-minimalistic", "MobileNetV3Large", 1.0, {"minimalistic": True}),
    ("v3-small", "MobileNetV3Small", 1.0, {}),
    ("v3-small-minimalistic", "MobileNetV3Small", 1.0, {"minimalistic": True}),
)


@pytest.mark.parametrize(("name", "kind", "alpha", "more"), LATER)
def test_logits_of_later_networks_are_those_of_keras(
    keras: Any, tmp_path: Path, name: str, kind: str, alpha: float, more: dict[str, Any]
) -> None:
    model = getattr(keras.applications, kind)(
        weights=None, alpha=alpha, input_shape=(96, 96, 3), classifier_activation=None, **more
    )
    rng = np.random.default_rng(2)
    for variable in model.weights:
        part = variable.path.rpartition("/")[2]
        values = rng.standard_normal(variable.shape)
        if part in ("gamma", "moving_variance"):
            values = rng.uniform(0.8, 1.2, variable.shape)
        elif part == "kernel":
            fan_in = variable.shape[:2] if "depthwise" in variable.path else variable.shape[:-1]
            values *= np.sqrt(2 / np.prod(fan_in))
        else:
            values *= 0.3
        variable.assign(values.astype(np.float32))
    path = tmp_path / f"weights_kernels_{alpha}_96.h5"
    _legacy(model, path)
    assert any(entry.net == name and entry.width == alpha and entry.needs for entry in PUBLISHED)
    ours = adopt.read(path)
    assert (ours.net.name, ours.net.width, ours.net.resolution) == (name, alpha, 96)
    levels = rng.uniform(0, 255, (2, 96, 96, 3)).astype(np.float32)
    x = ((levels - 127.5) / 127.5).astype(np.float32)
    # V3 brings levels to its input itself.
    theirs = _values(model(x if name == "v2" else levels))
    assert theirs.std() > 0.05
    found = Walk(ours.net, ours.weights)(x)["logits"]
    np.testing.assert_allclose(found, theirs, atol=1e-4 * max(1.0, float(np.abs(theirs).max())))


def test_the_body_serves_at_another_resolution(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "mobilenet_2_5_128_tf.h5"
    _legacy(_built(keras, 0.25, 128), path)
    weights = adopt.body(adopt.read(path), zoo.v1(0.25, 96))
    assert Walk(zoo.v1(0.25, 96), weights)(np.zeros((1, 96, 96, 3), np.float32))["features"].shape == (1, 256)


def test_another_network_of_keras_is_refused(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "other.h5"
    _legacy(keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]), path)
    with pytest.raises(ValueError, match="no V1 of Keras"):
        adopt.read(path)


def test_what_is_missing_and_extra_is_listed_by_keras_names(keras: Any, tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "mobilenet_2_5_128_tf.h5"
    _legacy(_built(keras, 0.25, 128), path)
    with h5py.File(path, "a") as file:
        del file["conv_pw_7_bn"]
        file.create_dataset("dense/kernel", data=np.zeros((3, 3), np.float32))
    with pytest.raises(ValueError, match="missing: conv_pw_7_bn/gamma") as error:
        adopt.read(path)
    assert "extra: dense/kernel" in str(error.value)


def test_a_damaged_file_is_one_line_or_holds_together(keras: Any, tmp_path: Path) -> None:
    path = tmp_path / "mobilenet_2_5_128_tf.h5"
    _legacy(_built(keras, 0.25, 128), path)
    data, rng = path.read_bytes(), np.random.default_rng(5)
    for turn in range(60):
        damaged = bytearray(data)
        if turn % 2:
            del damaged[int(rng.integers(8, len(data))) :]
        else:
            for place in rng.integers(8, 20000, 3):
                damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            model = adopt.read(path)
        except ValueError as error:
            assert "\n" not in str(error)
        else:
            Walk(model.net, model.weights)


def test_a_missing_h5py_is_one_line_with_the_remedy(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mobilenet_2_5_128_tf.h5"
    _legacy(_built(keras, 0.25, 128), path)
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match="pip install h5py"):
        adopt.read(path)


@pytest.mark.parametrize("kind", ["external", "virtual", "scalar"])
def test_a_file_that_points_at_others_or_has_no_shapes_is_refused(tmp_path: Path, kind: str) -> None:
    h5py = pytest.importorskip("h5py", reason="needs h5py")
    secret, path = tmp_path / "secret", tmp_path / "weights.h5"
    secret.write_bytes(np.arange(864, dtype=np.float32).tobytes())
    with h5py.File(path, "w") as file:
        match kind:
            case "external":
                file.create_dataset("conv1/kernel", (3, 3, 3, 32), "f4", external=[(str(secret), 0, 3456)])
            case "virtual":
                layout = h5py.VirtualLayout((3, 3, 3, 32), "f4")
                layout[:] = h5py.VirtualSource(str(secret), "values", (3, 3, 3, 32))
                file.create_virtual_dataset("conv1/kernel", layout)
            case _:
                file.create_dataset("conv1/kernel", data=np.float32(1))
    said = {"scalar": r"conv1/kernel has the shape \[\]"}.get(
        kind, "conv1/kernel keeps its values in another"
    )
    with pytest.raises(ValueError, match=said) as error:
        adopt.read(path)
    assert "\n" not in str(error.value)
