"""Where the focal plane lies in the cell, estimated from beads alone."""

import itertools
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["estimate_focus_offset"]

BINS: Final = 12


def estimate_focus_offset(
    intensity_mean: npt.NDArray[np.floating],
    intensity_std: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
    *,
    depth_um: float,
) -> float | None:
    """Distance of the focal plane from the middle of the cell, um, to either side.

    Images of beads of one size are spread evenly over the depth. The mean intensity of a bead's mask orders them by
    depth, contrast (standard deviation) is highest at the focal plane: the rank of the highest contrast is the place
    of the plane. Which wall the order begins at depends on aperture and coma, so the side is not known. Where the
    contrast only rises or falls, the plane is near a wall or outside of the cell, or tilt and coma hide it.

    Parameters
    ----------
    intensity_mean, intensity_std, weight
        (n,): columns of the particles, and the probability of a single bead of a size of 5 to 15 um.
    depth_um
        Inner depth of the cell.

    Returns
    -------
    float, or None with fewer than 60 beads, or where the contrast has no peak inside the cell.

    Examples
    --------
    >>> z = np.linspace(-30, 70, 500)    # distances from focus in a cell 100 um deep
    >>> round(estimate_focus_offset(0.6 + 0.002 * z, 0.4 - 2e-5 * z**2, np.ones(500), depth_um=100), -1)
    20.0
    >>> estimate_focus_offset(0.6 + 0.002 * z, 0.4 - 0.001 * z, np.ones(500), depth_um=100) is None
    True
    """
    use = np.asarray(weight) > 0.5
    n = int(use.sum())
    if n < 60:
        return None
    order = np.argsort(np.asarray(intensity_mean)[use], kind="stable")
    contrast = np.asarray(intensity_std, np.float64)[use][order]
    edges = np.linspace(0, n, BINS + 1).astype(np.int64)
    height = np.array([np.median(contrast[a:b]) for a, b in itertools.pairwise(edges)])
    rank = (np.arange(BINS) + 0.5) / BINS
    top = int(np.argmax(height))
    if not 0 < top < BINS - 1:
        return None
    near = slice(max(0, top - 3), min(BINS, top + 4))
    a, b, _ = np.polyfit(rank[near], height[near], 2)
    at = float(np.clip(-b / (2 * a), rank[near][0], rank[near][-1])) if a < 0 else float(rank[top])
    return float(depth_um * abs(0.5 - at))
