"""Particle pictures that another instrument cut, without their frame: how bright was the background?

A tight crop shows little of it, and part of its border is halo. The level is read from the corners of each picture, and
pictures of one folder lend each other their evidence: runs have one level each, and a folder may hold several runs.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.crops import CropGeometry, Crops, cut_crops

__all__ = ["background_levels", "crops_of_pictures", "dark_backgrounds", "divide_by_level", "particle_box"]

U1 = npt.NDArray[np.uint8]

#: Corner pixels that are background differ from it by noise (fraction of the level); the rest is halo or particle.
SPREAD = 0.012
BACKGROUND_SHARE = 0.7
#: Neighbouring corner pixels lie in the same halo and are wrong together: they count as a fifth of their number.
#: On simulated crops of known level this gives a median error of 0.36 % (0.54 % without) and 95 % below 1.1 %
#: (2.0 % without); two runs in one folder are still told apart.
INDEPENDENT_SHARE = 0.2
#: A folder's own levels count as much as the whole set's once it holds this many pictures.
POOLED_PICTURES = 20
#: A picture with at least this much background on every side is not a tight crop.
WIDE_MARGIN_PX = 4
#: Departure from the background that makes a particle's box: 5 % of it, in codes.
CONTRAST_CODES = 8
LEVELS = np.arange(20, 256)


def _corner_pixels(picture: U1) -> U1:
    """Pixels of the four corner triangles, as long as 15 % of the shorter side but at least two pixels."""
    h, w = picture.shape
    leg = max(1, round(0.15 * min(h, w)))
    rows, columns = np.arange(h), np.arange(w)
    edge_y, edge_x = np.minimum(rows, h - 1 - rows), np.minimum(columns, w - 1 - columns)
    return picture[edge_y[:, None] + edge_x[None, :] <= leg]


def background_levels(pictures: Sequence[U1], *, groups: Sequence[str] | None = None) -> npt.NDArray[np.float32]:
    """Estimate the background level of each picture.

    Empirical Bayes: the distribution of levels in the whole set and in each group is found by expectation maximisation
    from the corner pixels of all pictures; each picture then takes the level that its own corners and its group make
    most likely, refined to a fraction of a grey level.

    Parameters
    ----------
    pictures
        uint8 (h_i, w_i), any sizes.
    groups
        Name of each picture's folder or run; None: all from one.

    Returns
    -------
    ndarray of float32 (n,)
        Grey levels.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> crops = [rng.normal(211, 2, (12, 12)).round().astype(np.uint8) for _ in range(30)]
    >>> bool(np.all(abs(background_levels(crops) - 211) < 1))
    True
    """
    n = len(pictures)
    if n == 0:
        return np.empty(0, np.float32)
    counts = np.zeros((n, 256), np.float32)
    for i, picture in enumerate(pictures):
        counts[i] = np.bincount(_corner_pixels(picture), minlength=256)
    values = np.arange(256)
    spread = np.maximum(SPREAD * LEVELS, 1.0)[:, None]
    near = np.exp(-0.5 * ((values - LEVELS[:, None]) / spread) ** 2) / (spread * np.sqrt(2 * np.pi))
    likelihood = np.log(BACKGROUND_SHARE * near + (1 - BACKGROUND_SHARE) / 256).astype(np.float32)
    log_evidence = INDEPENDENT_SHARE * (counts @ likelihood.T)
    log_evidence -= log_evidence.max(axis=1, keepdims=True)
    evidence = np.exp(log_evidence)

    names, group = np.unique(np.asarray(groups if groups is not None else [""] * n), return_inverse=True)
    members = np.bincount(group, minlength=len(names))
    prior = np.full((len(names), len(LEVELS)), 1 / len(LEVELS))
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 0.7) ** 2)
    kernel /= kernel.sum()
    for _ in range(12):
        posterior = evidence * prior[group]
        posterior /= posterior.sum(axis=1, keepdims=True)
        sums = np.zeros_like(prior)
        np.add.at(sums, group, posterior)
        overall = sums.sum(axis=0) / n
        mixed = (sums + POOLED_PICTURES * overall) / (members[:, None] + POOLED_PICTURES)
        # Smoothing keeps neighbouring levels possible; the floor keeps a stray picture from another run possible.
        prior = np.apply_along_axis(np.convolve, 1, mixed, kernel, mode="same") + 1e-5
        prior /= prior.sum(axis=1, keepdims=True)
    posterior = evidence * prior[group]
    best = LEVELS[posterior.argmax(axis=1)]
    posterior[np.abs(LEVELS[None, :] - best[:, None]) > 3] = 0
    return np.asarray((posterior @ LEVELS) / posterior.sum(axis=1), dtype=np.float32)


def dark_backgrounds(pictures: Sequence[U1], *, groups: Sequence[str]) -> dict[str, float]:
    """Groups whose pictures are not bright-field ones: nothing can be divided by a background that is black.

    Parameters
    ----------
    pictures
        uint8 (h_i, w_i).
    groups
        Name of each picture's folder or run. One dark picture is none that is named: a bubble may fill its corners.

    Returns
    -------
    dict
        Name of the group, and the median grey level of its corners, where it is below the least level that
        `background_levels` knows.
    """
    corners: dict[str, list[float]] = {}
    for picture, group in zip(pictures, groups, strict=True):
        corners.setdefault(group, []).append(float(np.median(_corner_pixels(picture))))
    middle = {group: float(np.median(levels)) for group, levels in corners.items()}
    return {group: level for group, level in middle.items() if level < LEVELS[0]}


def particle_box(ratio: U1, *, margin_px: int) -> tuple[int, int, int, int]:
    """x, y, width, height of what the network is to see of a ratio picture: all of it, or the particle in it.

    A picture that shows the particle with at least `WIDE_MARGIN_PX` of background on every side is no tight crop: then
    the box is found in it, with ``margin_px`` around it.
    """
    height, width = ratio.shape
    # The median takes single noisy pixels away, which would stretch the box over the margin.
    smooth = np.asarray(cv2.medianBlur(ratio, 3), np.int16)
    rows, columns = np.nonzero(abs(smooth - RATIO_ONE) > CONTRAST_CODES)
    if len(rows) == 0:
        return 0, 0, width, height
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    if min(left, top, width - right, height - bottom) < WIDE_MARGIN_PX:
        return 0, 0, width, height
    left, top = int(left) - margin_px, int(top) - margin_px
    return left, top, int(right) + margin_px - left, int(bottom) + margin_px - top


def divide_by_level(picture: U1, level: float) -> U1:
    """Ratio picture of one crop: code 160 = ``level``."""
    table = np.clip(np.rint(np.arange(256) * (RATIO_ONE / level)), 0, 255).astype(np.uint8)
    return table[picture]


def crops_of_pictures(
    pictures: Sequence[U1],
    *,
    geometry: CropGeometry,
    um_per_px: float,
    groups: Sequence[str] | None = None,
    levels: npt.NDArray[np.float32] | None = None,
) -> Crops:
    """Pictures cut by another instrument, as the classifier takes them.

    The whole picture is the box, unless it shows the particle with a wide margin: then the box is found in it, as it
    would be in a frame.

    Parameters
    ----------
    pictures
        uint8 (h_i, w_i).
    geometry
        Of the bundle.
    um_per_px
        Scale of the pictures.
    groups
        Folder or run of each, see `background_levels`.
    levels
        Background levels where they are known.

    Returns
    -------
    Crops
        In the order of the pictures.
    """
    if not len(pictures):
        return Crops.empty(geometry)
    known = background_levels(pictures, groups=groups) if levels is None else levels
    own_box = geometry.model_copy(update={"margin_px": 0})  # what surrounds the picture is unknown, thus background
    parts = []
    for picture, level in zip(pictures, known.tolist(), strict=True):
        ratio = divide_by_level(picture, level)
        box = [np.array([v]) for v in particle_box(ratio, margin_px=geometry.margin_px)]
        parts.append(cut_crops(ratio, *box, geometry=own_box, um_per_px=um_per_px))
    return Crops.concatenate(parts)
