"""The camera: area-exact pixels, blur, gain and noise.

`resample` belongs to the picture of a particle; `expose` (blur, gain, noise) is applied when a data set or a frame
is composed, because it belongs to the camera and the run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def area_weights(*, n_fine: int, dx: float, n_pixels: int, um_per_px: float) -> NDArray[np.float32]:
    """Matrix (n_pixels, n_fine) that averages fine samples over camera pixels, both centred on the same point.

    Parameters
    ----------
    n_fine, n_pixels : int
    dx, um_per_px : float
        Fine and camera pixel, um.

    Returns
    -------
    ndarray
        Every row sums to 1.
    """
    fine = (np.arange(n_fine + 1) - n_fine / 2) * dx
    edges = (np.arange(n_pixels + 1) - n_pixels / 2) * um_per_px
    low = np.maximum(fine[None, :-1], edges[:-1, None])
    high = np.minimum(fine[None, 1:], edges[1:, None])
    overlap = np.clip(high - low, 0, None)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def resample(image: NDArray[np.float32], *, dx: float, um_per_px: float) -> NDArray[np.float32]:
    """Average a fine square image over camera pixels.

    Parameters
    ----------
    image : ndarray, (n, n)
    dx, um_per_px : float

    Returns
    -------
    ndarray of float32, (m, m)
        ``m`` is the largest even number of pixels that fits: the middle of the picture is always a corner of pixels.
    """
    n = image.shape[0]
    w = area_weights(n_fine=n, dx=dx, n_pixels=2 * int(n * dx / um_per_px / 2 + 1e-6), um_per_px=um_per_px)
    return np.asarray(w @ image @ w.T, dtype=np.float32)


def expose(
    ratio: NDArray[np.float32],
    rng: np.random.Generator,
    *,
    blur_px: float = 0.5,
    gain: float = 1.0,
    noise: float = 0.008,
) -> NDArray[np.float32]:
    """Blur, gain and noise of the camera on an intensity over background.

    Parameters
    ----------
    ratio : ndarray
        Intensity over background.
    rng : numpy.random.Generator
    blur_px : float
        Standard deviation of a Gaussian blur; 0.2 to 0.9 is realistic.
    gain : float
        Factor on the departure from background (contrast); 0.75 to 1.15 is realistic.
    noise : float
        Standard deviation at background level, 0.004 to 0.014; shot noise, so it falls with the root of the light.

    Returns
    -------
    ndarray of float32
    """
    out = ndimage.gaussian_filter(ratio.astype(np.float32), blur_px, mode="nearest") if blur_px > 0 else ratio
    out = 1 + gain * (out - 1)
    sigma = noise * np.sqrt(np.clip(out, 0.05, None))
    return np.asarray(out + sigma * rng.standard_normal(out.shape, dtype=np.float32), dtype=np.float32)
