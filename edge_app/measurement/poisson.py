"""Exact intervals of counts: Garwood for particles, Fay and Feuer for weighted particles.

The gamma distribution is written out here (numpy alone): a device has no scipy. It agrees with scipy to 1e-10.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "CONFIDENCE",
    "gamma_cdf",
    "gamma_quantile",
    "normal_quantile",
    "poisson_interval",
    "student_quantile",
    "weighted_interval",
]

CONFIDENCE: Final = 0.95
"""Two-sided confidence of every interval unless stated otherwise."""

F8 = npt.NDArray[np.float64]

_QUADRATURE_FROM: Final = 60.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _log_density(shape: F8, x: F8) -> F8:
    """Logarithm of the gamma density of unit scale at x > 0; by Stirling's series where lgamma would lose digits."""
    a1 = shape - 1.0
    large = shape >= _QUADRATURE_FROM
    safe = np.where(large, a1, 1.0)
    u = np.where(large, x / safe - 1.0, 0.0)
    stirling = (
        safe * (np.log1p(np.maximum(u, -1 + 1e-300)) - u)
        - 0.5 * np.log(2 * np.pi * safe)
        - 1 / (12 * safe)
        + 1 / (360 * safe**3)
        - 1 / (1260 * safe**5)
    )
    small = np.where(large, 1.0, shape)
    plain = (small - 1) * np.log(x) - x - _log_gamma(small)
    return np.where(large, stirling, plain)


def _series(a: F8, x: F8) -> F8:
    """P(a, x) for x < a + 1 by its power series."""
    term = 1.0 / a
    total = term.copy()
    n = a.copy()
    for _ in range(500):
        n += 1.0
        term = term * x / n
        total += term
        if (term < total * 1e-17).all():
            break
    return total * np.exp(_log_density(a, x) + np.log(x))


def _continued_fraction(a: F8, x: F8) -> F8:
    """1 - P(a, x) for x >= a + 1 by Lentz' continued fraction."""
    b = x + 1.0 - a
    c = np.full_like(x, 1e300)
    d = 1.0 / b
    h = d.copy()
    for i in range(1, 500):
        an = -i * (i - a)
        b = b + 2.0
        d = an * d + b
        d = 1.0 / np.where(np.abs(d) < 1e-300, 1e-300, d)
        c = b + an / c
        c = np.where(np.abs(c) < 1e-300, 1e-300, c)
        step = d * c
        h = h * step
        if (np.abs(step - 1.0) < 1e-16).all():
            break
    return h * np.exp(_log_density(a, x) + np.log(x))


def _by_quadrature(a: F8, x: F8) -> F8:
    """P(a, x) for large a: Gauss-Legendre over the tail on x's side of the mode."""
    mode = a - 1.0
    spread = np.sqrt(a)
    upper = x >= mode
    far = np.maximum(mode + 12 * spread, x + 8 * spread)
    near = np.maximum(0.0, np.minimum(mode - 10 * spread, x - 7 * spread))
    end = np.where(upper, far, near)
    half = 0.5 * (end - x)
    t = (0.5 * (end + x))[..., None] + half[..., None] * _NODES
    density = np.exp(_log_density(np.broadcast_to(a[..., None], t.shape), np.maximum(t, 1e-300)))
    tail = np.abs(half) * (density @ _WEIGHTS)
    return np.where(upper, 1.0 - tail, tail)


