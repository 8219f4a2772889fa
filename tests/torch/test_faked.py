"""A fake-quantised module gives the integers' own bytes, has the gradients of rounding, and learns."""

from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from grown import Growing  # noqa: E402
from torch.nn import functional  # noqa: E402 - after the line that skips where there is no torch

from mobilenets.infer import adopt  # noqa: E402
from mobilenets.infer.artefact import Artefact, from_bytes, to_bytes  # noqa: E402
from mobilenets.infer.calibrate import observe  # noqa: E402
from mobilenets.infer.engine import NumpyEngine  # noqa: E402
from mobilenets.infer.image import decode, normalise, prepare  # noqa: E402
from mobilenets.infer.integer import EXACT, IntegerWalk, image_zero  # noqa: E402
from mobilenets.infer.quantise import float_maps, with_biases  # noqa: E402
from mobilenets.infer.scale import Scale  # noqa: E402
from mobilenets.infer.trial import Choice, Material, built, kept_together  # noqa: E402
from mobilenets.model.faked import PACE, Faked, integers  # noqa: E402
from mobilenets.model.module import module, random_weights, weights_of  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.net import Net, Node, Output, at_resolution, shapes, tensors, weight_shape  # noqa: E402
from mobilenets.spec.op import (  # noqa: E402
    Activate,
    Activation,
    Add,
    Conv,
    Dense,
    Depthwise,
    Linear,
    MaxPool,
    MeanPool,
    Op,
    Pointwise,
    Pool,
    Shape,
)
from mobilenets.spec.preprocess import Preprocess  # noqa: E402

RECTIFIED: st.SearchStrategy[Activation] = st.sampled_from(("none", "relu", "relu6"))
ACTIVATIONS: st.SearchStrategy[Activation] = st.sampled_from(("none", "relu", "relu6", "hswish", "hsigmoid"))
WINDOWS: dict[str, Any] = {
    "kernel": st.integers(1, 4),
    "stride": st.integers(1, 3),
    "padding": st.sampled_from(("same", "symmetric", "ceil")),
}
LAYERS: st.SearchStrategy[Op] = st.one_of(
    st.builds(
        Conv, out=st.integers(1, 6), across=st.none() | st.integers(1, 4), activation=ACTIVATIONS, **WINDOWS
    ),
    st.builds(Depthwise, activation=ACTIVATIONS, **WINDOWS),
    st.builds(Pointwise, out=st.integers(1, 6), activation=ACTIVATIONS),
    st.builds(MaxPool, **WINDOWS),
    st.builds(MeanPool, **WINDOWS),
    st.builds(Activate, activation=ACTIVATIONS),
)


@st.composite
def nets(draw: st.DrawFn) -> Net:
    """A layer on the image, one to five others: in groups, summed up, gated, joined, cut, dealt out."""
    grown = Growing(
        Shape(draw(st.integers(1, 13)), draw(st.integers(1, 13)), 3), image_mixes=False, most_summed=2
    )
    first = st.builds(Conv, out=st.integers(1, 4), activation=ACTIVATIONS, **WINDOWS)
    grown.add(
        "first", draw(first | st.builds(Pointwise, out=st.integers(1, 4), activation=ACTIVATIONS)), "image"
    )
    for index, op in enumerate(draw(st.lists(LAYERS, min_size=1, max_size=5))):
        if grown.layer(draw, index, op):
            grown.branch(draw, index, RECTIFIED)
    outputs = [Output("map", grown.last, "vector")]
    if draw(st.booleans()):
        grown.add("pool", Pool(), grown.last)
        grown.add("head", Dense(out=draw(st.integers(1, 4))), "pool")
        outputs.append(Output("logits", "head", "classes"))
    nodes = (replace(n, op=replace(n.op, bias=True)) if isinstance(n.op, Linear) else n for n in grown.nodes)
    return Net("random", grown.size, tuple(nodes), tuple(outputs))


