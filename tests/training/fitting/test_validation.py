"""What says which epoch is kept."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from training.datasets.labelled import LabelledCrops
from training.fitting.validation import ValidationFigures, class_mean_log_loss

EVEN = np.zeros(2, np.float32)


def crops_of(label: np.ndarray) -> LabelledCrops:
    n = len(label)
    nothing = np.zeros(n, np.float32)
    return LabelledCrops(
        pixels=np.zeros((n, 4, 4, 1), np.uint8),
        context=np.zeros((n, 1), np.float32),
        label=label,
        group=label,
        box_px=nothing,
        ecd_um=nothing,
        field_radius=nothing,
        depth_um=nothing,
        um_per_px=nothing,
    )


def test_every_class_weighs_the_same() -> None:
    rng = np.random.default_rng(0)
    label = np.array([0] * 90 + [1] * 10)
    logits = rng.standard_normal((100, 2)).astype(np.float32)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    weight = np.where(label == 0, 1 / 90, 1 / 10)
    assert class_mean_log_loss(logits, label) == pytest.approx(log_loss(label, p, sample_weight=weight), rel=1e-5)
    found = ValidationFigures.of(logits, crops_of(label), log_prior=EVEN)
    assert found.accuracy == accuracy_score(label, logits.argmax(axis=1))
    assert found.macro_f1 == pytest.approx(f1_score(label, logits.argmax(axis=1), average="macro"))


def test_a_network_that_is_right_but_too_sure_beats_one_that_says_nothing() -> None:
    label = np.arange(40) % 2
    sure = np.where(np.eye(2)[label] > 0, 9.0, -9.0).astype(np.float32)
    sure[:8] *= -1  # a fifth is wrong
    crops = crops_of(label)
    silent = ValidationFigures.of(np.zeros((40, 2), np.float32), crops, log_prior=EVEN)
    assert class_mean_log_loss(sure, label) > silent.loss
    assert ValidationFigures.of(sure / 3, crops, log_prior=EVEN).loss < silent.loss == pytest.approx(np.log(2))


def test_the_mix_that_was_taught_is_taken_off() -> None:
    label = np.array([0, 1])
    leaning = np.array([[1.0, 0.0], [1.0, 0.5]], np.float32)  # taught nine of class 0 for one of class 1
    shift = -np.log(2 * np.array([0.9, 0.1])).astype(np.float32)
    assert ValidationFigures.of(leaning, crops_of(label), log_prior=EVEN).accuracy == 0.5
    found = ValidationFigures.of(leaning, crops_of(label), log_prior=shift)
    assert found.macro_f1 == found.accuracy == 1
    assert not np.isfinite(ValidationFigures.of(leaning * np.nan, crops_of(label), log_prior=EVEN).loss)
