"""From a particle to the light that leaves it: a partially coherent source and multi-slice propagation.

Scalar; the time factor is exp(-i w t), so light running along +z gains phase exp(+i k z) and a positive imaginary index
absorbs. All waves live on a periodic square grid; source directions are snapped to it, so each tilted wave is periodic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Complex = NDArray[np.complex64]

#: Neighbouring source points may not slide apart by more than this in the picture (um), or false petals appear.
SOURCE_WALK_UM: Final = 2.5


@dataclass(frozen=True)
class Grid:
    """Square periodic grid of ``n`` pixels of ``dx`` um."""

    n: int
    dx: float

    @property
    def length(self) -> float:
        """Period, um."""
        return self.n * self.dx

    def frequencies(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Spatial frequencies (fx as a row, fy as a column), cycles per um."""
        f = np.fft.fftfreq(self.n, self.dx).astype(np.float32)
        return f[None, :], f[:, None]

    def coordinates(self) -> NDArray[np.float32]:
        """Pixel centres, um, with the middle of the grid at 0."""
        return ((np.arange(self.n) - self.n / 2 + 0.5) * self.dx).astype(np.float32)


@dataclass(frozen=True)
class Sources:
    """Plane waves of the lamp: grid orders along x and y, and weights that sum to 1."""

    order_x: NDArray[np.intp]
    order_y: NDArray[np.intp]
    weight: NDArray[np.float32]

    def waves(self, grid: Grid) -> Complex:
        """The tilted waves on the grid, shape (sources, n, n)."""
        phase = 2j * np.pi * grid.coordinates() / grid.length
        along_x = np.exp(self.order_x[:, None] * phase)
        along_y = np.exp(self.order_y[:, None] * phase)
        return (along_y[:, :, None] * along_x[:, None, :]).astype(np.complex64)


def choose_grid(*, extent_um: float, reach_um: float, dx: float) -> Grid:
    """Smallest well-factored even grid that holds a particle and its halo.

    Parameters
    ----------
    extent_um : float
        Largest lateral size of the particle.
    reach_um : float
        How far the halo reaches beyond the particle on each side.
    dx : float
        Pixel, um.

    Returns
    -------
    Grid
    """
    n = int(np.ceil((extent_um + 2 * reach_um) / dx))
    while True:
        n = int(fft.next_fast_len(max(n, 48)))
        if n % 2 == 0:
            return Grid(n, dx)
        n += 1


def sample_source(
    *, grid: Grid, condenser_na: float, tilt: tuple[float, float], wavelength: float, z_max_um: float, medium_n: float
) -> Sources:
    """Sample the condenser aperture on rings, densely enough for the largest defocus.

    Parameters
    ----------
    grid : Grid
    condenser_na : float
    tilt : (float, float)
        Centre of the aperture, NA.
    wavelength : float
        Vacuum wavelength, um.
    z_max_um : float
        Largest distance between matter and focal plane.
    medium_n : float

    Returns
    -------
    Sources
    """
    spacing = SOURCE_WALK_UM * medium_n / max(abs(z_max_um), 20.0)
    rings = max(2, int(np.ceil(condenser_na / spacing)))
    width = condenser_na / (rings + 0.5)
    weights: dict[tuple[int, int], float] = {}
    for ring in range(rings + 1):
        radius = ring * width
        count = 1 if ring == 0 else max(6 * ring, int(np.ceil(2 * np.pi * radius / spacing)))
        area = 0.25 if ring == 0 else 2.0 * ring
        for k in range(count):
            angle = 2 * np.pi * k / count + 0.3 * count
            key = (
                round((radius * np.cos(angle) + tilt[0]) / wavelength * grid.length),
                round((radius * np.sin(angle) + tilt[1]) / wavelength * grid.length),
            )
            weights[key] = weights.get(key, 0.0) + area / count
    orders = np.array(sorted(weights), dtype=np.intp)
    weight = np.array([weights[a, b] for a, b in orders.tolist()], dtype=np.float32)
    return Sources(orders[:, 0], orders[:, 1], weight / weight.sum())


def transfer(*, grid: Grid, distance_um: float, medium_n: float, wavelength: float, band: float = 1.0) -> Complex:
    """Angular-spectrum transfer function of a layer of medium, without the common phase k z.

    Parameters
    ----------
    grid : Grid
    distance_um : float
        Thickness; negative goes back.
    medium_n, wavelength : float
    band : float
        Frequencies above this fraction of Nyquist are dropped; inside the band the modulus is 1.

    Returns
    -------
    ndarray of complex64, (n, n)
    """
    fx, fy = grid.frequencies()
    k = medium_n / wavelength
    q = k * k - fx.astype(float) ** 2 - fy.astype(float) ** 2
    keep = (q > 0) & (np.maximum(np.abs(fx), np.abs(fy)) <= band * 0.5 / grid.dx)
    phase = 2 * np.pi * (np.sqrt(np.maximum(q, 0)) - k) * distance_um
    return np.where(keep, np.exp(1j * phase), 0).astype(np.complex64)


def multislice(
    *,
    contrast: NDArray[np.float32] | Complex,
    dz: float,
    grid: Grid,
    sources: Sources,
    medium_n: float,
    wavelength: float,
) -> Complex:
    """Send every source wave through a volume, slice by slice.

    Parameters
    ----------
    contrast : ndarray, (nz, ny, nx)
        Index minus that of the medium, centred on the grid laterally; complex where it absorbs.
    dz : float
        Slice thickness, um.
    grid, sources
    medium_n, wavelength : float

    Returns
    -------
    ndarray of complex64, (sources, n, n)
        Spectrum of the waves behind the volume, referred back to its middle plane through empty medium.
    """
    waves = sources.waves(grid)
    nz, ny, nx = contrast.shape
    y0, x0 = (grid.n - ny) // 2, (grid.n - nx) // 2
    box = (slice(None), slice(y0, y0 + ny), slice(x0, x0 + nx))
    step = transfer(grid=grid, distance_um=dz, medium_n=medium_n, wavelength=wavelength, band=0.8)
    screens = np.exp((2j * np.pi / wavelength * dz) * contrast).astype(np.complex64)
    spectrum = fft.fft2(waves, overwrite_x=True)
    # Waves start half a slice ahead of the first slice centre: the volume reaches from -nz dz / 2 to +nz dz / 2.
    spectrum *= transfer(grid=grid, distance_um=-(nz - 1) * dz / 2, medium_n=medium_n, wavelength=wavelength)
    for i, screen in enumerate(screens):
        waves = fft.ifft2(spectrum, overwrite_x=True)
        waves[box] *= screen
        spectrum = fft.fft2(waves, overwrite_x=True)
        if i < nz - 1:
            spectrum *= step
    spectrum *= transfer(grid=grid, distance_um=-(nz - 1) * dz / 2, medium_n=medium_n, wavelength=wavelength)
    return spectrum
