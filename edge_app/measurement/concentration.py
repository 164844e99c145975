"""Particles per mL at and above a size, with an interval that says how it was made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from edge_app.measurement.dispersion import Dispersion, dispersion_of
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.poisson import CONFIDENCE, weighted_interval
from edge_app.measurement.window import Window

__all__ = ["METHODS", "CountSeries", "Interval", "Method", "difference", "interval_per_ml"]

F8 = npt.NDArray[np.float64]
Method = Literal[
    "poisson_exact", "poisson_weighted", "long_run_variance", "stated_dispersion", "difference", "student",
    "prevalence", "combined",
]  # fmt: skip

METHODS: Final[dict[Method, str]] = {
    "poisson_exact": "exact Poisson interval (Garwood)",
    "poisson_weighted": "exact Poisson interval of border-weighted counts (Fay and Feuer)",
    "long_run_variance": "gamma interval with the long-run variance of the counts over time",
    "stated_dispersion": "gamma interval with a stated dispersion",
    "difference": "interval of a difference from those of its parts (MOVER)",
    "student": "Student's t interval of the mean of aliquots",
    "prevalence": "class count corrected for the classifier, interval by bootstrap",
    "combined": "interval of the count with the uncertainty (k = 2) of volume, size and coincidence",
}
"""What each method is called in a report."""

MOST_WINDOWS: Final = 400
"""Longer series are merged to at most this many spans: more tell nothing more about the scatter."""

ENOUGH_COUNTS: Final = 100
"""Counts from which their own scatter over the windows is used."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its interval.

    Attributes
    ----------
    value, low, high
        In ``unit``.
    unit
        ``per mL`` or ``per container``.
    method
        Key of ``METHODS``.
    confidence
        Two-sided.
    size_um
        Counted at and above this size.
    class_name
        ``all``, a class, or several joined by ``+``.
    counted
        Particles behind the value, unweighted.
    volume_ml
        Analysed volume behind it.
    dispersion
        Variance over the Poisson variance that the interval used (1: Poisson).
    systematic
        Half-width (k = 2) of what more volume does not reduce, already in the interval: 0 for one of counts alone.
    """

    value: float
    low: float
    high: float
    unit: str = "per mL"
    method: Method
    confidence: float
    size_um: float
    class_name: str
    counted: int
    volume_ml: float
    dispersion: float = 1.0
    systematic: float = 0.0

    @property
    def method_name(self) -> str:
        """The method in words."""
        return METHODS[self.method]

    def scaled(self, factor: float, *, unit: str) -> "Interval":
        """The same in another unit: ``scaled(container_ml, unit="per container")``."""
        return replace(
            self,
            value=self.value * factor,
            low=self.low * factor,
            high=self.high * factor,
            systematic=self.systematic * factor,
            unit=unit,
        )


@dataclass(frozen=True, kw_only=True)
class CountSeries:
    """Counts of a run's windows in order of time, stacked once for many intervals.

    Attributes
    ----------
    classes, edges_um
        As in ``Histogram``.
    counts, weighted
        float64 (windows, classes, bins).
    volume_ml
        float64 (windows,).
    """

    classes: tuple[str, ...]
    edges_um: tuple[float, ...]
    counts: F8
    weighted: F8
    volume_ml: F8

    @classmethod
    def of(cls, windows: Sequence[Window]) -> "CountSeries":
        """Stack windows; those without volume are left out.

        Raises
        ------
        UserError
            If no volume was analysed, or the windows differ in classes or bins.
        """
        kept = [w for w in windows if w.volume_ml > 0]
        if not kept:
            raise UserError(f"no volume was analysed in {len(windows)} windows: a concentration needs one")
        first = kept[0].histogram
        if any((w.histogram.classes, w.histogram.edges_um) != (first.classes, first.edges_um) for w in kept):
            raise UserError("windows of different classes or size bins have no common concentration")
        return cls(
            classes=first.classes,
            edges_um=first.edges_um,
            counts=np.stack([w.histogram.counts for w in kept]).astype(np.float64),
            weighted=np.stack([w.histogram.weighted for w in kept]),
            volume_ml=np.array([w.volume_ml for w in kept]),
        ).merged()

    @classmethod
    def of_total(cls, histogram: Histogram, volume_ml: float) -> "CountSeries":
        """A single span: a histogram and its volume, without any knowledge of the scatter in time.

        Raises
        ------
        UserError
            If the volume is not above 0.
        """
        if not volume_ml > 0:
            raise UserError(f"analysed volume is {volume_ml:g} mL: a concentration needs one above 0")
        return cls(
            classes=histogram.classes,
            edges_um=histogram.edges_um,
            counts=histogram.counts[None].astype(np.float64),
            weighted=histogram.weighted[None],
            volume_ml=np.array([volume_ml]),
        )

    def merged(self) -> "CountSeries":
        """At most ``MOST_WINDOWS`` spans, each the sum of as many neighbours."""
        step = -(-len(self.volume_ml) // MOST_WINDOWS)
        if step <= 1:
            return self
        starts = np.arange(0, len(self.volume_ml), step)
        return replace(
            self,
            counts=np.add.reduceat(self.counts, starts),
            weighted=np.add.reduceat(self.weighted, starts),
            volume_ml=np.add.reduceat(self.volume_ml, starts),
        )

    def rows(self, class_name: str | Sequence[str]) -> list[int]:
        """Rows of a class, of several, or of ``all``."""
        names = [class_name] if isinstance(class_name, str) else list(class_name)
        if names == ["all"]:
            return list(range(len(self.classes)))
        unknown = [n for n in names if n not in self.classes]
        if unknown:
            raise UserError(f"class {unknown[0]!r} is not in the counts, allowed are all, {', '.join(self.classes)}")
        return [self.classes.index(n) for n in names]

    def bins(self, size_um: float, upper_um: float | None) -> slice:
        """Bins at and above a size, below another."""
        edges = self.edges_um
        for size in (size_um, upper_um):
            if size is not None and size not in edges:
                raise UserError(f"size {size:g} um is no edge of the counts: {', '.join(f'{e:g}' for e in edges)}")
        return slice(edges.index(size_um), None if upper_um is None else edges.index(upper_um))


def interval_per_ml(
    counts: CountSeries | Sequence[Window] | Histogram,
    size_um: float,
    *,
    class_name: str | Sequence[str] = "all",
    volume_ml: float | None = None,
    upper_um: float | None = None,
    dilution: float = 1.0,
    dispersion: Literal["auto", "poisson"] | float = "auto",
    confidence: float = CONFIDENCE,
) -> Interval:
    """Concentration at and above a size with its interval.

    ``value = dilution * sum of weights / analysed volume``. The interval is the exact Poisson one of the weighted count
    (Garwood's where every weight is 1); where the windows scatter more than Poisson, its variance is multiplied by the
    long-run variance that the windows tell over it. ``method`` of the result says which it was.

    Parameters
    ----------
    counts
        Windows of a run in order of time, a `CountSeries` of them, or a histogram with ``volume_ml``.
    size_um, upper_um
        Edges of the histogram; counted is ``size_um <= ecd < upper_um``.
    class_name
        ``all``, a class, or several classes counted together.
    dilution
        Factor by which the sample was diluted.
    dispersion
        ``auto``: from the windows (Poisson with fewer than 12 of them; where there are fewer than 100 counts, that of
        smaller sizes and other classes with them); ``poisson``: none; a number: this one.
    confidence
        Two-sided.

    Raises
    ------
    UserError
        If no volume was analysed, or the size or class is not in the counts.

    Examples
    --------
    >>> h = Histogram.of(np.zeros(10, int), np.full(10, 12.0), np.ones(10), classes=("glass",))
    >>> i = interval_per_ml(h, 10.0, volume_ml=0.5)
    >>> i.value, round(i.low, 1), round(i.high, 1), i.method
    (20.0, 9.6, 36.8, 'poisson_exact')
    """
    if isinstance(counts, Histogram):
        series = CountSeries.of_total(counts, 0.0 if volume_ml is None else volume_ml)
    elif isinstance(counts, CountSeries):
        series = counts
    else:
        series = CountSeries.of(counts)
    rows, bins = series.rows(class_name), series.bins(size_um, upper_um)
    n, w = series.counts[:, rows, bins], series.weighted[:, rows, bins]
    # Weights within a class, a bin and a window are nearly alike, so that their squares sum to W**2 / n.
    squares = np.divide(w * w, n, out=np.zeros_like(w), where=n > 0).sum((1, 2))
    number, weight = n.sum((0, 1)), w.sum((0, 1))
    mean_weight = np.divide(weight, number, out=np.ones_like(weight), where=number > 0)
    largest = max(1.0, float(mean_weight.max(initial=1.0)))
    total, variance, volume = float(w.sum()), float(squares.sum()), float(series.volume_ml.sum())
    plain = bool(np.array_equal(n, w))
    method: Method = "poisson_exact" if plain else "poisson_weighted"
    factor = 1.0
    if dispersion == "auto":
        found = _dispersion(series, rows, bins)
        if found is not None:
            factor, method = found.inflation(confidence=confidence), "long_run_variance"
            factor = max(factor, _common_inflation(series, rows, variance, confidence))
    elif dispersion != "poisson":
        factor = float(dispersion)
        if factor <= 0:
            raise UserError(f"dispersion is {factor:g}, allowed are auto, poisson or a number above 0")
        method = "stated_dispersion"
    low, high = weighted_interval(total, variance * factor, largest * factor, confidence=confidence)
    scale = dilution / volume
    return Interval(
        value=total * scale,
        low=float(low) * scale,
        high=float(high) * scale,
        method=method,
        confidence=confidence,
        size_um=size_um,
        class_name=class_name if isinstance(class_name, str) else "+".join(class_name),
        counted=int(n.sum()),
        volume_ml=volume,
        dispersion=factor,
    )


def _dispersion(series: CountSeries, rows: list[int], bins: slice) -> Dispersion | None:
    """Dispersion of the chosen counts; where they are few, of the nearest population that is not.

    Few counts tell nothing about scatter, but particles imaged repeatedly are so at every size and in every class: more
    sizes, smaller ones first, then all classes are taken in until there are enough counts.
    """
    for chosen in (rows, list(range(len(series.classes)))):
        low = bins.start
        while True:
            n, w = series.counts[:, chosen, low : bins.stop], series.weighted[:, chosen, low : bins.stop]
            if n.sum() >= ENOUGH_COUNTS or low == 0:
                break
            low -= 1
        if n.sum() >= ENOUGH_COUNTS:
            break
    squares = np.divide(w * w, n, out=np.zeros_like(w), where=n > 0).sum((1, 2))
    return dispersion_of(w.sum((1, 2)), squares, series.volume_ml)


def _common_inflation(series: CountSeries, rows: list[int], variance: float, confidence: float) -> float:
    """Factor on the Poisson variance of counts that wander with all sizes of their classes.

    A wander that all sizes share shows best where there are most counts. What it adds to the variance goes with the
    square of the counts: beyond 1, the factor goes with their number.
    """
    n, w = series.counts[:, rows, :], series.weighted[:, rows, :]
    squares = np.divide(w * w, n, out=np.zeros_like(w), where=n > 0).sum((1, 2))
    found = dispersion_of(w.sum((1, 2)), squares, series.volume_ml)
    if found is None:
        return 1.0
    return 1.0 + (found.inflation(confidence=confidence) - 1.0) * variance / float(squares.sum())


def difference(first: Interval, second: Interval) -> Interval:
    """``first - second`` with its interval: a sample and its blank, two runs.

    ``low = d - sqrt((a - a_low)**2 + (b_high - b)**2)`` and likewise above (MOVER): no normal approximation, so that it
    holds for a blank of 0 counts. It is not cut at 0: a negative difference says that the blank was the dirtier one.

    References
    ----------
    G. Y. Zou, A. Donner, Statistics in Medicine 27 (2008) 1693.

    Raises
    ------
    UserError
        If the two are not of the same size, unit and confidence.
    """
    a, b = first, second
    if (a.size_um, a.unit, a.confidence) != (b.size_um, b.unit, b.confidence):
        raise UserError(
            f"no difference of {a.size_um:g} um {a.unit} at {a.confidence:g} and {b.size_um:g} um {b.unit} "
            f"at {b.confidence:g}: size, unit and confidence must agree"
        )
    value = a.value - b.value
    return replace(
        a,
        value=value,
        low=value - float(np.hypot(a.value - a.low, b.high - b.value)),
        high=value + float(np.hypot(a.high - a.value, b.value - b.low)),
        method="difference",
        systematic=float(np.hypot(a.systematic, b.systematic)),
        dispersion=max(a.dispersion, b.dispersion),
    )
