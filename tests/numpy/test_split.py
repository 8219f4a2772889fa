"""Laws of the split: shares by class, groups on one side, own parts kept, the same on every machine."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenets.data.split import NEAR_BITS, near_duplicates, split

Ratio = tuple[int, int, int]
labels = st.lists(st.sampled_from("abcde"), min_size=1, max_size=120)
ratios = st.tuples(st.integers(1, 90), st.integers(0, 40), st.integers(0, 40))


def half_up(n: int, share: int, total: int) -> int:
    return int(np.floor(n * share / total + 0.5))


@given(labels, st.integers(0, 9))
def test_a_class_of_n_gives_a_tenth_rounded_to_test_and_to_val(names: list[str], seed: int) -> None:
    parts = split(names, range(len(names)), [None] * len(names), seed=seed)
    for label, n in Counter(names).items():
        found = Counter(part for part, name in zip(parts, names, strict=True) if name == label)
        assert found["test"] == found["val"] == half_up(n, 1, 10)
        assert found["train"] >= 1


@given(labels, ratios, st.integers(0, 9))
def test_any_ratio_is_met_within_what_train_must_keep(names: list[str], ratio: Ratio, seed: int) -> None:
    parts = split(names, range(len(names)), [None] * len(names), ratio, seed)
    for label, n in Counter(names).items():
        found = Counter(part for part, name in zip(parts, names, strict=True) if name == label)
        test, val = half_up(n, ratio[2], sum(ratio)), half_up(n, ratio[1], sum(ratio))
        assert found["test"] == min(test, n - 1)
        assert found["val"] == min(val, n - 1 - found["test"])


grouped = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 25)), min_size=1, max_size=100)


@given(grouped, ratios, st.integers(0, 9))
def test_groups_never_straddle_and_no_class_is_without_training(
    pictures: list[tuple[str, int]], ratio: Ratio, seed: int
) -> None:
    names, groups = [name for name, _ in pictures], [group for _, group in pictures]
    parts = split(names, groups, [None] * len(names), ratio, seed)
    sides, spread = defaultdict(set), defaultdict(set)
    for name, group, part in zip(names, groups, parts, strict=True):
        sides[group].add(part)
        spread[group].add(name)
    assert all(len(side) == 1 for side in sides.values())
    assert all(sides[group] == {"train"} for group, among in spread.items() if len(among) > 1)
    assert {name for name, part in zip(names, parts, strict=True) if part == "train"} == set(names)
    for label, n in Counter(names).items():
        taken = Counter(part for part, name in zip(parts, names, strict=True) if name == label)
        assert taken["test"] <= half_up(n, ratio[2], sum(ratio))
        assert taken["val"] <= half_up(n, ratio[1], sum(ratio))


@given(labels, st.integers(0, 9))
def test_the_same_seed_gives_the_same_split_and_other_classes_do_not_matter(
    names: list[str], seed: int
) -> None:
    parts = split(names, range(len(names)), [None] * len(names), seed=seed)
    assert parts == split(names, range(len(names)), [None] * len(names), seed=seed)
    more = [*names, "z", "z", "y"]
    assert split(more, range(len(more)), [None] * len(more), seed=seed)[: len(names)] == parts


def test_a_split_of_a_hundred_is_the_one_that_every_machine_gives() -> None:
    parts = split(["a", "b"] * 50, range(100), [None] * 100, seed=0)
    assert [i for i, part in enumerate(parts) if part == "test"] == [6, 13, 16, 24, 51, 64, 67, 71, 86, 91]
    assert hashlib.sha256(",".join(parts).encode()).hexdigest()[:16] == "f531a2e0e039a17f"
    assert parts != split(["a", "b"] * 50, range(100), [None] * 100, seed=1)


own = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["train", "val", "test"])), min_size=1, max_size=60
)


@given(own)
def test_own_parts_are_kept_where_all_three_are_there(pictures: list[tuple[str, str]]) -> None:
    names = [name for name, _ in pictures] + ["a", "a", "a"]
    parts = [part for _, part in pictures] + ["train", "val", "test"]
    assert split(names, [0] * len(names), parts) == parts


@given(own, st.integers(0, 3))
def test_a_missing_val_comes_from_train_and_test_is_untouched(
    pictures: list[tuple[str, str]], seed: int
) -> None:
    names = [name for name, _ in pictures] + ["a", "a"]
    parts = ["test" if part == "test" else "train" for _, part in pictures] + ["train", "test"]
    made = split(names, range(len(names)), parts, seed=seed)
    assert [part == "test" for part in made] == [part == "test" for part in parts]
    for label in set(names):
        n = sum(name == label and part == "train" for name, part in zip(names, parts, strict=True))
        val = sum(name == label and part == "val" for name, part in zip(names, made, strict=True))
        assert val == (min(half_up(n, 1, 10), n - 1) if n else 0)


def test_a_missing_test_is_the_given_val_and_a_new_val_comes_from_train() -> None:
    parts = ["train"] * 40 + ["val"] * 7
    made = split(["a"] * 47, range(47), parts)
    assert made[40:] == ["test"] * 7
    assert Counter(made[:40]) == {"train": 36, "val": 4}


def test_a_group_that_reaches_into_test_does_not_move_to_val() -> None:
    parts = ["train"] * 20 + ["test"] * 5
    groups = [0] * 10 + list(range(1, 11)) + [0] * 5
    made = split(["a"] * 25, groups, parts)
    assert made[:10] == ["train"] * 10
    assert made.count("val") == 2


def test_a_picture_without_a_part_beside_others_with_one_counts_as_train() -> None:
    assert split(["a"] * 4, range(4), ["train", "val", "test", None]) == ["train", "val", "test", "train"]


def test_a_train_part_alone_is_split_as_if_it_were_none() -> None:
    names = ["a"] * 30
    assert split(names, range(30), ["train"] * 30) == split(names, range(30), [None] * 30)


@pytest.mark.parametrize(
    ("parts", "ratio", "why"),
    [
        (["test", "test"], (80, 10, 10), "no train part, only test"),
        (["val", "test"], (80, 10, 10), "no train part, only test and val"),
        ([None, None], (0, 50, 50), "train's above"),
        ([None, None], (80, -10, 30), "shares are at least 0"),
        ([None], (80, 10, 10), "do not match"),
    ],
)
def test_what_cannot_be_split_is_refused(parts: list[str | None], ratio: Ratio, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        split(["a", "b"], [0, 1], parts, ratio)


def hashes(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


hash_lists = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=40)


@given(hash_lists, st.lists(st.tuples(st.integers(0, 39), st.integers(0, 62)), max_size=40))
def test_groups_are_the_pairs_within_reach_and_bounded(
    values: list[int], copies: list[tuple[int, int]]
) -> None:
    for index, bit in copies:  # a copy of a copy of a copy: chains
        values.append(values[index % len(values)] ^ (1 << bit))
    values += values[:1]
    groups = near_duplicates(hashes(values), [str(i) for i in range(len(values))])
    assert groups[0] == 0
    assert groups[-1] == groups[0], "the same hash"
    first: dict[int, int] = {}
    for value, group in zip(values, groups.tolist(), strict=True):
        leader = first.setdefault(group, value)
        assert (value ^ leader).bit_count() <= 2 * NEAR_BITS
    assert list(first) == sorted(first), "numbered by first member"


@given(hash_lists)
def test_equal_digests_are_one_group_whatever_the_hash(values: list[int]) -> None:
    groups = near_duplicates(hashes(values), ["same"] * len(values))
    assert set(groups.tolist()) == {0}


def test_a_long_chain_of_small_changes_is_no_single_group() -> None:
    values = [(1 << k) - 1 for k in range(63)]  # each one bit from the next, ends 62 apart
    groups = near_duplicates(hashes(values), [str(i) for i in range(63)])
    assert groups[0] != groups[-1]
    assert max(np.bincount(groups)) <= 2 * (2 * NEAR_BITS) + 1


def test_thumbnails_tell_apart_what_the_hash_does_not() -> None:
    random = np.random.default_rng(0)
    thumb = random.integers(60, 180, 192).astype(np.uint8)
    thumbs = np.stack([thumb, thumb + np.uint8(20), random.permutation(thumb)])
    groups = near_duplicates(hashes([5, 5, 5]), ["a", "b", "c"], thumbs)
    assert groups.tolist() == [0, 0, 1], "a brighter copy is a copy, other colours are not"


def test_flat_pictures_of_unlike_grey_are_not_one() -> None:
    thumbs = np.repeat(np.array([[0], [90], [180], [182]], np.uint8), 192, axis=1)
    assert near_duplicates(hashes([0] * 4), list("abcd"), thumbs).tolist() == [0, 1, 2, 2]


def test_blocks_find_the_same_pairs_as_a_plain_double_loop() -> None:
    random = np.random.default_rng(1)
    base = random.integers(0, 2**63, 700).astype(np.uint64)
    flips = np.array(
        [sum(1 << int(b) for b in random.choice(63, 3, replace=False)) for _ in range(700)], np.uint64
    )
    values = np.concatenate([base, base ^ flips, base[:100]])
    groups = near_duplicates(values, [str(i) for i in range(len(values))])
    assert (groups[:700] == groups[700:1400]).all()
    assert (groups[:100] == groups[1400:]).all()
    assert len(set(groups.tolist())) == 700
