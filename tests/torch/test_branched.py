"""SqueezeNet and ShuffleNet V2 of others: torch builds them here layer by layer by torchvision's names."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch import Tensor, nn  # noqa: E402 - after the line that skips without torch
from torch.nn import functional as F  # noqa: E402 - as torch's own documentation calls it

from mobilenets.infer import adopt, imagenet  # noqa: E402
from mobilenets.infer.image import decode, normalise, prepare  # noqa: E402
from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.model.module import module  # noqa: E402
from mobilenets.spec.net import at_resolution  # noqa: E402

SIDE = 97


class Fire(nn.Module):
    def __init__(self, before: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """`plan`: pools as None, fires as (squeezed, expanded)."""

    def __init__(self, stem: nn.Conv2d, plan: tuple[tuple[int, int] | None, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = [stem, nn.ReLU()]
        before = stem.out_channels
        for one in plan:
            if one is None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                layers.append(Fire(before, *one))
                before = 2 * one[1]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(before, 1000, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.classifier(self.features(x))).mean((2, 3))


FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


def squeezenet_1_0() -> nn.Module:
    plan = (None, *FIRES[:3], None, *FIRES[3:7], None, FIRES[7])
    return SqueezeNet(nn.Conv2d(3, 96, 7, 2), plan)


def squeezenet_1_1() -> nn.Module:
    plan = (None, *FIRES[:2], None, *FIRES[2:4], None, *FIRES[4:])
    return SqueezeNet(nn.Conv2d(3, 64, 3, 2), plan)


class Unit(nn.Module):
    def __init__(self, before: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        inner = before if stride == 2 else half
        self.branch1 = nn.Sequential()
        if stride == 2:
            self.branch1 = nn.Sequential(*_filter(before, 2), *_point(before, half))
        self.branch2 = nn.Sequential(*_point(inner, half), *_filter(half, stride), *_point(half, half))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x, x) if self.stride == 2 else x.chunk(2, 1)
        y = torch.cat([self.branch1(left), self.branch2(right)], 1)
        return F.channel_shuffle(y, 2)


def _point(before: int, out: int) -> list[nn.Module]:
    return [nn.Conv2d(before, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]


def _filter(channels: int, stride: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return [depthwise, nn.BatchNorm2d(channels)]


class ShuffleNet(nn.Module):
    def __init__(self, stages: tuple[int, int, int], last: int) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 24, 3, 2, 1, bias=False)
        self.conv1 = nn.Sequential(stem, nn.BatchNorm2d(24), nn.ReLU())
        before = 24
        for number, (out, units) in enumerate(zip(stages, (4, 8, 4), strict=True), 2):
            ins = [before, *(out,) * (units - 1)]
            made = [Unit(one, out, 2 if not at else 1) for at, one in enumerate(ins)]
            setattr(self, f"stage{number}", nn.Sequential(*made))
            before = out
        self.conv5 = nn.Sequential(*_point(before, last))
        self.fc = nn.Linear(last, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 3, 2, 1)
        for number in (2, 3, 4):
            x = getattr(self, f"stage{number}")(x)
        return self.fc(self.conv5(x).mean((2, 3)))


MODELS = {
    "squeezenet-1.0": (squeezenet_1_0, 1.0),
    "squeezenet-1.1": (squeezenet_1_1, 1.0),
    "shufflenet-v2 0.5": (lambda: ShuffleNet((48, 96, 192), 1024), 0.5),
    "shufflenet-v2": (lambda: ShuffleNet((116, 232, 464), 1024), 1.0),
}


def _built(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name][0]().eval()
    for key, value in model.state_dict().items():
        if "running_var" in key or (value.ndim == 1 and key.endswith("weight")):
            value.uniform_(0.5, 1.5)
        elif "running_mean" in key or key.endswith("bias"):
            value.normal_(0, 0.2)
    return model


def _written(model: nn.Module, path: Path) -> Path:
    from safetensors.torch import save_file

    save_file(model.state_dict(), path)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_layers_under_torchvisions_names(tmp_path: Path, name: str) -> None:
    model = _built(name)
    ours = adopt.read(_written(model, tmp_path / "weights"))
    assert (ours.net.name, ours.net.width) == (name.split(maxsplit=1)[0], MODELS[name][1])
    assert (ours.source["format"], ours.labels) == ("torchvision", imagenet.labels())
    x = np.random.default_rng(1).uniform(-2, 2, (2, SIDE, SIDE, 3)).astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert wanted.std() > 0.01
    found = Walk(at_resolution(ours.net, SIDE), ours.weights)(x)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_caffes_blue_comes_first_no_more(tmp_path: Path) -> None:
    model = _built("squeezenet-1.0")
    theirs = {}
    at = dict(zip((3, 4, 5, 7, 8, 9, 10, 12), range(2, 10), strict=True))
    for key, value in model.state_dict().items():
        *layer, part = key.split(".")
        kind = {"features.0": "conv1", "classifier.1": "conv10"}.get(".".join(layer))
        if kind is None:
            kind = f"fire{at[int(layer[1])]}_{layer[2].replace('squeeze', 'squeeze1x1')}"
        theirs[f"{kind}.{part}"] = value.numpy()
    path = tmp_path / "weights"
    with path.open("wb") as file:
        np.savez(file, **theirs)
    ours = adopt.read(path)
    assert ours.source["format"] == "caffe"
    levels = np.random.default_rng(1).uniform(0, 255, (1, SIDE, SIDE, 3)).astype(np.float32)
    blue_first = levels[..., ::-1] - np.array((104, 117, 123), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(blue_first.copy()).permute(0, 3, 1, 2)).numpy()
    pre = ours.preprocess
    x = ((levels - np.array(pre.mean)) / np.array(pre.std)).astype(np.float32)
    found = Walk(at_resolution(ours.net, SIDE), ours.weights)(x)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * float(np.abs(wanted).max()))
    del theirs["conv10.bias"]
    with path.open("wb") as file:
        np.savez(file, **theirs)
    with pytest.raises(ValueError, match=r"missing: conv10\.bias"):
        adopt.read(path)


@pytest.mark.slow
def test_caffes_squeezenet_scores_as_it_was_published(material: Path) -> None:
    """57.5 % on ImageNet's validation pictures; on these, which it has most likely seen, 61.4 % of 500."""
    model = adopt.read(material / "weights" / "squeezenet_v1.0_float32_oihw.npz")
    made = module(model.net, model.weights).eval()
    numbers = {wnid: i for i, wnid in enumerate(imagenet.wnids())}
    first, fifth = [], []
    with tarfile.open(material / "data" / "imagenet-500.tar") as archive, torch.inference_mode():
        for member in sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name)[::6]:
            content = archive.extractfile(member)
            assert content is not None
            x = normalise(prepare(decode(content.read()), model.preprocess)[None], model.preprocess)
            logits = made(torch.from_numpy(x).permute(0, 3, 1, 2))["logits"][0]
            best = torch.topk(logits, 5).indices.tolist()
            truth = numbers[Path(member.name).parent.name]
            first.append(best[0] == truth)
            fifth.append(truth in best)
    assert len(first) == 84
    assert 0.5 < np.mean(first) < 0.75
    assert 0.72 < np.mean(fifth) < 0.92


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a pickle was opened')",)


def test_a_pickled_array_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    trap = np.array([_Trap()], object)
    with path.open("wb") as file:
        np.savez(file, **{"conv10.weight": trap})
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        adopt.read(path)


def test_what_torchvisions_file_lacks_is_listed(tmp_path: Path) -> None:
    model = _built("shufflenet-v2 0.5")
    model.stage3 = nn.Sequential(*list(model.stage3)[:-1])
    with pytest.raises(ValueError, match=r"missing: stage3\.7\.branch2\.0"):
        adopt.read(_written(model, tmp_path / "weights"))


def test_a_zip_archive_of_other_things_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.npz")
    with pytest.raises(ValueError, match="zip archive"):
        adopt.read(tmp_path / "weights.npz")
