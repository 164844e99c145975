"""The size curve: diameter in px of the size rule -> um, with an offset, monotone, and with a band.

Beads of a few sizes fix the curve at a few places. Between them it is a straight line with offset (a halo of fixed
width, as real instruments show it) plus a smooth departure that no lot needs to contradict: a Gaussian process over
``ln d`` with a line of unknown slope and offset under it (universal kriging, Rasmussen and Williams 2006, section
2.7). Its band is wider where no lot is near, and holds the certified diameters' own uncertainty.

How far an instrument departs is not known beforehand: in focus all sizes lie within 0.1 um of a line, far out of focus
a bead of 5 um reads as large as one of 6.5 um, because no picture is smaller than the blur. So the curve is the mean
over many such processes, from one that departs little to one that departs four times as much, at all sizes or at the
small ones alone, each weighted by how likely it makes the lots (its evidence; equation 5.8 there, with the line
integrated out, equation 2.45).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["CurvePoint", "SizeCurve", "find_mistake", "fit_size_curve"]

F8 = npt.NDArray[np.float64]

KNOTS: Final = 40
LENGTH_LN: Final = (0.2, 0.3, 0.45)
"""Sizes a factor of this many ln apart depart from the line almost independently."""
DEPARTURE_UM: Final = 0.25
DEPARTURE: Final = 0.008
"""Typical standard deviation of the departure: so many um and so large a share of the size."""
DEPARTURE_TIMES: Final = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0)
DEPARTURE_LN: Final = 0.6
"""Instruments between those that depart half and four times as much, log-normal about 1 with this deviation of ln."""
BLUR_UM: Final = (0.0, 0.5, 1.0, 2.0)
BLUR_FROM_UM, BLUR_DECAY_UM = 5.0, 2.0
BLUR_SHARES: Final = (0.5, 0.25, 0.15, 0.10)
"""Departure of small sizes alone: standard deviation up to 5 um, falling by 1/e every 2 um, and how often it is met."""
SMALLEST_UM: Final = 1.0
DRAWS: Final = 4000
CONSISTENT: Final = 0.10
CONSISTENT_UM: Final = 0.7
"""A lot farther from the line through the others than both of these is not what its label says."""
STRAIGHT_FROM_UM: Final = 4.0
"""Below this the optics' own blur bends the curve: such a lot has to be in order, not on the line."""


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One lot: certified diameter and its standard uncertainty (um), reading and its standard uncertainty (px)."""

    diameter_um: float
    u_um: float
    reading_px: float
    u_px: float


@dataclass(frozen=True, kw_only=True)
class SizeCurve:
    """Knots of the curve with their uncertainty.

    Attributes
    ----------
    px, um
        Knots; rising, from (0, 0).
    u_um
        Expanded uncertainty (k = 2) at each knot.
    low_um, high_um
        Band that holds the whole curve between the smallest and the largest lot with 95 % confidence.
    slope_um_per_px, offset_um
        The straight line under it: ``um = slope * px - offset``.
    residual_um
        Certified diameter minus curve, for each lot.
    valid_um
        Smallest and largest lot.
    """

    px: F8
    um: F8
    u_um: F8
    low_um: F8
    high_um: F8
    slope_um_per_px: float
    offset_um: float
    residual_um: F8
    valid_um: tuple[float, float]

    def at(self, px: npt.NDArray[np.float64]) -> F8:
        """Curve at readings in px, um."""
        return np.asarray(np.interp(px, self.px, self.um))

    def slope_at(self, px: float) -> float:
        """Um per px of the curve about a reading."""
        step = 0.02 * px
        return float(np.diff(self.at(np.array([px - step, px + step])))[0]) / (2 * step)


def _line(points: Sequence[CurvePoint]) -> tuple[float, float]:
    """Slope and offset of the line ``um = slope * px - offset``, weights falling with size."""
    x = np.array([p.reading_px for p in points])
    y = np.array([p.diameter_um for p in points])
    weight = 1.0 / (CONSISTENT_UM + CONSISTENT * y)
    slope, offset = np.linalg.lstsq(np.stack([x, -np.ones_like(x)], axis=1) * weight[:, None], y * weight, rcond=None)[
        0
    ]
    return float(slope), float(offset)


def _departure(points: Sequence[CurvePoint], from_: Sequence[CurvePoint]) -> F8:
    """Distance of points from the line through others, in units of what is consistent."""
    slope, offset = _line(from_)
    x, y = (np.array([getattr(p, n) for p in points]) for n in ("reading_px", "diameter_um"))
    return np.asarray(np.abs(slope * x - offset - y) / np.maximum(CONSISTENT * y, CONSISTENT_UM))


def find_mistake(points: Sequence[CurvePoint], names: Sequence[str]) -> str | None:
    """Say which lots cannot be what their labels say, None if all agree.

    Two lots whose exchange makes all agree were swapped; a lot that does not lie on the line through the others is
    wrong. Needs three lots.

    Parameters
    ----------
    points
        In any order.
    names
        One per point, for the message.

    Examples
    --------
    >>> lots = [CurvePoint(diameter_um=d, u_um=0.02, reading_px=(d + 1.5) / 1.33, u_px=0.02) for d in (5, 10, 15, 25)]
    >>> find_mistake(lots, ["5", "10", "15", "25"]) is None
    True
    >>> mixed = [lots[0], *(CurvePoint(diameter_um=a.diameter_um, u_um=0.02, reading_px=b.reading_px, u_px=0.02)
    ...     for a, b in ((lots[1], lots[2]), (lots[2], lots[1]))), lots[3]]
    >>> find_mistake(mixed, ["5 um", "10 um", "15 um", "25 um"])
    '10 um and 15 um were swapped: exchanged, all lots agree'
    """
    if len(points) < 3:
        return None
    order = sorted(range(len(points)), key=lambda i: points[i].diameter_um)
    readings = [points[i].reading_px for i in order]
    rising = all(b > a for a, b in itertools.pairwise(readings))
    straight = [i for i in order if points[i].diameter_um >= STRAIGHT_FROM_UM]
    if rising and len(straight) >= 3:
        points, names = [points[i] for i in straight], [names[i] for i in straight]
        order = list(range(len(points)))
    if rising and (_departure(points, points) <= 1.0).all():
        return None
    best: tuple[float, int, int] | None = None
    for i, j in itertools.combinations(range(len(points)), 2):
        exchanged = list(points)
        exchanged[i] = _with_reading(points[i], points[j])
        exchanged[j] = _with_reading(points[j], points[i])
        worst = float(_departure(exchanged, exchanged).max())
        if worst <= 0.6 and (best is None or worst < best[0]) and not rising:
            best = worst, i, j
    if best is not None and len(points) > 3:
        return f"{names[best[1]]} and {names[best[2]]} were swapped: exchanged, all lots agree"
    rest = [[p for k, p in enumerate(points) if k != i] for i in range(len(points))]
    agreement = [float(_departure(r, r).max()) for r in rest]
    culprit = int(np.argmin(agreement))
    slope, offset = _line(rest[culprit])
    reads = slope * points[culprit].reading_px - offset
    if len(points) > 3 and agreement[culprit] <= 1.0:
        return (
            f"{names[culprit]} is the wrong lot: its beads read {reads:.1f} um on the line through the others, "
            f"certified {points[culprit].diameter_um:g} um"
        )
    return "the lots contradict each other: their readings do not lie on one rising curve (" + ", ".join(
        f"{names[i]}: {points[i].reading_px:.2f} px" for i in order
    ) + ")"  # fmt: skip


def _with_reading(point: CurvePoint, other: CurvePoint) -> CurvePoint:
    return CurvePoint(diameter_um=point.diameter_um, u_um=point.u_um, reading_px=other.reading_px, u_px=other.u_px)


@dataclass(frozen=True)
class _Prior:
    """One of the processes that the curve may have come from."""

    length_ln: float
    times: float
    blur_um: float
    share: float

    def kernel(self, a: F8, b: F8) -> F8:
        """Covariance of the departure between places a and b of the line, um^2."""
        near = np.exp(-0.5 * ((np.log(a)[:, None] - np.log(b)[None]) / self.length_ln) ** 2)
        return np.asarray(np.outer(self._sd(a), self._sd(b)) * near)

    def _sd(self, um: F8) -> F8:
        small = self.blur_um * np.exp(-np.maximum(um - BLUR_FROM_UM, 0.0) / BLUR_DECAY_UM)
        return np.asarray(np.hypot(self.times * (DEPARTURE_UM + DEPARTURE * um), small))


def _priors() -> list[_Prior]:
    weight = np.exp(-0.5 * (np.log(DEPARTURE_TIMES) / DEPARTURE_LN) ** 2)
    return [
        _Prior(length_ln=length, times=times, blur_um=blur, share=float(w) * share)
        for length in LENGTH_LN
        for times, w in zip(DEPARTURE_TIMES, weight / weight.sum(), strict=True)
        for blur, share in zip(BLUR_UM, BLUR_SHARES, strict=True)
    ]


@dataclass(frozen=True)
class _Posterior:
    """What the lots say under one prior."""

    log_evidence: float
    line: F8  # slope, offset
    mean: F8  # (grid,)
    covariance: F8  # (grid, grid)


def _posterior(prior: _Prior, x: F8, y: F8, noise: F8, grid: F8, on_line: Callable[[F8], F8]) -> _Posterior:
    """Universal kriging from readings x (px) with certified diameters y (um); ``on_line``: px to um of the line."""
    over = prior.kernel(on_line(x), on_line(x)) + np.diag(noise)
    solved = np.linalg.inv(over)
    basis, basis_grid = (np.stack([v, -np.ones_like(v)], axis=1) for v in (x, grid))
    precision = basis.T @ solved @ basis
    line = np.linalg.solve(precision, basis.T @ solved @ y)
    rest = y - basis @ line
    across = prior.kernel(on_line(grid), on_line(x)) @ solved
    left = basis_grid - across @ basis
    return _Posterior(
        log_evidence=float(
            np.log(prior.share)
            - 0.5 * (np.linalg.slogdet(over)[1] + np.linalg.slogdet(precision)[1] + rest @ solved @ rest)
        ),
        line=line,
        mean=basis_grid @ line + across @ rest,
        covariance=prior.kernel(on_line(grid), on_line(grid))
        - across @ prior.kernel(on_line(x), on_line(grid))
        + left @ np.linalg.solve(precision, left.T),
    )


def fit_size_curve(points: Sequence[CurvePoint], *, seed: int = 1) -> SizeCurve:
    """Fit the curve to at least two lots.

    Parameters
    ----------
    points
        Lots of different size whose readings rise with it (see :func:`find_mistake`).
    seed
        Seed of the draws that make the band hold the whole curve.

    Raises
    ------
    ValueError
        If there are fewer than two lots, or readings that do not rise with the certified size.

    Examples
    --------
    >>> lots = [CurvePoint(diameter_um=d, u_um=0.02, reading_px=(d + 1.5) / 1.33, u_px=0.02) for d in (5, 10, 15, 25)]
    >>> curve = fit_size_curve(lots)
    >>> round(curve.slope_um_per_px, 2), round(curve.offset_um, 1), round(float(curve.at(np.array(13.5 / 1.33))), 1)
    (1.33, 1.5, 12.0)
    """
    points = sorted(points, key=lambda p: p.diameter_um)
    x = np.array([p.reading_px for p in points])
    y = np.array([p.diameter_um for p in points])
    if len(points) < 2 or (np.diff(x) <= 0).any() or (np.diff(y) <= 0).any():
        raise ValueError("a size curve needs at least two lots whose readings rise with their size")
    slope, offset = _line(points)
    lowest = 0.75 * float(x[0])
    grid = np.unique(np.concatenate([np.geomspace(lowest, 1.6 * float(x[-1]), KNOTS), x]))
    noise = np.array([p.u_um for p in points]) ** 2 + (slope * np.array([p.u_px for p in points])) ** 2 + 1e-10

    def on_line(px: F8) -> F8:
        # Sizes, not readings: far out of focus a factor of 1.5 in size is one of 1.1 in px.
        return np.maximum(slope * px - offset, SMALLEST_UM)

    found = [_posterior(prior, x, y, noise, grid, on_line) for prior in _priors()]
    evidence = np.array([f.log_evidence for f in found])
    weight = np.exp(evidence - evidence.max())
    weight /= weight.sum()
    means = np.stack([f.mean for f in found])
    mean = weight @ means
    covariances = np.stack([f.covariance for f in found])
    variance = weight @ (np.diagonal(covariances, axis1=1, axis2=2) + (means - mean) ** 2)
    sd = np.sqrt(np.maximum(variance, 1e-12))
    line = weight @ np.stack([f.line for f in found])
    inside = np.flatnonzero((grid >= x[0]) & (grid <= x[-1]))
    k = _simultaneous_factor(
        weight, (means - mean)[:, inside], covariances[:, inside[:, None], inside], sd[inside], seed=seed
    )
    um = np.maximum.accumulate(np.maximum(mean, 0.0))
    return SizeCurve(
        px=np.concatenate([[0.0], grid]),
        um=np.concatenate([[0.0], um]),
        u_um=np.concatenate([[2 * sd[0]], 2 * sd]),
        low_um=np.concatenate([[0.0], np.maximum(um - k * sd, 0.0)]),
        high_um=np.concatenate([[k * sd[0]], um + k * sd]),
        slope_um_per_px=float(line[0]),
        offset_um=float(line[1]),
        residual_um=y - np.interp(x, grid, um),
        valid_um=(float(y[0]), float(y[-1])),
    )


def _simultaneous_factor(weight: F8, shift: F8, covariance: F8, sd: F8, *, seed: int) -> float:
    """How many standard deviations hold 95 % of whole curves drawn from a mixture of normal distributions.

    ``weight`` (m,), ``shift`` (m, n) and ``covariance`` (m, n, n) are those of the mixture, ``sd`` (n,) its own.
    """
    rng = np.random.default_rng(seed)
    farthest = []
    for m, number in enumerate(rng.multinomial(DRAWS, weight)):
        if number:
            values, vectors = np.linalg.eigh(covariance[m])
            draws = rng.standard_normal((number, len(values))) * np.sqrt(np.maximum(values, 0.0))
            farthest.append((np.abs(shift[m] + draws @ vectors.T) / sd).max(1))
    return float(np.quantile(np.concatenate(farthest), 0.95))
