"""Accuracy, its interval, confusion and calibration are what can be worked out by hand, or by others."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.infer import score

THREE = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]], np.float32)


def drawn(n: int, classes: int, seed: int) -> tuple[score.Scores, score.Truth]:
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (n, classes))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores.astype(np.float32), draw.integers(0, classes, n)


def test_top_counts_the_truth_among_the_best_k() -> None:
    truth = np.array([0, 2, 0, 1])
    assert score.top(THREE, truth) == 1 / 4
    assert score.top(THREE, truth, 2) == 3 / 4
    assert score.top(THREE, truth, 3) == 1.0
    assert score.top(THREE, truth, 5) == 1.0  # more than there are classes


def test_a_tie_counts_against_the_truth() -> None:
    even = np.full((2, 4), 0.25, np.float32)
    truth = np.array([0, 3])
    assert [score.top(even, truth, k) for k in (1, 3, 4)] == [0.0, 0.0, 1.0]


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6), st.integers(0, 999))
def test_top_is_what_sorting_says(n: int, classes: int, k: int, seed: int) -> None:
    scores, truth = drawn(n, classes, seed)
    firsts = np.argsort(-scores, axis=1)[:, :k]
    hits = [own in first for own, first in zip(truth, firsts, strict=True)]
    assert score.top(scores, truth, k) == pytest.approx(np.mean(hits))


def test_nothing_measured_is_not_a_number() -> None:
    none, truth = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    assert np.isnan(score.top(none, truth))
    assert np.isnan(score.calibration_error(none, truth))
    assert score.interval(0.5, 0) == (0.0, 1.0)


def test_the_interval_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: 81/263, 15/148, 0/20 and 1/29.
    for right, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert score.interval(right / n, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 5000), st.data())
def test_the_interval_is_scipys(n: int, data: st.DataObject) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    right = data.draw(st.integers(0, n))
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert score.interval(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_confusion_counts_true_by_answered() -> None:
    truth = np.array([0, 2, 0, 1])
    assert score.confusion(THREE, truth).tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert score.confusion(THREE[:0], truth[:0]).tolist() == [[0, 0, 0]] * 3


def test_calibration_error_by_hand() -> None:
    # Two bins. Lower: scores .4 and .3, one right: |.35 − .5|. Upper: .9 and .8, both right: |.85 − 1|.
    best = np.array([0.4, 0.3, 0.9, 0.8])
    scores = np.stack([best, (1 - best) / 3, (1 - best) / 3, (1 - best) / 3], axis=1).astype(np.float32)
    truth = np.array([0, 2, 0, 0])
    rows = score.reliability(scores, truth, 2)
    np.testing.assert_allclose(rows, [[2, 0.35, 0.5], [2, 0.85, 1.0]], rtol=1e-6)
    assert score.calibration_error(scores, truth, 2) == pytest.approx(0.15, rel=1e-6)


def test_a_score_of_one_belongs_to_the_last_bin_and_empty_bins_count_nothing() -> None:
    scores = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    rows = score.reliability(scores, np.array([0, 0]))
    assert rows[-1].tolist() == [2, 1.0, 0.5]
    assert not rows[:-1].any()
    assert score.calibration_error(scores, np.array([0, 0])) == 0.5


@given(st.integers(1, 60), st.integers(2, 5), st.integers(0, 999))
def test_calibration_error_is_that_of_a_plain_loop(n: int, classes: int, seed: int) -> None:
    scores, truth = drawn(n, classes, seed)
    total = 0.0
    for number in range(score.BINS):
        inside = [
            (float(row.max()), row.argmax() == own)
            for row, own in zip(scores, truth, strict=True)
            if min(int(row.max() * score.BINS), score.BINS - 1) == number
        ]
        if inside:
            gap = np.mean([best for best, _ in inside]) - np.mean([right for _, right in inside])
            total += len(inside) / n * abs(gap)
    assert score.calibration_error(scores, truth) == pytest.approx(total, abs=1e-6)


def test_log_loss_is_the_mean_negative_log_of_the_truths_score_and_stays_finite() -> None:
    truth = np.array([0, 2, 0, 1])
    wanted = -(log(0.7) + log(0.3) + log(0.2) + log(0.35)) / 4
    assert score.log_loss(THREE, truth) == pytest.approx(wanted, rel=1e-6)
    assert score.log_loss(np.array([[1.0, 0.0]], np.float32), np.array([1])) == pytest.approx(-log(1e-12))