def drawn(net: Net, seed: int) -> Artefact:
    """Random integers of all sizes, of steps that leave most bytes between their bounds."""
    draw = np.random.default_rng(seed)
    known, alike = shapes(net), kept_together(net)
    scales: dict[str, Scale] = {}
    for node in net.nodes:
        if node.name not in scales and node.name != "head":
            made = Scale(float(np.exp(draw.uniform(-5, -2))), int(draw.integers(0, 256)))
            scales |= dict.fromkeys(alike[node.name], made)
    weights: dict[str, np.ndarray] = {}
    for node in net.nodes:
        shape = weight_shape(node.op, known[node.inputs[0]])
        if shape is None:
            continue
        weights[f"{node.name}.weight"] = draw.integers(-127, 128, shape).astype(np.int8)
        weights[f"{node.name}.bias"] = draw.integers(-20000, 20001, shape[0]).astype(np.int32)
        source = scales.get(node.inputs[0], Scale(1.0, 0)).step
        curved = getattr(node.op, "activation", "none") in ("hswish", "hsigmoid")
        reach = 3.0 if curved or node.name == "head" else 100 * scales[node.name].step
        step = reach / (source * 10000 * np.sqrt(np.prod(shape[1:]))) * np.exp(draw.normal(0, 1, shape[0]))
        weights[f"{node.name}.step"] = step.astype(np.float32)
    pre = Preprocess(
        height=net.input.height,
        width=net.input.width,
        geometry="stretch",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    )
    return from_bytes(to_bytes(Artefact(net, weights, pre, scales=scales)))


