"""How good the network is on crops that it does not learn from, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.datasets.labelled import LabelledCrops
from training.evaluation.calibration import find_temperature
from training.evaluation.scores import macro_f1

__all__ = ["ValidationFigures", "class_mean_log_loss"]

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class ValidationFigures:
    """``loss``: log loss at the best temperature, averaged within each class and then over the classes.

    A network is calibrated afterwards anyway. Judged by its plain loss, one that has seen few pictures is best before
    it says anything: it is right more often with every epoch, and too sure of it.
    """

    loss: float
    macro_f1: float
    accuracy: float

    @staticmethod
    def of(logits: F4, crops: LabelledCrops, *, log_prior: F4) -> ValidationFigures:
        """Compare logits (n, C) with the truth; ``log_prior`` (C,) leads from the mix taught to equal shares."""
        if not np.isfinite(logits).all():
            return ValidationFigures(loss=float("nan"), macro_f1=0.0, accuracy=0.0)
        temperature = find_temperature(logits, crops.label, log_prior=log_prior)
        scaled = (logits / np.float32(temperature) + log_prior).astype(np.float32)
        called = scaled.argmax(axis=1)
        return ValidationFigures(
            loss=class_mean_log_loss(scaled, crops.label),
            macro_f1=macro_f1(crops.label, called, logits.shape[1]),
            accuracy=float((called == crops.label).mean()),
        )


def class_mean_log_loss(logits: F4, label: npt.NDArray[np.int64]) -> float:
    """Log loss in which every class that is there weighs the same.

    Examples
    --------
    >>> class_mean_log_loss(np.zeros((3, 2), np.float32), np.array([0, 0, 1])) == np.log(2)
    True
    """
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(wide - top).sum(axis=1)) + top[:, 0]
    each = log_sum - wide[np.arange(len(label)), label]
    return float(np.mean([each[label == c].mean() for c in np.unique(label)]))
