"""Fine-tuning learns, each step is the textbook's, and a run that was cut off ends as if it had not been."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets.data.augment import Job, Viewing  # noqa: E402 - after the line that skips
from mobilenets.data.catalog import Catalog, scan  # noqa: E402
from mobilenets.data.crew import Crew  # noqa: E402
from mobilenets.infer.image import normalise  # noqa: E402
from mobilenets.infer.recognise import without_norms  # noqa: E402
from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.model.module import Module, module, random_weights, weights_of  # noqa: E402
from mobilenets.model.unfold import unfold  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.head import classify  # noqa: E402
from mobilenets.spec.preprocess import Preprocess  # noqa: E402
from mobilenets.spec.recipe import Augment, Tune  # noqa: E402
from mobilenets.train import finetune  # noqa: E402
from mobilenets.train.finetune import Tuner  # noqa: E402
from mobilenets.train.material import Part  # noqa: E402
from mobilenets.train.run import Epoch  # noqa: E402

PRE = Preprocess(height=32, width=32, mean=(127.5,) * 3, std=(127.5,) * 3)
RECIPE = Tune(epochs=3, still=0, rate=0.02, lower=1.0, batch=16, average=0.8)
CLASSES, PER_CLASS = 3, 16


@pytest.fixture(autouse=True)
def one_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds below are float32's, on every processor."""
    monkeypatch.setattr(finetune, "half_is_native", lambda device: False)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """Three classes of small noisy pictures, each brighter in one colour."""
    root = tmp_path_factory.mktemp("colours")
    draw = np.random.default_rng(0)
    for number in range(CLASSES):
        (root / f"c{number}").mkdir()
        for index in range(PER_CLASS):
            levels = draw.integers(0, 160, (36, 40, 3))
            levels[..., number] += 70
            Image.fromarray(levels.astype(np.uint8)).save(root / f"c{number}" / f"{index}.png")
    return scan(root)


def parts(catalog: Catalog) -> tuple[Part, Part]:
    """Three of four pictures to learn from, one to validate on."""
    truth = np.array([catalog.labels.index(item.label) for item in catalog.items])
    val = np.arange(len(truth)) % 4 == 0
    chosen = [np.flatnonzero(~val), np.flatnonzero(val)]
    train, test = (Part([catalog.items[i] for i in where], truth[where]) for where in chosen)
    return train, test


def small(seed: int = 0) -> Module:
    """A three-block network with norms from random weights."""
    net = classify(zoo.v1(0.25, 32, blocks=((64, 1), (128, 2), (128, 2)), name="small"), CLASSES)
    return module(net, random_weights(net, seed))


def settled(catalog: Catalog) -> Module:
    """The same from folded weights, norms put back: what frozen norms are for."""
    net = without_norms(classify(zoo.v1(0.25, 32, blocks=((64, 1), (128, 2)), name="small"), CLASSES))
    view = Viewing(catalog, PRE, Augment())
    levels = np.stack([view(Job(item)) for item in catalog.items])  # type: ignore[misc]  # all of them decode
    x = torch.from_numpy(normalise(levels, PRE)).permute(0, 3, 1, 2)
    weights = random_weights(net, 0)
    draw = np.random.default_rng(1)
    for name in weights:
        if name.endswith("bias"):  # without, a window of zeros lies on relu's kink
            weights[name] = draw.normal(0, 0.2, weights[name].shape).astype(np.float32)
    return unfold(net, weights, [x])


def silent(stage: str, done: int, total: int) -> None:
    pass


def tuner(catalog: Catalog, checkpoint: Path, made: Module, recipe: Tune = RECIPE, **more: Any) -> Tuner:
    crew: Any = Crew(Viewing(catalog.bare(), PRE, recipe.augment), 0)
    known = {"seed": 0, "identity": "this run", "frozen_norms": False, **more}
    return Tuner(made, recipe, crew=crew, target=PRE, device="cpu", checkpoint=checkpoint, **known)


