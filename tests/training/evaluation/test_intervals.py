import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from training.evaluation.intervals import GroupTables, difference, scores_of_tables


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, called = np.array(pairs).T
    scores = scores_of_tables(GroupTables(truth, called, np.arange(len(truth)), classes=4, resamples=1).table)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, called, labels=range(4), zero_division=0.0, average=None
    )
    np.testing.assert_allclose([scores.precision, scores.recall, scores.f1], [precision, recall, f1])
    assert scores.support.tolist() == support.tolist()
    assert scores.macro_f1 == pytest.approx(f1[support > 0].mean())
    assert scores.accuracy == pytest.approx((truth == called).mean())
    assert scores.balanced_accuracy == pytest.approx(recall[support > 0].mean())


def test_an_interval_of_independent_pictures_is_the_binomial_one() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(900, int)
    called = (rng.random(900) < 0.3).astype(int)
    found = GroupTables(truth, called, np.arange(900), classes=2, resamples=4000).interval(lambda s: s.accuracy)[0]
    sd = np.sqrt(found.value * (1 - found.value) / 900)
    assert found.low == pytest.approx(found.value - 1.96 * sd, abs=0.004)
    assert found.high == pytest.approx(found.value + 1.96 * sd, abs=0.004)


def test_copies_of_a_picture_in_one_group_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(1)
    truth, called = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    once = GroupTables(truth, called, np.arange(200), classes=3, resamples=500)
    often = GroupTables(*(np.repeat(a, 10) for a in (truth, called, np.arange(200))), classes=3, resamples=500)
    for figure in (lambda s: s.macro_f1, lambda s: s.f1):
        assert once.interval(figure) == often.interval(figure)


def test_a_class_in_few_groups_is_judged_by_the_draws_that_have_it() -> None:
    truth = np.array([0, 0, 0, 0, 1])
    found = GroupTables(truth, truth, np.arange(5), classes=2).interval(lambda s: s.f1)
    assert [(r.low, r.high) for r in found] == [(1, 1), (1, 1)]


def test_a_rejected_particle_is_missed_but_wrongs_no_other_class() -> None:
    scores = scores_of_tables(np.array([[1, 0, 1], [0, 2, 0]]))
    assert scores.precision.tolist() == [1, 1]
    assert scores.recall.tolist() == [0.5, 1]


def test_a_difference_of_the_same_calls_is_none_and_of_better_ones_surely_positive() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 600)
    group = np.arange(600) // 4
    worse = np.where(rng.random(600) < 0.4, (truth + 1) % 3, truth)
    better = np.where(rng.random(600) < 0.2, (truth + 1) % 3, truth)
    a, b = (GroupTables(truth, called, group, classes=3) for called in (worse, better))
    (same,) = difference(a, a, lambda s: s.macro_f1)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    (gain,) = difference(b, a, lambda s: s.macro_f1)
    assert 0 < gain.low < gain.value < gain.high
    with pytest.raises(ValueError, match="not the same particles"):
        difference(a, GroupTables(truth[:4], worse[:4], group[:4], classes=3), lambda s: s.macro_f1)
