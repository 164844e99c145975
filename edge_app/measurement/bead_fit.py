"""The single beads of a standard: a mixture of singlets, clusters and dirt fitted to extinction and size.

What tells a doublet from a blurred single bead is not its size but the light it takes away. The *extinction area*
``(1 - mean) * area`` of a particle, in px, is all but the same in and out of focus, because defocus only spreads the
light that passes the objective; two beads take away twice as much as one. So single beads are a narrow peak in
``E = ln(extinction area)`` whatever their focus, doublets the same peak ``ln 2`` higher, triplets ``ln 3``, and dirt a
slope over the whole range. Within each of the three kinds the diameter has a distribution of its own, kept in bins.
Expectation-maximisation, from the highest peak and from where that would be if it were the doublets'; the likelier
fit is kept.

A sample's particles lie at all depths of the cell, as the beads do. So what is calibrated is the *median single bead
over the cell's depth*; the most frequent diameter (beads nearest to focus) is given beside it.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.measurement.calibration import SizeRule, reading_px
from edge_app.segmentation.particles import Particles

__all__ = ["BeadFit", "BeadFitSettings", "diameters_px", "extinction_area_px", "fit_singlets"]

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

E_BIN: Final = 0.012
E_BELOW, E_ABOVE = 2.0, 2.0
"""Reach of the fit about the highest peak in E: triplets of a peak that is the doublets' stay within."""
D_BIN: Final = 0.06
D_REACH: Final = 1.2
"""Bins and reach of ln d about its median at the peak."""
LN2: Final = float(np.log(2))
TRIPLET: Final = float(np.log(3) / np.log(2))
DELTA_LN: Final = (0.55, 0.76)
"""Where the doublets may be: shadowing and the threshold take a little from twice the extinction."""
SIGMA_LN: Final = (0.012, 0.30)
CLUSTER_LN_D: Final = (0.30, 0.47)
"""Diameter of a doublet and a triplet over that of one of their beads, ln: a little below sqrt(2) and sqrt(3)."""
TREND_SD, TREND_LENGTH_LN, TREND_MOST, TREND_ROUNDS = 0.15, 0.2, 0.35, 5
"""How far the extinction of single beads may go with their diameter, over which distance in ln d, at most."""
CHAIN: Final = 1.8
"""Gaussians of the singlets stay within this many standard deviations of the stronger one."""


class BeadFitSettings(BaseModel):
    """What a bead run must offer, and how its uncertainty is found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_singlets: int = Field(100, ge=20, description="fewer single beads are refused")
    most_clustered: float = Field(0.30, gt=0, lt=1, description="more doublets and triplets among the beads: clumped")
    most_background: float = Field(0.50, gt=0, lt=1, description="a larger share of dirt is refused")
    bootstrap: int = Field(200, ge=20, le=5000, description="resampled runs (whole frames are drawn) for uncertainties")
    seed: int = Field(1, ge=0, description="seed of the resampling")


DEFAULT_FIT: Final = BeadFitSettings()


@dataclass(frozen=True, kw_only=True)
class BeadFit:
    """Result of one lot, sizes in px of the size rule.

    Attributes
    ----------
    location_px, u_px
        Median single bead, and its standard uncertainty (frames resampled).
    peak_px
        Where single beads are most frequent.
    rsd
        Robust relative standard deviation of the single beads' diameter in px: half of the central 68 %.
    singlets, clusters, background
        Expected numbers of each kind.
    doublet_extinction
        Extinction area of a doublet over that of a single bead.
    singlet_share
        float64 (n,): probability that a row is a single bead; 0 for rows that were not counted.
    """

    location_px: float
    u_px: float
    peak_px: float
    rsd: float
    singlets: float
    clusters: float
    background: float
    doublet_extinction: float
    singlet_share: F8 = field(repr=False)

    @property
    def clustered(self) -> float:
        """Share of doublets and triplets among beads."""
        return self.clusters / max(self.singlets + self.clusters, 1e-9)

    @property
    def background_share(self) -> float:
        """Share of dirt among everything found."""
        return self.background / max(self.singlets + self.clusters + self.background, 1e-9)


@dataclass
class _Mixture:
    """Parameters of B fits side by side; K Gaussians, D bins of diameter."""

    mu: F8  # (B, K)
    sigma: F8  # (B, K)
    share: F8  # (B, K), sums to 1
    delta: F8  # (B,)
    weight: F8  # (B, 5): singlets, doublets, triplets, two slopes of dirt
    diameter: F8  # (B, 3, D): singlets, clusters, dirt; each sums to 1

    def repeated(self, times: int) -> "_Mixture":
        return _Mixture(**{k: np.repeat(v, times, axis=0) for k, v in vars(self).items()})


@dataclass(frozen=True)
class _Densities:
    """Weighted densities over E at the trend's zero, (B, E, ...)."""

    single: F8  # by Gaussian
    double: F8
    triple: F8
    dirt: F8  # by slope


