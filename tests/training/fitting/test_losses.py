"""Losses against closed forms and scikit-learn."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from training.fitting.losses import class_losses, novelty_loss, size_loss

RNG = np.random.default_rng(3)
LOGITS = (3 * RNG.standard_normal((40, 4))).astype(np.float32)
LABEL = np.concatenate([np.arange(4), RNG.integers(0, 4, 36)])
TARGET = np.eye(4, dtype=np.float32)[LABEL]
P = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)


def test_cross_entropy_is_that_of_scikit_learn() -> None:
    assert float(np.mean(class_losses(LOGITS, TARGET))) == pytest.approx(log_loss(LABEL, P), rel=1e-5)


def test_generalised_cross_entropy_lies_between_cross_entropy_and_absolute_error() -> None:
    nearly = class_losses(LOGITS, TARGET, robust_q=1e-4).numpy()
    np.testing.assert_allclose(nearly, class_losses(LOGITS, TARGET).numpy(), rtol=2e-3, atol=1e-3)
    absolute = class_losses(LOGITS, TARGET, robust_q=1.0).numpy()
    np.testing.assert_allclose(absolute, np.abs(P - TARGET).sum(axis=1) / 2, rtol=1e-4, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(q=st.floats(0.1, 1.0), margin=st.floats(3.0, 12.0))
def test_a_label_that_all_contradict_pulls_less_than_in_cross_entropy(q: float, margin: float) -> None:
    logits = tf.Variable([[margin, 0.0]])
    pulls = []
    for robust in (0.0, q):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(class_losses(logits, tf.constant([[0.0, 1.0]]), robust_q=robust))
        pulls.append(float(np.abs(tape.gradient(loss, logits)).max()))
    # dL/dz = -p^q (1 - p) against -(1 - p)
    p = 1 / (1 + np.exp(margin))
    assert pulls[1] == pytest.approx(pulls[0] * p**q, rel=1e-3)


def test_size_is_learned_only_where_the_truth_is_known() -> None:
    said = tf.constant([[1.0, 0.0, 0.5, 0.0], [9.0, 0.0, 9.0, 0.0]])
    truth = tf.constant([[3.0, 0.5], [np.nan, np.nan]])
    # 0.5 * 2^2 for the size, no error in depth, nothing from the second; mean over both
    assert float(size_loss(said, truth)) == pytest.approx(1.0)


def test_novelty_is_the_cross_entropy_of_one_logit() -> None:
    said, strange = np.array([[2.0], [-1.0]], np.float32), np.array([1.0, 0.0], np.float32)
    p = 1 / (1 + np.exp(-said[:, 0]))
    assert float(novelty_loss(said, strange)) == pytest.approx(log_loss(strange, p), rel=1e-5)
