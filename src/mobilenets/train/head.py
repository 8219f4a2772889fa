"""The classifier on frozen features: logistic regression, its strength chosen on the validation part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import minimize, minimize_scalar

from mobilenets.infer.decode import softmax
from mobilenets.infer.score import log_loss, top
from mobilenets.train.blas import one_blas_thread

Matrix = NDArray[np.float32]
Truth = NDArray[np.int64]

FIRST_C, STEP_C = 1.0, 10.0
GENTLE_C, GENTLE_STEP_C = 0.03, 10**0.5
LEAST_C, MOST_C = 1e-5, 1e3
TOLERANCE, ROUGH = 1e-5, 5e-5
MANY, THINNED = 2000, 4
MOST_STEPS = 200
KEPT_KNOWN = 0.95
FOLDS = 4
SHARES = (0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Head:
    """Logits x @ weight.T + bias of features x [n, channels]; weight [classes, channels], bias [classes]."""

    weight: Matrix
    bias: Matrix

    def __call__(self, x: Matrix) -> Matrix:
        return np.asarray(x @ self.weight.T + self.bias, np.float32)

    def cooled(self, temperature: float) -> Head:
        """The head whose logits are these divided by `temperature`: same answers, other confidence."""
        return Head(self.weight / np.float32(temperature), self.bias / np.float32(temperature))


@dataclass(frozen=True, slots=True)
class Chosen:
    """The head that won on the validation part, and all that was tried: (C, accuracy, loss when cooled)."""

    head: Head
    c: float
    tried: Sequence[tuple[float, float, float]]


class Regression:
    """Multinomial logistic regression on one training set, for several strengths C.

    Minimises mean cross-entropy + |W|² / (2 C n), features divided by their root mean square so that C means
    the same for every body; the bias goes free. L-BFGS (scipy), preconditioned by the Cholesky factor of the
    loss' curvature at even scores: a third of the steps that plain L-BFGS needs. The first fit to many
    pictures begins where a rough fit to a quarter of them ends: a fifth fewer steps in all (Caltech-101).
    """

    def __init__(self, x: Matrix, truth: Truth, classes: int, class_weights: Matrix | None = None) -> None:
        self._n, self._classes = len(x), classes
        self._scale = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) or 1.0
        self._mean = (x / self._scale).mean(axis=0)
        self._x = x / self._scale - self._mean
        self._hot = np.eye(classes, dtype=np.float32)[truth]
        self._truth = truth
        share = np.ones(len(x), np.float32) if class_weights is None else class_weights[truth]
        self._share = (share / share.sum())[:, None]
        self._curvature = (self._x.T @ (self._x * self._share)).astype(np.float64) / classes
        self._turned: tuple[NDArray[np.float64], Matrix, Matrix, Matrix] | None = None
        self._fitted: dict[float, NDArray[np.float64]] = {}

    def _turn(self, penalty: float) -> tuple[NDArray[np.float64], Matrix, Matrix, Matrix]:
        """The coordinates of the first fit, which serve the others: another penalty bends them but little."""
        # Features that depend on one another leave eigenvalues of float32's rounding, some below nothing. The
        # factor only changes coordinates, so a little more on its diagonal moves no optimum.
        lift = penalty + float(np.finfo(np.float32).eps * np.trace(self._curvature))
        channels = len(self._curvature)
        factor = np.linalg.cholesky(self._curvature + lift * np.eye(channels))
        inverse = solve_triangular(factor, np.eye(channels), lower=True).astype(np.float32)
        return factor, inverse, self._x @ inverse.T, inverse @ inverse.T

    def fit(self, c: float) -> Head:
        """The head for strength `c`, starting from the nearest one fitted."""
        penalty = 1.0 / (c * self._n)
        channels = self._x.shape[1]
        if self._turned is None:
            self._turned = self._turn(penalty)
        factor, inverse, z, gram = self._turned
        ridge = np.float32(penalty) * gram
        spread = np.float32(np.sqrt(self._classes))  # the bias on the scale of the other coordinates

        def loss(flat: NDArray[np.float64], every: int) -> tuple[float, NDArray[np.float64]]:
            v = flat.astype(np.float32).reshape(self._classes, channels + 1)
            some, share = z[::every], every * self._share[::every]
            logits = some @ v[:, :-1].T + v[:, -1] * spread
            logits -= logits.max(axis=1, keepdims=True)
            scores = np.exp(logits)
            total = scores.sum(axis=1, keepdims=True)
            own = logits[np.arange(len(some)), self._truth[::every]][:, None]
            value = float(((np.log(total) - own) * share).sum(dtype=np.float64))
            scores /= total
            scores -= self._hot[::every]
            scores *= share
            shrunk = v[:, :-1] @ ridge
            slope = np.empty(v.shape)
            slope[:, :-1] = scores.T @ some + shrunk
            slope[:, -1] = scores.sum(axis=0) * spread
            return value + 0.5 * float((v[:, :-1] * shrunk).sum(dtype=np.float64)), slope.ravel()

        start = np.zeros((self._classes, channels + 1))
        if self._fitted:
            near = self._fitted[min(self._fitted, key=lambda known: abs(np.log(known / c)))]
            start[:, :-1] = near[:, :-1] @ factor
            start[:, -1] = near[:, -1] / spread
        # scipy's wheels bring a BLAS of their own, whose idle threads spin on the cores that numpy's need: on
        # two cores a fit takes 2.7 times as long. Where the two share one BLAS nothing is done.
        at = start.ravel()
        with one_blas_thread("scipy.libs"):
            for every, tolerance in ((THINNED, ROUGH), (1, TOLERANCE)):
                if every == 1 or (self._n >= MANY and not self._fitted):
                    options = {"maxiter": MOST_STEPS, "ftol": tolerance, "gtol": 1e-8}
                    at = minimize(loss, at, (every,), jac=True, method="L-BFGS-B", options=options).x
        v = at.reshape(self._classes, channels + 1)
        weight, bias = v[:, :-1] @ inverse, v[:, -1] * float(spread)
        self._fitted[c] = np.concatenate([weight, bias[:, None]], axis=1)
        return Head(
            (weight / self._scale).astype(np.float32), (bias - weight @ self._mean).astype(np.float32)
        )


def choose(
    regression: Regression,
    x: Matrix,
    truth: Truth,
    progress: Callable[[int], None] = lambda tried: None,
    *,
    gentle: bool = False,
) -> Chosen:
    """Walk C up and down from its usual value while the validation part is answered better.

    Better is more right answers and, among equally many, less loss when cooled: loss alone would choose heads
    that are ten to a hundred times as shy and half a point less right (Caltech-101). Such a head, of least
    loss, is what `gentle` asks for: a body that learns from the gradients of a sure one learns worse.
    Without a validation part the usual value is taken.
    """
    first, step = (GENTLE_C, GENTLE_STEP_C) if gentle else (FIRST_C, STEP_C)
    if len(x) == 0:
        return Chosen(regression.fit(first), first, ())
    heads: dict[float, Head] = {}
    tried: dict[float, tuple[float, float, float]] = {}

    def attempt(c: float) -> tuple[float, float]:
        heads[c] = regression.fit(c)
        right, loss = _worth(heads[c](x), truth)
        tried[c] = (c, right, loss)
        progress(len(tried))
        return (-loss, right) if gentle else (right, -loss)

    chosen, best = first, attempt(first)
    for way in (1, -1):
        power = way
        while LEAST_C < (c := first * step**power) < MOST_C:
            worth = attempt(c)
            if worth <= best:
                break
            chosen, best, power = c, worth, power + way
        if chosen > first:
            break  # it got better upwards: downwards was passed already
    return Chosen(heads[chosen], chosen, sorted(tried.values()))


def settled(tuned: Head, fresh: Head, x: Matrix, truth: Truth) -> tuple[Head, float]:
    """The head after fine-tuning, and the share of `fresh` in it: none, half or all.

    `tuned` was learned with the body from strayed views, `fresh` was fitted to plain ones through the body as
    it came out. The mean of the two (each cooled) is a head like any other, and mostly answers better than
    either; the loss on the validation part x [n, channels] decides. Without one `tuned` stays.
    """
    if len(x) == 0:
        return tuned, 0.0
    one, other = (head.cooled(temperature(head(x), truth)) for head in (tuned, fresh))
    mixed = {
        share: Head(
            np.asarray((1 - share) * one.weight + share * other.weight, np.float32),
            np.asarray((1 - share) * one.bias + share * other.bias, np.float32),
        )
        for share in SHARES
    }
    share = min(mixed, key=lambda share: _worth(mixed[share](x), truth)[1])
    return mixed[share], share


def _worth(logits: Matrix, truth: Truth) -> tuple[float, float]:
    """Accuracy, and loss when cooled."""
    scores = softmax(logits / np.float32(temperature(logits, truth)))
    return top(scores, truth), log_loss(scores, truth)


def temperature(logits: Matrix, truth: Truth) -> float:
    """The T that gives softmax(logits / T) the least loss (arXiv:1706.04599, 4.2); 1 without pictures.

    The truth counts (n + 1) / (n + 2), as in Platt's scaling (1999): twenty right answers of twenty must not
    make a model certain.
    """
    n, classes = logits.shape
    if n == 0 or classes < 2:
        return 1.0
    right = (n + 1) / (n + 2)

    def loss(log_t: float) -> float:
        cooled = logits.astype(np.float64) / np.exp(log_t)
        cooled -= cooled.max(axis=1, keepdims=True)
        told = cooled - np.log(np.exp(cooled).sum(axis=1, keepdims=True))
        own = told[np.arange(n), truth]
        return -float((right * own + (1 - right) * (told.sum(axis=1) - own) / (classes - 1)).mean())

    found = minimize_scalar(
        loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x))


def balanced(truth: Truth, classes: int) -> Matrix:
    """A weight for each class that gives every class the same say: n / (classes · its count)."""
    counts = np.maximum(np.bincount(truth, minlength=classes), 1)
    return (len(truth) / (classes * counts)).astype(np.float32)


def rejection(logits: Matrix, truth: Truth) -> float | None:
    """What the greatest logit must reach for `KEPT_KNOWN` of the right answers [n, classes] to stay.

    A wrong answer is no loss when it is turned away. None without pictures.
    """
    greatest, right = logits.max(axis=1), logits.argmax(axis=1) == truth
    counted = greatest[right] if right.any() else greatest
    return float(np.quantile(counted, 1 - KEPT_KNOWN)) if len(counted) else None


def turned_away(
    x: Matrix,
    truth: Truth,
    others: Matrix,
    others_truth: Truth,
    *,
    c: float,
    class_weights: bool,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> float | None:
    """Share of strangers that a head turns away, measured with classes that it has never seen.

    In turn each quarter of the classes is left out of training (`x`), and its pictures among `others` are
    strangers; the rest of `others` sets temperature and threshold, as the validation part does for the head
    that is kept. None where there are too few classes or pictures to tell.
    """
    if len(others) == 0 or (classes := int(max(truth.max(), others_truth.max())) + 1) < 2 * FOLDS:
        return None
    fold = np.random.default_rng(seed).permutation(classes) % FOLDS
    below: list[NDArray[np.bool_]] = []
    for number in range(FOLDS):
        progress(number, FOLDS)
        stay = np.flatnonzero(fold != number)
        renumbered = np.full(classes, -1)
        renumbered[stay] = np.arange(len(stay))
        seen, strangers = fold[truth] != number, fold[others_truth] == number
        own = renumbered[truth[seen]]
        weights = balanced(own, len(stay)) if class_weights else None
        head = Regression(x[seen], own, len(stay), weights).fit(c)
        known, known_truth = others[~strangers], renumbered[others_truth[~strangers]]
        head = head.cooled(temperature(head(known), known_truth))
        threshold = rejection(head(known), known_truth)
        if threshold is not None:
            below.append(head(others[strangers]).max(axis=1) < threshold)
    told = np.concatenate(below) if below else np.zeros(0)
    return float(told.mean()) if len(told) else None
