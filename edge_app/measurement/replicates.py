"""Aliquots of one sample: first one discarded, mean and scatter of the rest, beside what Poisson allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge_app.errors import UserError
from edge_app.measurement.concentration import Interval, Method
from edge_app.measurement.poisson import gamma_cdf, student_quantile, weighted_interval

__all__ = ["ALIQUOTS", "Replicates", "replicates"]

ALIQUOTS: Final = 4
"""Least number of aliquots in USP <787> and <788>, the first one discarded."""


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Mean and scatter of aliquots.

    Attributes
    ----------
    discarded, used
        Intervals of the aliquots in their order.
    mean
        Mean of the aliquots used, with the wider of two intervals: Student's t from the scatter between aliquots, and
        that of the summed counts.
    rsd
        Relative standard deviation between aliquots, None with fewer than two or a mean of 0.
    poisson_rsd
        The least that counting allows: ``sqrt(mean of 1/n)`` of the expected counts.
    ratio
        ``rsd / poisson_rsd``: near 1 where nothing but chance tells aliquots apart.
    p_value
        Of a scatter at least this large if the aliquots were alike (index of dispersion, chi-squared).
    note
        What is not as USP asks.
    """

    discarded: tuple[Interval, ...]
    used: tuple[Interval, ...]
    mean: Interval
    rsd: float | None
    poisson_rsd: float | None
    ratio: float | None
    p_value: float | None
    note: str


def replicates(aliquots: Sequence[Interval], *, discard_first: bool = True) -> Replicates:
    """Summarise aliquots in the order in which they were measured.

    Parameters
    ----------
    aliquots
        Concentration of each, of one size, class and unit.
    discard_first
        As USP <787> and <788> do.

    Raises
    ------
    UserError
        If none is left, or they are not of one size, class, unit and confidence.

    Examples
    --------
    >>> def aliquot(n: int) -> Interval:
    ...     return Interval(value=float(n), low=0.0, high=2.0 * n, method="poisson_exact", confidence=0.95,
    ...         size_um=10.0, class_name="all", counted=n, volume_ml=1.0)
    >>> r = replicates([aliquot(n) for n in (300, 100, 110, 90)])
    >>> r.mean.value, round(r.rsd, 3), round(r.poisson_rsd, 3), round(r.ratio, 1)
    (100.0, 0.1, 0.1, 1.0)
    """
    skip = 1 if discard_first else 0
    used = tuple(aliquots[skip:])
    if not used:
        raise UserError(f"{len(aliquots)} aliquots, {skip} discarded: none is left")
    first = used[0]
    if len({(a.size_um, a.class_name, a.unit, a.confidence) for a in aliquots}) > 1:
        raise UserError("aliquots differ in size, class, unit or confidence: they have no common mean")
    note = ""
    if len(aliquots) < ALIQUOTS or not discard_first:
        rest = "the first not discarded" if not discard_first else "the first one discarded"
        note = f"{len(aliquots)} aliquots, {rest}; USP <787> and <788> ask for {ALIQUOTS} with the first one discarded"
    values = np.array([a.value for a in used])
    counted = np.array([a.counted for a in used], np.float64)
    volume = np.array([a.volume_ml for a in used])
    mean, k = float(values.mean()), len(used)
    # Value of one count in each aliquot: the mean's Poisson variance is a sum of weighted counts.
    unit_value = np.array([a.value / a.counted if a.counted else 1 / a.volume_ml for a in used]) / k
    spread = np.array([a.dispersion for a in used])
    low, high = (
        float(x)
        for x in weighted_interval(
            mean,
            float((unit_value**2 * counted * spread).sum()),
            float((unit_value * spread).max()),
            confidence=first.confidence,
        )
    )
    method: Method = "poisson_weighted" if (spread == 1).all() else "long_run_variance"
    rsd = poisson_rsd = ratio = p_value = None
    if k > 1 and mean > 0:
        sd = float(values.std(ddof=1))
        rsd = sd / mean
        expected = counted.sum() * volume / volume.sum()
        poisson_rsd = math.sqrt(float((1 / expected).mean()))
        ratio = rsd / poisson_rsd
        index = float(((counted - expected) ** 2 / expected).sum())
        p_value = float(1 - gamma_cdf((k - 1) / 2, index / 2))
        arm = student_quantile((1 + first.confidence) / 2, k - 1) * sd / math.sqrt(k)
        if 2 * arm > high - low:
            low, high, method = max(0.0, mean - arm), mean + arm, "student"
    summary = Interval(
        value=mean,
        low=low,
        high=high,
        unit=first.unit,
        method=method,
        confidence=first.confidence,
        size_um=first.size_um,
        class_name=first.class_name,
        counted=int(counted.sum()),
        volume_ml=float(volume.sum()),
        dispersion=float(spread.max()),
    )
    return Replicates(
        discarded=tuple(aliquots[:skip]),
        used=used,
        mean=summary,
        rsd=rsd,
        poisson_rsd=poisson_rsd,
        ratio=ratio,
        p_value=p_value,
        note=note,
    )