def told(epochs: Iterator[Epoch] | list[Epoch]) -> list[tuple[int, float, float | None]]:
    """Epochs without their seconds."""
    return [(e.epoch, e.loss, e.val_accuracy) for e in epochs]


def bits(made: Module) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in weights_of(made).items()}


def test_losses_fall_and_the_classes_are_learned(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    made = tuner(catalog, tmp_path / "c", small(), replace(RECIPE, epochs=8, rate=0.05))
    seen: list[tuple[str, int, int]] = []
    epochs = list(made.run(train, val, resume=False, progress=lambda *step: seen.append(step)))
    losses = [epoch.loss for epoch in epochs]
    assert losses[0] == pytest.approx(np.log(CLASSES), rel=0.3)
    assert losses[-1] < 0.6 * losses[0]
    assert epochs[-1].val_accuracy == 1.0
    steps = 8 * (len(train.items) // RECIPE.batch)
    assert seen == [("finetune", step, steps) for step in range(1, steps + 1)]


def test_the_kept_model_scores_alike_here_and_in_the_numpy_walk(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    made = tuner(catalog, tmp_path / "c", small())
    list(made.run(train, val, resume=False, progress=silent))
    levels = np.stack([Viewing(catalog, PRE, Augment())(Job(item)) for item in val.items])  # type: ignore[misc]
    walked = Walk(made.averaged.net, weights_of(made.averaged))(normalise(levels, PRE))["logits"]
    np.testing.assert_allclose(made.scores(val.items), walked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_run_cut_off_between_epochs_ends_with_the_same_numbers_to_the_last_bit(
    catalog: Catalog, tmp_path: Path, frozen: bool
) -> None:
    train, val = parts(catalog)

    def fresh() -> Module:
        return settled(catalog) if frozen else small()

    whole = tuner(catalog, tmp_path / "whole", fresh(), frozen_norms=frozen)
    wanted = told(whole.run(train, val, resume=True, progress=silent))
    for after in (1, 2, 3):
        place = tmp_path / f"cut{after}"
        cut = tuner(catalog, place, fresh(), frozen_norms=frozen).run(
            train, val, resume=False, progress=silent
        )
        for _ in range(after):
            next(cut)
        cut.close()
        resumed = tuner(catalog, place, fresh(), frozen_norms=frozen)
        assert told(resumed.run(train, val, resume=True, progress=silent)) == wanted
        assert bits(resumed.made) == bits(whole.made)
        assert bits(resumed.averaged) == bits(whole.averaged)


def test_a_kill_inside_an_epoch_costs_only_that_epoch(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    whole = tuner(catalog, tmp_path / "whole", small())
    wanted = told(whole.run(train, val, resume=False, progress=silent))

    def killed(stage: str, done: int, total: int) -> None:
        if done == total // RECIPE.epochs + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(tuner(catalog, tmp_path / "cut", small()).run(train, val, resume=False, progress=killed))
    first: list[int] = []
    resumed = tuner(catalog, tmp_path / "cut", small())
    assert told(resumed.run(train, val, resume=True, progress=lambda *s: first.append(s[1]))) == wanted
    assert first[0] == len(train.items) // RECIPE.batch + 1
    assert bits(resumed.averaged) == bits(whole.averaged)


def test_a_checkpoint_that_is_not_this_runs_or_not_whole_is_passed_over(
    catalog: Catalog, tmp_path: Path
) -> None:
    train, val = parts(catalog)
    recipe = replace(RECIPE, epochs=2)
    place = tmp_path / "c"
    whole = tuner(catalog, place, small(), recipe)
    wanted = told(whole.run(train, val, resume=False, progress=silent))
    data = place.read_bytes()
    flipped = bytearray(data)
    flipped[-5] ^= 1

    def steps(resume: bool, identity: str = "this run") -> int:
        """How many steps are made anew."""
        counted: list[int] = []
        again = tuner(catalog, place, small(), recipe, identity=identity)
        epochs = told(again.run(train, val, resume=resume, progress=lambda *s: counted.append(s[1])))
        assert epochs == wanted
        assert bits(again.averaged) == bits(whole.averaged)
        return len(counted)

    every = 2 * (len(train.items) // recipe.batch)
    assert steps(resume=True) == 0
    assert steps(resume=False) == every
    for damaged in (data[: len(data) // 2], data[:-1], data[:7], b"", bytes(flipped), b"{}" * 99):
        place.write_bytes(damaged)
        assert steps(resume=True) == every
    place.unlink()
    assert steps(resume=True) == every
    assert steps(resume=True, identity="another run") == every


def test_two_streams_learn_what_one_learns(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    made = [
        tuner(catalog, tmp_path / str(streams), settled(catalog), frozen_norms=True, streams=streams)
        for streams in (1, 2, 3)
    ]
    runs = [told(one.run(train, val, resume=False, progress=silent)) for one in made]
    kept = weights_of(made[0].averaged)
    for one, epochs in zip(made[1:], runs[1:], strict=True):
        np.testing.assert_allclose([e[1] for e in epochs], [e[1] for e in runs[0]], rtol=1e-4)
        for name, value in weights_of(one.averaged).items():
            np.testing.assert_allclose(value, kept[name], rtol=0, atol=2e-4, err_msg=name)


def test_two_streams_give_the_same_bits_every_time(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    made = [
        tuner(catalog, tmp_path / str(i), small(), replace(RECIPE, epochs=1), streams=2) for i in range(2)
    ]
    runs = [told(one.run(train, val, resume=False, progress=silent)) for one in made]
    assert runs[0] == runs[1]
    assert bits(made[0].averaged) == bits(made[1].averaged)


def test_another_seed_sees_other_views(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    one, other = (
        told(
            tuner(catalog, tmp_path / str(seed), small(), replace(RECIPE, epochs=1), seed=seed).run(
                train, val, resume=False, progress=silent
            )
        )
        for seed in (0, 1)
    )
    assert one[0][1] != other[0][1]


@pytest.mark.parametrize("balance", [None, np.array([0.2, 1.0, 1.8], np.float32)])
@pytest.mark.parametrize("streams", [1, 2])
def test_one_step_goes_down_the_gradient_of_the_whole_batchs_weighted_loss(
    catalog: Catalog, tmp_path: Path, balance: NDArray[np.float32] | None, streams: int
) -> None:
    train, val = parts(catalog)
    n = len(train.items)
    plain = Augment(least_area=1.0, stretch=1.0, mirror=False, light=0.0, contrast=0.0)
    recipe = Tune(
        epochs=1, still=0, rate=0.1, lower=0.5, batch=n, momentum=0.0, decay=0.0, clip=1e9, augment=plain
    )
    start = settled(catalog)
    with torch.no_grad():
        start.layer("head").weight.mul_(100)  # confident and wrong: every layer has far to go
    before = weights_of(start)
    made = tuner(
        catalog, tmp_path / "c", start, recipe, class_weights=balance, frozen_norms=True, streams=streams
    )
    (epoch,) = made.run(train, val, resume=False, progress=silent)

    views = [Viewing(catalog, PRE, plain)(Job(item, (0, 0, i))) for i, item in enumerate(train.items)]
    levels = np.stack(views)  # type: ignore[arg-type]  # all of them decode
    theirs = module(start.net, before).eval().double()
    logits = theirs(torch.from_numpy(normalise(levels, PRE)).permute(0, 3, 1, 2).double())["logits"]
    each = torch.nn.functional.cross_entropy(logits, torch.from_numpy(train.truth), reduction="none")
    share = np.ones(n) if balance is None else balance[train.truth].astype(np.float64)
    loss = (each * torch.from_numpy(share)).sum() / n
    loss.backward()
    assert epoch.loss == pytest.approx(float(loss.detach()), rel=1e-4)
    after = weights_of(made.made)
    depth = {
        name: 0.1 * 0.5**i
        for i, name in enumerate(reversed([n.name for n in start.net.nodes if n.name != "pool"]))
    }
    for name, parameter in theirs.named_parameters():
        layer = name.removesuffix(".weight").removesuffix(".bias").removesuffix(".norm")
        wanted = before[name] - depth[layer] * parameter.grad.numpy()
        moved = float(np.abs(wanted - before[name]).max())
        np.testing.assert_allclose(after[name], wanted, rtol=0, atol=2e-3 * moved + 1e-6, err_msg=name)


def test_the_lowest_layers_stay_as_they_are_where_they_are_to(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    start = settled(catalog)
    before = weights_of(start)
    made = tuner(catalog, tmp_path / "c", start, replace(RECIPE, still=2, epochs=1), frozen_norms=True)
    list(made.run(train, val, resume=False, progress=silent))
    moved = {
        name.split(".norm")[0].rpartition(".weight")[0] or name
        for name, value in weights_of(made.made).items()
        if not (value == before[name]).all()
    }
    assert not any(name.startswith(("stem", "block1.depthwise")) for name in moved)
    assert any(name.startswith("block1.pointwise") for name in moved)
    assert any(name.startswith("block2") for name in moved)


def test_frozen_norms_keep_their_statistics(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    start = settled(catalog)
    before = weights_of(start)
    made = tuner(catalog, tmp_path / "c", start, replace(RECIPE, epochs=1), frozen_norms=True)
    list(made.run(train, val, resume=False, progress=silent))
    for name, value in weights_of(made.averaged).items():
        if "running" in name:
            np.testing.assert_allclose(value, before[name], rtol=1e-6, err_msg=name)


def test_bfloat16_learns_as_float32_does(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, val = parts(catalog)
    losses = {}
    for half in (False, True):
        monkeypatch.setattr(finetune, "half_is_native", lambda device, half=half: half)
        made = tuner(catalog, tmp_path / f"c{half}", small())
        losses[half] = [epoch.loss for epoch in made.run(train, val, resume=False, progress=silent)]
    assert losses[False] != losses[True]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0.1)


def test_a_picture_that_is_gone_is_left_out_and_one_of_the_validation_keeps_its_place(
    tmp_path: Path, catalog: Catalog
) -> None:
    train, val = parts(catalog)
    gone = replace(val.items[1], file="c0/gone.png")
    lost = Part([gone, *train.items[1:]], train.truth)
    made = tuner(catalog, tmp_path / "c", small(), replace(RECIPE, epochs=1))
    (epoch,) = made.run(
        lost, Part([val.items[0], gone, *val.items[2:]], val.truth), resume=False, progress=silent
    )
    assert np.isfinite(epoch.loss)
    rows = made.scores([val.items[0], gone, val.items[2]])
    np.testing.assert_allclose(rows[[0, 2]], made.scores([val.items[0], val.items[2]]), rtol=1e-4, atol=1e-5)


def test_without_validation_pictures_nothing_is_claimed_of_them(catalog: Catalog, tmp_path: Path) -> None:
    train, _ = parts(catalog)
    made = tuner(catalog, tmp_path / "c", small(), replace(RECIPE, epochs=1))
    (epoch,) = made.run(train, Part([], np.zeros(0, np.int64)), resume=False, progress=silent)
    assert epoch.val_accuracy is None
    again = tuner(catalog, tmp_path / "c", small(), replace(RECIPE, epochs=1))
    (epoch,) = again.run(train, Part([], np.zeros(0, np.int64)), resume=True, progress=silent)
    assert epoch.val_accuracy is None


def test_fewer_pictures_than_a_batch_are_one_step(catalog: Catalog, tmp_path: Path) -> None:
    train, val = parts(catalog)
    few = Part(train.items[:3], train.truth[:3])
    steps: list[int] = []
    made = tuner(
        catalog, tmp_path / "c", settled(catalog), replace(RECIPE, epochs=2), frozen_norms=True, streams=2
    )
    list(made.run(few, val, resume=False, progress=lambda *s: steps.append(s[1])))
    assert steps == [1, 2]
