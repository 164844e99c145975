"""A bundle against labelled pictures it was not made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from training.datasets.folders import read_folders
from training.evaluation.scores import macro_f1

__all__ = ["measure_folders"]


def measure_folders(data: Path, groups: Path, bundle: Bundle, *, um_per_px: float | None = None) -> dict[str, Any]:
    """Score a bundle, on the device's own interpreter.

    Where a folder's name is no class of the bundle, that folder is the rest: every call outside the named classes is
    right for it (``not_oil`` beside ``silicone_oil``, say).

    Parameters
    ----------
    data, groups : Path
        See `training.datasets.folders.read_folders`.
    bundle : Bundle
    um_per_px : float, optional

    Returns
    -------
    dict
        Macro-F1, recall and precision per folder, by group, for JSON.
    """
    scale = bundle.geometry.um_per_px if um_per_px is None else um_per_px
    pictures = read_folders(data, groups, um_per_px=scale)
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
