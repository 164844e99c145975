import numpy as np
import pytest
from sklearn.metrics import f1_score

from edge_app.classification.rejection import Rejection, decide
from training.augment import augment_batch
from training.datasets.labelled import LabelledCrops
from training.evaluation.calibration import expected_calibration_error, find_temperature
from training.evaluation.crop_figures import evaluate_crops
from training.evaluation.rejection import choose_rejection, composition_error
from training.evaluation.scores import confusion_shares, macro_f1


def test_macro_f1_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, called = rng.integers(0, 5, 400), rng.integers(0, 5, 400)
    assert macro_f1(truth, called, 5) == pytest.approx(f1_score(truth, called, average="macro"))


def test_a_rejected_particle_is_missed_but_wrongs_no_other_class() -> None:
    truth = np.array([0, 0, 1, 1])
    assert macro_f1(truth, np.array([0, 2, 1, 1]), 2) == pytest.approx((2 / 3 + 1) / 2)


def test_temperature_of_overconfident_logits_is_found() -> None:
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 1.5, (20_000, 4))
    p = np.exp(honest) / np.exp(honest).sum(axis=1, keepdims=True)
    label = (p.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert find_temperature((3 * honest).astype(np.float32), label) == pytest.approx(3, rel=0.06)


def test_calibration_error_of_honest_and_of_boastful_confidence() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.3, 1, 50_000).astype(np.float32)
    right = rng.random(50_000) < confidence
    assert expected_calibration_error(confidence, right) < 0.01
    assert expected_calibration_error(np.ones(1000, np.float32), np.arange(1000) % 2 == 0) == pytest.approx(0.5)


def test_confusion_rows_sum_to_one_and_hold_unknown_last() -> None:
    table = confusion_shares(np.array([0, 0, 0, 1]), np.array([0, 2, 1, 1]), 2)
    assert table.tolist() == [[pytest.approx(1 / 3)] * 3, [0, 1, 0]]


def test_composition_error_is_the_share_in_the_wrong_place() -> None:
    assert composition_error(np.array([0.5, 0.5]), np.array([0.7, 0.3])) == pytest.approx(0.2)


def test_rejection_is_chosen_where_it_helps_the_composition_and_left_off_where_not() -> None:
    rng = np.random.default_rng(3)
    label = rng.integers(0, 3, 3000)
    sure = np.full((3000, 3), 0.01, np.float32)
    sure[np.arange(3000), label] = 0.98
    unsure = rng.dirichlet((400, 400, 400), 500).astype(np.float32)
    rule, figures = choose_rejection(sure, label, unsure)
    assert rule.minimum_probability > 0.33
    assert figures["composition_error_with"] < 0.5 * figures["composition_error_without"]
    alike = sure[:500]
    rule, figures = choose_rejection(sure, label, alike)
    assert rule.minimum_probability == 0
    assert figures["composition_error_with"] == figures["composition_error_without"]


def labelled(pixels: np.ndarray, context: np.ndarray, **columns: np.ndarray) -> LabelledCrops:
    n = len(pixels)
    values = {
        "label": np.zeros(n, np.int64),
        "group": np.arange(n),
        "box_px": np.full(n, 9, np.float32),
        "ecd_um": np.full(n, 6, np.float32),
        "field_radius": np.full(n, 0.5, np.float32),
        "depth_um": np.zeros(n, np.float32),
        "um_per_px": np.full(n, 1.33, np.float32),
        **columns,
    }
    return LabelledCrops(pixels=pixels, context=context, **values)


def test_turning_and_mirroring_keeps_every_pixel_and_reaches_all_eight_ways() -> None:
    picture = np.repeat(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1), 200, axis=0)
    context = np.zeros((200, 4), np.float32)
    out = augment_batch(labelled(picture, context), np.random.default_rng(0)).pixels
    assert all(sorted(p.ravel()) == list(range(16)) for p in out)
    assert len({p.tobytes() for p in out}) == 8
    context[:, 3] = 1  # the place is known: the crop is turned outward already
    assert np.array_equal(augment_batch(labelled(picture, context), np.random.default_rng(0)).pixels, picture)


def test_figures_by_size_and_oil_against_the_rest() -> None:
    n = 40
    label = np.arange(n) % 2
    p = np.full((n, 2), 0.1, np.float32)
    p[np.arange(n), label] = 0.9
    p[0] = (0.2, 0.8)
    crops = labelled(
        np.zeros((n, 4, 4, 1), np.uint8),
        np.zeros((n, 4), np.float32),
        label=label,
        ecd_um=np.where(np.arange(n) < 20, 6, 20).astype(np.float32),
    )
    figures = evaluate_crops(decide(p, rejection=Rejection()), crops, ("silicone_oil", "rest"))
    assert figures["by_size_um"]["15-70"]["macro_f1"] == 1
    assert figures["by_size_um"]["5-8"]["macro_f1"] < 1
    assert figures["by_size_um"]["8-15"]["particles"] == 0
    assert figures["oil_against_rest"]["recall_oil"] == pytest.approx(0.95)
    assert figures["per_class"]["rest"]["precision"] == pytest.approx(20 / 21, abs=1e-4)
