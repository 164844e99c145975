"""Counts by class and size that add: windows, runs and devices merge by addition."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["FINE_EDGES_UM", "REPORTING_EDGES_UM", "Histogram", "cumulative_counts"]

REPORTING_EDGES_UM: Final = (2.0, 5.0, 10.0, 25.0, 50.0, 70.0)
"""Cumulative reporting sizes in um (USP <1787>)."""

FINE_EDGES_UM: Final[tuple[float, ...]] = (
    0.0, 1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 31.5, 40.0, 50.0,
    60.0, 70.0, 85.0, 100.0, 150.0, 200.0, 300.0, float("inf"),
)  # fmt: skip
"""Fine logarithmic grid (R10 preferred numbers of ISO 3) that contains every reporting edge; last bin open."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Weighted and raw counts, classes x size bins.

    Attributes
    ----------
    classes
        Row names; ``unknown`` is a class like the others.
    edges_um
        Rising bin edges, bin i is ``edges_um[i] <= ecd < edges_um[i + 1]``.
    counts
        int64 (classes, bins): particles seen.
    weighted
        float64 (classes, bins): sums of Miles-Lantuejoul weights: what a concentration is made of.
    """

    classes: tuple[str, ...]
    edges_um: tuple[float, ...]
    counts: npt.NDArray[np.int64]
    weighted: npt.NDArray[np.float64]

    @classmethod
    def empty(cls, classes: Sequence[str], edges_um: Sequence[float] = FINE_EDGES_UM) -> "Histogram":
        """A histogram with no particle in it."""
        shape = (len(classes), len(edges_um) - 1)
        return cls(
            classes=tuple(classes),
            edges_um=tuple(edges_um),
            counts=np.zeros(shape, np.int64),
            weighted=np.zeros(shape, np.float64),
        )

    @classmethod
    def of(
        cls,
        class_index: npt.NDArray[np.integer],
        ecd_um: npt.NDArray[np.floating],
        weight: npt.NDArray[np.floating],
        *,
        classes: Sequence[str],
        edges_um: Sequence[float] = FINE_EDGES_UM,
    ) -> "Histogram":
        """Count particles.

        Particles of weight 0 (cut by the border) are in neither table: the others stand for them.

        Parameters
        ----------
        class_index
            Index into ``classes``, shape (n,).
        ecd_um, weight
            Size and Miles-Lantuejoul weight, shape (n,).

        Examples
        --------
        >>> h = Histogram.of(np.array([0, 1]), np.array([5.0, 12.0]), np.array([1.0, 1.1]), classes=("a", "b"))
        >>> int(h.counts.sum()), round(float(h.weighted.sum()), 1)
        (2, 2.1)
        """
        bins = len(edges_um) - 1
        counted = np.asarray(weight) > 0
        index = np.asarray(class_index, np.int64)[counted]
        # Compared in float32, as sizes are stored, so that a size on an edge falls alike before and after a record.
        size = np.asarray(ecd_um, np.float32)[counted]
        column = np.clip(np.searchsorted(np.asarray(edges_um, np.float32), size, side="right") - 1, 0, bins - 1)
        flat = index * bins + column
        shape = (len(classes), bins)
        return cls(
            classes=tuple(classes),
            edges_um=tuple(edges_um),
            counts=np.bincount(flat, minlength=shape[0] * bins).reshape(shape).astype(np.int64),
            weighted=np.bincount(flat, weights=np.asarray(weight, np.float64)[counted], minlength=shape[0] * bins)
            .reshape(shape)
            .astype(np.float64),
        )

    def __add__(self, other: "Histogram") -> "Histogram":
        if (self.classes, self.edges_um) != (other.classes, other.edges_um):
            raise ValueError("histograms of different classes or bin edges do not add")
        return Histogram(
            classes=self.classes,
            edges_um=self.edges_um,
            counts=self.counts + other.counts,
            weighted=self.weighted + other.weighted,
        )

    def by_class(self) -> dict[str, int]:
        """Particles seen of each class."""
        return {name: int(n) for name, n in zip(self.classes, self.counts.sum(1), strict=True)}


def cumulative_counts(
    histogram: Histogram, *, sizes_um: Sequence[float] = REPORTING_EDGES_UM
) -> Mapping[str, npt.NDArray[np.float64]]:
    """Weighted counts at and above each reporting size, per class and for all (key ``all``).

    Raises
    ------
    ValueError
        If a reporting size is not one of the histogram's edges.
    """
    edges = list(histogram.edges_um)
    missing = [s for s in sizes_um if s not in edges]
    if missing:
        raise ValueError(f"{missing} um are no edges of the histogram")
    above = np.stack([histogram.weighted[:, edges.index(s) :].sum(1) for s in sizes_um], axis=1)
    table = dict(zip(histogram.classes, above, strict=True))
    return {"all": above.sum(0), **table}
