"""How much more a count scatters than Poisson: the long-run variance of the windows of a run.

One particle may be imaged in several frames, particles come in clumps, and a sample settles: counts of windows then
scatter more than Poisson, and an interval from the total alone is too narrow. What a total scatters by is the spectrum
of the windows' counts at frequency 0, which has to be inferred from the slowest waves that fit into the run.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.measurement.poisson import normal_quantile

__all__ = ["MINIMUM_WINDOWS", "RESAMPLES", "Dispersion", "block_multiplicities", "default_block", "dispersion_of"]

MINIMUM_WINDOWS: Final = 12
"""With fewer windows the scatter is not known well enough to be used."""

RESAMPLES: Final = 2000

MEMORIES: Final = (0.0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92)
"""Correlation of neighbouring windows in what a concentration may do beside Poisson: none, to ten windows long."""

EXCESSES: Final = np.geomspace(0.05, 1e4, 56)
"""Long-run variance beyond Poisson that it may have, in units of the Poisson variance."""

POISSON_CHANCE: Final = 0.5
"""Weight of "nothing but Poisson" before the counts are looked at."""

EXCESS_POWER: Final = 0.3
"""The other half falls with this power of the excess (alike for each memory and factor of excess): little is likelier
than much. 0 makes intervals of Poisson counts wider, 1 those of slowly wandering ones too narrow."""

F8 = npt.NDArray[np.float64]
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


@dataclass(frozen=True, kw_only=True)
class Dispersion:
    """Scatter of a count, as variance over that of a Poisson count.

    Attributes
    ----------
    factor
        1: Poisson. Geometric mean of what the windows leave possible.
    windows
        Windows used.
    variances, chances
        What is possible, and how likely each is, (k,); chances sum to 1.
    """

    factor: float
    windows: int
    variances: F8 = field(repr=False)
    chances: F8 = field(repr=False)

    def inflation(self, *, confidence: float) -> float:
        """Factor on the Poisson variance that an interval is to use: at least 1.

        The two-sided quantile of a normal deviate whose variance is one of ``variances``, as likely as ``chances``
        say, over the normal one, squared: that the variance is itself uncertain is in it, as in Student's t.
        """
        some = self.chances > 1e-7
        scale, chance = np.sqrt(2 * self.variances[some]), self.chances[some]
        z = float(normal_quantile((1 + confidence) / 2))
        low, high = z, z * float(np.sqrt(self.variances[some].max()))
        while high - low > 1e-7 * high:
            middle = 0.5 * (low + high)
            outside = float(chance @ _erfc(middle / scale))
            low, high = (middle, high) if outside > 1 - confidence else (low, middle)
        return max(1.0, (high / z) ** 2)


@lru_cache(maxsize=4)
def _waves(windows: int) -> F8:
    """Cosines of half a wave and more over the run, orthonormal and without mean, (windows, windows - 1)."""
    order, place = np.arange(1, windows), np.arange(windows) + 0.5
    return np.sqrt(2 / windows) * np.cos(np.pi / windows * np.outer(place, order))


@lru_cache(maxsize=4)
def _candidates(windows: int) -> tuple[F8, F8, F8]:
    """Spectra that a run may have, over that of Poisson: inverse (k, windows - 1), variance (k,), log of the chance.

    ``1 + excess * (1 - m)**2 / (1 - 2 m cos(w) + m**2)``: Poisson, and a wander with memory ``m`` from one window to
    the next (first-order autoregression).
    """
    w = np.pi / windows * np.arange(1, windows)
    memory = np.array(MEMORIES)[:, None]
    shape = (1 - memory) ** 2 / (1 - 2 * memory * np.cos(w) + memory**2)
    spectra = 1 + (EXCESSES[:, None] * shape[:, None, :]).reshape(-1, windows - 1)
    weight = EXCESSES**-EXCESS_POWER
    share = np.tile((1 - POISSON_CHANCE) / len(MEMORIES) * weight / weight.sum(), len(MEMORIES))
    spectra = np.concatenate([np.ones((1, windows - 1)), spectra])
    variances = np.concatenate([[1.0], 1 + np.tile(EXCESSES, len(MEMORIES))])
    chance = np.log(np.concatenate([[POISSON_CHANCE], share])) - 0.5 * np.log(spectra).sum(1)
    return 1 / spectra, variances, chance


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


def dispersion_of(total: npt.ArrayLike, variance: npt.ArrayLike, volume: npt.ArrayLike) -> Dispersion | None:
    """Dispersion of a count over the windows of a run; None with too few windows or counts to know.

    The squared amplitudes of the cosines in the counts' deviations are, each by itself, a chi-squared number times the
    spectrum at their frequency (Whittle's likelihood). Every candidate spectrum (Poisson, and Poisson with a wander of
    some strength and memory) gets the chance that it gives them; its value at frequency 0 is the variance of the total.

    Parameters
    ----------
    total
        Weighted count of each window in order of time, shape (windows,).
    variance
        Sum of squared weights of each window: its Poisson variance.
    volume
        Analysed volume of each window (any unit).

    References
    ----------
    P. Whittle, Arkiv for Matematik 2 (1953) 423; U. K. Mueller, Econometrica 82 (2014) 2175 (cosines, low frequencies).

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
    power = (deviation @ _waves(windows)) ** 2 / v.mean()
    inverse, variances, chance = _candidates(windows)
    chance = chance - 0.5 * (inverse @ power)
    chance = np.exp(chance - chance.max())
    chance /= chance.sum()
    factor = float(np.exp(chance @ np.log(variances)))
    return Dispersion(factor=factor, windows=windows, variances=variances, chances=chance)
