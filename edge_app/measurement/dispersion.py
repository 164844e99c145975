"""How much more a count scatters than Poisson: block bootstrap over time.

One particle may be imaged in several frames, particles come in clumps, and a sample settles: counts of windows then
scatter more than Poisson, and an interval from the total alone is too narrow.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.measurement.poisson import normal_quantile, student_quantile

__all__ = ["MINIMUM_WINDOWS", "RESAMPLES", "Dispersion", "block_multiplicities", "default_block", "dispersion_of"]

MINIMUM_WINDOWS: Final = 12
"""With fewer windows the scatter is not known well enough to be used."""

RESAMPLES: Final = 2000

F8 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """Scatter of a count, as variance over that of a Poisson count.

    Attributes
    ----------
    factor
        1: Poisson. As estimated: it may lie below 1 by chance.
    degrees
        Degrees of freedom behind the estimate.
    windows, block_windows
        Windows used and how many in a row were drawn together.
    resamples, seed
        Of the bootstrap.
    """

    factor: float
    degrees: float
    windows: int
    block_windows: int
    resamples: int
    seed: int

    def inflation(self, *, confidence: float) -> float:
        """Factor on the Poisson variance that an interval is to use: at least 1.

        Above 1 it holds ``(t / z)**2`` too, because the factor is an estimate from few blocks.
        """
        if self.factor <= 1:
            return 1.0
        p = (1 + confidence) / 2
        return self.factor * (student_quantile(p, max(1.0, self.degrees)) / float(normal_quantile(p))) ** 2


def default_block(windows: int, *, correlation: float = 0.0) -> int:
    """Windows drawn together.

    The cube root of their number serves a series of unknown short memory; where neighbours are seen to be correlated,
    more: the optimum for a first-order autoregression, up to a fifth of the series.

    References
    ----------
    D. W. K. Andrews, Econometrica 59 (1991) 817, equations 5.3 and 6.4.

    Examples
    --------
    >>> default_block(60), default_block(60, correlation=0.6)
    (4, 7)
    """
    memory = 1.1447 * (4 * correlation**2 / (1 - correlation**2) ** 2 * windows) ** (1 / 3)
    return max(1, round(windows ** (1 / 3)), min(round(memory), windows // 5))


@lru_cache(maxsize=8)
def block_multiplicities(windows: int, block: int, *, resamples: int = RESAMPLES, seed: int = 0) -> F8:
    """How often each window is in each resample of a circular block bootstrap, shape (resamples, windows).

    Rows sum to ``windows``. Read-only: it is shared between calls.

    References
    ----------
    D. N. Politis, J. P. Romano, A circular block-resampling procedure for stationary data (1992).
    """
    rng = np.random.default_rng([seed, windows, block])
    starts = rng.integers(0, windows, size=(resamples, math.ceil(windows / block)))
    index = ((starts[:, :, None] + np.arange(block)) % windows).reshape(resamples, -1)[:, :windows]
    flat = index + windows * np.arange(resamples)[:, None]
    table = np.bincount(flat.ravel(), minlength=resamples * windows).reshape(resamples, windows).astype(np.float64)
    table.flags.writeable = False
    return table


def dispersion_of(
    total: npt.ArrayLike,
    variance: npt.ArrayLike,
    volume: npt.ArrayLike,
    *,
    block: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Dispersion | None:
    """Dispersion of a count over the windows of a run; None with too few windows or counts to know.

    The variance of the resampled rate ``sum(total) / sum(volume)`` over the Poisson variance of the rate. Blocks of
    ``L`` windows miss the share ``2 r / ((1 - r**2) L)`` of the variance of a series whose neighbours are correlated by
    ``r``; it is put back where ``r`` is significant.

    Parameters
    ----------
    total
        Weighted count of each window in order of time, shape (windows,).
    variance
        Sum of squared weights of each window: its Poisson variance.
    volume
        Analysed volume of each window (any unit).
    block
        Windows drawn together (default: `default_block` with the correlation of neighbours).

    Examples
    --------
    >>> counts = np.random.default_rng(1).poisson(20, 60)
    >>> twice = dispersion_of(2 * counts, 2 * counts, np.ones(60))  # every particle imaged twice
    >>> 1.3 < twice.factor < 2.9
    True
    """
    y, v, space = (np.asarray(a, np.float64) for a in (total, variance, volume))
    windows = y.size
    if windows < MINIMUM_WINDOWS or y.sum() <= 0 or space.sum() <= 0:
        return None
    deviation = y - y.sum() / space.sum() * space
    correlation = float(deviation[1:] @ deviation[:-1] / max(deviation @ deviation, 1e-300))
    # An estimate from a short series is too small by (1 + 3r)/n (Kendall 1954).
    significant = correlation > 1.645 / math.sqrt(windows)
    correlation = min(0.9, correlation + (1 + 3 * correlation) / windows) if significant else 0.0
    block = default_block(windows, correlation=correlation) if block is None else block
    if not 1 <= block <= windows // 3:
        raise ValueError(f"a block of {block} of {windows} windows: 1 to {windows // 3} are possible")
    times = block_multiplicities(windows, block, resamples=resamples, seed=seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = (times @ y) / (times @ space)
    rate = rate[np.isfinite(rate)]
    blocks = windows / block
    missed = min(0.5, 2 * correlation / ((1 - correlation**2) * block))
    factor = float(rate.var() * space.sum() ** 2 / v.sum() * blocks / (blocks - 1) / (1 - missed))
    # Overlapping blocks: Bartlett weights (1 - lag/block) squared and summed say how many are independent.
    degrees = windows * 3 * block / (2 * block**2 + 1) - 1
    return Dispersion(
        factor=factor, degrees=degrees, windows=windows, block_windows=block, resamples=resamples, seed=seed
    )
