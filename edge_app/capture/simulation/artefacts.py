"""What the empty field is not: dirt on the window, streaks of unmixed liquid."""

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Schlieren", "dirt", "shade"]

F4 = npt.NDArray[np.float32]


def dirt(rng: np.random.Generator, *, count: int, height_px: int, width_px: int) -> F4:
    """Specks on the outside of the window, millimetres out of focus: soft dark spots with a faint bright ring.

    Returns
    -------
    ndarray of float32, (height_px, width_px)
        Factor on the light, 1 where the window is clean; a speck takes 2 to 12 % of it.
    """
    factor = np.ones((height_px, width_px), np.float32)
    for _ in range(count):
        x, y = rng.uniform(0, width_px), rng.uniform(0, height_px)
        sigma = float(np.exp(rng.uniform(np.log(3.0), np.log(12.0))))
        depth, ring = rng.uniform(0.02, 0.12), rng.uniform(0.1, 0.5)
        stretch, turn = rng.uniform(1.0, 1.6), rng.uniform(0, np.pi)
        reach = int(np.ceil(6 * sigma * stretch))
        x0, x1 = max(int(x) - reach, 0), min(int(x) + reach + 1, width_px)
        y0, y1 = max(int(y) - reach, 0), min(int(y) + reach + 1, height_px)
        dx = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(x)
        dy = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(y)
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / np.float32(sigma * stretch)
        v = (dy * np.cos(turn) - dx * np.sin(turn)) / np.float32(sigma)
        r2 = u * u + v * v
        # A dark core and a ring of its own width around it, as of anything far out of focus.
        spot = np.exp(-0.5 * r2) - np.float32(ring) * np.exp(-0.5 * (np.sqrt(r2) - np.float32(2.6)) ** 2 / 0.36)
        factor[y0:y1, x0:x1] *= (1.0 - np.float32(depth) * spot).astype(np.float32)
    return factor


class Schlieren:
    """Streaks of liquid of another refractive index, long along the flow, that run with it.

    Parameters
    ----------
    rng
        Draws the pattern.
    fraction
        Standard deviation of the factor on the light.
    size_px
        Typical width of a streak; it is 3 times as long.
    """

    _LONG: Final = 3.0

    def __init__(
        self, rng: np.random.Generator, *, fraction: float, size_px: float, height_px: int, width_px: int
    ) -> None:
        # Filtered in Fourier space, so periodic along the flow: it can run for ever.
        period = 2 * height_px
        fy = np.fft.fftfreq(period)[:, None] * size_px * self._LONG
        fx = np.fft.rfftfreq(width_px)[None, :] * size_px
        soft = np.exp(-0.5 * (np.pi * 0.5) ** 2 * (fx**2 + fy**2))
        soft[0, 0] = 0.0
        texture = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((period, width_px))) * soft, s=(period, width_px))
        texture /= max(float(texture.std()), 1e-12)
        factor = (1.0 + fraction * texture).astype(np.float32)
        self._period = period
        self._height = height_px
        self._factor = np.concatenate([factor, factor[:height_px]])

    def at(self, way_px: float) -> F4:
        """Factor on the light (height, width) after the liquid has run that far down the picture."""
        start = round(-way_px) % self._period
        return self._factor[start : start + self._height]


def shade(*, fraction: float, height_px: int, width_px: int, centre: tuple[float, float]) -> F4:
    """Vignette about a point (fractions of width and height): 1 - fraction * r^2, r = 1 half a diagonal away."""
    x = (np.arange(width_px, dtype=np.float32) / max(width_px - 1, 1) - np.float32(centre[0])) * np.float32(width_px)
    y = (np.arange(height_px, dtype=np.float32) / max(height_px - 1, 1) - np.float32(centre[1])) * np.float32(height_px)
    r2 = (x[None, :] ** 2 + y[:, None] ** 2) / np.float32((width_px**2 + height_px**2) / 4)
    return np.asarray(1.0 - np.float32(fraction) * r2, np.float32)
