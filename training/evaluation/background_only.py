"""Crops without their particle: what is left must not tell the class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from training.evaluation.particle_masks import particle_masks

__all__ = ["without_particle"]

U1 = npt.NDArray[np.uint8]

#: Codes within this of 160 can be background; the halo departs further.
_BACKGROUND_CODES = 4
#: Fewer background pixels than this in a crop, and its group lends it some.
_ENOUGH = 12


def without_particle(pixels: U1, group: npt.NDArray[np.generic], *, seed: int = 0) -> U1:
    """Replace the particle and its halo by background of the same picture.

    Each replaced pixel takes the value of a background pixel of the same crop, or, where a tight crop shows hardly
    any, of the crops of its group: noise, level and shading of the run stay, the particle goes.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    group : ndarray (n,)
    seed : int

    Returns
    -------
    ndarray of uint8 (n, W, W, 1)
    """
    rng = np.random.default_rng(seed)
    codes = pixels[..., 0].astype(np.int16)
    departs = np.abs(codes - RATIO_ONE) > _BACKGROUND_CODES
    gone = particle_masks(pixels, threshold=0.03, grow_px=2) | departs
    # Beyond the box a crop is exactly 160: that is no picture of background and lends nothing.
    shown = _boxes(codes)
    free = shown & ~gone
    out = pixels.copy()
    every = codes[free]
    _, index = np.unique(group, return_inverse=True)
    order = np.argsort(index, kind="stable")
    bounds = np.searchsorted(index[order], np.arange(index.max(initial=-1) + 2))
    for low, high in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        members = order[low:high]
        of_group = codes[members][free[members]]
        lenders = of_group if len(of_group) >= _ENOUGH else every if len(every) else np.array([RATIO_ONE], np.int16)
        for i in members.tolist():
            own = codes[i][free[i]]
            where = gone[i] & shown[i]
            out[i, where, 0] = rng.choice(own if len(own) >= _ENOUGH else lenders, size=int(where.sum()))
    return out


def _boxes(codes: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Smallest box of each crop that holds all that is not exactly background, (n, W, W)."""
    other = codes != RATIO_ONE
    rows, columns = other.any(axis=2), other.any(axis=1)

    def span(has: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        first = np.maximum.accumulate(has, axis=1)
        last = np.maximum.accumulate(has[:, ::-1], axis=1)[:, ::-1]
        return first & last

    return span(rows)[:, :, None] & span(columns)[:, None, :]