def gamma_cdf(shape: npt.ArrayLike, x: npt.ArrayLike) -> F8:
    """Regularised lower incomplete gamma function P(shape, x), elementwise.

    Power series, continued fraction or (from shape 60) quadrature of the tail, as in Press et al., Numerical Recipes
    (3rd ed.), section 6.2.

    Examples
    --------
    >>> float(gamma_cdf(1.0, 2.0).round(6))  # 1 - exp(-2)
    0.864665
    """
    a, x_ = np.broadcast_arrays(np.asarray(shape, np.float64), np.asarray(x, np.float64))
    if (a <= 0).any():
        raise ValueError("the shape of a gamma distribution is above 0")
    out = np.zeros(a.shape)
    some = x_ > 0
    out[x_ == np.inf] = 1.0
    some &= x_ < np.inf
    large = some & (a >= _QUADRATURE_FROM)
    low = some & ~large & (x_ < a + 1)
    high = some & ~large & ~low
    if large.any():
        out[large] = _by_quadrature(a[large], x_[large])
    if low.any():
        out[low] = _series(a[low], x_[low])
    if high.any():
        out[high] = 1.0 - _continued_fraction(a[high], x_[high])
    return out


def normal_quantile(p: npt.ArrayLike) -> F8:
    """Quantile of the standard normal distribution, elementwise, 0 < p < 1.

    Newton steps from Winitzki's approximation of the inverse error function.

    Examples
    --------
    >>> float(normal_quantile(0.975).round(6))
    1.959964
    """
    q = np.asarray(p, np.float64)
    y = 2 * q - 1
    log = np.log(np.maximum(1 - y * y, 1e-300))
    s = 2 / (np.pi * 0.147) + log / 2
    z = np.sign(y) * np.sqrt(2.0) * np.sqrt(np.sqrt(s * s - log / 0.147) - s)
    for _ in range(3):
        z = z - (0.5 * (1 + _erf(z / math.sqrt(2))) - q) * np.sqrt(2 * np.pi) * np.exp(z * z / 2)
    return np.asarray(z, np.float64)


def student_quantile(p: float, degrees: float) -> float:
    """Quantile of Student's t distribution for p in (0.5, 1) and at least 1 degree of freedom.

    Bisection on the distribution function, which is integrated by Gauss-Legendre in the angle atan(t / sqrt(degrees)).

    Examples
    --------
    >>> round(student_quantile(0.975, 10), 6)
    2.228139
    """
    if not (0.5 < p < 1 and degrees >= 1):
        raise ValueError(f"p in (0.5, 1) and degrees >= 1 are needed, found {p}, {degrees}")
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)

    def above_half(angle: float) -> float:
        theta = 0.5 * angle * (1 + _NODES)
        return float(constant * 0.5 * angle * (_WEIGHTS @ np.cos(theta) ** (degrees - 1)))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if above_half(middle) < p - 0.5 else (low, middle)
    return math.tan(0.5 * (low + high)) * math.sqrt(degrees)


def gamma_quantile(p: npt.ArrayLike, shape: npt.ArrayLike) -> F8:
    """Quantile of the gamma distribution of unit scale, elementwise (chi-squared, ``2 * shape`` degrees: twice this).

    Newton steps within a shrinking bracket, from the Wilson-Hilferty approximation.

    Parameters
    ----------
    p
        Probability in (0, 1).
    shape
        Above 0.

    Examples
    --------
    >>> float(gamma_quantile(0.975, 1.0).round(4))  # upper limit of a count of 0
    3.6889
    """
    q, a = np.broadcast_arrays(np.asarray(p, np.float64), np.asarray(shape, np.float64))
    if ((q <= 0) | (q >= 1)).any() or (a <= 0).any():
        raise ValueError("a quantile needs 0 < p < 1 and a shape above 0")
    ninth = 1 / (9 * a)
    guess = a * np.maximum(1 - ninth + normal_quantile(q) * np.sqrt(ninth), 0.0) ** 3
    # Where the approximation fails (small shapes): P(a, x) ~ x**a / gamma(a + 1).
    tiny = np.exp((np.log(q) + _log_gamma(a + 1)) / a)
    x = np.where((guess < 1e-3 * a) | (a < 0.5), np.minimum(tiny, a + 10), guess)
    x = np.maximum(x, 1e-290).ravel()
    q, a = q.ravel(), a.ravel()
    low, high = np.zeros_like(x), np.full_like(x, np.inf)
    left = np.arange(x.size)  # not yet converged
    for _ in range(80):
        if not left.size:
            break
        old, shape_ = x[left], a[left]
        error = gamma_cdf(shape_, old) - q[left]
        low[left] = np.where(error < 0, old, low[left])
        high[left] = np.where(error >= 0, old, high[left])
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            step = old - error / np.exp(_log_density(shape_, old))
        middle = np.where(np.isinf(high[left]), 2 * old + 1, 0.5 * (low[left] + high[left]))
        x[left] = np.where((step >= low[left]) & (step <= high[left]), step, middle)
        left = left[np.abs(x[left] - old) > 1e-11 * old]
    return x.reshape(np.broadcast_shapes(np.shape(p), np.shape(shape)))


