"""Steps are the textbooks': the same numbers as others' optimisers, decay only where the papers have it."""

from __future__ import annotations

import importlib.util
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.model.module import Layer, Module, module, placed, random_weights  # noqa: E402 - after the skip
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.op import Conv, Dense, Depthwise, Pointwise  # noqa: E402
from mobilenets.spec.recipes import RECIPES, USUAL, named  # noqa: E402
from mobilenets.spec.training import Course, Method, Steps, TrainOptions  # noqa: E402
from mobilenets.train.steps import RMSprop, Stepper, share_of_rate  # noqa: E402

METHODS: tuple[Method, ...] = ("rmsprop", "sgd", "adamw", "muon")


def small(name: str = "v1") -> Module:
    net = zoo.net(name, 0.25, 32, 3)
    return placed(module(net, random_weights(net, 0)), torch.device("cpu"))


def graded(made: Module, seed: int) -> None:
    """A gradient of its own for every weight, laid out as filters are."""
    generator = torch.Generator().manual_seed(seed)
    for value in made.parameters():
        drawn = torch.randn(value.shape, generator=generator)
        value.grad = torch.empty_like(value).copy_(drawn)


@pytest.fixture
def timms(monkeypatch: pytest.MonkeyPatch) -> Any:
    """timm's RMSprop in TensorFlow's form, without the rest of timm, which wants torchvision."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        pytest.skip("needs timm")
    room = types.ModuleType("timms_optimisers")
    room.__path__ = [str(Path(found.origin).parent / "optim")]
    monkeypatch.setitem(sys.modules, room.__name__, room)
    return importlib.import_module("timms_optimisers.rmsprop_tf").RMSpropTF


@pytest.mark.parametrize(("momentum", "decay", "eps"), [(0.9, 0.0, 1.0), (0.9, 4e-5, 1e-3), (0.0, 0.01, 1.0)])
def test_rmsprop_takes_tensorflows_steps(timms: Any, momentum: float, decay: float, eps: float) -> None:
    ours, theirs = ([torch.nn.Parameter(torch.linspace(-1, 1, 40).view(4, 10))] for _ in range(2))
    own = RMSprop(ours, lr=0.045, momentum=momentum, smooth=0.9, eps=eps, weight_decay=decay)
    other = timms(theirs, lr=0.045, alpha=0.9, eps=eps, momentum=momentum, weight_decay=decay)
    generator = torch.Generator().manual_seed(0)
    for number in range(20):
        drawn = torch.randn(4, 10, generator=generator)
        for one, optimizer in ((ours, own), (theirs, other)):
            one[0].grad = drawn.clone()
            optimizer.param_groups[0]["lr"] = 0.045 * 0.9**number  # rates change under way
            optimizer.step()
    assert float((ours[0].detach() - torch.linspace(-1, 1, 40).view(4, 10)).abs().max()) > 0.01
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)


def test_the_first_step_of_rmsprop_by_hand() -> None:
    """v = 0.9 · 1 + 0.1 · 4 = 1.3, m = 0.5 · 2 / √(1.3 + 1), w = 3 − m."""
    value = torch.nn.Parameter(torch.tensor([3.0]))
    value.grad = torch.tensor([2.0])
    RMSprop([value], lr=0.5, momentum=0.9, smooth=0.9, eps=1.0).step()
    assert value.item() == pytest.approx(3 - 0.5 * 2 / 2.3**0.5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["v1", "v3-small"])
def test_decay_falls_on_full_pointwise_and_dense_weights_alone(method: Method, name: str) -> None:
    """With gradients of zero nothing moves a weight but decay."""
    made = small(name)
    with torch.no_grad():
        for value in made.parameters():
            value.fill_(0.5)
    before = {key: value.detach().clone() for key, value in made.named_parameters()}
    for value in made.parameters():
        value.grad = torch.zeros_like(value)
    Stepper(made, Steps(method=method, rate=0.1, decay=0.1, aside=0.1, epsilon=1e-8)).step(1.0)
    ops = {key: part.op for key, part in made.named_modules() if isinstance(part, Layer)}
    heavy = {f"{key}.weight" for key, op in ops.items() if isinstance(op, Conv | Pointwise | Dense)}
    moved = {key for key, value in made.named_parameters() if not torch.equal(value, before[key])}
    assert moved == heavy
    assert any(isinstance(op, Depthwise) for op in ops.values())


def test_muon_moves_the_filters_themselves_through_matrices_of_the_same_memory() -> None:
    """A step of Muon is orthogonal: all singular values of what it adds are about alike."""
    made = small()
    stepper = Stepper(made, Steps(method="muon", rate=0.02, aside=0.003, decay=0.0))
    flat = {id(value): matrix for value, matrix in stepper._flat}
    for value in made.parameters():
        if id(value) in flat:
            matrix = flat[id(value)]
            assert matrix.data_ptr() == value.data_ptr()
            assert matrix.shape == (value.shape[0], value[0].numel())
    before = {key: value.detach().clone() for key, value in made.named_parameters()}
    graded(made, 1)
    stepper.step(1.0)
    for key, value in made.named_parameters():
        layer = made.layer(key.rpartition(".")[0]) if key.split(".")[-2] != "norm" else None
        step = value.detach() - before[key]
        assert float(step.abs().max()) > 0, key
        if layer is not None and isinstance(layer.op, Pointwise):
            found = torch.linalg.svdvals(step.flatten(1))
            drawn = torch.linalg.svdvals(torch.randn(step.flatten(1).shape))
            own, others = (float(one.max() / one.quantile(0.05)) for one in (found, drawn))
            assert own < 2.5, key
            assert own < others, key
        elif key.endswith("norm.weight"):  # AdamW's first step: its rate, everywhere
            assert float(step.abs().max()) == pytest.approx(0.003, rel=1e-3)
    assert all(value.grad is None for value in made.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_what_is_restored_goes_on_to_the_last_bit(method: Method) -> None:
    steps = Steps(method=method, rate=0.01, aside=0.003, decay=0.01)

    def stepped(made: Module, stepper: Stepper, numbers: range) -> None:
        for number in numbers:
            graded(made, number)
            stepper.step(0.5 + 0.1 * number)

    straight, cut, other = small(), small(), small()
    stepped(straight, Stepper(straight, steps), range(6))
    first = Stepper(cut, steps)
    stepped(cut, first, range(3))
    other.load_state_dict(cut.state_dict())
    second = Stepper(other, steps)
    second.restore({key: value.clone().contiguous() for key, value in first.state().items()})
    stepped(other, second, range(3, 6))
    for (key, one), two in zip(straight.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), key


def test_the_course_of_rates_begins_turns_and_ends_where_it_says() -> None:
    for form in ("cosine", "line"):
        course = Course(form=form, warmup=2.0, last=0.1)  # type: ignore[arg-type]  # one of its forms
        assert 0 < share_of_rate(course, 0.0, 10) < 0.001
        assert share_of_rate(course, 2.0, 10) == pytest.approx(1.0)
        assert share_of_rate(course, 6.0, 10) == pytest.approx(0.55)
        assert share_of_rate(course, 10.0, 10) == pytest.approx(0.1)
        points = [share_of_rate(course, epoch / 10, 10) for epoch in range(20, 101)]
        assert points == sorted(points, reverse=True)
    stairs = Course(form="stairs", warmup=0.0, factor=0.94, every=2.0)
    assert [share_of_rate(stairs, epoch, 100) for epoch in (0.0, 1.99, 2.0, 5.0)] == [1.0, 1.0, 0.94, 0.94**2]


def test_every_recipe_reaches_its_rate_even_in_one_epoch() -> None:
    for name, whole in RECIPES.items():
        assert named(TrainOptions(recipe=name)) == whole
        short = named(TrainOptions(recipe=name, epochs=1))
        assert max(share_of_rate(short.course, step / 50, 1) for step in range(50)) > 0.95
        assert share_of_rate(short.course, 0.98, 1) < 0.9 or short.course.form == "stairs"


@pytest.mark.parametrize("method", METHODS)
def test_an_optimiser_stands_in_for_a_recipes_own_at_its_usual_rate(method: str) -> None:
    whole = RECIPES["cifar-5min"]
    found = named(TrainOptions(recipe=whole.name, optimizer=method))
    assert replace(found, steps=whole.steps) == whole
    assert found.steps == (whole.steps if method == whole.steps.method else USUAL[method])
    half = named(TrainOptions(recipe=whole.name, optimizer=method, rate=found.steps.rate / 2)).steps
    assert half == replace(found.steps, rate=found.steps.rate / 2, aside=found.steps.aside / 2)


def test_an_unknown_optimiser_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="--optimizer lion: unknown; known: rmsprop, sgd, adamw, muon"):
        TrainOptions(optimizer="lion")
