"""Each chosen limit beside what was found, with everything in the interval that the result is uncertain by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_app.errors import UserError
from edge_app.measurement.limits import CountingMethod, Standard, compare
from edge_app.measurement.limits import Verdict as LimitVerdict
from edge_app.reporting.budgets import SizeResult

__all__ = ["LimitComparison", "LimitRow", "compare_with_limits"]

REPORT_METHOD: Final[CountingMethod] = "light obscuration"
"""Method whose limits are compared with: the one that counts in a liquid, as flow imaging does."""


@dataclass(frozen=True, kw_only=True)
class LimitRow:
    """A limit and its verdict, in the limit's unit.

    Attributes
    ----------
    verdict
        Of the interval with the systematic part in it.
    counting_low, counting_high
        Interval of the count alone.
    counting_decides
        Whether the count alone would not be inconclusive.
    """

    verdict: LimitVerdict
    counting_low: float
    counting_high: float
    counting_decides: bool


@dataclass(frozen=True, kw_only=True)
class LimitComparison:
    """A standard and each of its limits; sizes below the reporting limit are named, not compared."""

    standard: Standard
    method: CountingMethod
    rows: tuple[LimitRow, ...]
    below_reporting: tuple[float, ...]


def compare_with_limits(
    standards: Sequence[Standard],
    *,
    container_ml: float,
    reporting_limit_um: float,
    result_at: Callable[[float], SizeResult | None],
) -> list[LimitComparison]:
    """Compare with the limits of standards by light obscuration.

    Parameters
    ----------
    container_ml
        Nominal content of a container.
    reporting_limit_um
        Limits at smaller sizes are not compared.
    result_at
        All particles at and above a size, None where it is none of the reporting sizes.

    Raises
    ------
    UserError
        If a standard has no limit for the container, or one at a size that is not reported.
    """
    found = []
    for standard in standards:
        rows, below = [], []
        for limit in standard.applicable(container_ml, method=REPORT_METHOD):
            if limit.size_um < reporting_limit_um:
                below.append(limit.size_um)
                continue
            result = result_at(limit.size_um)
            if result is None:
                raise UserError(f"{standard.name}: limit at {limit.size_um:g} um is none of the reporting sizes")
            per_ml = limit.maximum / (container_ml if limit.per == "container" else 1.0)
            verdict = compare(standard, limit, result.against(per_ml), container_ml=container_ml)
            alone = compare(standard, limit, result.counting, container_ml=container_ml)
            rows.append(
                LimitRow(
                    verdict=verdict,
                    counting_low=alone.interval.low,
                    counting_high=alone.interval.high,
                    counting_decides=alone.result != "inconclusive",
                )
            )
        found.append(
            LimitComparison(standard=standard, method=REPORT_METHOD, rows=tuple(rows), below_reporting=tuple(below))
        )
    return found
