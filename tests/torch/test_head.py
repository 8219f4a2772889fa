"""The head on frozen features is the textbook's: its optimum, its weights, its temperature, its choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

scipy_optimize = pytest.importorskip("scipy.optimize", reason="scipy is not installed")

from mobilenets.infer.decode import softmax  # noqa: E402 - after the line that skips where there is no scipy
from mobilenets.infer.score import log_loss, top  # noqa: E402
from mobilenets.train import head as heads  # noqa: E402

Matrix = NDArray[np.float32]
Truth = NDArray[np.int64]


def cloud(
    n: int, channels: int, classes: int, seed: int = 0, apart: float = 1.0
) -> tuple[Matrix, Truth, Matrix, Truth]:
    """Features as relu gives them, of unlike size and correlated, classes of unlike size; two such sets."""
    draw = np.random.default_rng(seed)
    mix = draw.normal(0, 1, (channels, channels)) / np.sqrt(channels)
    sizes = draw.lognormal(0, 1, channels)
    centres = apart * draw.normal(0, 1, (classes, channels))
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()

    def some() -> tuple[Matrix, Truth]:
        truth = np.concatenate([np.arange(classes), draw.choice(classes, n - classes, p=shares)])
        x = np.maximum(centres[truth] + draw.normal(0, 1, (n, channels)) @ mix + 0.5, 0) * sizes
        return x.astype(np.float32), truth.astype(np.int64)

    return *some(), *some()


def objective(x: Matrix, truth: Truth, classes: int, c: float, shares: NDArray[np.float64]) -> object:
    """Mean cross-entropy + |W|² / (2 C n) in float64 as textbooks have it, features of root mean square 1."""
    n, channels = x.shape
    scaled = x.astype(np.float64) / np.sqrt(np.mean(np.square(x, dtype=np.float64)))
    hot = np.eye(classes)[truth]

    def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w = flat.reshape(classes, channels + 1)
        logits = scaled @ w[:, :-1].T + w[:, -1]
        logits -= logits.max(axis=1, keepdims=True)
        log_scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        error = (np.exp(log_scores) - hot) * shares[:, None]
        slope = np.concatenate([error.T @ scaled, error.sum(axis=0)[:, None]], axis=1)
        slope[:, :-1] += w[:, :-1] / (c * n)
        loss = -(log_scores[np.arange(n), truth] * shares).sum() + np.square(w[:, :-1]).sum() / (2 * c * n)
        return float(loss), slope.ravel()

    return value


def optimum(
    x: Matrix, truth: Truth, classes: int, c: float, shares: NDArray[np.float64]
) -> tuple[float, heads.Head]:
    """The least value there is, by plain L-BFGS run to the end, and its head."""
    found = scipy_optimize.minimize(
        objective(x, truth, classes, c, shares),
        np.zeros(classes * (x.shape[1] + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 20000, "ftol": 1e-14, "gtol": 1e-9},
    )
    w = found.x.reshape(classes, -1)
    scale = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
    return float(found.fun), heads.Head((w[:, :-1] / scale).astype(np.float32), w[:, -1].astype(np.float32))


def worth(
    head: heads.Head, x: Matrix, truth: Truth, classes: int, c: float, shares: NDArray[np.float64]
) -> float:
    scale = np.sqrt(np.mean(np.square(x, dtype=np.float64)))
    flat = np.concatenate([head.weight.astype(np.float64) * scale, head.bias[:, None]], axis=1).ravel()
    value: float = objective(x, truth, classes, c, shares)(flat)[0]  # type: ignore[operator]
    return value


@pytest.mark.parametrize("c", [0.001, 0.03, 1.0, 30.0])
@pytest.mark.parametrize(("n", "channels", "classes"), [(400, 12, 3), (60, 40, 5), (150, 7, 2)])
def test_a_fit_reaches_the_least_value_of_the_textbooks_objective(
    n: int, channels: int, classes: int, c: float
) -> None:
    x, truth, other, _ = cloud(n, channels, classes, apart=0.5)
    even = np.full(n, 1 / n)
    least, theirs = optimum(x, truth, classes, c, even)
    ours = heads.Regression(x, truth, classes).fit(c)
    value = worth(ours, x, truth, classes, c, even)
    # A strength off by a tenth misses these bounds. Where next to nothing is asked of the weights
    # the bottom is flat, and the fit may stop a little earlier.
    loose = 8 if c > 1 else 1
    assert value - least < loose * 1e-4 * least
    assert np.abs(softmax(ours(other)) - softmax(theirs(other))).mean() < loose * 8e-4
    assert (ours(other).argmax(1) == theirs(other).argmax(1)).mean() > 0.97


def test_a_fit_that_starts_from_another_strength_ends_in_the_same_place() -> None:
    x, truth, other, _ = cloud(300, 10, 4)
    fresh = heads.Regression(x, truth, 4).fit(0.1)
    warm = heads.Regression(x, truth, 4)
    for c in (100.0, 0.001):
        warm.fit(c)
    np.testing.assert_allclose(softmax(warm.fit(0.1)(other)), softmax(fresh(other)), atol=0.03)


def test_the_scale_of_features_does_not_matter() -> None:
    x, truth, other, _ = cloud(200, 8, 3)
    one = heads.Regression(x, truth, 3).fit(0.03)
    thousand = heads.Regression(1024 * x, truth, 3).fit(0.03)
    np.testing.assert_allclose(thousand(1024 * other), one(other), rtol=1e-3, atol=1e-3)


def test_class_weights_give_the_optimum_of_the_weighted_objective() -> None:
    x, truth, _, _ = cloud(500, 10, 4, apart=0.3)
    balance = heads.balanced(truth, 4)
    shares = balance[truth].astype(np.float64)
    shares /= shares.sum()
    for number in range(4):  # every class has the same say
        assert shares[truth == number].sum() == pytest.approx(0.25, rel=1e-5)
    least, _ = optimum(x, truth, 4, 0.1, shares)
    weighted = heads.Regression(x, truth, 4, balance).fit(0.1)
    plain = heads.Regression(x, truth, 4).fit(0.1)
    assert worth(weighted, x, truth, 4, 0.1, shares) - least < 2e-3 * least
    assert worth(plain, x, truth, 4, 0.1, shares) > 1.05 * least  # else the test would say nothing


def test_weights_of_a_class_count_as_copies_of_its_pictures() -> None:
    truth = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(heads.balanced(truth, 2), [8 / 12, 8 / 4])
    assert heads.balanced(truth, 3).shape == (3,)  # a class without pictures is no division by nothing


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_say_nothing_leave_the_shares_of_the_classes(value: float) -> None:
    truth = np.array([0, 0, 0, 1])
    head = heads.Regression(np.full((4, 3), value, np.float32), truth, 2).fit(1.0)
    np.testing.assert_allclose(softmax(head(np.full((1, 3), value, np.float32)))[0], [0.75, 0.25], atol=0.01)


@pytest.mark.parametrize("c", [1.0, 1000.0])
def test_features_that_are_sums_of_others_can_be_fitted_at_any_strength(c: float) -> None:
    draw = np.random.default_rng(0)
    x = (draw.normal(0, 1, (3000, 3)) @ draw.normal(0, 1, (3, 256))).astype(np.float32)
    truth = (x[:, 0] > 0).astype(np.int64)
    assert top(softmax(heads.Regression(x, truth, 2).fit(c)(x)), truth) > 0.98


def test_choose_gives_the_best_of_what_it_tried_and_has_passed_it_on_both_sides() -> None:
    for apart in (0.05, 0.3, 2.0):
        x, truth, other, other_truth = cloud(300, 20, 4, apart=apart)
        counted: list[int] = []
        chosen = heads.choose(heads.Regression(x, truth, 4), other, other_truth, counted.append)
        worth = {c: (accuracy, -loss) for c, accuracy, loss in chosen.tried}
        assert counted == list(range(1, len(worth) + 1))
        assert worth[chosen.c] == max(worth.values())
        ordered = sorted(worth)
        assert heads.FIRST_C in ordered
        inside = ordered[1:-1]
        assert chosen.c in inside or not heads.LEAST_C * heads.STEP_C < chosen.c < heads.MOST_C / heads.STEP_C
        # What is told of the winner is what the winner does.
        logits = chosen.head(other)
        cooled = softmax(logits / np.float32(heads.temperature(logits, other_truth)))
        accuracy, loss = next(t[1:] for t in chosen.tried if t[0] == chosen.c)
        assert (accuracy, loss) == pytest.approx((top(cooled, other_truth), log_loss(cooled, other_truth)))


def test_noise_is_shrunk_more_than_what_can_be_learned() -> None:
    x, truth, other, other_truth = cloud(200, 30, 3, apart=2.0)
    learned = heads.choose(heads.Regression(x, truth, 3), other, other_truth)
    shuffled = np.random.default_rng(1).permutation(truth)
    noise = heads.choose(heads.Regression(x, shuffled, 3), other, other_truth)
    assert noise.c < learned.c


def test_the_settled_head_is_the_tuned_one_the_fresh_one_or_their_mean_as_validation_has_it() -> None:
    x, truth, other, other_truth = cloud(300, 20, 4, apart=0.5)
    good = heads.Regression(x, truth, 4).fit(1.0)
    noise = heads.Head(*(np.random.default_rng(0).normal(0, 1, part.shape).astype(np.float32)
                         for part in (good.weight, good.bias)))  # fmt: skip
    answers = good(other).argmax(axis=1)
    for tuned, fresh, share in ((good, noise, 0.0), (noise, good, 1.0)):
        head, found = heads.settled(tuned, fresh, other, other_truth)
        assert found == share
        assert (head(other).argmax(axis=1) == answers).all()
    halves = [x[:, :10], x[:, 10:]]  # each head has seen half of the channels: together they know more
    parts = [heads.Regression(half, truth, 4).fit(1.0) for half in halves]
    none = np.zeros((4, 10), np.float32)
    tuned = heads.Head(np.hstack([parts[0].weight, none]), parts[0].bias)
    fresh = heads.Head(np.hstack([none, parts[1].weight]), parts[1].bias)
    head, found = heads.settled(tuned, fresh, other, other_truth)
    assert found == 0.5
    alone = max(top(part(other), other_truth) for part in (tuned, fresh))
    assert top(head(other), other_truth) > alone
    assert heads.settled(tuned, fresh, other[:0], other_truth[:0]) == (tuned, 0.0)


def test_without_validation_pictures_the_usual_strength_is_taken() -> None:
    x, truth, _, _ = cloud(50, 5, 2)
    chosen = heads.choose(heads.Regression(x, truth, 2), x[:0], truth[:0])
    assert (chosen.c, chosen.tried) == (heads.FIRST_C, ())
    assert heads.temperature(chosen.head(x[:0]), truth[:0]) == 1.0


def test_the_temperature_is_the_one_that_scores_were_drawn_at() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(0, 2, (4000, 5)).astype(np.float32)
    scores = softmax(logits)
    truth = (scores.cumsum(axis=1) < draw.random((4000, 1))).sum(axis=1).clip(0, 4)
    for true in (0.25, 1.0, 3.0):
        assert heads.temperature(logits * np.float32(true), truth) == pytest.approx(true, rel=0.08)


def test_a_cooled_head_gives_the_same_answers_with_logits_over_the_temperature() -> None:
    x, truth, other, _ = cloud(80, 6, 3)
    head = heads.Regression(x, truth, 3).fit(0.1)
    np.testing.assert_allclose(head.cooled(2.5)(other), head(other) / 2.5, rtol=1e-4, atol=1e-5)


def test_twenty_right_answers_of_twenty_do_not_make_a_model_certain() -> None:
    logits = np.tile(np.float32([8, 0, 0]), (20, 1))
    t = heads.temperature(logits, np.zeros(20, np.int64))
    # By Platt's target of (n + 1) / (n + 2).
    assert softmax(logits[:1] / np.float32(t))[0, 0] == pytest.approx(21 / 22, abs=0.002)


def test_ninety_five_of_a_hundred_known_pictures_reach_the_threshold() -> None:
    best = np.linspace(-2, 9, 1000).astype(np.float32)
    logits, truth = np.stack([best, best - 1], axis=1), np.zeros(1000, np.int64)
    threshold = heads.rejection(logits, truth)
    assert threshold is not None
    assert (logits.max(axis=1) >= threshold).mean() == pytest.approx(0.95, abs=0.001)
    doubtful = np.full((400, 2), -3, np.float32)
    doubtful[:, 0] = -4
    more = np.concatenate([logits, doubtful]), np.concatenate([truth, truth[:400]])
    assert heads.rejection(*more) == threshold  # what is answered wrongly may be turned away
    assert heads.rejection(logits, 1 - truth) == threshold  # none is right: what there is
    assert heads.rejection(logits[:0], truth[:0]) is None


SEEN: dict[str, Any] = {"class_weights": False, "seed": 0}


def test_strangers_that_look_like_no_class_are_turned_away_and_others_as_seldom_as_the_known() -> None:
    # Each class has a channel of its own; a head that lacks a class sees nothing but noise in its pictures.
    draw = np.random.default_rng(0)

    def some(n: int, own: float) -> tuple[Matrix, Truth]:
        truth = np.arange(n) % 8
        return (own * np.eye(8)[truth] + draw.normal(0, 0.3, (n, 8))).astype(np.float32), truth

    (x, truth), (other, other_truth) = some(400, 5), some(160, 5)
    away = heads.turned_away(x, truth, other, other_truth, c=1.0, **SEEN)
    assert away is not None
    assert away > 0.99
    assert away == heads.turned_away(x, truth, other, other_truth, c=1.0, **SEEN)
    alike = heads.turned_away(*some(400, 0), *some(1600, 0), c=1.0, **SEEN)
    assert alike == pytest.approx(0.05, abs=0.02)


def test_too_few_classes_or_pictures_tell_nothing_of_strangers() -> None:
    x, truth, other, other_truth = cloud(80, 6, 7)
    assert heads.turned_away(x, truth, other, other_truth, c=0.1, **SEEN) is None
    x, truth, other, other_truth = cloud(80, 6, 8)
    assert heads.turned_away(x, truth, other[:0], other_truth[:0], c=0.1, class_weights=False, seed=0) is None
