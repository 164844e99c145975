"""Recall, precision and F1 per class, and the table they come from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["class_scores", "confusion_shares", "macro_f1"]

Ints = npt.NDArray[np.integer]


def class_scores(truth: Ints, called: Ints, classes: int) -> tuple[npt.NDArray[np.float64], ...]:
    """Recall, precision, F1 and number of particles of each class, all (C,); 0 where there is nothing to divide by."""
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
    _, _, f1, have = class_scores(truth, called, classes)
    return float(f1[have > 0].mean()) if (have > 0).any() else float("nan")


def confusion_shares(truth: Ints, called: Ints, classes: int) -> npt.NDArray[np.float64]:
    """Rows true class, columns called class then unknown; each row sums to 1 (0 where a class does not occur)."""
    table = np.zeros((classes, classes + 1))
    known = truth >= 0
    np.add.at(table, (truth[known], called[known]), 1)
    return np.divide(table, table.sum(axis=1, keepdims=True), out=table, where=table.sum(axis=1, keepdims=True) > 0)
