"""Uncertainty budget of a concentration (GUM): what contributes, how much, and the sum with k = 2."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge_app.errors import UserError
from edge_app.measurement.concentration import CountSeries, Interval
from edge_app.measurement.four_digits import four_digits
from edge_app.measurement.poisson import normal_quantile
from edge_app.measurement.window import Window

__all__ = [
    "COVERAGE_FACTOR",
    "Budget",
    "BudgetRow",
    "InputUncertainties",
    "local_exponent",
    "uncertainty_budget",
    "with_systematic",
]

COVERAGE_FACTOR: Final = 2.0


@dataclass(frozen=True, kw_only=True)
class BudgetRow:
    """One input of the result.

    Attributes
    ----------
    name, unit
        The input and the unit of ``value`` and ``standard_uncertainty``.
    sensitivity
        Change of the result (per mL) per unit of the input.
    contribution
        ``|sensitivity| * standard_uncertainty``, per mL.
    share
        Of the combined variance.
    basis
        Where the uncertainty comes from.
    """

    name: str
    unit: str
    value: float
    standard_uncertainty: float
    sensitivity: float
    contribution: float
    share: float
    basis: str


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A result and everything that makes it uncertain.

    Attributes
    ----------
    value, combined, expanded
        Concentration, combined standard uncertainty and ``coverage_factor`` times it, per mL.
    counting, systematic
        Combined standard uncertainty of the count alone, and of all the rest.
    """

    size_um: float
    class_name: str
    value: float
    rows: tuple[BudgetRow, ...]
    combined: float
    expanded: float
    counting: float
    systematic: float
    coverage_factor: float = COVERAGE_FACTOR

    @property
    def low(self) -> float:
        """Lower end of the expanded interval, not below 0."""
        return max(0.0, self.value - self.expanded)

    @property
    def high(self) -> float:
        """Upper end of the expanded interval."""
        return self.value + self.expanded

    @property
    def text(self) -> str:
        """The result as it is stated."""
        percent = f" ({100 * self.expanded / self.value:.2g} %)" if self.value > 0 else ""
        found, expanded = four_digits(self.value), four_digits(self.expanded)
        return f"({found} +- {expanded}) per mL{percent}, k = {self.coverage_factor:g}"


@dataclass(frozen=True, kw_only=True)
class InputUncertainties:
    """Standard uncertainties (k = 1) of what a concentration is made of besides the count.

    Defaults are what may be said of an instrument that nobody has calibrated; a certificate replaces them.

    Attributes
    ----------
    field_relative
        Of the field's area, relative: twice that of the scale in um per px.
    depth_relative
        Of the cell's depth.
    size_um
        Of the size scale at the counted size, in um: from the calibration's band.
    basis
        Where they come from, for the budget.
    """

    field_relative: float = 0.01
    depth_relative: float = 0.03
    size_um: float = 0.3
    basis: str = "assumed, not calibrated"


def local_exponent(
    counts: CountSeries | Sequence[Window], size_um: float, *, class_name: str | Sequence[str] = "all"
) -> float:
    """Exponent ``m`` of the cumulative distribution ``N(>= x) ~ x**-m`` around a size.

    From the cumulative counts at the edges around it, nearest first and wider until at least 30 particles lie between
    the two (or a factor of 2 in size on either side is reached).

    Returns
    -------
    float
        0 if there is nothing to estimate it from.
    """
    series = counts if isinstance(counts, CountSeries) else CountSeries.of(counts)
    table = series.weighted[:, series.rows(class_name), :].sum((0, 1))
    at = series.bins(size_um, None).start
    edges = np.asarray(series.edges_um)
    above = np.append(np.cumsum(table[::-1])[::-1], 0.0)
    low = high = at
    while True:
        new_low = low - 1 if low >= 1 and edges[low - 1] >= size_um / 2 and edges[low - 1] > 0 else low
        new_high = high + 1 if high + 1 < len(edges) - 1 and edges[high + 1] <= 2 * size_um else high
        if (new_low, new_high) == (low, high):
            break
        low, high = new_low, new_high
        if above[low] - above[high] >= 30:
            break
    if low == high or above[low] <= 0:
        return 0.0
    if above[high] > 0:
        return float(np.log(above[low] / above[high]) / np.log(edges[high] / edges[low]))
    # Nothing left above: the slope of a straight line to there, as an exponent at the size.
    return float(size_um * (above[low] - above[high]) / (edges[high] - edges[low]) / max(above[at], 1.0))


