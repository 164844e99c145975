"""No group in two folds, classes in their share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.errors import UserError
from training.fitting.folds import group_folds


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), groups=st.integers(6, 20), folds=st.integers(2, 8))
def test_a_group_is_in_one_fold_and_no_fold_is_empty(seed: int, groups: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.full(int(rng.integers(4, 30)), k) for k in range(groups)])
    label = np.arange(len(group)) % 2  # every group holds both classes
    fold = group_folds(label, group, folds=folds, seed=seed, classes=("a", "b"))
    assert all(len(np.unique(fold[group == g])) == 1 for g in range(groups))
    assert sorted(np.unique(fold).tolist()) == list(range(min(folds, groups)))
    assert np.array_equal(fold, group_folds(label, group, folds=folds, seed=seed, classes=("a", "b")))


def test_classes_are_in_every_fold_in_their_share_where_groups_allow() -> None:
    label = np.repeat([0, 0, 0, 0, 1] * 10, 6)
    group = np.repeat(np.arange(50), 6)
    fold = group_folds(label, group, folds=5, seed=1, classes=("common", "rare"))
    assert [int((label[fold == k] == 1).sum()) for k in range(5)] == [12] * 5


@pytest.mark.parametrize(
    ("label", "group", "folds", "said"),
    [
        ([0, 1, 0, 1], ["a", "a", "a", "a"], 5, "1 group, at least 2"),
        ([0, 1, 0, 1], ["a", "a", "b", "b"], 1, "--folds is 1"),
        ([0, 0, 0, 1], ["a", "b", "c", "c"], 3, "class rare: all its pictures are in one group"),
    ],
)
def test_what_cannot_be_folded_is_refused(label: list[int], group: list[str], folds: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        group_folds(np.array(label), np.array(group), folds=folds, seed=1, classes=("common", "rare"))