def coarse(net: Net, count: int, seed: int = 0) -> np.ndarray:
    """Pictures with large shapes in them, as photographs have."""
    some = np.random.default_rng(seed).uniform(0, 255, (count, 3, 3, 3))
    fine = some.repeat(-(-net.input.height // 3), 1).repeat(-(-net.input.width // 3), 2)
    return np.asarray(fine[:, : net.input.height, : net.input.width], np.uint8)


def levels(net: Net, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *net.input), dtype=np.uint8)


def given_to(made: Faked, pictures: np.ndarray) -> Any:
    """Pictures as a module takes them."""
    return torch.from_numpy(normalise(pictures, made.like.preprocess)).permute(0, 3, 1, 2)


def laid_out(value: Any) -> np.ndarray:
    """A map of torch's as numpy's walk has it."""
    return np.asarray(value.permute(0, 2, 3, 1) if value.dim() == 4 else value)


def bytes_apart(made: Faked, model: Artefact, pictures: np.ndarray) -> tuple[int, int]:
    """In how many values of all nodes a module in eval mode is not the integers, and of how many."""
    names = [node.name for node in model.net.nodes]
    walk = IntegerWalk(model.net, model.weights, model.scales, model.preprocess)
    wanted = walk(pictures, names)
    with torch.no_grad():
        found = made.eval()(given_to(made, pictures), names)
    apart = every = 0
    for name in names:
        value = laid_out(found[name]).reshape(wanted[name].shape)
        zero = model.scales[name].zero if name in model.scales else 0
        apart += int((value + zero != wanted[name]).sum())
        every += value.size
    return apart, every


def jolted(made: Faked, seed: int) -> Faked:
    """Weights, biases and steps somewhere else, as after learning."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in made.named_parameters():
            noise = torch.randn(value.shape, generator=draw)
            value.add_(noise, alpha=0.3 / PACE if name == "maps.grown" else 0.1 * float(value.abs().mean()))
    return made


@settings(max_examples=50)
@given(nets(), st.integers(0, 9999))
def test_a_module_gives_the_bytes_of_the_integers_it_is_written_as(net: Net, seed: int) -> None:
    model = drawn(net, seed)
    made = Faked(model)
    assert set(tensors(net)) <= set(made.state_dict())
    pictures = levels(net, 2, seed)
    for moved in (made, jolted(deepcopy(made), seed)):
        written = from_bytes(to_bytes(integers(moved)))
        assert bytes_apart(moved, written, pictures)[0] == 0
        outputs = NumpyEngine(written).prepared(pictures)
        with torch.no_grad():
            for name, value in moved.eval()(given_to(moved, pictures)).items():
                np.testing.assert_array_equal(laid_out(value), outputs[name])


@settings(max_examples=40)
@given(nets(), st.integers(0, 9999))
def test_before_it_learns_it_is_written_as_what_it_came_from(net: Net, seed: int) -> None:
    model = drawn(net, seed)
    written = integers(Faked(model))
    assert written.scales.keys() == model.scales.keys()
    for name, scale in model.scales.items():
        assert written.scales[name].zero == scale.zero
        assert written.scales[name].step == pytest.approx(scale.step, rel=1e-6)
    for node in (node for node in net.nodes if isinstance(node.op, Linear)):
        theirs, ours = (
            [one.weights[f"{node.name}.{part}"] for part in ("weight", "step", "bias")]
            for one in (model, written)
        )
        np.testing.assert_array_equal(ours[0], theirs[0])
        some = theirs[0].reshape(len(theirs[0]), -1).any(1)  # a row of nothing may have any step
        np.testing.assert_allclose(ours[1][some], theirs[1][some], rtol=1e-6)
        np.testing.assert_allclose(ours[2][some], theirs[2][some], atol=1)
        np.testing.assert_allclose(ours[2] * ours[1], theirs[2] * theirs[1], rtol=1e-4)


CHAIN = Net(
    "chain",
    Shape(9, 8, 3),
    (
        Node("stem", Conv(out=4, stride=2, bias=True, activation="relu6"), ("image",)),
        Node("depthwise", Depthwise(bias=True, activation="relu"), ("stem",)),
        Node("pointwise", Pointwise(out=5, bias=True, activation="hswish"), ("depthwise",)),
        Node("gate", Pointwise(out=5, bias=True), ("pointwise",)),
        Node("sum", Add(), ("pointwise", "gate")),
        Node("pool", Pool(), ("sum",)),
        Node("head", Dense(out=3), ("pool",)),
    ),
    (Output("logits", "head", "classes"),),
)
CENTRED = Preprocess(height=9, width=8, geometry="stretch", mean=(128, 128, 128), std=(64, 64, 64))


def chain(seed: int = 0) -> Artefact:
    draw = np.random.default_rng(seed)
    weights = {
        name: draw.normal(0, 1.2 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        for name, shape in tensors(CHAIN).items()
    }
    model = Artefact(CHAIN, weights, CENTRED)
    return quantised(model, coarse(CHAIN, 64, seed), Choice())


def quantised(model: Artefact, pictures: np.ndarray, choice: Choice) -> Artefact:
    folded = with_biases(model)
    zero = np.array(image_zero(model.preprocess), np.float32)
    return built(Material(folded, pictures, observe(folded.net, float_maps(folded), pictures, zero)), choice)


class ByTorch:
    """The chain in real values with torch's own fake quantisation, steps and weights its leaves."""

    def __init__(self, model: Artefact, made: Faked) -> None:
        self.made, self.scales = made, made.scales()
        self.leaves = {
            name: value.detach().clone().requires_grad_() for name, value in made.named_parameters()
        }
        self.steps = {
            name: torch.tensor([scale.step], requires_grad=True) for name, scale in self.scales.items()
        }
        self.model = integers(made)

    def held(self, name: str, y: Any, least: int = 0) -> Any:
        scale = self.scales[name]
        zero = torch.tensor([float(scale.zero)])
        most = min(255, scale.zero + round(6 / scale.step)) if name == "stem" else 255
        return torch._fake_quantize_learnable_per_tensor_affine(y, self.steps[name], zero, least, most, 1.0)

    def linear(self, name: str, x: Any, **how: Any) -> Any:
        weight = self.leaves[f"{name}.weight"]
        step = torch.from_numpy(self.model.weights[f"{name}.step"])
        if name == "stem":
            step = step * 64
        own = torch.fake_quantize_per_channel_affine(weight, step, torch.zeros(len(step)), 0, -127, 127)
        bias = self.leaves[f"{name}.bias"]
        if name == "head":
            return functional.linear(x.flatten(1), own, bias)
        return functional.conv2d(x, own, bias, **how)

    def __call__(self, x: Any) -> Any:
        stem = self.linear("stem", functional.pad(x, (0, 1, 1, 1)), stride=2)
        stem = self.held("stem", functional.relu(stem))
        depthwise = functional.relu(self.linear("depthwise", stem, padding=1, groups=4))
        depthwise = self.held("depthwise", depthwise)
        bent = functional.hardswish(self.linear("pointwise", depthwise))
        pointwise = self.held("pointwise", bent)
        gate = self.held("gate", self.linear("gate", pointwise))
        pool = self.held("pool", self.held("sum", pointwise + gate).mean((2, 3)))
        return self.linear("head", pool)


@pytest.mark.parametrize("seed", range(4))
def test_gradients_are_those_of_torchs_own_fake_quantisation(seed: int) -> None:
    model = chain(seed)
    made = Faked(model).train()
    with torch.no_grad():
        made.maps.grown -= 0.2 / PACE  # some values are cut off
    theirs = ByTorch(model, made)
    x = given_to(made, coarse(CHAIN, 200, 100 + seed))
    pull = torch.randn(3, generator=torch.Generator().manual_seed(seed))
    ours, wanted = made(x)["logits"], theirs(x)
    np.testing.assert_allclose(ours.detach(), wanted.detach(), atol=0.03 * float(wanted.detach().abs().max()))
    (ours * pull).sum().backward()
    (wanted * pull).sum().backward()
    for name, value in made.named_parameters():
        if name != "maps.grown":
            assert _alike(value.grad, theirs.leaves[name].grad), name
    places = made._place
    own = made.maps.grown.grad / PACE
    every = torch.zeros_like(own)
    for name, step in theirs.steps.items():
        every[places[name]] += float(step.grad * step.detach())
    assert _alike(own, every)


def _alike(ours: Any, theirs: Any) -> bool:
    """The same direction and length but for single values that one of both cuts off or rounds otherwise."""
    cosine = functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0)
    return float(cosine) > 0.995 and 0.95 < float(ours.norm() / theirs.norm()) < 1.05


