"""Intervals by bootstrap over groups: pictures of one run, lot or particle are wrong together, so drawn together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FEW_GROUPS", "GroupTables", "Range", "TableScores", "difference", "scores_of_tables"]

F8 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

CONFIDENCE = 0.95

#: With fewer groups the percentiles of a bootstrap are too narrow; the report says so.
FEW_GROUPS = 10


@dataclass(frozen=True, kw_only=True)
class Range:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> dict[str, float | None]:
        """For JSON; None where there is no number."""
        return {
            name: round(number, digits) if np.isfinite(number) else None
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }


@dataclass(frozen=True, kw_only=True)
class TableScores:
    """Scores of one or many confusion tables: arrays (..., C), ``macro_f1`` and ``accuracy`` (...)."""

    recall: F8
    precision: F8
    f1: F8
    support: F8
    macro_f1: F8
    accuracy: F8
    balanced_accuracy: F8


def _ratio(above: F8, below: F8) -> F8:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def scores_of_tables(tables: npt.NDArray[np.floating] | Ints) -> TableScores:
    """Scores of confusion tables (..., C, C + 1): rows true class, columns called class, then unknown.

    A class without particles has no part in the means.

    Examples
    --------
    >>> scores_of_tables(np.array([[1, 1, 0], [0, 2, 0]])).macro_f1.round(4).tolist()
    0.7333
    """
    table = np.asarray(tables, np.float64)
    classes = table.shape[-2]
    hit = np.diagonal(table[..., :classes], axis1=-2, axis2=-1)
    support, named = table.sum(axis=-1), table.sum(axis=-2)[..., :classes]
    recall, precision = _ratio(hit, support), _ratio(hit, named)
    f1 = _ratio(2 * hit, support + named)
    present = support > 0
    count = present.sum(axis=-1).astype(np.float64)
    return TableScores(
        recall=recall,
        precision=precision,
        f1=f1,
        support=support,
        macro_f1=_ratio(np.where(present, f1, 0).sum(axis=-1), count),
        accuracy=_ratio(hit.sum(axis=-1), support.sum(axis=-1)),
        balanced_accuracy=_ratio(np.where(present, recall, 0).sum(axis=-1), count),
    )


class GroupTables:
    """Confusion table of each group, and tables of resampled groups.

    Parameters
    ----------
    truth, called : ndarray of int (n,)
        0 to C - 1; ``called`` may be C (unknown).
    group : ndarray (n,)
        What is drawn as a whole.
    classes : int
    resamples : int
    seed : int
    """

    def __init__(
        self,
        truth: Ints,
        called: Ints,
        group: npt.NDArray[np.generic],
        *,
        classes: int,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        names, index = np.unique(group, return_inverse=True)
        self.groups = len(names)
        self._classes = classes
        cells = classes * (classes + 1)
        cell = (index * classes + truth) * (classes + 1) + called
        self._of_group = np.bincount(cell, minlength=self.groups * cells).reshape(self.groups, cells)
        # The same draws for the same groups: two classifiers on the same particles are compared draw by draw.
        rng = np.random.default_rng(seed)
        self._times = rng.multinomial(self.groups, np.full(self.groups, 1 / max(1, self.groups)), size=resamples)

    @property
    def table(self) -> npt.NDArray[np.int64]:
        """All groups together, (C, C + 1)."""
        return np.asarray(self._of_group.sum(axis=0).reshape(self._classes, self._classes + 1), np.int64)

    @property
    def drawn(self) -> F8:
        """Tables of the resamples, (B, C, C + 1)."""
        total = self._times.astype(np.float64) @ self._of_group.astype(np.float64)
        return total.reshape(-1, self._classes, self._classes + 1)

    def interval(self, figure: Callable[[TableScores], F8]) -> list[Range]:
        """A figure of all particles, and its percentiles over the resamples; one range per class or just one.

        Parameters
        ----------
        figure : callable
            Picks an array of `TableScores`.
        """
        return _ranges(figure(scores_of_tables(self.table)), _drawn(self, figure))


def difference(first: GroupTables, second: GroupTables, figure: Callable[[TableScores], F8]) -> list[Range]:
    """A figure of the first minus that of the second, the same groups drawn for both; a range per class or just one.

    Parameters
    ----------
    first, second : GroupTables
        Of the same particles, with the same seed.
    figure : callable
        Picks an array of `TableScores`.
    """
    if first.groups != second.groups:
        raise ValueError(f"{first.groups} and {second.groups} groups: not the same particles")
    value = figure(scores_of_tables(first.table)) - figure(scores_of_tables(second.table))
    return _ranges(value, _drawn(first, figure) - _drawn(second, figure))


def _drawn(tables: GroupTables, figure: Callable[[TableScores], F8]) -> F8:
    """A figure of every resample; NaN for a class that no drawn group has, which says nothing of how it is called."""
    scores = scores_of_tables(tables.drawn)
    draws = figure(scores)
    return np.where(scores.support > 0, draws, np.nan) if draws.shape == scores.support.shape else draws


def _ranges(value: F8, draws: F8) -> list[Range]:
    """``value`` () or (C,), ``draws`` (B,) or (B, C)."""
    tail = 100 * (1 - CONFIDENCE) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a class that is in no draw at all has no interval
        low, high = np.nanpercentile(draws, [tail, 100 - tail], axis=0)
    each = (np.atleast_1d(v).tolist() for v in (value, low, high))
    return [Range(value=v, low=a, high=b) for v, a, b in zip(*each, strict=True)]
