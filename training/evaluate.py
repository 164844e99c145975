"""Figures of a classifier on labelled crops: by class, by size, calibration, composition, oil against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.classification.rejection import Classification, Rejection, decide
from training.datasets.labelled import LabelledCrops

__all__ = [
    "SIZE_BINS_UM",
    "choose_rejection",
    "composition_error",
    "confusion_shares",
    "evaluate_crops",
    "expected_calibration_error",
    "find_temperature",
    "macro_f1",
    "nearest_prototypes",
]

F4 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]

SIZE_BINS_UM = ((5.0, 8.0), (8.0, 15.0), (15.0, 70.0))


def _scores(truth: Ints, called: Ints, classes: int) -> tuple[npt.NDArray[np.float64], ...]:
    hit = np.array([np.sum((truth == c) & (called == c)) for c in range(classes)], float)
    have = np.array([np.sum(truth == c) for c in range(classes)], float)
    named = np.array([np.sum(called == c) for c in range(classes)], float)
    recall = np.divide(hit, have, out=np.zeros(classes), where=have > 0)
    precision = np.divide(hit, named, out=np.zeros(classes), where=named > 0)
    total = recall + precision
    f1 = np.divide(2 * recall * precision, total, out=np.zeros(classes), where=total > 0)
    return recall, precision, f1, have


def macro_f1(truth: Ints, called: Ints, classes: int) -> float:
    """Mean F1 over the classes that occur; a particle called unknown counts as missed.

    Examples
    --------
    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 2)
    0.8333333333333333
    """
    _, _, f1, have = _scores(truth, called, classes)
    return float(f1[have > 0].mean()) if (have > 0).any() else float("nan")


def confusion_shares(truth: Ints, called: Ints, classes: int) -> npt.NDArray[np.float64]:
    """Rows true class, columns called class then unknown; each row sums to 1 (0 where a class does not occur)."""
    table = np.zeros((classes, classes + 1))
    known = truth >= 0
    np.add.at(table, (truth[known], called[known]), 1)
    return np.divide(table, table.sum(axis=1, keepdims=True), out=table, where=table.sum(axis=1, keepdims=True) > 0)


def expected_calibration_error(confidence: F4, right: npt.NDArray[np.bool_], *, bins: int = 15) -> float:
    """Mean distance of confidence and share right over bins of equal width, weighted by their particles."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        rows = index == b
        if rows.any():
            error += rows.mean() * abs(float(confidence[rows].mean()) - float(right[rows].mean()))
    return float(error)


def find_temperature(logits: F4, label: Ints) -> float:
    """Temperature between 0.3 and 4 with the least negative log likelihood."""
    rows = np.arange(len(label))

    def loss(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[rows, label]))

    grid = np.geomspace(0.3, 4.0, 60)
    return float(grid[int(np.argmin([loss(t) for t in grid]))])


def composition_error(reported: npt.NDArray[np.float64], true: npt.NDArray[np.float64]) -> float:
    """Half the sum of absolute differences of two compositions (Bray-Curtis for shares), 0 to 1."""
    return float(0.5 * np.abs(reported - true).sum())


def nearest_prototypes(embedding: F4, label: Ints, classes: int) -> F4:
    """Mean embedding of each class, shape (C, E)."""
    return np.stack([embedding[label == c].mean(axis=0) for c in range(classes)]).astype(np.float32)


