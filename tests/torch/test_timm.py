"""timm's files: written here from timm's own networks, their forward pass being the oracle."""

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
from mobilenets.spec.net import at_resolution
from mobilenets.spec.published import PUBLISHED, Published

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


FAMILY = {
    "mobilenetv2_050": ("v2", 0.5),
    "mobilenetv2_100": ("v2", 1.0),
    "mobilenetv2_140": ("v2", 1.4),
    "mobilenetv3_large_100": ("v3-large", 1.0),
    "mobilenetv3_small_100": ("v3-small", 1.0),
    "mobilenetv3_small_075": ("v3-small", 0.75),
    "mobilenetv4_conv_small": ("v4-conv-small", 1.0),
    "mobilenetv4_conv_medium": ("v4-conv-medium", 1.0),
}


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_gives_timms_logits(timm: Any, tmp_path: Path, name: str) -> None:
    model = _built(timm, name)
    ours = adopt.read(_written(model, tmp_path / "model.safetensors"))
    assert (ours.net.name, ours.net.width) == FAMILY[name]
    assert ours.labels == imagenet.labels()
    # Of its own input it computes what it computes of any: a quarter of the pixels, a quarter of the time.
    small = at_resolution(ours.net, 96)
    wanted = _run(model, _inputs(96))
    assert wanted.std() > 0.05
    found = Walk(small, ours.weights)(_inputs(96))["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("entry", [one for one in PUBLISHED if one.name.startswith("timm/")], ids=str)
def test_what_is_published_is_fed_as_timm_feeds_it(timm: Any, tmp_path: Path, entry: Published) -> None:
    tagged = entry.url.split("/")[4]
    published = timm.models.get_pretrained_cfg(tagged)
    model = timm.create_model(tagged.partition(".")[0], pretrained=False)
    ours = adopt.read(_written(model, tmp_path / "model.safetensors"))
    assert (ours.net.name, ours.net.width) == (entry.net, entry.width)
    np.testing.assert_allclose(ours.preprocess.mean, np.multiply(255, published.mean))
    np.testing.assert_allclose(ours.preprocess.std, np.multiply(255, published.std))
    assert ours.preprocess.fraction == published.crop_pct
    assert (3, ours.net.resolution, ours.net.resolution) == published.input_size
    assert published.license.lower() == entry.licence.lower()


def test_another_network_of_timm_is_refused_with_the_list(timm: Any, tmp_path: Path) -> None:
    model = timm.create_model("mobilenetv2_110d", pretrained=False)
    with pytest.raises(ValueError, match=r"missing: |extra: "):
        adopt.read(_written(model, tmp_path / "model.safetensors"))
