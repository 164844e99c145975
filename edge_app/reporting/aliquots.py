"""Several runs of one sample, and a sample beside its blank."""

from collections.abc import Sequence
from dataclasses import dataclass

from edge_app.errors import UserError
from edge_app.measurement.concentration import Interval, difference, interval_per_ml
from edge_app.measurement.histogram import REPORTING_EDGES_UM
from edge_app.measurement.replicates import Replicates, replicates
from edge_app.reporting.run_facts import RunFacts

__all__ = ["AliquotSize", "BlankSize", "aliquot_sizes", "blank_sizes"]


@dataclass(frozen=True, kw_only=True)
class AliquotSize:
    """Aliquots at one size."""

    size_um: float
    all: tuple[Interval, ...]
    summary: Replicates


@dataclass(frozen=True, kw_only=True)
class BlankSize:
    """Sample and blank at one size, and what is left."""

    size_um: float
    sample: Interval
    blank: Interval
    rest: Interval


def aliquot_sizes(facts: Sequence[RunFacts], *, discard_first: bool) -> list[AliquotSize]:
    """Mean and scatter of several runs at each size that all of them report.

    Raises
    ------
    UserError
        If nothing was analysed in one of them.
    """
    limit = max(f.reporting_limit_um for f in facts)
    empty = [f.run_id for f in facts if f.series is None]
    if empty:
        raise UserError(f"{', '.join(empty)}: nothing was analysed, no mean can be made")
    sizes = []
    for size_um in REPORTING_EDGES_UM:
        if size_um < limit:
            continue
        aliquots = tuple(interval_per_ml(f.series, size_um) for f in facts if f.series is not None)
        sizes.append(
            AliquotSize(size_um=size_um, all=aliquots, summary=replicates(aliquots, discard_first=discard_first))
        )
    return sizes


def blank_sizes(facts: Sequence[RunFacts], sizes: Sequence[AliquotSize], blank: RunFacts) -> list[BlankSize]:
    """Sample (of several runs: their mean) less blank at each reported size.

    Raises
    ------
    UserError
        If the blank is one of the runs, or nothing was analysed in it or in the sample.
    """
    if blank.run_id in {f.run_id for f in facts}:
        raise UserError(f"{blank.run_id}: is the sample and its own blank")
    series = facts[0].series
    if blank.series is None or series is None:
        empty = blank.run_id if blank.series is None else facts[0].run_id
        raise UserError(f"{empty}: nothing was analysed, no blank can be taken off")
    means = {s.size_um: s.summary.mean for s in sizes}
    limit = max(f.reporting_limit_um for f in (*facts, blank))
    found = []
    for size_um in REPORTING_EDGES_UM:
        if size_um >= limit:
            sample = means[size_um] if len(facts) > 1 else interval_per_ml(series, size_um)
            other = interval_per_ml(blank.series, size_um)
            found.append(BlankSize(size_um=size_um, sample=sample, blank=other, rest=difference(sample, other)))
    return found
