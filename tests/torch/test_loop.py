"""The loop is a function of its inputs: threads, processes and interruptions change nothing but the time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.nn import functional  # noqa: E402 - after the line that skips

from mobilenets.data.mapped import Mapped  # noqa: E402
from mobilenets.model.module import Module, module, random_weights  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.preprocess import Preprocess  # noqa: E402
from mobilenets.spec.recipes import MODERN, PAPER_V1  # noqa: E402
from mobilenets.spec.training import Feed, Recipe  # noqa: E402
from mobilenets.spec.views import Mixing, Views  # noqa: E402
from mobilenets.train import checkpoint, loop  # noqa: E402
from mobilenets.train.loop import Lessons, State, Taken, Where  # noqa: E402
from mobilenets.train.views import DRAWS, draws, mixed, viewed  # noqa: E402

CPU = torch.device("cpu")
PRE = Preprocess(height=32, width=32, mean=(127.5,) * 3, std=(127.5,) * 3)
RECIPE = replace(MODERN, epochs=3, batch=24, norm_batch=8, average=0.9)
ABOUT = {"what": "a test"}
Progress = Callable[[Taken], None]


def lessons(count: int = 76) -> Lessons:
    """Three classes of noise, each brighter in one colour."""
    draw = np.random.default_rng(0)
    truth = np.arange(count) % 3
    levels = draw.integers(0, 160, (count, 36, 36, 3))
    for number in range(3):
        levels[truth == number, ..., number] += 70
    return Lessons(Mapped(levels.astype(np.uint8), np.arange(count)), truth, 3)


def small(name: str = "small") -> Module:
    net = zoo.v1(0.25, 32, blocks=((64, 1), (128, 2), (128, 2)), name="small")
    net = zoo.net(name, 0.25, 32, 3) if name != "small" else zoo_head(net)
    return module(net, random_weights(net, 0))


def zoo_head(net: Any) -> Any:
    from mobilenets.spec.head import classify

    return classify(net, 3)


def run(
    recipe: Recipe = RECIPE,
    where: Where = Where(CPU),  # noqa: B008 - frozen
    state: State | None = None,
    each: Progress = lambda taken: None,
    known: Lessons | None = None,
    judged: Callable[[Module], float | None] = lambda made: None,
    sound: Callable[[], None] = lambda: None,
) -> tuple[State, list[float]]:
    """A whole training, or the rest of one, and the losses of its steps."""
    state = state or loop.begun(small(), recipe, where)
    losses: list[float] = []

    def note(taken: Taken) -> None:
        losses.append(taken.loss)
        each(taken)

    for _ in loop.learn(
        *(state, recipe, known or lessons(), PRE, where),
        seed=5,
        objective=loop.cross_entropy,
        judged=judged,
        each=note,
        sound=sound,
    ):
        pass
    return state, losses


def same(one: State, two: State) -> list[str]:
    """Tensors of two states that differ in any bit."""
    pairs = [(one.student, two.student), (one.averaged, two.averaged)]
    found = [
        name
        for a, b in pairs
        for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True)
        if not torch.equal(x, y)
    ]
    moved = (one.stepper.state(), two.stepper.state())
    return found + [name for name, value in moved[0].items() if not torch.equal(value, moved[1][name])]


def test_a_training_learns_its_classes() -> None:
    seen: list[float] = []

    def judged(made: Module) -> float:
        given = lessons()
        logits = loop.scores(
            made, Mapped(given.pictures.rows(np.arange(76))[:, 2:34, 2:34], np.arange(76)), PRE, Where(CPU)
        )
        seen.append(float((logits.argmax(1) == given.truth).mean()))
        return seen[-1]

    recipe = replace(RECIPE, epochs=6, batch=12, norm_batch=12, smoothing=0.0)
    state, losses = run(recipe, judged=judged)
    assert np.mean(losses[-6:]) < 0.7 * losses[0]
    assert seen[-1] > 0.9
    assert [epoch.val_accuracy for epoch in state.epochs] == seen
    assert [epoch.epoch for epoch in state.epochs] == [1, 2, 3, 4, 5, 6]
    assert state.epochs[-1].loss == pytest.approx(np.mean(losses[-6:]))


def test_one_step_is_the_one_that_plain_torch_takes() -> None:
    """Views, smoothing, mean loss, gradient and statistics of one micro-batch, written out."""
    recipe = replace(
        PAPER_V1, epochs=1, batch=16, norm_batch=16, smoothing=0.2, views=Views(mix=Mixing(mixup=0.4))
    )
    recipe = replace(recipe, steps=replace(recipe.steps, method="sgd", momentum=0.0, decay=0.0, rate=0.1))
    given = lessons(16)
    made = small()
    state, losses = run(recipe, known=given)
    which = given.pictures.order(5, 0)
    drawn = draws(5, which, 0, DRAWS)
    x = viewed(torch.from_numpy(given.pictures.rows(which)), drawn, recipe.views, (32, 32))
    wanted = torch.full((16, 3), 0.2 / 3)
    wanted[torch.arange(16), torch.from_numpy(given.truth[which])] += 0.8
    x, wanted = mixed(x, wanted, drawn, recipe.views)
    made.train()
    loss = -(wanted * functional.log_softmax(made((x - 127.5) / 127.5)["logits"], 1)).sum(1).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert losses == [pytest.approx(loss.item(), rel=1e-5)]
    for (name, own), other in zip(state.student.named_parameters(), made.parameters(), strict=True):
        assert other.grad is not None
        torch.testing.assert_close(own, other - 0.1 * other.grad, msg=name, rtol=1e-4, atol=1e-5)
    for own, other in zip(state.student.buffers(), made.buffers(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
    for own, one, two in zip(
        state.averaged.parameters(), small().parameters(), state.student.parameters(), strict=True
    ):  # after the first step the average keeps a tenth of what it was
        torch.testing.assert_close(own, one * 0.1 + two * 0.9, rtol=1e-4, atol=1e-5)


def test_statistics_are_the_mean_of_those_of_the_micro_batches() -> None:
    recipe = replace(RECIPE, epochs=1, batch=24, norm_batch=8)
    given = lessons(24)
    state, _ = run(recipe, known=given)
    made = small()
    found = []
    for part in np.array_split(given.pictures.order(5, 0), 3):
        x = viewed(
            torch.from_numpy(given.pictures.rows(part)), draws(5, part, 0, DRAWS), recipe.views, (32, 32)
        )
        y = made.layer("stem").linear((x - 127.5) / 127.5, made.layer("stem").weight, None)
        found.append((y.mean((0, 2, 3)), y.var((0, 2, 3))))
    norm = state.student.layer("stem").norm
    assert norm is not None
    mean, variance = (torch.stack(values).mean(0) for values in zip(*found, strict=True))
    torch.testing.assert_close(norm.running_mean, 0.1 * mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("streams", [2, 5])
def test_any_number_of_threads_gives_the_same_losses(streams: int) -> None:
    one, two = run(), run(where=Where(CPU, streams=streams))
    assert len(one[1]) == 9
    assert two[1] == pytest.approx(one[1], rel=1e-3)
    for a, b in zip(one[0].student.buffers(), two[0].student.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-3)


def test_the_same_number_of_threads_gives_the_same_bits() -> None:
    one, two = (run(where=Where(CPU, streams=2)) for _ in range(2))
    assert one[1] == two[1]
    assert same(one[0], two[0]) == []


@pytest.mark.parametrize("method", ["muon", "rmsprop"])
def test_a_run_that_goes_on_from_any_step_ends_with_the_same_bits(method: Any, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2, steps=replace(RECIPE.steps, method=method))
    state: State | None = None
    whole = loop.begun(small(), recipe, Where(CPU))

    def keep(taken: Taken) -> None:
        checkpoint.save(whole, tmp_path / f"{taken.step}", ABOUT)

    _, losses = run(recipe, state=whole, each=keep)
    assert len(losses) == 6
    for step in range(5):  # within an epoch, and where one has ended but is not told of yet
        state = loop.begun(small(), recipe, Where(CPU))
        checkpoint.restore(state, tmp_path / f"{step}", ABOUT)
        assert state.step == step + 1
        if state.step == 3:  # the state after an epoch's last step is kept with the epoch
            state.epochs, state.losses = whole.epochs[:1], []
        _, rest = run(recipe, state=state)
        assert rest == losses[step + 1 :]
        assert same(state, whole) == []
        assert [epoch.loss for epoch in state.epochs] == [epoch.loss for epoch in whole.epochs]


def test_pictures_grow_as_the_recipe_says() -> None:
    seen: list[int] = []
    recipe = replace(RECIPE, feed=Feed(sizes=((0.0, 0.5), (0.5, 0.75), (0.8, 1.0))), epochs=4)
    made = small()
    state = loop.begun(made, recipe, Where(CPU))
    classes = loop._Classroom(state.student, recipe, lessons(), PRE, Where(CPU), 0, loop.cross_entropy)
    seen = [classes._side(epoch / 10) for epoch in range(0, 40, 5)]
    assert seen == [16, 16, 16, 16, 24, 24, 24, 32]
    _, losses = run(recipe)
    assert len(losses) == 12
    assert np.isfinite(losses).all()
    assert losses[0] != run()[1][0]


def test_a_loss_that_is_no_number_stops_before_the_weights_are_spoilt() -> None:
    recipe = replace(RECIPE, steps=replace(RECIPE.steps, method="sgd", rate=1e30))
    state = loop.begun(small(), recipe, Where(CPU))
    with pytest.raises(loop.DivergedError, match="diverged in step ") as found:
        run(recipe, state=state)
    assert found.value.step == state.step > 0
    assert len(found.value.which) == 24


def test_losses_far_above_the_first_are_a_divergence_and_no_state_of_theirs_is_kept() -> None:
    """Numbers they all are: the head is thrown far away, and no step moves it back."""
    recipe = replace(RECIPE, epochs=60, average=0.0, steps=replace(RECIPE.steps, method="sgd", rate=1e-12))
    state = loop.begun(small(), recipe, Where(CPU))
    losses: list[float] = []
    kept: list[int] = []

    def thrown(taken: Taken) -> None:
        losses.append(taken.loss)
        if taken.step == 4:
            with torch.no_grad():
                for name, value in state.student.named_parameters():
                    if name.startswith("head"):
                        value.mul_(1e5)

    with pytest.raises(
        loop.DivergedError, match=r"for 20 steps the loss was more than 10 times the first, and"
    ) as found:
        run(recipe, state=state, each=thrown, sound=lambda: kept.append(state.step))
    assert all(np.isfinite(losses))
    assert max(losses[:5]) < 10 * losses[0] < min(losses[5:])
    assert found.value.step == 24
    assert kept == [0, 1, 2, 3, 4]


def test_a_gradient_that_is_too_long_is_cut() -> None:
    recipe = replace(
        RECIPE,
        epochs=1,
        steps=replace(RECIPE.steps, method="sgd", momentum=0.0, decay=0.0, rate=1.0, clip=0.01),
    )
    before = small()
    state = loop.begun(small(), recipe, Where(CPU))
    norms: list[float] = []

    def measure(taken: Taken) -> None:
        pairs = zip(before.parameters(), state.student.parameters(), strict=True)
        moved = sum(float((a - b).detach().square().sum()) for a, b in pairs) ** 0.5
        norms.append(moved / taken.rate)

    run(recipe, state=state, each=measure)
    assert norms[0] == pytest.approx(0.01, rel=1e-3)


def test_batches_that_cannot_be_shared_out_or_normalised_are_refused() -> None:
    net = small("v1").net
    assert loop.shared(RECIPE, 24, net, 3) == 3
    with pytest.raises(
        ValueError, match="24 pictures at a time are 3 micro-batches of about 8, for 4 processes; give 32"
    ):
        loop.shared(RECIPE, 24, net, 4)
    with pytest.raises(ValueError, match="--batch: 1 at a time"):
        loop.shared(replace(RECIPE, batch=1, norm_batch=1), 1, net, 1)
    assert loop.shared(replace(RECIPE, batch=2, norm_batch=2), 2, net, 1) == 1
    _, losses = run(replace(RECIPE, batch=500, epochs=2))  # more than there are pictures: one step an epoch
    assert len(losses) == 2


RANK = """
import os, sys
sys.path.insert(0, os.path.dirname({here!r}))
import numpy as np, torch
torch.set_num_threads(1)
from test_loop import CPU, RECIPE, run
from mobilenets.train.loop import Where
from mobilenets.train.world import joined
with joined(CPU) as world:
    world.agree("the same")
    state, losses = run(where=Where(CPU, world=world))
    buffers = torch.cat([value.flatten() for value in state.student.buffers()]).numpy()
    np.savez(sys.argv[1] + str(world.rank), losses=losses, buffers=buffers)
    try:
        world.agree(str(world.rank))
    except ValueError:
        np.savez(sys.argv[1] + "refused" + str(world.rank))
    world.wait()
    if world.rank:
        os._exit(0)
    try:
        world.wait()
    except RuntimeError as error:
        open(sys.argv[1] + "told", "w").write(str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed")
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "OMP_NUM_THREADS": "1",
    }
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        environment["MASTER_PORT"] = str(free.getsockname()[1])
    text = RANK.format(here=__file__)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", text, str(tmp_path / "rank")],
            env={**environment, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], told
    state, losses = run()
    expected = torch.cat([value.flatten() for value in state.student.buffers()]).numpy()
    found = [np.load(tmp_path / f"rank{rank}.npz") for rank in range(2)]
    for one in found:
        assert one["losses"].tolist() == pytest.approx(losses, rel=1e-3)
        np.testing.assert_allclose(one["buffers"], expected, rtol=2e-2, atol=2e-3)
    both: list[NDArray[Any]] = [one["buffers"] for one in found]
    assert (both[0] == both[1]).all()
    assert "another process of this training has ended" in (tmp_path / "ranktold").read_text()
    assert {path.name for path in tmp_path.glob("rankrefused*")} == {"rankrefused0.npz", "rankrefused1.npz"}
