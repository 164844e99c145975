"""The short answer, for programs that read standard output."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from training.datasets.pictures import LabelledPictures
from training.evaluation.scores import macro_f1

__all__ = ["pictures_summary", "study_summary"]


def pictures_summary(pictures: LabelledPictures, bundle: Bundle) -> dict[str, Any]:
    """Score a bundle, on the device's own interpreter.

    Where a folder's name is no class of the bundle, that folder is the rest: every call outside the named classes is
    right for it (``not_oil`` beside ``silicone_oil``, say).

    Parameters
    ----------
    pictures : LabelledPictures
    bundle : Bundle

    Returns
    -------
    dict
        Macro-F1, recall and precision per folder, by group, for JSON.
    """
    classifier = Classifier(bundle, open_backend(bundle).backend)
    result = classifier.classify(pictures.crops(bundle.geometry).crops)
    named = np.array(classifier.classes)[result.class_index]
    rest = [c for c, name in enumerate(pictures.classes) if name not in bundle.classes]
    outside = rest[0] if len(rest) == 1 else len(pictures.classes)
    called = np.full(len(pictures), outside)
    for c, name in enumerate(pictures.classes):
        if name in bundle.classes:
            called[named == name] = c
    n = len(pictures.classes)
    return {
        "bundle": bundle.description.name,
        "model_sha256": bundle.model_sha256,
        "pictures": len(pictures),
        "macro_f1": round(macro_f1(pictures.label, called, n), 4),
        "unknown_share": round(float((named == classifier.classes[-1]).mean()), 4),
        "per_class": {
            name: {
                "pictures": int((pictures.label == c).sum()),
                "recall": round(float((called[pictures.label == c] == c).mean()), 4),
                "precision": round(float((pictures.label[called == c] == c).mean()) if (called == c).any() else 0.0, 4),
            }
            for c, name in enumerate(pictures.classes)
        },
        "by_group": {
            str(g): {
                "pictures": int((pictures.group == g).sum()),
                "right": round(float((called == pictures.label)[pictures.group == g].mean()), 4),
            }
            for g in np.unique(pictures.group)
        },
    }


def study_summary(figures: dict[str, Any]) -> dict[str, Any]:
    """Head figures of a study on simulated views, named as those of `pictures_summary` where they are the same."""
    scores, mix = figures["scores"], figures["prevalence"]["all"]
    robustness, rejection = figures.get("robustness"), figures["rejection"]
    worst = robustness["worst_at_severity_2"] if robustness else {}
    small = scores["by_size_um"]["5-8"]
    return {
        "bundle": figures["bundle"]["name"],
        "model_sha256": figures["bundle"]["model_sha256"],
        "pictures": figures["data"]["pictures"],
        "macro_f1": scores["macro_f1"]["value"],
        "macro_f1_5_to_8_um": small["macro_f1"]["value"] if small["pictures"] else None,
        "unknown_share": scores["unknown_share"],
        "expected_calibration_error": figures["calibration"]["ece"],
        "prevalence_mae": mix["emq"]["mae"] if mix else None,
        "worst_loss_at_severity_2": worst["loss"]["value"] if worst else None,
        "composition_error_gain_at_10_percent_unknown": rejection["gain_at_10_percent"] if rejection else None,
        "background_only_at_chance": figures["background_only"]["at_chance"],
        "changed_calls": figures["repeatability"]["changed_share"],
        "int8_loss_points": figures["int8"]["loss_points"] if figures["int8"] else None,
        "per_class": {
            name: {
                "pictures": row["pictures"],
                "recall": row["recall"]["value"],
                "precision": row["precision"]["value"],
            }
            for name, row in zip(figures["classes"], scores["per_class"], strict=True)
            if row["pictures"]
        },
    }
