"""From the light behind a particle to the intensity in the image plane: objective aperture, aberrations and defocus."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from training.optics.propagation import Complex, Grid, Sources, transfer


def pupil(
    *,
    grid: Grid,
    na: float,
    wavelength: float,
    medium_n: float,
    defocus_um: float = 0.0,
    coma: tuple[float, float] = (0.0, 0.0),
    vignetting: tuple[float, float] = (0.0, 0.0),
) -> Complex:
    """Pupil function of the objective.

    Parameters
    ----------
    grid : Grid
    na, wavelength, medium_n : float
    defocus_um : float
        Focal plane minus particle centre, along the light.
    coma : (float, float)
        Zernike coma (3 rho^2 - 2) rho along x and y, waves.
    vignetting : (float, float)
        Displacement, in pupil radii, of a second aperture of 1.1 pupil radii that cuts the first.

    Returns
    -------
    ndarray of complex64, (n, n)
        The edge is soft over at least one order of the grid, as sharp edges ring with a sampled source.
    """
    fx, fy = grid.frequencies()
    px, py = fx * (wavelength / na), fy * (wavelength / na)
    rho = np.hypot(px, py)
    width = max(wavelength / grid.length, 0.008) / na
    modulus = np.clip((1 - rho) / width + 0.5, 0, 1)
    if any(vignetting):
        cut = np.hypot(px - vignetting[0], py - vignetting[1])
        modulus = modulus * np.clip((1.1 - cut) / width + 0.5, 0, 1)
    phase = (3 * rho**2 - 2) * (coma[0] * px + coma[1] * py) * (rho < 1.2)
    aberration = (modulus * np.exp(2j * np.pi * phase)).astype(np.complex64)
    return aberration * transfer(grid=grid, distance_um=defocus_um, medium_n=medium_n, wavelength=wavelength)


def intensity(*, spectrum: Complex, pupil: Complex, sources: Sources) -> NDArray[np.float32]:
    """Image intensity over that of the empty field.

    Parameters
    ----------
    spectrum : ndarray, (sources, n, n)
        Waves behind the particle.
    pupil : ndarray, (n, n)
    sources : Sources

    Returns
    -------
    ndarray of float32, (n, n)

    Raises
    ------
    ValueError
        If the pupil passes less than 5 % of the lamp: a dark field, which no flow imager uses.
    """
    n = pupil.shape[0]
    # Only frequencies that the pupil passes matter: transform rows that hold any of them.
    rows = np.flatnonzero(np.any(pupil != 0, axis=1))
    half = np.zeros((len(spectrum), n, n), np.complex64)
    half[:, rows] = fft.ifft(spectrum[:, rows] * pupil[rows], axis=2, overwrite_x=True)
    waves = fft.ifft(half, axis=1, overwrite_x=True)
    power = waves.real**2 + waves.imag**2
    image = np.tensordot(sources.weight, power, axes=1)
    passed = np.abs(pupil[sources.order_y % n, sources.order_x % n]) ** 2
    background = float(np.sum(sources.weight * passed))
    if background < 0.05:
        raise ValueError(f"the pupil passes {background:.3f} of the lamp; expected at least 0.05")
    return np.asarray(image / background, dtype=np.float32)