@dataclass(frozen=True)
class _Cells:
    """Bins of E and ln d that hold a particle, C of them, and which row of each kind's density over E they read.

    A cluster's beads are as blurred as single ones smaller by ``CLUSTER_LN_D`` are: it follows the trend from there.
    """

    x: F8  # (E,)
    row: I8  # (C,): bin of E
    column: I8  # (C,): bin of ln d
    trend: F8  # (D,): extinction of single beads of this diameter minus that of all, ln
    single: I8 = field(init=False)  # (C,)
    double: I8 = field(init=False)
    triple: I8 = field(init=False)

    def __post_init__(self) -> None:
        for name, by in (("single", 0.0), ("double", CLUSTER_LN_D[0]), ("triple", CLUSTER_LN_D[1])):
            at = np.clip(self.column - round(by / D_BIN), 0, len(self.trend) - 1)
            step = np.rint(self.trend[at] / E_BIN).astype(np.int64)
            object.__setattr__(self, name, np.clip(self.row - step, 0, len(self.x) - 1))


def diameters_px(
    area_px: npt.NDArray[np.generic],
    half_max_area_px: npt.NDArray[np.generic],
    rule: SizeRule,
    learned_ecd_px: npt.NDArray[np.floating] | None = None,
) -> F8:
    """Equivalent diameter of a size rule in px, shape (n,), above 0: see `reading_px`."""
    reading = reading_px(rule, area_px, half_max_area_px, learned_ecd_px)
    return np.asarray(np.maximum(reading, 2.0 * np.sqrt(1e-6 / np.pi)))


def extinction_area_px(particles: Particles) -> F8:
    """Light taken away, as an area of full darkness: ``(1 - intensity_mean) * area_px``, px, shape (n,)."""
    return np.asarray((1.0 - particles.intensity_mean.astype(np.float64)) * particles.area_px)


def _gauss(x: F8, mu: F8, sigma: F8) -> F8:
    """(B, E, K) densities."""
    z = (x[None, :, None] - mu[:, None, :]) / sigma[:, None, :]
    return np.asarray(np.exp(-0.5 * z * z) / (sigma[:, None, :] * np.sqrt(2 * np.pi)))


def _densities(model: _Mixture, x: F8) -> _Densities:
    share, weight = model.share[:, None, :], model.weight
    single = _gauss(x, model.mu, model.sigma) * share
    double = _gauss(x, model.mu + model.delta[:, None], model.sigma) * share
    triple = (_gauss(x, model.mu + TRIPLET * model.delta[:, None], model.sigma) * share).sum(2)
    up = 2.0 * (x - x[0]) / (x[-1] - x[0]) ** 2
    return _Densities(
        single=single * weight[:, 0, None, None],
        double=double * weight[:, 1, None, None],
        triple=triple * weight[:, 2, None],
        dirt=np.stack([up[::-1], up], axis=1)[None] * weight[:, None, 3:],
    )


def _kinds(density: _Densities, cells: _Cells, diameter: F8) -> F8:
    """Densities of singlets, clusters and dirt in the cells, (3, B, C)."""
    cluster = density.double.sum(2)[:, cells.double] + density.triple[:, cells.triple]
    over_e = np.stack([density.single.sum(2)[:, cells.single], cluster, density.dirt.sum(2)[:, cells.row]])
    return np.asarray(over_e * diameter[:, :, cells.column].transpose(1, 0, 2))


