import numpy as np
import pytest

from edge_app.classification.batches import batch_sizes
from edge_app.classification.rejection import Rejection, decide, probabilities_of


def test_probabilities_sum_to_one_and_temperature_softens() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (50, 7)).astype(np.float32)
    sharp, soft = probabilities_of(logits, temperature=1.0), probabilities_of(logits, temperature=3.0)
    assert np.allclose(sharp.sum(axis=1), 1, atol=1e-6)
    assert (sharp.max(axis=1) >= soft.max(axis=1)).all()
    assert (sharp.argmax(axis=1) == soft.argmax(axis=1)).all()


def test_huge_logits_do_not_overflow() -> None:
    p = probabilities_of(np.array([[1e4, 0, -1e4]], np.float32), temperature=0.5)
    assert p.tolist() == [[1.0, 0.0, 0.0]]


def test_prior_moves_the_class_by_bayes() -> None:
    shift = np.log(np.array([0.9, 0.1], np.float32))
    p = probabilities_of(np.zeros((1, 2), np.float32), temperature=1.0, log_prior=shift)
    assert p[0].tolist() == pytest.approx([0.9, 0.1], abs=1e-6)


def test_unsure_is_unknown_and_keeps_the_confidence_of_its_best_class() -> None:
    p = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]], np.float32)
    result = decide(p, rejection=Rejection(minimum_probability=0.7))
    assert result.class_index.tolist() == [2, 0, 1]
    assert result.confidence.tolist() == pytest.approx([0.6, 0.9, 0.8])
    assert result.class_index.dtype == np.int16


def test_far_from_every_prototype_is_unknown_however_sure() -> None:
    p = np.array([[0.99, 0.01], [0.99, 0.01]], np.float32)
    result = decide(
        p,
        rejection=Rejection(maximum_distance=(1.0, 1.0)),
        embedding=np.array([[0.0, 0.5], [5.0, 5.0]], np.float32),
        prototypes=np.zeros((2, 2), np.float32),
    )
    assert result.class_index.tolist() == [0, 2]


@pytest.mark.parametrize("n", [*range(1, 200), 1000])
@pytest.mark.parametrize("largest", [1, 8, 64])
def test_batches_hold_all_crops_in_few_calls_of_allowed_sizes(n: int, largest: int) -> None:
    parts = batch_sizes(n, largest)
    assert sum(count for count, _ in parts) == n
    for count, batch in parts:
        assert 1 <= count <= batch <= largest
        assert batch & (batch - 1) == 0
        assert batch - count <= batch // 4
