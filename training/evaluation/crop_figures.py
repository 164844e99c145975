"""The figures of a classifier on crops that go into its bundle: by class, by size, by place, oil against the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.classification.rejection import Classification
from training.datasets.labelled import LabelledCrops
from training.evaluation.calibration import expected_calibration_error
from training.evaluation.scores import class_scores, macro_f1

__all__ = ["SIZE_BINS_UM", "evaluate_crops"]

Ints = npt.NDArray[np.integer]

SIZE_BINS_UM = ((5.0, 8.0), (8.0, 15.0), (15.0, 70.0))


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
    recall, precision, f1, have = class_scores(truth, called, n)
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