def test_sums_that_float32_does_not_hold_are_whole_when_it_is_judged() -> None:
    wide = Net(
        "wide",
        Shape(1, 1, 3),
        (
            Node("first", Pointwise(out=3000, bias=True, activation="relu"), ("image",)),
            Node("second", Pointwise(out=64, bias=True), ("first",)),
            Node("head", Dense(out=5), ("second",)),
        ),
        (Output("logits", "head", "classes"),),
    )
    draw = np.random.default_rng(0)
    scales = {"first": Scale(0.02, 0), "second": Scale(1e-3, 128)}
    weights: dict[str, np.ndarray] = {}
    for name, rows, terms in (("first", 3000, 3), ("second", 64, 3000), ("head", 5, 64)):
        weight = draw.integers(60, 128, (rows, terms)).astype(np.int8)
        weights[f"{name}.weight"] = weight if name == "head" else weight[:, :, None, None]
        weights[f"{name}.bias"] = np.zeros(rows, np.int32)
        weights[f"{name}.step"] = np.full(rows, 1e-3, np.float32)
    model = Artefact(wide, weights, Preprocess(height=1, width=1, mean=(0, 0, 0)), scales=scales)
    pictures = levels(wide, 500)
    made = Faked(model)
    rows = IntegerWalk(wide, weights, scales, model.preprocess)(pictures, ["first"])["first"]
    greatest = int(rows.reshape(len(rows), -1).astype(np.int64).sum(1).max()) * 127
    assert greatest > 2 * EXACT
    # One byte is so many sums that float32's own are as good: what is compared are sums, one a step.
    first = torch.from_numpy(rows.astype(np.float32)).permute(0, 3, 1, 2)
    node = wide.nodes[1]
    row = made.row(node, made.scales()["first"].step, torch.ones(()))
    whole = rows.reshape(len(rows), -1).astype(np.int64) @ weights["second.weight"][:, :, 0, 0].T.astype(
        np.int64
    )
    sums = made.eval()._sums(made.layer("second"), first, row).detach().numpy()[:, :, 0, 0]
    np.testing.assert_array_equal(sums, whole.astype(np.float32))
    assert bytes_apart(made, integers(made), pictures)[0] == 0


