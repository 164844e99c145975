"""What is asked of a bundle: which of its classes stand for which label, and what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_app.classification.bundle import Bundle
from edge_app.classification.rejection import Classification, probabilities_of
from edge_app.errors import UserError
from training.evaluation.photographs import Photographs

__all__ = ["REST", "Answers", "Problem"]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

REST = "the rest"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Truth and answer of n crops in the classes of a problem.

    ``called`` is C where the answer is ``unknown`` (and the problem has no rest); ``best`` is the likeliest class even
    where it was rejected; ``row`` says which picture or view a crop is of.
    """

    photographs: Photographs
    truth: I8
    called: I8
    probabilities: F4
    classification: Classification

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def best(self) -> I8:
        """Likeliest class, (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1), np.int64)

    @property
    def confidence(self) -> F4:
        """Probability of the likeliest class, (n,)."""
        return np.asarray(self.probabilities.max(axis=1), np.float32)

    @property
    def row(self) -> I8:
        """Picture or view of each crop."""
        return self.photographs.row

    @property
    def group(self) -> npt.NDArray[np.generic]:
        """Run, lot or particle of each crop."""
        return self.photographs.crops.group

    def take(self, rows: npt.NDArray[np.generic]) -> Answers:
        """Keep some."""
        return Answers(
            photographs=self.photographs.take(rows),
            truth=self.truth[rows],
            called=self.called[rows],
            probabilities=self.probabilities[rows],
            classification=self.classification.take(rows),
        )


class Problem:
    """Labels on one side, a bundle's classes on the other.

    A label that is no class of the bundle belongs to the rest, together with every class that is no label and with
    ``unknown``: ``not_oil`` beside ``silicone_oil``, say. Where all labels are classes, the classes are the bundle's.

    Parameters
    ----------
    bundle : Bundle
    labels : sequence of str
        Names of the labels of crops, in their order.
    known : sequence of str, optional
        Classes of the bundle that are told apart, in the order wanted; others are as if it had them not. Where two
        bundles are compared: those that both have.
    """

    def __init__(self, bundle: Bundle, labels: Sequence[str], *, known: Sequence[str] | None = None) -> None:
        own = bundle.classes
        asked = own if known is None else tuple(known)
        self.bundle = bundle
        self.rest_labels = tuple(name for name in labels if name not in asked)
        named = tuple(name for name in asked if name in labels)
        if not named:
            raise UserError(
                f"none of {', '.join(labels)} is a class of bundle {bundle.description.name} ({', '.join(own)}): "
                "nothing can be measured"
            )
        self.has_rest = bool(self.rest_labels)
        self.classes: tuple[str, ...] = (*named, REST) if self.has_rest else asked
        rest = len(named)
        index = {name: c for c, name in enumerate(self.classes)}
        self._of_label = np.array([index.get(name, rest) for name in labels], np.int64)
        elsewhere = rest if self.has_rest else len(self.classes)
        # The last entry is the bundle's "unknown".
        self._of_class = np.array([index.get(name, elsewhere) for name in own] + [elsewhere])
        self._sum = np.eye(len(self.classes) + 1, dtype=np.float32)[self._of_class[:-1], : len(self.classes)]

    @property
    def assumed_prior(self) -> F8:
        """Class mix behind the probabilities, (C,)."""
        shift = np.asarray([self.bundle.description.log_prior], np.float32)
        return np.asarray(probabilities_of(shift, temperature=1.0)[0] @ self._sum, np.float64)

    @property
    def confusion(self) -> F8:
        """The bundle's confusion matrix in the classes of the problem, (C, C + 1)."""
        own = np.asarray(self.bundle.description.confusion_matrix, np.float64)
        folded = np.zeros((len(self.classes), len(self.classes) + 1))
        np.add.at(folded, (self._of_class[:-1, None], self._of_class[None, :]), own)
        total = folded.sum(axis=1, keepdims=True)
        return np.divide(folded, total, out=folded, where=total > 0)

    def folded(self, probabilities: F4) -> F4:
        """Probabilities (n, own classes) in the classes of the problem, (n, C)."""
        return probabilities @ self._sum

    def called(self, class_index: npt.NDArray[np.integer]) -> I8:
        """Calls of the bundle (its ``unknown`` last) in the classes of the problem; C: unknown."""
        return np.asarray(self._of_class[class_index], np.int64)

    def answers(self, photographs: Photographs, classification: Classification) -> Answers:
        """Put truth and answer side by side."""
        return Answers(
            photographs=photographs,
            truth=np.asarray(self._of_label[photographs.crops.label], np.int64),
            called=self.called(classification.class_index),
            probabilities=self.folded(classification.probabilities),
            classification=classification,
        )
