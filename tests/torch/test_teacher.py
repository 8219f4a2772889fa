"""A teacher is asked once of each view; what a student makes of it is the textbooks' formula."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed")

from mobilenets import training  # noqa: E402 - after the line that skips
from mobilenets.compiling import compile_model  # noqa: E402
from mobilenets.console import Reporter  # noqa: E402
from mobilenets.data import decoded  # noqa: E402
from mobilenets.data.decoded import ABANDONED_S, STALE_S  # noqa: E402
from mobilenets.data.mapped import Mapped  # noqa: E402
from mobilenets.infer.artefact import Artefact  # noqa: E402
from mobilenets.infer.walk import Walk  # noqa: E402
from mobilenets.model.module import module, random_weights  # noqa: E402
from mobilenets.spec import zoo  # noqa: E402
from mobilenets.spec.net import shapes, tensors  # noqa: E402
from mobilenets.spec.preprocess import SLIM  # noqa: E402
from mobilenets.spec.training import DistilOptions, RunOptions  # noqa: E402
from mobilenets.spec.views import Mixing, Views  # noqa: E402
from mobilenets.train import teacher as teachers  # noqa: E402
from mobilenets.train.teacher import MATCH, Asked, Teacher, asked, matched, objective, shown_to, unmatched  # noqa: E402

LABELS = ("a", "b", "c")
Rows = NDArray[np.float32]


def silent(stage: str, done: int, total: int) -> None:
    pass


def model(side: int = 32, seed: int = 0) -> Artefact:
    net = zoo.net("v1", 0.25, side, 3)
    weights = {
        key: value * np.float32(1.4) if key.endswith("norm.weight") else value
        for key, value in random_weights(net, seed).items()
    }
    draw = np.random.default_rng(seed)
    weights["head.weight"] = draw.normal(0, 1, weights["head.weight"].shape).astype(np.float32)
    return Artefact(net, weights, replace(SLIM, height=side, width=side), labels=LABELS)


def about(**more: Any) -> Asked:
    levels = np.random.default_rng(3).integers(0, 256, (21, 37, 37, 3), np.uint8)
    known = Asked(Mapped(levels, np.arange(21)), "pictures", Views(), (28, 28), 5, 2)
    return replace(known, **more)


class Counting:
    """A teacher that counts what it is asked; it says the mean of each colour."""

    def __init__(self) -> None:
        self.pictures = 0
        self._lock = threading.Lock()

    def __call__(self, levels: NDArray[np.uint8]) -> Mapping[str, Rows]:
        with self._lock:
            self.pictures += len(levels)
        return {"logits": levels.mean((1, 2), dtype=np.float32)}

    def teacher(self, digest: str = "counting") -> Teacher:
        return Teacher("a test's", digest, (32, 32), LABELS, self, 2)


def test_what_is_kept_is_what_the_teacher_says_of_the_students_views(tmp_path: Path) -> None:
    """The walk in numpy says it of the same views, picture by picture."""
    known, what = model(), about()
    found = asked(teachers.of_model(known, "cpu", 2), ["logits", "features"], what, tmp_path, silent)
    walk = Walk(known.net, known.weights)
    for view in range(2):
        which = np.array([20, 3, 7])
        levels = shown_to(teachers.of_model(known, "cpu", 1), what, which, view)
        expected = walk((levels.astype(np.float32) - 127.5) / 127.5)
        said = found(which, view)
        assert expected["logits"].std() > 0.1
        for name in ("logits", "features"):
            np.testing.assert_allclose(said[name].numpy(), expected[name], rtol=2e-3, atol=2e-3)
    assert not np.array_equal(found(which, 0)["logits"], found(which, 1)["logits"])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_a_file_a_torch_module_and_a_compiled_library_teach_the_same(tmp_path: Path) -> None:
    """The library as the command takes it."""
    known, what, which = model(), about(), np.arange(21)
    made = module(known.net, known.weights)
    compile_model(known, tmp_path / "c", silent, name="known")
    (library,) = (tmp_path / "c").glob("*.so")
    kinds = [
        teachers.of_model(known, "cpu", 1),
        training._teacher(str(library), RunOptions(threads=1), Reporter(), tmp_path),
    ]
    kinds += [
        teachers.of_module(one, LABELS, known.preprocess, digest)
        for one, digest in ((made, "a"), (Logits(made), "b"))
    ]
    told = []
    for kind in kinds:
        assert kind.labels == LABELS
        told.append(asked(kind, ["logits"], what, tmp_path / "said", silent)(which, 1)["logits"])
    assert len(list((tmp_path / "said").glob("*.npy"))) == 4
    assert float(told[0].std()) > 0.1
    for one in told[1:]:
        torch.testing.assert_close(one, told[0], rtol=2e-3, atol=2e-3)


class Logits(torch.nn.Module):  # type: ignore[misc,name-defined]  # torch is imported or skipped
    """A network that gives a tensor and no mapping, as most do."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        return self.inner(x)["logits"]


