"""The bundle's network before it was made integer, asked as the device asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.classification.bundle import Bundle
from edge_app.classification.rejection import probabilities_of
from training.datasets.labelled import LabelledCrops
from training.fit import FLOAT_WEIGHTS, network_from_bundle
from training.learning import predict

__all__ = ["float_network", "float_probabilities"]

F4 = npt.NDArray[np.float32]


def float_network(bundle: Bundle) -> Any | None:
    """The Keras network with the bundle's float weights; None where it holds none."""
    if FLOAT_WEIGHTS not in bundle.description.files:
        return None
    return network_from_bundle(bundle, bundle.classes)


def float_probabilities(model: Any, bundle: Bundle, crops: LabelledCrops, *, all_ways: npt.NDArray[np.bool_]) -> F4:
    """Calibrated probabilities of the float network, (n, C).

    Parameters
    ----------
    model : keras.Model
        From `float_network`.
    bundle : Bundle
    crops : LabelledCrops
    all_ways : ndarray of bool (n,)
        Where a crop's place in the frame is not known, the device averages over the eight ways a square can lie.
    """
    logits = predict(model, crops)["logits"]
    rows = np.flatnonzero(all_ways)
    if len(rows):
        some = crops.take(rows)
        turned = (np.rot90(some.pixels, k % 4, axes=(1, 2))[:, :, :: 1 if k < 4 else -1] for k in range(8))
        parts = [predict(model, replace(some, pixels=np.ascontiguousarray(p)))["logits"] for p in turned]
        logits[rows] = np.mean(parts, axis=0)
    d = bundle.description
    return probabilities_of(logits, temperature=d.temperature, log_prior=np.asarray(d.log_prior, np.float32))
