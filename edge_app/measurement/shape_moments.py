"""Ultrafast Shape Recognition in the plane: an outline as twelve numbers that no rotation, shift or scale changes.

Distances of all outline points from four reference points (centroid; the outline point closest to it; the one farthest
from it; the one farthest from that) are each summed up by mean, standard deviation and the cube root of the third
central moment. In the manner of P. J. Ballester and W. G. Richards, who describe molecules by their atoms so; here the
atoms are the points of the outer contour, weighted by the length of outline that each stands for.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.segmentation.regions import Regions

__all__ = ["USR", "shape_moments"]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

#: Names of the columns of `shape_moments`, in order.
USR: Final = tuple(
    f"usr_{point}_{moment}"
    for point in ("centroid", "closest", "farthest", "opposite")
    for moment in ("mean", "sd", "skew")
)


def _first_where(chosen: npt.NDArray[np.bool_], row: I8, count: int) -> I8:
    """First chosen element of each row (every row has one)."""
    index = np.flatnonzero(chosen)
    return index[np.searchsorted(row[index], np.arange(count))]


def shape_moments(regions: Regions) -> F4:
    """The twelve moments of each region's outer contour, float32 (n, 12), columns `USR`.

    Lengths are in units of the root mean square distance of the outline from its centroid, so size is not in them. All
    points of the outline of a region in several pieces count. A single pixel has twelve zeros.

    Parameters
    ----------
    regions
        n regions.

    References
    ----------
    P. J. Ballester, W. G. Richards, J. Comput. Chem. 28 (2007) 1711, doi:10.1002/jcc.20681.

    Examples
    --------
    >>> from edge_app.segmentation.regions import find_regions
    >>> y, x = np.mgrid[-60:61, -60:61]
    >>> disc = (x**2 + y**2 <= 50**2).astype(np.uint8)
    >>> [f"{v:.2f}" for v in abs(shape_moments(find_regions(disc))[0, :4])]  # a circle: 1, 0, 0, 4 / pi
    ['1.00', '0.01', '0.00', '1.27']
    """
    n = len(regions)
    if n == 0:
        return np.zeros((0, len(USR)), np.float32)
    start = regions.contour_start
    row = np.repeat(np.arange(n), np.diff(start))
    point = regions.contour.astype(np.float64)
    following = np.arange(len(point)) + regions.contour_step
    edge = np.hypot(*(point[following] - point).T)
    weight = 0.5 * edge
    weight[following] += 0.5 * edge  # every point follows exactly one other
    total = np.add.reduceat(weight, start[:-1])
    lone = total == 0
    if lone.any():
        weight[lone[row]] = 1.0
        total = np.add.reduceat(weight, start[:-1])
    weight /= total[row]

    def mean(values: F8) -> F8:
        return np.asarray(np.add.reduceat(weight * values, start[:-1]))

    def distance(reference: F8) -> F8:
        return np.asarray(np.hypot(*(point - reference[row]).T))

    centroid = np.stack([mean(point[:, 0]), mean(point[:, 1])], axis=1)
    out = np.empty((n, len(USR)))
    apart = distance(centroid)
    scale = np.sqrt(mean(apart**2))
    # Lattice points lie at rounded distances: without slack the last digit would choose among equals.
    closest = _first_where(apart <= (np.minimum.reduceat(apart, start[:-1]) + 1e-9)[row], row, n)
    farthest = _first_where(apart >= (np.maximum.reduceat(apart, start[:-1]) - 1e-9)[row], row, n)
    from_farthest = distance(point[farthest])
    opposite = _first_where(from_farthest >= (np.maximum.reduceat(from_farthest, start[:-1]) - 1e-9)[row], row, n)
    each = (apart, distance(point[closest]), from_farthest, distance(point[opposite]))
    for k, d in enumerate(each):
        average = mean(d)
        off = d - average[row]
        out[:, 3 * k] = average
        out[:, 3 * k + 1] = np.sqrt(mean(off**2))
        out[:, 3 * k + 2] = np.cbrt(mean(off**3))
    return (out / np.where(scale > 0, scale, 1.0)[:, None]).astype(np.float32)