def test_copies_in_threads_find_the_gradients_that_it_finds_alone() -> None:
    made = Faked(chain()).train()
    copies = [deepcopy(made) for _ in range(4)]
    for copy in copies:
        for own, value in zip(copy.parameters(), made.parameters(), strict=True):
            own.data = value.data
    batches = [given_to(made, coarse(CHAIN, 4, seed)) for seed in range(4)]

    def learned(module: Faked, x: Any) -> list[Any]:
        module.zero_grad()
        module(x)["logits"].square().sum().backward()
        return [value.grad.clone() for value in module.parameters()]

    alone = [learned(made, x) for x in batches]
    with ThreadPoolExecutor(4) as pool:
        beside = list(pool.map(learned, copies, batches))
    for ours, theirs in zip(beside, alone, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    for before, after in zip(Faked(chain()).buffers(), made.buffers(), strict=True):
        assert torch.equal(before, after)


def test_what_was_written_and_its_state_go_on_as_before() -> None:
    made = jolted(Faked(from_bytes(to_bytes(chain()))), 3)
    again = Faked(from_bytes(to_bytes(integers(made))))
    again.load_state_dict(made.state_dict())
    x = given_to(made, coarse(CHAIN, 4))
    ours, theirs = made.train()(x)["logits"], again.train()(x)["logits"]
    assert torch.equal(ours, theirs)
    assert to_bytes(integers(made)) == to_bytes(integers(again))


def test_a_model_in_float32_is_to_be_quantised_first() -> None:
    net = zoo.net("v1", 0.25, 32, 4)
    model = Artefact(net, random_weights(net, 0), Preprocess(height=32, width=32))
    with pytest.raises(ValueError, match="v1: not quantised; give it to `quantise`"):
        Faked(model)


def test_learning_takes_back_most_of_what_coarse_steps_cost() -> None:
    """Which colour is the brightest: in float32, in bytes of which maps use 16, learned on from there."""
    pictures, judged = coarse(CHAIN, 512, 1), coarse(CHAIN, 1000, 2)
    brightest = [some.astype(int).mean((1, 2)).argmax(1) for some in (pictures, judged)]
    draw = np.random.default_rng(0)
    weights = {
        name: draw.normal(0, 1 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        for name, shape in tensors(CHAIN).items()
    }
    x = torch.from_numpy(normalise(pictures, CENTRED)).permute(0, 3, 1, 2)
    truth = torch.from_numpy(brightest[0])

    def learned(made: Any, rate: float, steps: int) -> Any:
        optimizer = torch.optim.Adam(made.parameters(), lr=rate)
        made.train()
        for step in range(steps):
            some = torch.arange(32 * step, 32 * (step + 1)) % len(x)
            loss = functional.cross_entropy(made(x[some])["logits"], truth[some])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return made

    def right(model: Artefact) -> float:
        found = NumpyEngine(model).prepared(judged)["logits"]
        return float((found.argmax(1) == brightest[1]).mean())

    floats = learned(module(CHAIN, weights), 0.02, 90)
    model = Artefact(CHAIN, weights_of(floats), CENTRED)
    whole = quantised(model, pictures[:64], Choice())
    coarser = {name: Scale(16 * scale.step, scale.zero // 16) for name, scale in whole.scales.items()}
    before = replace(whole, scales=coarser)
    after = integers(learned(Faked(before), 0.01, 50))
    assert right(before) < right(model) - 0.1
    assert right(after) > (right(model) + right(before)) / 2


def test_a_trained_network_on_photographs_gives_the_bytes_of_its_integers(material: Path) -> None:
    read = adopt.read(material / "weights" / "mobilenet_v1_0.25_224_float.tflite")
    pre = replace(read.preprocess, height=96, width=96)
    model = replace(read, net=at_resolution(read.net, 96), preprocess=pre)
    with tarfile.open(material / "data" / "imagenet-500.tar") as archive:
        members = [member for member in archive.getmembers() if member.isfile()][::10]
        files = [archive.extractfile(member) for member in members]
        pictures = np.stack([prepare(decode(file.read()), pre) for file in files if file is not None])
    made = Faked(quantised(model, pictures[:16], Choice(corrected=True, equalised="all")))
    apart, every = bytes_apart(made, integers(made), pictures)
    assert apart <= every / 10_000
    outputs = NumpyEngine(integers(made)).prepared(pictures)["logits"]
    with torch.no_grad():
        found = made(given_to(made, pictures))["logits"].numpy()
    assert (found.argmax(1) == outputs.argmax(1)).all()
    # And begins with what it was quantised to, but for steps that float32 rounds.
    before = NumpyEngine(quantised(model, pictures[:16], Choice(corrected=True, equalised="all")))
    assert (before.prepared(pictures)["logits"].argmax(1) == outputs.argmax(1)).mean() > 0.97