def _summed(values: F8, at: I8, size: int) -> F8:
    """Sums of (B, C) over the cells that go to each of ``size`` places, (B, size)."""
    fits = len(values)
    place = np.arange(fits)[:, None] * size + at
    return np.asarray(np.bincount(place.ravel(), weights=values.ravel(), minlength=fits * size).reshape(fits, size))


def _step(model: _Mixture, cells: _Cells, counts: F8) -> F8:
    """One step of all fits, in place; ``counts`` is (B, C). Returns the log-likelihood before it, (B,)."""
    x, density = cells.x, _densities(model, cells.x)
    kinds = _kinds(density, cells, model.diameter)
    total = kinds.sum(0) + 1e-12
    ratio = counts / total
    bins = model.diameter.shape[2]
    by_diameter = np.stack([_summed(k * ratio, cells.column, bins) for k in kinds], axis=1)  # (B, 3, D)
    likelihood = np.asarray((counts * np.log(total)).sum(1))
    of_single, of_cluster, of_dirt = (ratio * model.diameter[:, k, cells.column] for k in range(3))
    single = density.single * _summed(of_single, cells.single, len(x))[:, :, None]
    double = density.double * _summed(of_cluster, cells.double, len(x))[:, :, None]
    triple = density.triple * _summed(of_cluster, cells.triple, len(x))
    dirt = density.dirt * _summed(of_dirt, cells.row, len(x))[:, :, None]
    n = np.maximum(counts.sum(1), 1.0)
    of_double = double.sum((1, 2))
    weight = np.concatenate(
        [single.sum((1, 2))[:, None], of_double[:, None], triple.sum(1)[:, None], dirt.sum(1)], axis=1
    )
    model.weight = (weight + 1e-3) / (n[:, None] + 5e-3)
    of_k = single.sum(1) + 1e-9
    mu = (single * x[None, :, None]).sum(1) / of_k
    variance = (single * (x[None, :, None] - mu[:, None, :]) ** 2).sum(1) / of_k
    model.share = of_k / of_k.sum(1, keepdims=True)
    model.sigma = np.clip(np.sqrt(variance), *SIGMA_LN)
    strong = np.argmax(model.share, axis=1)[:, None]
    anchor, width = np.take_along_axis(mu, strong, 1), np.take_along_axis(model.sigma, strong, 1)
    reach = CHAIN * np.maximum(model.sigma, width)
    model.mu = np.clip(mu, anchor - reach, anchor + reach)
    shift = (double * (x[None, :, None] - model.mu[:, None, :])).sum((1, 2)) / np.maximum(of_double, 1e-9)
    # Ten doublets' worth of what physics says, so that a handful of strangers cannot move it.
    model.delta = np.clip((of_double * shift + 10 * 0.96 * LN2) / (of_double + 10), *DELTA_LN)
    # Dirt may have any size: a count spread over all bins keeps every particle possible as dirt.
    spread = np.array([0.02, 0.02, 0.3])[None, :, None]
    pseudo = by_diameter + spread
    model.diameter = pseudo / pseudo.sum(2, keepdims=True)
    return likelihood


def _start(mode: float, bins: int) -> _Mixture:
    return _Mixture(
        mu=np.array([[mode - 0.03, mode + 0.03]]),
        sigma=np.array([[0.06, 0.06]]),
        share=np.array([[0.5, 0.5]]),
        delta=np.array([0.96 * LN2]),
        weight=np.array([[0.7, 0.12, 0.03, 0.075, 0.075]]),
        diameter=np.full((1, 3, bins), 1.0 / bins),
    )


def _converged(model: _Mixture, cells: _Cells, counts: F8, *, steps: int) -> float:
    """Fit one model in place; returns its log-likelihood."""
    likelihood = -np.inf
    for _ in range(steps):
        now = float(_step(model, cells, counts)[0])
        if abs(now - likelihood) < 1e-4:
            break
        likelihood = now
    return now


