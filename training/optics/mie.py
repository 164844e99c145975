"""Exact scattering amplitude of a homogeneous sphere (Lorenz-Mie).

Spheres are the one particle whose image needs no approximation: single oil droplets, beads and, above all, air bubbles,
whose total reflection and short focus thin phase slices cannot carry.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def coefficients(
    *, relative_index: complex, size_parameter: float
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Mie coefficients a_n, b_n for n = 1 .. N (Bohren & Huffman, eq. 4.88).

    Parameters
    ----------
    relative_index : complex
        Index of the sphere over that of the medium; a positive imaginary part absorbs (time factor exp(-i w t)).
    size_parameter : float
        2 pi R n_medium / wavelength.

    Returns
    -------
    a, b : ndarray of complex

    References
    ----------
    Bohren and Huffman, Absorption and Scattering of Light by Small Particles, 1983, appendix A.
    """
    x, m = size_parameter, complex(relative_index)
    n_max = int(np.ceil(x + 4.05 * x ** (1 / 3) + 2))
    n_down = int(max(n_max, abs(m * x)) + 8 * abs(m * x) ** (1 / 3)) + 16
    mx = m * x
    log_derivative = np.zeros(n_down + 1, complex)
    for n in range(n_down, 0, -1):
        log_derivative[n - 1] = n / mx - 1.0 / (log_derivative[n] + n / mx)
    psi0, psi1 = np.cos(x), np.sin(x)
    chi0, chi1 = -np.sin(x), np.cos(x)
    a = np.empty(n_max, complex)
    b = np.empty(n_max, complex)
    for n in range(1, n_max + 1):
        psi = (2 * n - 1) * psi1 / x - psi0
        chi = (2 * n - 1) * chi1 / x - chi0
        xi, xi1 = psi - 1j * chi, psi1 - 1j * chi1
        t = log_derivative[n] / m + n / x
        a[n - 1] = (t * psi - psi1) / (t * xi - xi1)
        t = log_derivative[n] * m + n / x
        b[n - 1] = (t * psi - psi1) / (t * xi - xi1)
        psi0, psi1, chi0, chi1 = psi1, psi, chi1, chi
    return a, b


def scattering_amplitude(
    *, relative_index: complex, size_parameter: float, angles: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Scalar amplitude (S1 + S2) / 2 at the given scattering angles, for unpolarised light at small angles.

    Parameters
    ----------
    relative_index : complex
    size_parameter : float
    angles : ndarray
        Scattering angles in the medium, radians.

    Returns
    -------
    ndarray of complex
        The far field is ``S exp(ikr) / (-ikr)`` for a unit incident wave.
    """
    a, b = coefficients(relative_index=relative_index, size_parameter=size_parameter)
    mu = np.cos(np.asarray(angles, float))
    total = np.zeros(mu.shape, complex)
    pi_last, pi_now = np.zeros_like(mu), np.ones_like(mu)
    for n in range(1, len(a) + 1):
        tau = n * mu * pi_now - (n + 1) * pi_last
        total += (2 * n + 1) / (n * (n + 1)) * (a[n - 1] + b[n - 1]) * (pi_now + tau)
        pi_last, pi_now = pi_now, ((2 * n + 1) * mu * pi_now - (n + 1) * pi_last) / n
    return np.asarray(total / 2, dtype=np.complex128)