def test_a_teacher_is_asked_again_only_of_what_it_was_not_asked(tmp_path: Path) -> None:
    counting = Counting()
    teacher = counting.teacher()

    def new(what: Asked, of: Teacher = teacher) -> int:
        before = counting.pictures
        asked(of, ["logits"], what, tmp_path, silent)
        return counting.pictures - before

    padded = 2 * 16  # pictures of a view, in full batches
    assert new(about()) == 2 * padded
    assert new(about()) == 0
    assert new(about(views=Views(mix=Mixing(mixup=0.2)))) == 0  # mixing comes after
    assert new(about(seed=6)) == 2 * padded
    assert new(about(content="others")) == 2 * padded
    assert new(about(views=Views(light=0.0))) == 2 * padded
    assert new(about(count=3)) == 3 * padded
    assert new(about(), counting.teacher("another")) == 2 * padded
    assert new(about()) == 0


def test_answers_that_are_cut_short_are_asked_anew_and_what_a_kill_left_goes(tmp_path: Path) -> None:
    """What was written to within a day may be what another process is writing, where there are no locks."""
    counting = Counting()
    first = np.array(asked(counting.teacher(), ["logits"], about(), tmp_path, silent).kept["logits"])
    (path,) = tmp_path.glob("said-*.npy")
    whole = path.read_bytes()
    left = tmp_path / f".{path.name}.abc.part"
    left.write_bytes(b"what a kill left")
    other = tmp_path / f".{path.name}.def.part"
    other.write_bytes(b"what another writes")
    long_ago = time.time() - ABANDONED_S - 60
    os.utime(left, (long_ago, long_ago))
    for content in (whole[: len(whole) // 2], b"", b"no array"):
        path.write_bytes(content)
        again = asked(counting.teacher(), ["logits"], about(), tmp_path, silent)
        assert np.array_equal(again.kept["logits"], first)
    assert path.read_bytes() == whole
    assert sorted(one.name for one in tmp_path.iterdir()) == [other.name, path.name]


def test_answers_that_were_long_of_no_use_make_room_for_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting()

    def say(seed: int) -> Path:
        before = set(tmp_path.glob("said-*.npy"))
        asked(counting.teacher(), ["logits"], about(seed=seed), tmp_path, silent)
        return min(set(tmp_path.glob("said-*.npy")) - before, default=tmp_path)

    used, unused = say(1), say(2)
    pictures = tmp_path / "decoded-0123.npy"
    pictures.write_bytes(b"as old")
    long_ago = time.time() - STALE_S - 60
    for path in (used, unused, pictures):
        os.utime(path, (long_ago, long_ago))
    say(1)  # is of use again
    say(3)
    assert unused.exists()
    monkeypatch.setattr(decoded.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    say(4)
    assert used.exists()
    assert not unused.exists()
    assert not pictures.exists()
    assert counting.pictures == 4 * 2 * 32


@pytest.mark.skipif(sys.platform != "linux", reason="it tells a process what files it has mapped")
@pytest.mark.parametrize("fails", [False, True])
def test_no_file_is_mapped_while_it_is_put_in_place_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """Windows does neither to one that is."""
    moved: list[str] = []

    def told(path: object) -> None:
        if str(path).endswith(".part"):
            assert str(path) not in Path("/proc/self/maps").read_text()
            moved.append(str(path))

    real, gone = os.replace, Path.unlink
    monkeypatch.setattr(os, "replace", lambda one, other: (told(one), real(one, other)))
    monkeypatch.setattr(Path, "unlink", lambda self, **how: (told(self), gone(self, **how)))
    counting = Counting()

    def ask(levels: NDArray[np.uint8]) -> Mapping[str, Rows]:
        found = counting(levels)["logits"] * (np.nan if fails and counting.pictures > 40 else 1)
        return {"logits": found, "features": found}

    taught = Teacher("", "x", (32, 32), LABELS, ask)
    with pytest.raises(ValueError, match="no numbers") if fails else nullcontext():
        asked(taught, ["logits", "features"], about(), tmp_path, silent)
    assert len(set(moved)) == 2


def test_a_file_system_that_reserves_nothing_keeps_answers_and_a_full_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(number: int) -> Callable[..., None]:
        def reserve(*where: int) -> None:
            raise OSError(number, os.strerror(number))

        return reserve

    first = np.array(asked(Counting().teacher(), ["logits"], about(), tmp_path, silent).kept["logits"])
    for number in (errno.EOPNOTSUPP, errno.EINVAL):
        monkeypatch.setattr(os, "posix_fallocate", refuses(number), raising=False)
        place = tmp_path / str(number)
        again = asked(Counting().teacher(), ["logits"], about(), place, silent)
        assert np.array_equal(again.kept["logits"], first)
    for number, message in ((errno.ENOSPC, "make room"), (errno.EIO, os.strerror(errno.EIO))):
        monkeypatch.setattr(os, "posix_fallocate", refuses(number), raising=False)
        place = tmp_path / str(number)
        with pytest.raises(OSError, match=message) as error:
            asked(Counting().teacher(), ["logits"], about(), place, silent)
        assert ("make room" in str(error.value)) is (number == errno.ENOSPC)
        assert list(place.iterdir()) == []


def test_two_that_want_the_same_ask_once(tmp_path: Path) -> None:
    counting = Counting()
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(asked, counting.teacher(), ["logits"], about(), tmp_path, silent) for _ in range(2)
        ]
        one, two = (job.result() for job in jobs)
    assert counting.pictures == 2 * 32
    assert np.array_equal(one.kept["logits"], two.kept["logits"])


def test_an_asking_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing(levels: NDArray[np.uint8]) -> Mapping[str, Rows]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asked(Teacher("", "x", (32, 32), LABELS, failing), ["logits"], about(), tmp_path, silent)
    assert list(tmp_path.iterdir()) == []
    for value, message in ((np.nan, "no numbers"), (1e6, "too large"), (0.0, "but no features")):
        told = {"logits": np.full((16, 3), value, np.float32)}
        wanted = ["logits"] if value else ["features"]
        with pytest.raises(ValueError, match=message):
            asked(
                Teacher("", "x", (32, 32), LABELS, lambda levels, t=told: t),
                wanted,
                about(),
                tmp_path,
                silent,
            )  # type: ignore[misc]  # bound here
        assert list(tmp_path.iterdir()) == []


def test_a_larger_teacher_sees_the_window_that_a_small_student_is_shown(tmp_path: Path) -> None:
    """What is cut out of small pictures without resampling is resized for it."""
    what = about(views=Views(shift=2, light=0, contrast=0), size=(36, 36))
    teacher = Counting().teacher()
    large = replace(teacher, size=(72, 72))
    same = replace(teacher, size=(36, 36))
    which = np.arange(5)
    own, seen = shown_to(same, what, which, 0), shown_to(large, what, which, 0)
    assert seen.shape == (5, 72, 72, 3)
    shrunk = seen.reshape(5, 36, 2, 36, 2, 3).mean((2, 4))
    assert np.corrcoef(shrunk.ravel(), own.ravel())[0, 1] > 0.8
    assert abs(np.corrcoef(shrunk[:, :, ::-1].ravel(), own.ravel())[0, 1]) < 0.1


def test_soft_targets_are_hintons(tmp_path: Path) -> None:
    """(1 − w) · cross entropy + w · T² · Σ p log(p / q), p and q at temperature T (arXiv:1503.02531)."""
    draw = np.random.default_rng(0)
    told, said = draw.normal(0, 3, (2, 6, 3))
    truth = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    options = DistilOptions(teacher="t", temperature=3.0, teacher_weight=0.7)

    def soft(z: NDArray[np.float64]) -> NDArray[np.float64]:
        made = np.exp(z - z.max(1, keepdims=True))
        return np.asarray(made / made.sum(1, keepdims=True))

    p, q = soft(told / 3), soft(said / 3)
    expected = 0.3 * -(truth * np.log(soft(said))).sum() + 0.7 * 9 * (p * np.log(p / q)).sum()
    made = objective(options, Counting().teacher(), 1.0)
    given = {"classes": torch.from_numpy(truth), "logits": torch.from_numpy(told)}
    assert float(made({"logits": torch.from_numpy(said)}, given)) == pytest.approx(expected, rel=1e-6)


def test_features_are_matched_by_their_error_and_by_what_the_teachers_head_makes_of_them() -> None:
    draw = np.random.default_rng(1)
    told, said = draw.normal(0, 1, (2, 4, 5))
    weight, bias = draw.normal(0, 1, (3, 5)), draw.normal(0, 1, 3)
    logits = draw.normal(0, 1, (4, 3))
    options = DistilOptions(teacher="t", distil="features", temperature=2.0, teacher_weight=1.0)
    given = {"classes": torch.ones(4, 3) / 3, "features": torch.from_numpy(told)}
    outputs = {"logits": torch.from_numpy(logits), MATCH: torch.from_numpy(said)}
    without = objective(options, Counting().teacher(), 2.5)
    square = ((said - told) ** 2).sum() / 2.5
    assert float(without(outputs, given)) == pytest.approx(square, rel=1e-6)
    known = replace(Counting().teacher(), head=(weight, bias))  # type: ignore[arg-type]  # in float64
    one, two = (
        np.exp(z / 2) / np.exp(z / 2).sum(1, keepdims=True)
        for z in (told @ weight.T + bias, said @ weight.T + bias)
    )
    expected = square + 4 * (one * np.log(one / two)).sum()
    assert float(objective(options, known, 2.5)(outputs, given)) == pytest.approx(expected, rel=1e-6)


def test_the_matching_layer_comes_and_goes() -> None:
    net = zoo.net("v1", 0.25, 32, 3)
    assert shapes(matched(net, 77))[MATCH].channels == 77
    assert unmatched(matched(net, 77)) == net
    same = matched(net, 256)
    assert set(tensors(same)) == set(tensors(net))
    assert unmatched(same) == net


def test_a_teacher_of_other_classes_is_refused_in_words() -> None:
    options = DistilOptions(teacher="t")
    teacher = Counting().teacher()
    teachers.refused(teacher, options, ["a", "b", "c"])
    for labels, message in (
        (["a", "b", "x", "y"], "it lacks x, y and has c"),
        (["b", "a", "c"], "another order"),
    ):
        with pytest.raises(ValueError, match=message):
            teachers.refused(teacher, options, labels)
        teachers.refused(teacher, replace(options, distil="features"), labels)
    with pytest.raises(ValueError, match="knows no classes"):
        teachers.refused(replace(teacher, labels=()), options, ["a", "b", "c"])
