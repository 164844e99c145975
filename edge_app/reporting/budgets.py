"""What a concentration is uncertain by: chance of the count, and volume, size scale and classifier beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge_app.measurement.concentration import Interval, interval_per_ml
from edge_app.measurement.uncertainty import (
    Budget,
    BudgetRow,
    InputUncertainties,
    local_exponent,
    uncertainty_budget,
    with_systematic,
)
from edge_app.reporting.run_facts import RunFacts

__all__ = [
    "MAIN_SIZES_UM",
    "ClassUncertainty",
    "SizeResult",
    "class_uncertainties",
    "combined_interval",
    "mean_result",
    "size_result",
]

MAIN_SIZES_UM: Final = (10.0, 25.0)
"""Sizes of the pharmacopoeias' limits: the ones that get a budget and a diagram of aliquots."""
_VOLUME_ROWS: Final = ("field area", "cell depth")


@dataclass(frozen=True, kw_only=True)
class SizeResult:
    """All particles at and above a size.

    Attributes
    ----------
    counting
        Interval of the count alone.
    budget
        Everything that the value is uncertain by.
    """

    counting: Interval
    budget: Budget

    @property
    def combined(self) -> Interval:
        """The interval with all of the budget in it."""
        return combined_interval(self.counting, self.budget)

    def against(self, limit_per_ml: float) -> Interval:
        """The combined interval with the systematic part that stands on the side of a limit."""
        found = self.combined
        upper = _upper_systematic(self.budget)
        return replace(found, systematic=upper) if limit_per_ml > found.value else found

    @property
    def random_rows(self) -> tuple[BudgetRow, ...]:
        """Rows of the budget that shrink with the analysed volume."""
        return self.budget.rows[:1]

    @property
    def systematic_rows(self) -> tuple[BudgetRow, ...]:
        """Rows that do not."""
        return self.budget.rows[1:]


@dataclass(frozen=True, kw_only=True)
class ClassUncertainty:
    """A class at and above a size, corrected for the classifier: standard uncertainties per mL.

    Attributes
    ----------
    counting, classification, systematic
        Of the count as called, of what the correction adds, and of volume, size scale and coincidence.
    combined
        The corrected interval with the systematic part in it.
    """

    class_name: str
    counting: float
    classification: float
    systematic: float
    combined: Interval


def combined_interval(interval: Interval, budget: Budget) -> Interval:
    """The interval of a count with everything else in its budget (k = 2), as `with_systematic` makes it, but lopsided.

    What is uncertain besides the count is so in proportion: an instrument that sees a share ``e`` too little reads
    ``(1 - e)`` of the truth, which is ``1 / (1 - e)`` of the reading. With ``e`` taken of the reading on both sides,
    too many results just below a limit would be called a pass (4.2 % instead of 2.5 % where ``e`` has a standard
    uncertainty of 8 %).
    """
    found = with_systematic(interval, budget)
    return replace(found, high=found.value + math.hypot(interval.high - interval.value, _upper_systematic(budget)))


def _upper_systematic(budget: Budget) -> float:
    """Upper half-width (k = 2) of the systematic part, per mL."""
    half = budget.coverage_factor * budget.systematic
    if budget.value <= 0:
        return half
    # A relative half-width of nearly 1 leaves no upper end at all.
    return half / (1.0 - min(half / budget.value, 0.9))


def _inputs(run: RunFacts, size_um: float) -> InputUncertainties:
    calibration = run.calibration
    if calibration is not None:
        known = calibration.uncertainty_um(np.array([size_um]))
        if known is not None:
            # The certificate states k = 2.
            return InputUncertainties(size_um=float(known[0]) / 2.0, basis=f"certificate {calibration.id}")
        if run.calibration_state == "valid":
            return InputUncertainties(basis="assumed, the calibration states none")
    return InputUncertainties()


def _with_own_basis(budget: Budget, run: RunFacts) -> Budget:
    """The budget with the volume's rows named for what they are: no certificate states area or depth."""
    basis = (
        "assumed; the volume itself is the one that the instrument states"
        if run.info.get("volume_imaged_ml")
        else "assumed, no certificate states it"
    )
    rows = tuple(replace(r, basis=basis) if r.name in _VOLUME_ROWS else r for r in budget.rows)
    return replace(budget, rows=rows)


def _budget(run: RunFacts, interval: Interval, *, exponent: float) -> Budget:
    calibration, field = run.calibration, run.field_mm
    found = uncertainty_budget(
        interval,
        exponent=exponent,
        inputs=_inputs(run, interval.size_um),
        frame_area_mm2=None if field is None else field[0] * field[1],
        depth_um=None if calibration is None else calibration.depth_um,
        lost_share=0.0 if run.coincidence is None else run.coincidence.lost_share,
    )
    return _with_own_basis(found, run)


def size_result(run: RunFacts, size_um: float) -> SizeResult | None:
    """All particles of a run at and above a size; None where nothing was analysed or the size is not reported."""
    if run.series is None or size_um < run.reporting_limit_um:
        return None
    counting = interval_per_ml(run.series, size_um)
    budget = _budget(run, counting, exponent=local_exponent(run.series, size_um))
    return SizeResult(counting=counting, budget=budget)


def mean_result(mean: Interval, runs: Sequence[RunFacts]) -> SizeResult:
    """The mean of aliquots; its systematic part is the largest that one of the runs has.

    Volume and size scale are the same for all aliquots of an instrument, so that a mean does not reduce them.
    """
    budgets = [
        _budget(run, mean, exponent=local_exponent(run.series, mean.size_um)) for run in runs if run.series is not None
    ]
    budget = max(budgets, key=lambda b: b.systematic)
    return SizeResult(counting=mean, budget=budget)


def class_uncertainties(run: RunFacts, size_um: float) -> tuple[ClassUncertainty, ...]:
    """Each class at and above a size, as corrected; none where the record allows no correction or nothing was found."""
    if run.corrected is None or run.series is None or size_um not in run.corrected.sizes_um:
        return ()
    column = run.corrected.sizes_um.index(size_um)
    found = []
    for name, cells in run.corrected.rows.items():
        corrected = cells[column]
        called = interval_per_ml(run.series, size_um, class_name=name)
        budget = _budget(run, corrected, exponent=local_exponent(run.series, size_um, class_name=name))
        counting = _standard(called)
        found.append(
            ClassUncertainty(
                class_name=name,
                counting=min(counting, budget.counting),
                classification=math.sqrt(max(0.0, budget.counting**2 - counting**2)),
                systematic=budget.systematic,
                combined=combined_interval(corrected, budget),
            )
        )
    return tuple(found)


def _standard(interval: Interval) -> float:
    """Standard uncertainty of a count's interval, as a budget has it."""
    return uncertainty_budget(interval, exponent=0.0).counting