def poisson_interval(count: npt.ArrayLike, *, confidence: float = CONFIDENCE) -> tuple[F8, F8]:
    """Exact central interval of the mean of a Poisson count (Garwood), elementwise.

    ``low = G(alpha/2; N)``, ``high = G(1 - alpha/2; N + 1)`` with the gamma quantile G. It covers the true mean in at
    least ``confidence`` of all cases, and each side is wrong in at most half of the rest.

    Parameters
    ----------
    count
        0 or above; need not be whole (an effective number of counts).

    Returns
    -------
    tuple
        ``low``, ``high``, float64.

    References
    ----------
    F. Garwood, Biometrika 28 (1936) 437.

    Examples
    --------
    >>> [float(v.round(2)) for v in poisson_interval(10)]
    [4.8, 18.39]
    """
    n = np.asarray(count, np.float64)
    if (n < 0).any():
        raise ValueError("a count is 0 or above")
    tail = (1 - confidence) / 2
    low = np.where(n > 0, gamma_quantile(tail, np.where(n > 0, n, 1.0)), 0.0)
    return low, gamma_quantile(1 - tail, n + 1)


def weighted_interval(
    total: npt.ArrayLike,
    variance: npt.ArrayLike,
    largest_weight: npt.ArrayLike = 1.0,
    *,
    confidence: float = CONFIDENCE,
) -> tuple[F8, F8]:
    """Interval of the mean of a sum of weighted Poisson counts (gamma interval of Fay and Feuer), elementwise.

    With ``y = sum w``, ``v = sum w**2`` and the largest weight ``m``:
    ``low = v/y * G(alpha/2; y**2/v)``, ``high = v'/y' * G(1 - alpha/2; y'**2/v')``, ``y' = y + m``, ``v' = v + m**2``.
    It is Garwood's interval where all weights are 1.

    Parameters
    ----------
    total
        Sum of weights.
    variance
        Sum of squared weights, times the dispersion where counts scatter more than Poisson.
    largest_weight
        Largest weight one more particle could have (times the dispersion, likewise).

    References
    ----------
    M. P. Fay, E. J. Feuer, Statistics in Medicine 16 (1997) 791.

    Examples
    --------
    >>> [float(v.round(2)) for v in weighted_interval(10, 10)]
    [4.8, 18.39]
    """
    y, v, m = np.broadcast_arrays(
        np.asarray(total, np.float64), np.asarray(variance, np.float64), np.asarray(largest_weight, np.float64)
    )
    if (y < 0).any() or (v < 0).any() or (m <= 0).any():
        raise ValueError("totals and variances are 0 or above, the largest weight is above 0")
    tail = (1 - confidence) / 2
    some = y * y > 1e-6 * v  # below, the lower quantile is 0 to any number of digits
    y1, v1 = np.where(some, y, 1.0), np.where(some, v, 1.0)
    low = np.where(some, v1 / y1 * gamma_quantile(tail, y1 * y1 / v1), 0.0)
    y2, v2 = y + m, v + m * m
    return low, v2 / y2 * gamma_quantile(1 - tail, y2 * y2 / v2)