def choose_rejection(
    known: F4,
    label: Ints,
    unknown: F4,
    *,
    unknown_share: float = 0.10,
    highest: float = 0.36,
    mixes: int = 60,
    seed: int = 0,
) -> tuple[Rejection, dict[str, float]]:
    """Probability below which a particle is called unknown, by the error of the reported composition.

    Parameters
    ----------
    known, unknown : ndarray of float32 (n, C), (m, C)
        Calibrated probabilities of crops of the classes, and of families outside them.
    label : ndarray of int (n,)
    unknown_share : float
        Share of unknown particles in the mixes.
    highest : float
        No threshold above it is tried: what is lost to ``unknown`` above it is mostly small silicone oil.
    mixes : int
        Random class mixes (flat Dirichlet) to average over.
    seed : int

    Returns
    -------
    rule : Rejection
    figures : dict
        Composition error without and with it.
    """
    classes = known.shape[1]
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(classes), size=mixes) * (1 - unknown_share)
    true = np.column_stack([shares, np.full(mixes, unknown_share)])

    def error(threshold: float) -> float:
        rule = Rejection(minimum_probability=threshold)
        table = confusion_shares(label, decide(known, rejection=rule).class_index, classes)
        stray = np.bincount(decide(unknown, rejection=rule).class_index, minlength=classes + 1) / len(unknown)
        reported = shares @ table + unknown_share * stray
        return float(np.mean([composition_error(r, t) for r, t in zip(reported, true, strict=True)]))

    grid = np.round(np.arange(0.0, highest + 1e-9, 0.02), 2)
    errors = [error(float(t)) for t in grid]
    best = int(np.argmin(errors))
    rule = Rejection(minimum_probability=float(grid[best]))
    return rule, {"composition_error_without": round(errors[0], 4), "composition_error_with": round(errors[best], 4)}


def evaluate_crops(result: Classification, crops: LabelledCrops, classes: Sequence[str]) -> dict[str, Any]:
    """All figures of a classifier on crops of its classes.

    Parameters
    ----------
    result : Classification
        In the order of ``crops``.
    crops : LabelledCrops
        Labels 0 to C-1; sizes in um may be NaN.
    classes : sequence of str

    Returns
    -------
    dict
        Plain numbers, ready for JSON.
    """
    n = len(classes)
    truth, called = crops.label, result.class_index.astype(int)
    best = result.probabilities.argmax(axis=1)
    recall, precision, f1, have = _scores(truth, called, n)
    figures: dict[str, Any] = {
        "particles": len(crops),
        "macro_f1": round(macro_f1(truth, called, n), 4),
        "macro_f1_without_rejection": round(macro_f1(truth, best, n), 4),
        "rejected_share": round(float((called == n).mean()), 4),
        "expected_calibration_error": round(expected_calibration_error(result.confidence, best == truth), 4),
        "per_class": {
            name: {
                "particles": int(have[c]),
                "recall": round(float(recall[c]), 4),
                "precision": round(float(precision[c]), 4),
                "f1": round(float(f1[c]), 4),
            }
            for c, name in enumerate(classes)
        },
    }
    known_size = np.isfinite(crops.ecd_um)
    if known_size.any():
        figures["macro_f1_from_5_um"] = _part(truth, called, best, crops.ecd_um >= 5, n)
        figures["by_size_um"] = {
            f"{low:g}-{high:g}": _part(truth, called, best, (crops.ecd_um >= low) & (crops.ecd_um < high), n)
            for low, high in SIZE_BINS_UM
        }
    if np.isfinite(crops.field_radius).any():
        figures["by_field_radius"] = {
            f"{low:g}-{high:g}": _part(
                truth, called, best, (crops.field_radius >= low) & (crops.field_radius < high) & (crops.ecd_um >= 5), n
            )
            for low, high in ((0.0, 0.35), (0.35, 0.65), (0.65, 1.01))
        }
    if "silicone_oil" in classes:
        oil = list(classes).index("silicone_oil")
        figures["oil_against_rest"] = _binary(truth == oil, called == oil)
        if known_size.any():
            rows = crops.ecd_um >= 5
            figures["oil_against_rest_from_5_um"] = _binary(truth[rows] == oil, called[rows] == oil)
    return figures


def _part(truth: Ints, called: Ints, best: Ints, rows: npt.NDArray[np.bool_], classes: int) -> dict[str, float]:
    return {
        "particles": int(rows.sum()),
        "macro_f1": round(macro_f1(truth[rows], called[rows], classes), 4),
        "macro_f1_without_rejection": round(macro_f1(truth[rows], best[rows], classes), 4),
    }


def _binary(truth: npt.NDArray[np.bool_], called: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Two folded classes, both given equal weight."""
    if truth.all() or not truth.any():
        return {}
    right_yes, right_no = float(called[truth].mean()), float((~called[~truth]).mean())
    return {
        "balanced_accuracy": round((right_yes + right_no) / 2, 4),
        "macro_f1": round(macro_f1((~truth).astype(int), (~called).astype(int), 2), 4),
        "recall_oil": round(right_yes, 4),
        "recall_rest": round(right_no, 4),
    }