def _trend(model: _Mixture, cells: _Cells, counts: F8) -> F8:
    """How the extinction of single beads goes with their diameter, ln, (D,): smooth, and zero where none are."""
    bins = len(cells.trend)
    single = _share_of_cells(model, cells) * counts
    n = _summed(single, cells.column, bins)[0]
    centre = float((model.share * model.mu).sum())
    spread = float(np.sqrt((model.share * (model.sigma**2 + (model.mu - centre) ** 2)).sum()))
    seen = _summed(single * (cells.x[cells.row] - centre), cells.column, bins)[0] / np.maximum(n, 1e-9)
    at = D_BIN * np.arange(bins)
    prior = TREND_SD**2 * np.exp(-0.5 * ((at[:, None] - at) / TREND_LENGTH_LN) ** 2)
    smooth = prior @ np.linalg.solve(prior + np.diag(spread**2 / np.maximum(n, 1e-3)), seen)
    return np.asarray(np.clip(smooth - float(smooth @ n) / max(float(n.sum()), 1e-9), -TREND_MOST, TREND_MOST))


def _best_fit(mode: float, cells: _Cells, counts: F8) -> tuple[_Mixture, _Cells]:
    """Fits with the highest peak as singlets and as doublets; the likelier one, then with its trend."""
    bins = len(cells.trend)
    best, highest = _start(mode, bins), -np.inf
    for start in (mode, mode - 0.96 * LN2):
        model = _start(start, bins)
        now = _converged(model, cells, counts, steps=200)
        if now > highest:
            best, highest = model, now
    for _ in range(TREND_ROUNDS):
        cells = replace(cells, trend=_trend(best, cells, counts))
        _converged(best, cells, counts, steps=60)
    return best, cells


def _highest_peak(values: F8, *, width: float) -> float:
    """Maximum of the smoothed density."""
    edges = np.arange(values.min() - 4 * width, values.max() + 4 * width, width / 4)
    counts, _ = np.histogram(values, edges)
    reach = np.arange(-12, 13) / 4
    smooth = np.convolve(counts, np.exp(-0.5 * reach**2), mode="same")
    return float(edges[int(np.argmax(smooth))] + width / 8)


def _share_of_cells(model: _Mixture, cells: _Cells) -> F8:
    """Probability of a single bead in each cell, (B, C)."""
    kinds = _kinds(_densities(model, cells.x), cells, model.diameter)
    return np.asarray(kinds[0] / (kinds.sum(0) + 1e-12))


def _quantile(sorted_values: F8, weights: F8, share: float) -> F8:
    """Weighted quantile, weights (B, n) in the order of the values -> (B,)."""
    total = np.cumsum(weights, axis=1)
    at = (total < share * total[:, -1:]).sum(1)
    return np.asarray(sorted_values[np.minimum(at, len(sorted_values) - 1)])