def uncertainty_budget(
    interval: Interval,
    *,
    exponent: float,
    inputs: InputUncertainties | None = None,
    frame_area_mm2: float | None = None,
    depth_um: float | None = None,
    lost_share: float = 0.0,
    classification: Interval | None = None,
) -> Budget:
    """Budget of a concentration at and above a size.

    ``C = N / (frames * area * depth)``. Rows: the count (half of its 95 % interval over the normal quantile, so that
    the dispersion is in it), area and depth of the volume, the size scale (``dC/dx = -m C / x`` with the local exponent
    ``m`` of the cumulative distribution), the classifier, and the particles that coincidence hides (uncorrected, so a
    rectangular distribution of that half-width).

    Parameters
    ----------
    interval
        From `interval_per_ml`, per mL.
    exponent
        From `local_exponent`.
    inputs
        Standard uncertainties of volume and size; by default those of an instrument without calibration.
    frame_area_mm2, depth_um
        Shown in the budget as the inputs' values; relative (1) where not given.
    lost_share
        `Coincidence.lost_share`.
    classification
        For a class: its corrected concentration with interval; what its variance holds beyond that of counting becomes
        the row.

    Examples
    --------
    >>> i = Interval(value=1000.0, low=940.0, high=1062.0, method="poisson_exact", confidence=0.95, size_um=10.0,
    ...     class_name="all", counted=1000, volume_ml=1.0)
    >>> b = uncertainty_budget(i, exponent=2.0)
    >>> round(b.combined), [r.name for r in b.rows]
    (75, ['count', 'field area', 'cell depth', 'size scale', 'coincidence'])
    """
    if interval.unit != "per mL":
        raise UserError(f"a budget is made per mL, found {interval.unit}")
    given = InputUncertainties() if inputs is None else inputs
    c = interval.value
    z = _quantile_of(interval.confidence)
    counting = (interval.high - interval.low) / (2 * z)
    n = max(interval.counted, 1)
    per_count = c / n if c > 0 else 1 / interval.volume_ml
    rows: list[tuple[str, str, float, float, float, str]] = [
        ("count", "particles", float(interval.counted), counting / per_count, per_count, interval.method_name)
    ]
    area = 1.0 if frame_area_mm2 is None else frame_area_mm2
    depth = 1.0 if depth_um is None else depth_um
    rows += [
        (
            "field area", "relative" if frame_area_mm2 is None else "mm2", area, given.field_relative * area,
            -c / area, given.basis,
        ),
        (
            "cell depth", "relative" if depth_um is None else "um", depth, given.depth_relative * depth,
            -c / depth, given.basis,
        ),
        ("size scale", "um", interval.size_um, given.size_um, -exponent * c / interval.size_um, given.basis),
    ]  # fmt: skip
    if classification is not None:
        whole = (classification.high - classification.low) / (2 * _quantile_of(classification.confidence))
        beyond = math.sqrt(max(0.0, whole**2 - counting**2))
        rows.append(("classification", "per mL", classification.value, beyond, 1.0, classification.method_name))
    rows.append(
        (
            "coincidence", "share", 1 - lost_share, lost_share / math.sqrt(3), c,
            "expected overlap, not corrected: rectangular",
        )
    )  # fmt: skip
    contributions = [abs(sensitivity) * u for *_, u, sensitivity, _ in rows]
    variance = sum(x * x for x in contributions)
    combined = math.sqrt(variance)
    return Budget(
        size_um=interval.size_um,
        class_name=interval.class_name,
        value=c,
        rows=tuple(
            BudgetRow(
                name=name,
                unit=unit,
                value=value,
                standard_uncertainty=u,
                sensitivity=sensitivity,
                contribution=x,
                share=x * x / variance if variance else 0.0,
                basis=basis,
            )
            for (name, unit, value, u, sensitivity, basis), x in zip(rows, contributions, strict=True)
        ),
        combined=combined,
        expanded=COVERAGE_FACTOR * combined,
        counting=counting,
        systematic=math.sqrt(max(0.0, variance - contributions[0] ** 2)),
    )


def with_systematic(interval: Interval, budget: Budget) -> Interval:
    """The interval of a count, widened by everything else in its budget (k = 2).

    Each arm becomes the root of its square and that of ``2 * budget.systematic``: the exact, lopsided interval of a
    small count stays so. Compare this one with a limit where the truth of volume and size matters, not only of chance.

    Raises
    ------
    UserError
        If the budget is of another result.
    """
    if (interval.value, interval.size_um, interval.unit) != (budget.value, budget.size_um, "per mL"):
        raise UserError(
            f"the budget of {budget.value:g} per mL (>= {budget.size_um:g} um) is not that of {interval.value:g} "
            f"{interval.unit} (>= {interval.size_um:g} um)"
        )
    half = budget.coverage_factor * budget.systematic
    return replace(
        interval,
        low=max(0.0, interval.value - math.hypot(interval.value - interval.low, half)),
        high=interval.value + math.hypot(interval.high - interval.value, half),
        method="combined",
        systematic=half,
    )


def _quantile_of(confidence: float) -> float:
    return float(normal_quantile((1 + confidence) / 2))
