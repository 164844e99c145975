"""How many particles of each class there are, when the classifier errs: counts corrected for its confusions.

Counting the best class is biased as soon as a sample's mix is not the one the network was trained on. Two
corrections: expectation maximisation on calibrated probabilities (EMQ, also SLD), and the confusion matrix solved for
the mix (ACC). Both hand every particle to one of the network's classes, those that it called ``unknown`` too: what is
foreign to all of them must be looked at, it cannot be corrected.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from edge_app.errors import UserError
from edge_app.measurement.concentration import MOST_WINDOWS, Interval
from edge_app.measurement.dispersion import MINIMUM_WINDOWS, block_multiplicities, default_block
from edge_app.measurement.poisson import CONFIDENCE, normal_quantile, weighted_interval

__all__ = ["ClassCounts", "Correction", "confusion_corrected", "corrected_class_counts", "emq"]

F8 = npt.NDArray[np.float64]
Correction = Literal["emq", "confusion"]

EXACT_BELOW: Final = 2000
"""Up to this many particles every resample is solved by itself; beyond, the likelihood is as good as a parabola."""


@dataclass(frozen=True, kw_only=True)
class ClassCounts:
    """Corrected number of particles of each class.

    Attributes
    ----------
    classes
        The network's classes; ``unknown`` is none of them.
    method
        ``emq`` or ``confusion``.
    counted
        int64 (C,): particles that were called so.
    called_unknown
        Particles that were called ``unknown``; they are handed to the classes in ``corrected``.
    naive, corrected, low, high
        float64 (C,): border-weighted count as called; corrected, with its interval.
    """

    classes: tuple[str, ...]
    method: Correction
    counted: npt.NDArray[np.int64]
    called_unknown: int
    naive: F8
    corrected: F8
    low: F8
    high: F8
    confidence: float
    resamples: int
    seed: int

    @property
    def shares(self) -> F8:
        """Corrected share of each class, (C,)."""
        total = self.corrected.sum()
        return self.corrected / total if total > 0 else np.zeros_like(self.corrected)

    def intervals_per_ml(self, *, size_um: float, volume_ml: float, dilution: float = 1.0) -> dict[str, Interval]:
        """Corrected concentration of each class.

        Raises
        ------
        UserError
            If the volume is not above 0.
        """
        if not volume_ml > 0:
            raise UserError(f"analysed volume is {volume_ml:g} mL: a concentration needs one above 0")
        scale = dilution / volume_ml
        return {
            name: Interval(
                value=float(self.corrected[i]) * scale,
                low=float(self.low[i]) * scale,
                high=float(self.high[i]) * scale,
                method="prevalence",
                confidence=self.confidence,
                size_um=size_um,
                class_name=name,
                counted=int(self.counted[i]),
                volume_ml=volume_ml,
            )
            for i, name in enumerate(self.classes)
        }


def emq(
    probabilities: npt.NDArray[np.floating],
    *,
    assumed_prior: npt.ArrayLike | None = None,
    weight: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
    tolerance: float = 1e-7,
    iterations: int = 1000,
) -> F8:
    """Share of each class by expectation maximisation on calibrated probabilities (Saerens, Latinne, Decaestecker).

    Maximum likelihood of the mix ``p``: ``p_c <- mean over particles of p_c r_c / sum_j p_j r_j`` with
    ``r_c = probability of c / assumed prior of c``.

    Parameters
    ----------
    probabilities
        (n, C), rows sum to 1.
    assumed_prior
        Mix of the classes behind the probabilities (C,); default: equal shares.
    weight
        Weight of each particle (n,), or of several resamples (n, B); default 1.
    start
        Shares to start from, (C,); default: the assumed prior.
    tolerance, iterations
        It ends when no share moves more than this, or after so many steps.

    Returns
    -------
    ndarray
        float64 (C,), or (C, B) for weights (n, B). The prior where there is no particle.

    References
    ----------
    M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14 (2002) 21.

    Examples
    --------
    >>> emq(np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])).round(3).tolist()
    [0.847, 0.153]
    """
    posterior = np.asarray(probabilities, np.float64)
    n, classes = posterior.shape
    prior = np.full(classes, 1 / classes) if assumed_prior is None else np.asarray(assumed_prior, np.float64)
    if prior.shape != (classes,) or (prior <= 0).any():
        raise ValueError(f"a prior above 0 for each of {classes} classes is needed, found {prior.tolist()}")
    prior = prior / prior.sum()
    times = np.ones(n) if weight is None else np.asarray(weight, np.float64)
    one = times.ndim == 1
    times = times[:, None] if one else times
    shares = np.repeat((prior if start is None else np.asarray(start, np.float64))[:, None], times.shape[1], axis=1)
    ratio = posterior / prior

    def step(p: F8) -> F8:
        return p * (ratio.T @ (times / np.maximum(ratio @ p, 1e-300)))

    if n:
        shares = _fixed_point(step, shares, tolerance=tolerance, iterations=iterations)
    return shares[:, 0] if one else shares


def confusion_corrected(
    called: npt.ArrayLike, confusion: npt.ArrayLike, *, tolerance: float = 1e-9, iterations: int = 2000
) -> F8:
    """Share of each class from how many particles were called what, and the confusion matrix (adjusted counting, ACC).

    Solves ``called = confusion.T @ p`` for shares of 0 and above that sum to 1: the exact solution where there is one,
    else the likeliest (multinomial). ``unknown`` may be a column of its own, so that what was rejected tells its part.

    Parameters
    ----------
    called
        Number called each class, (K,) or for several resamples (B, K).
    confusion
        (C, K) shares: rows true class, columns called class.

    Returns
    -------
    ndarray
        float64 (C,) or (B, C).

    Examples
    --------
    >>> confusion_corrected([62, 38], [[0.9, 0.1], [0.2, 0.8]]).round(3).tolist()
    [0.6, 0.4]
    """
    matrix = np.asarray(confusion, np.float64)
    matrix = matrix / matrix.sum(-1, keepdims=True)
    numbers = np.atleast_2d(np.asarray(called, np.float64)).T

    def step(p: F8) -> F8:
        if matrix.ndim == 2:
            return p * (matrix @ (numbers / np.maximum(matrix.T @ p, 1e-300)))
        expected = np.maximum(np.einsum("cb,bck->kb", p, matrix), 1e-300)
        return p * np.einsum("kb,bck->cb", numbers / expected, matrix)

    start = np.full((matrix.shape[-2], numbers.shape[1]), 1 / matrix.shape[-2])
    shares = _fixed_point(step, start, tolerance=tolerance, iterations=iterations)
    return shares[:, 0] if np.asarray(called).ndim == 1 else shares.T


def _fixed_point(step: Callable[[F8], F8], start: F8, *, tolerance: float, iterations: int) -> F8:
    """Fixed point of an EM step on shares (C, B), each column by itself, three steps at a time with extrapolation.

    SQUAREM (R. Varadhan, C. Roland, Scandinavian Journal of Statistics 35 (2008) 335): EM alone creeps where classes
    are easily confused.
    """

    def normalised(p: F8) -> F8:
        total = p.sum(0)
        return np.where(total > 0, p / np.maximum(total, 1e-300), start)

    shares = start
    for _ in range(iterations):
        once = normalised(step(shares))
        moved = once - shares
        if float(np.abs(moved).max()) < tolerance:
            return once
        twice = normalised(step(once))
        bend = (twice - once) - moved
        length = np.sqrt((moved**2).sum(0) / np.maximum((bend**2).sum(0), 1e-300)).clip(1.0, 100.0)
        leap = shares + 2 * length * moved + length**2 * bend
        # A leap off the simplex falls back to the two plain steps.
        shares = normalised(step(np.where((leap > 0).all(0), normalised(np.maximum(leap, 0.0)), twice)))
    return shares


def corrected_class_counts(
    class_index: npt.NDArray[np.integer],
    weight: npt.NDArray[np.floating],
    *,
    classes: Sequence[str],
    probabilities: npt.NDArray[np.floating] | None = None,
    assumed_prior: npt.ArrayLike | None = None,
    confusion: npt.ArrayLike | None = None,
    tested_per_class: npt.ArrayLike | None = None,
    window: npt.NDArray[np.integer] | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = 300,
    seed: int = 0,
) -> ClassCounts:
    """Corrected number of each class among the given particles, with bootstrap intervals.

    EMQ where calibrated probabilities are given, else the confusion matrix. Choose the particles before the call
    (those at and above a size). The bootstrap draws windows in blocks where there are at least 12 of them, else
    particles (Poisson numbers). The interval is the wider of the bootstrap's percentiles and an exact Poisson interval
    widened by the bootstrap's variance beyond Poisson: a class of few or no particles keeps the width of its count.

    Parameters
    ----------
    class_index
        Index into ``classes``, or ``len(classes)`` for unknown, (n,).
    weight
        Miles-Lantuejoul weights (n,); particles of weight 0 are left out.
    classes
        The network's classes without ``unknown``.
    probabilities
        (n, C) calibrated.
    assumed_prior
        Mix behind ``probabilities``: the bundle's ``assumed_mix``; default equal shares.
    confusion
        (C, C + 1) shares, columns classes then unknown: the bundle's ``confusion_matrix``.
    tested_per_class
        How many particles of each class the matrix was measured with (C,): its own uncertainty joins the interval.
    window
        Window of each particle (n,).

    Raises
    ------
    UserError
        If there are neither probabilities nor a confusion matrix.
    """
    if probabilities is None and confusion is None:
        raise UserError("class counts cannot be corrected: the run holds no probabilities and the bundle no matrix")
    names = tuple(classes)
    c = len(names)
    kept = np.asarray(weight) > 0
    index = np.asarray(class_index, np.int64)[kept]
    w = np.asarray(weight, np.float64)[kept]
    rng = np.random.default_rng(seed)
    in_group, multiplicity = np.zeros(len(w), np.int64), None
    if window is not None and len(w):
        # Windows without such a particle count too, from the first to the last that has any.
        number = np.asarray(window, np.int64)[kept]
        spans = int(number.max() - number.min()) + 1
        step = -(-spans // MOST_WINDOWS)
        in_group = (number - number.min()) // step
        spans = int(in_group.max()) + 1
        if spans >= MINIMUM_WINDOWS:
            multiplicity = block_multiplicities(spans, default_block(spans), resamples=resamples, seed=seed)
    counted = np.bincount(index, minlength=c + 1)
    naive = np.bincount(index, weights=w, minlength=c + 1)
    total = float(w.sum())
    method: Correction = "confusion" if probabilities is None else "emq"
    if probabilities is not None:
        posterior = np.asarray(probabilities, np.float64)[kept]
        prior = np.full(c, 1 / c) if assumed_prior is None else np.asarray(assumed_prior, np.float64)
        shares = emq(posterior, assumed_prior=prior, weight=w)
        if len(w) > EXACT_BELOW:
            ratio = posterior / prior
            drawn, draws = _linear_draws(ratio, w, shares, in_group, multiplicity, resamples, rng)
        else:
            drawn = _resampled(np.arange(len(w)), w, len(w), in_group, multiplicity, resamples, rng)
            start = 0.99 * shares + 0.01 / c
            draws = emq(posterior, assumed_prior=prior, weight=drawn.T, start=start, tolerance=1e-5).T
    else:
        matrix = np.asarray(confusion, np.float64)
        if matrix.shape != (c, c + 1):
            raise UserError(f"confusion matrix has shape {matrix.shape}, {(c, c + 1)} is needed")
        shares = confusion_corrected(naive, matrix)
        drawn = _resampled(index, w, c + 1, in_group, multiplicity, resamples, rng)
        if tested_per_class is not None:
            cases = np.asarray(tested_per_class, np.float64)[:, None] * matrix
            gamma = rng.standard_gamma(np.maximum(cases, 1e-9), size=(resamples, *cases.shape))
            matrix = gamma / gamma.sum(-1, keepdims=True)
        draws = confusion_corrected(drawn, matrix, tolerance=1e-6)
    # EM comes near a share of 0 but never there.
    corrected = np.where(shares < 1e-6, 0.0, shares) * total
    spread = draws * drawn.sum(1, keepdims=True)
    mean_weight = total / len(w) if len(w) else 1.0
    # The count itself is uncertain as a Poisson number, what the classifier adds as a normal one (MOVER).
    counting = corrected * mean_weight
    low, high = weighted_interval(corrected, counting, mean_weight, confidence=confidence)
    beyond = normal_quantile((1 + confidence) / 2) * np.sqrt(np.maximum(spread.var(0) - counting, 0.0))
    low = np.maximum(0.0, corrected - np.hypot(corrected - low, beyond))
    high = corrected + np.hypot(high - corrected, beyond)
    tail = 50 * (1 - confidence)
    # Ranks over one more than there are draws: the next one lies outside in the stated share of cases.
    percentiles = np.percentile(spread, [tail, 100 - tail], axis=0, method="weibull")
    return ClassCounts(
        classes=names,
        method=method,
        counted=counted[:c].astype(np.int64),
        called_unknown=int(counted[c]),
        naive=naive[:c].astype(np.float64),
        corrected=corrected,
        low=np.minimum(low, percentiles[0]),
        high=np.maximum(high, percentiles[1]),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _linear_draws(
    ratio: F8,
    weight: F8,
    shares: F8,
    group: npt.NDArray[np.int64],
    multiplicity: F8 | None,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[F8, F8]:
    """Weight (B, 1) and shares (B, C) of resamples, from the likelihood's quadratic form around its maximum.

    With many particles the log-likelihood is a parabola in the shares: each resample changes its slope, and its maximum
    on the simplex (shares of 0 and above) is that resample's answer, at a cost that does not grow with the particles.
    """
    score = ratio / np.maximum(ratio @ shares, 1e-300)[:, None]
    parts = np.column_stack([weight[:, None] * score, weight])
    if multiplicity is None:
        # Poisson numbers of every particle, many: their sums are normal.
        spread = np.linalg.cholesky(parts.T @ parts + 1e-9 * np.eye(parts.shape[1]))
        sums = parts.sum(0) + rng.standard_normal((resamples, parts.shape[1])) @ spread.T
    else:
        spans = multiplicity.shape[1]
        table = np.stack([np.bincount(group, weights=column, minlength=spans) for column in parts.T], axis=1)
        sums = multiplicity @ table
    total = sums[:, -1:]
    slope = sums[:, :-1] / total
    curvature = (score * weight[:, None]).T @ score / weight.sum()
    step = 1 / float(np.linalg.eigvalsh(curvature)[-1])
    best = ahead = np.repeat(shares[None], resamples, axis=0)
    momentum = 1.0
    for _ in range(3000):
        new = _on_simplex(ahead + step * (slope - (ahead - shares) @ curvature))
        next_momentum = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        moved = new - best
        ahead = new + (momentum - 1) / next_momentum * moved
        best, momentum = new, next_momentum
        if float(np.abs(moved).max()) < 1e-8:
            break
    return total, best


def _on_simplex(points: F8) -> F8:
    """Nearest point of each row with coordinates of 0 and above that sum to 1 (J. Duchi et al., ICML 2008)."""
    falling = -np.sort(-points, axis=1)
    excess = (np.cumsum(falling, axis=1) - 1) / np.arange(1, points.shape[1] + 1)
    last = (falling > excess).sum(1) - 1
    return np.maximum(points - excess[np.arange(len(points)), last][:, None], 0.0)


def _resampled(
    cell_of: npt.NDArray[np.int64],
    weight: F8,
    cells: int,
    group: npt.NDArray[np.int64],
    multiplicity: F8 | None,
    resamples: int,
    rng: np.random.Generator,
) -> F8:
    """Weight in each cell in each resample, (resamples, cells)."""
    if multiplicity is None:
        number = np.bincount(cell_of, minlength=cells)
        mean = np.divide(
            np.bincount(cell_of, weights=weight, minlength=cells), number, out=np.ones(cells), where=number > 0
        )
        return np.asarray(rng.poisson(number, size=(resamples, cells)) * mean, np.float64)
    windows = multiplicity.shape[1]
    table = np.bincount(group * cells + cell_of, weights=weight, minlength=windows * cells).reshape(windows, cells)
    return np.asarray(multiplicity @ table, np.float64)
