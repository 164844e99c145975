"""Calibration, class mix and rejection: what is made of calibrated probabilities."""

import numpy as np
import pytest

from edge_app.classification.rejection import probabilities_of
from training.evaluation.calibration import at_temperature, expected_calibration_error, reliability
from training.evaluation.prevalence import METHODS, absolute_error, mix_errors, relative_error
from training.evaluation.rejection import composition_errors


def honest(mix: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and exact posteriors under equal shares, of normal scores."""
    truth = rng.choice(len(mix), size=n, p=mix)
    score = rng.normal(size=(n, len(mix))) + 1.6 * np.eye(len(mix))[truth]
    return truth, probabilities_of((1.6 * score).astype(np.float32), temperature=1.0)


def test_another_temperature_is_found_without_the_logits() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (200, 5)).astype(np.float32)
    prior = np.array([0.6, 0, 0, -0.3, 0], np.float32)
    p = probabilities_of(logits, temperature=0.8, log_prior=prior)
    again = at_temperature(p, temperature=0.8, log_prior=prior, new=1.7)
    np.testing.assert_allclose(again, probabilities_of(logits, temperature=1.7, log_prior=prior), atol=1e-5)


def test_every_particle_is_in_one_bin_of_the_reliability_diagram() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0, 1, 1000).astype(np.float32)
    confidence[0] = 1.0
    right = rng.random(1000) < confidence
    bins = reliability(confidence, right)
    assert sum(b.particles for b in bins) == 1000
    assert all(b.low <= b.confidence <= b.high for b in bins)
    assert sum(b.right * b.particles for b in bins) == pytest.approx(right.sum())
    own = sum(b.particles / 1000 * abs(b.confidence - b.right) for b in bins)
    assert expected_calibration_error(confidence, right) == pytest.approx(own)


def test_errors_of_shares_are_those_of_quapy() -> None:
    error = pytest.importorskip("quapy.error")
    rng = np.random.default_rng(2)
    true, found = rng.dirichlet(np.ones(6), 40), rng.dirichlet(np.ones(6), 40)
    assert absolute_error(true, found).mean() == pytest.approx(error.mae(true, found))
    for size in (50, 500):
        ours = relative_error(true, found, smoothing=1 / (2 * size)).mean()
        assert ours == pytest.approx(error.mrae(true, found, eps=1 / (2 * size)))


def test_corrections_are_those_of_quapy_on_samples_of_the_protocol() -> None:
    aggregative = pytest.importorskip("quapy.method.aggregative")
    rng = np.random.default_rng(3)
    truth, p = honest(np.full(4, 0.25), 8000, rng)
    called = p.argmax(axis=1)
    confusion = np.zeros((4, 5))
    np.add.at(confusion, (truth, called), 1)
    found = mix_errors(truth, called, p, confusion=confusion + 1e-9, assumed_prior=np.full(4, 0.25), mixes=15)
    # The same draws again, each solved by quapy.
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(truth == c) for c in range(4)]
    for k in range(15):
        counts = rng.multinomial(500, rng.dirichlet(np.ones(4)))
        drawn = np.concatenate([rng.choice(r, size=n) for r, n in zip(rows, counts, strict=True)])
        np.testing.assert_allclose(found.true[k], np.bincount(truth[drawn], minlength=4) / 500)
        prior, _ = aggregative.EMQ.EM(np.full(4, 0.25), p[drawn].astype(float), epsilon=1e-8)
        np.testing.assert_allclose(found.found["emq"][k], prior, atol=2e-3)
        shares = np.bincount(called[drawn], minlength=4) / 500
        exact = np.linalg.solve((confusion[:, :4] / confusion.sum(axis=1, keepdims=True)).T, shares)
        if (exact > 0.01).all():
            np.testing.assert_allclose(found.found["acc"][k], exact, atol=1e-4)
    assert found.mae("emq").mean() < 0.5 * found.mae("count").mean()
    assert set(found.found) == set(METHODS)


def test_a_class_that_does_not_occur_is_in_no_sample() -> None:
    rng = np.random.default_rng(4)
    truth, p = honest(np.array([0.5, 0.5, 0.0]), 600, rng)
    found = mix_errors(truth, p.argmax(axis=1), p, confusion=np.eye(3, 4) + 0.01, assumed_prior=np.ones(3) / 3, mixes=5)
    assert (found.true[:, 2] == 0).all()
    np.testing.assert_allclose(found.true.sum(axis=1), 1)


def test_composition_error_of_perfect_calls_is_the_share_of_unknown_or_nothing() -> None:
    label = np.repeat(np.arange(3), 50)
    blind, seeing = np.zeros(40, int), np.full(40, 3)
    shares = (0.0, 0.1, 0.2)
    errors = composition_errors(label, [(label, blind), (label, seeing)], classes=3, unknown_shares=shares)
    np.testing.assert_allclose(errors, [[0.0, 0.1, 0.2], [0.0, 0.0, 0.0]], atol=1e-12)
    # Rejecting everything reports nothing but unknown: wrong by all that is known.
    all_gone = composition_errors(label, [(np.full(150, 3), seeing)], classes=3, unknown_shares=shares)
    np.testing.assert_allclose(all_gone, [[1.0, 0.9, 0.8]])
