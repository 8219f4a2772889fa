"""timm's V1 files: written here from timm's own networks, their forward pass being the oracle; of V2 too."""

from __future__ import annotations

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilenets.infer import adopt, imagenet
from mobilenets.infer.walk import Walk
from mobilenets.spec import zoo
from mobilenets.spec.head import classify
from mobilenets.spec.net import tensors
from mobilenets.spec.published import by_name

MODELS = {"mobilenetv1_100": 1.0, "mobilenetv1_100h": 1.0, "mobilenetv1_125": 1.25}


class _Anything(type):
    """A class whose every attribute is its own name: enough for timm's tables of torchvision's constants."""

    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Stand(types.ModuleType):
    """Stands for a module of torchvision, which has no build beside a CPU torch on every platform."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


def _stand_for_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (
        "",
        ".transforms",
        ".transforms.functional",
        ".ops",
        ".ops.misc",
        ".datasets",
        ".datasets.folder",
    )
    for part in (*parts, ".models", ".models.feature_extraction"):
        name = f"torchvision{part}"
        module = _Stand(name)
        module.__path__ = []
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)
        if part:
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], module)


@pytest.fixture(scope="module")
def timm() -> Any:
    pytest.importorskip("torch", reason="needs torch")
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm")
    with pytest.MonkeyPatch.context() as monkeypatch:
        if importlib.util.find_spec("torchvision") is None:
            _stand_for_torchvision(monkeypatch)
        import timm
    return timm


def _built(timm: Any, name: str, **more: Any) -> Any:
    """timm's network with random statistics in its batch norms, so that folding has something to do."""
    import torch

    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(name, pretrained=False, **more).eval()
    for key, value in model.state_dict().items():
        if "running_var" in key or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5, generator=generator)
        elif "running_mean" in key or key.endswith("bias"):
            value.normal_(0, 0.2, generator=generator)
    return model


def _written(model: Any, path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(model.state_dict(), path)
    return path


def _inputs(resolution: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, (2, resolution, resolution, 3)).astype(np.float32)


def _run(model: Any, x: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_timm(timm: Any, tmp_path: Path, name: str) -> None:
    model = _built(timm, name)
    ours = adopt.read(_written(model, tmp_path / "model.safetensors"))
    theirs = _run(model, _inputs(224))
    assert theirs.std() > 0.05
    np.testing.assert_allclose(Walk(ours.net, ours.weights)(_inputs(224))["logits"], theirs, atol=1e-4)
    assert (ours.net.name, ours.net.width, ours.net.resolution) == ("v1", MODELS[name], 224)
    assert ours.labels == imagenet.labels()


def test_a_network_without_its_classifier_gives_timms_features(timm: Any, tmp_path: Path) -> None:
    model = _built(timm, "mobilenetv1_100h", num_classes=0)
    ours = adopt.read(_written(model, tmp_path / "model.safetensors"))
    theirs = _run(model, _inputs(224))
    np.testing.assert_allclose(Walk(ours.net, ours.weights)(_inputs(224))["features"], theirs, atol=1e-4)
    assert ours.labels == ()


@pytest.mark.parametrize("name", MODELS)
def test_mean_std_and_crop_are_those_that_timm_evaluates_with(timm: Any, tmp_path: Path, name: str) -> None:
    model = _built(timm, name)
    published = timm.models.get_pretrained_cfg(f"{name}.ra4_e3600_r224_in1k")
    ours = adopt.read(_written(model, tmp_path / "model.safetensors")).preprocess
    assert ours.mean == tuple(255 * value for value in published.mean)
    assert ours.std == tuple(255 * value for value in published.std)
    assert ours.fraction == published.crop_pct
    assert (3, ours.height, ours.width) == published.input_size
    assert by_name(f"timm/{name}").url.split("/")[4] == f"{name}.ra4_e3600_r224_in1k"


@pytest.mark.parametrize(
    ("name", "width"), [("mobilenetv2_035", 0.35), ("mobilenetv2_100", 1.0), ("mobilenetv2_140", 1.4)]
)
def test_v2_gives_timms_logits_from_timms_tensors_in_their_order(timm: Any, name: str, width: float) -> None:
    model = _built(timm, name)
    theirs = [value.numpy() for key, value in model.state_dict().items() if "num_batches" not in key]
    net = classify(zoo.v2(width, 64, padding="symmetric", epsilon=1e-5), 1000)
    weights = dict(zip(tensors(net), theirs, strict=True))
    wanted = _run(model, _inputs(64))
    assert wanted.std() > 0.05
    np.testing.assert_allclose(Walk(net, weights)(_inputs(64))["logits"], wanted, atol=1e-4)


def test_another_network_of_timm_is_refused_with_the_list(timm: Any, tmp_path: Path) -> None:
    model = timm.create_model("mobilenetv2_035", pretrained=False)
    with pytest.raises(ValueError, match="missing: ") as error:
        adopt.read(_written(model, tmp_path / "model.safetensors"))
    assert "extra: " in str(error.value)
