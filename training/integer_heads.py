"""Heads that read size and novelty, fitted anew to the embedding as the integers give it.

The device computes these heads exactly, but from an embedding that is rounded all the way from the picture. Rounding
does not only scatter: it shifts each number a little, always the same way, and a head that sums 64 of them adds the
shifts up. Of sizes that the float network read without bias that took 3 to 5 %. Fitted to what the float network says
of the same crops, from the rounded embedding, the shift is gone and the scatter is halved. No truth is needed, and
nothing on the device changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converters import IntegerModel, run_int8
from edge_app.classification.head import Head
from training.datasets.labelled import LabelledCrops
from training.learning import predict

__all__ = ["Answers", "fit_heads", "shift_of_size"]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

#: With fewer crops the heads stay as they are: 64 numbers each want several crops for every one of them.
FITTED_FROM: Final = 400
#: Pull towards the head as it was, as a share of the mean variance of the embedding.
PULL: Final = 0.01


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What both networks say of the same crops.

    Attributes
    ----------
    said : mapping of str to ndarray
        The float network's outputs by name, `training.learning.predict`.
    embedding : ndarray of float32 (n, E)
        As the integers give it.
    """

    said: Mapping[str, F4]
    embedding: F4

    @staticmethod
    def of(integer: IntegerModel, model: Any, crops: LabelledCrops) -> Answers:
        """Ask both."""
        return Answers(said=predict(model, crops), embedding=run_int8(integer, crops.crops)[1])

    def first(self, n: int) -> Answers:
        """Of the first crops only."""
        return Answers(said={name: value[:n] for name, value in self.said.items()}, embedding=self.embedding[:n])


def fit_heads(integer: IntegerModel, answers: Answers) -> IntegerModel:
    """Fit the heads of size and novelty to the integers' embedding, by ridge regression towards the given heads.

    Parameters
    ----------
    integer : IntegerModel
        From `converters.convert_to_int8` of the float network.
    answers : Answers
        Of at least `FITTED_FROM` crops of the kind that will be seen; what the float network says is what the heads are
        fitted to, so neither labels nor true sizes are needed.

    Returns
    -------
    IntegerModel
        The same flat buffer.
    """
    if len(answers.embedding) < FITTED_FROM or (integer.size_head is None and integer.novelty_head is None):
        return integer

    def fitted(head: Head | None, output: str) -> Head | None:
        return None if head is None else _towards(head, answers.embedding, answers.said[output])

    return replace(
        integer,
        size_head=fitted(integer.size_head, "size"),
        novelty_head=fitted(integer.novelty_head, "novelty"),
    )


def shift_of_size(integer: IntegerModel, answers: Answers) -> float | None:
    """Median of how much larger the integers read a size than the float network, as a fraction; None without a head."""
    if integer.size_head is None or not len(answers.embedding):
        return None
    read = answers.embedding @ integer.size_head.kernel[:, 0] + integer.size_head.bias[0]
    return float(np.median(read - answers.said["size"][:, 0]))


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
