"""Heads that read size and novelty, fitted anew to the embedding as the integers give it.

The device computes these heads exactly, but from an embedding that is rounded all the way from the picture. Rounding
does not only scatter: it shifts each number a little, always the same way, and a head that sums 64 of them adds the
shifts up. Of sizes that the float network read without bias that took 3 to 5 %. Fitted to what the float network says
of the same crops, from the rounded embedding, the shift is gone and the scatter is halved. No truth is needed, and
nothing on the device changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converters import IntegerModel, run_int8
from edge_app.classification.head import Head
from training.datasets.labelled import LabelledCrops
from training.learning import predict

__all__ = ["fit_heads", "shift_of_size"]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

#: With fewer crops the heads stay as they are: 64 numbers each want several crops for every one of them.
FITTED_FROM: Final = 400
#: Pull towards the head as it was, as a share of the mean variance of the embedding.
PULL: Final = 0.01


def fit_heads(integer: IntegerModel, model: Any, crops: LabelledCrops) -> IntegerModel:
    """Fit the heads of size and novelty to the integers' embedding, by ridge regression towards the given heads.

    Parameters
    ----------
    integer : IntegerModel
        From `converters.convert_to_int8` of ``model``.
    model : keras.Model
        The float network: what it says of ``crops`` is what the heads are fitted to.
    crops : LabelledCrops
        At least `FITTED_FROM`, of the kind that will be seen; labels and sizes are not used.

    Returns
    -------
    IntegerModel
        The same flat buffer.
    """
    if len(crops) < FITTED_FROM or (integer.size_head is None and integer.novelty_head is None):
        return integer
    said = predict(model, crops)
    _, embedding = run_int8(integer, crops.crops)

    def fitted(head: Head | None, output: str) -> Head | None:
        return None if head is None else _towards(head, embedding, said[output])

    return replace(
        integer,
        size_head=fitted(integer.size_head, "size"),
        novelty_head=fitted(integer.novelty_head, "novelty"),
    )


def shift_of_size(integer: IntegerModel, model: Any, crops: LabelledCrops) -> float | None:
    """Median of how much larger the integers read a size than the float network, as a fraction; None without a head."""
    if integer.size_head is None or not len(crops):
        return None
    _, embedding = run_int8(integer, crops.crops)
    read = embedding @ integer.size_head.kernel[:, 0] + integer.size_head.bias[0]
    return float(np.median(read - predict(model, crops)["size"][:, 0]))


def _towards(head: Head, embedding: F4, wanted: F4) -> Head:
    """Least squares of ``wanted`` (n, K) on ``embedding`` (n, E), as a change of ``head`` that is kept small."""
    x = embedding.astype(np.float64)
    rest = wanted.astype(np.float64) - (x @ head.kernel + head.bias)
    mean, rest_mean = x.mean(axis=0), rest.mean(axis=0)
    x = x - mean
    spread: F8 = x.T @ x / len(x)
    spread[np.diag_indices_from(spread)] += PULL * np.trace(spread) / len(spread)
    change = np.linalg.solve(spread, x.T @ (rest - rest_mean) / len(x))
    return Head(
        kernel=(head.kernel + change).astype(np.float32),
        bias=(head.bias + rest_mean - mean @ change).astype(np.float32),
    )