def fit_singlets(
    diameter_px: npt.NDArray[np.floating],
    extinction_px: npt.NDArray[np.floating],
    frame: npt.NDArray[np.integer],
    *,
    counted: npt.NDArray[np.bool_] | None = None,
    settings: BeadFitSettings = DEFAULT_FIT,
) -> BeadFit | None:
    """Find the single beads of one run.

    Parameters
    ----------
    diameter_px
        (n,): diameter of every particle by the size rule.
    extinction_px
        (n,): extinction area; rows that take no light away count as dirt.
    frame
        (n,): frame of each particle; whole frames are resampled, so that a bead seen several times counts once.
    counted
        (n,): rows to use; default all. Leave out what touches the border.

    Returns
    -------
    BeadFit, or None where fewer than 20 particles are there.

    Examples
    --------
    >>> rng = np.random.default_rng(3)
    >>> d = np.concatenate([rng.normal(9, 0.5, 400), rng.normal(12, 0.6, 40), rng.uniform(4, 25, 30)])
    >>> e = np.exp(np.concatenate([rng.normal(3, 0.05, 400), rng.normal(3.67, 0.05, 40), rng.uniform(1, 5, 30)]))
    >>> fit = fit_singlets(d, e, np.arange(470))
    >>> abs(fit.location_px - 9) < 0.1, round(fit.singlets, -1), round(fit.clusters, -1)
    (True, 400.0, 40.0)
    """
    use = np.ones(len(diameter_px), bool) if counted is None else np.asarray(counted, bool)
    extinction = np.asarray(extinction_px, np.float64)
    rows = np.flatnonzero(use & (extinction > 1e-3))
    if len(rows) < 20:
        return None
    log_e = np.log(extinction[rows])
    log_d = np.log(np.maximum(np.asarray(diameter_px, np.float64)[rows], 1e-6))
    mode = _highest_peak(log_e, width=0.06)
    middle = float(np.median(log_d[np.abs(log_e - mode) < 0.15]))
    near = (log_e >= mode - E_BELOW) & (log_e < mode + E_ABOVE) & (np.abs(log_d - middle) < D_REACH)
    rows, log_e, log_d = rows[near], log_e[near], log_d[near]
    x = np.arange(mode - E_BELOW + E_BIN / 2, mode + E_ABOVE, E_BIN)
    bins = int(2 * D_REACH / D_BIN)
    in_e = np.minimum(((log_e - (mode - E_BELOW)) / E_BIN).astype(np.int64), len(x) - 1)
    in_d = np.minimum(((log_d - (middle - D_REACH)) / D_BIN).astype(np.int64), bins - 1)
    filled, cell = np.unique(in_e * bins + in_d, return_inverse=True)
    counts = np.bincount(cell).astype(np.float64)[None]
    model, cells = _best_fit(mode, _Cells(x=x, row=filled // bins, column=filled % bins, trend=np.zeros(bins)), counts)
    share = np.zeros(len(diameter_px))
    share[rows] = _share_of_cells(model, cells)[0, cell]
    order = np.argsort(log_d, kind="stable")
    weights = share[rows][order][None]
    low, location, high = (float(_quantile(log_d[order], weights, q)[0]) for q in (0.16, 0.5, 0.84))
    single = log_d[share[rows] > 0.5]
    kinds = model.weight[0] * len(rows)
    return BeadFit(
        location_px=float(np.exp(location)),
        u_px=float(np.exp(location)) * _location_sd(model, cells, cell, log_d, frame[rows], settings),
        peak_px=float(np.exp(_highest_peak(single, width=0.02))) if len(single) else float(np.exp(location)),
        rsd=float((np.exp(high) - np.exp(low)) / 2 / np.exp(location)),
        singlets=float(kinds[0]),
        clusters=float(kinds[1] + kinds[2]),
        background=float(kinds[3] + kinds[4]) + float(use.sum() - len(rows)),
        doublet_extinction=float(np.exp(model.delta[0])),
        singlet_share=share,
    )


def _location_sd(
    model: _Mixture,
    cells: _Cells,
    cell: I8,
    log_d: F8,
    frame: npt.NDArray[np.integer],
    settings: BeadFitSettings,
    *,
    steps: int = 8,
    at_once: int = 25,
) -> float:
    """Standard deviation of ln(location) over runs made of the same frames drawn anew; each is fitted again."""
    rng = np.random.default_rng(settings.seed)
    _, frame_row = np.unique(frame, return_inverse=True)
    frames = int(frame_row.max()) + 1
    order = np.argsort(log_d, kind="stable")
    middle: list[F8] = []
    for first in range(0, settings.bootstrap, at_once):
        size = min(at_once, settings.bootstrap - first)
        times = rng.multinomial(frames, np.full(frames, 1 / frames), size=size)[:, frame_row]
        counts = _summed(times.astype(np.float64), cell, len(cells.row))
        many = model.repeated(size)
        for _ in range(steps):
            _step(many, cells, counts)
        weights = (times * _share_of_cells(many, cells)[:, cell])[:, order]
        middle.append(_quantile(log_d[order], weights, 0.5))
    return float(np.std(np.concatenate(middle), ddof=1))
