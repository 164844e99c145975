"""Size that does not depend on contrast: the area above half of the particle's own deviation."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.measurement.atlas import pack
from edge_app.segmentation.kernels import disc
from edge_app.segmentation.ratio import noise_codes
from edge_app.segmentation.regions import Regions

__all__ = ["half_maximum_area"]

U8 = npt.NDArray[np.uint8]
I8 = npt.NDArray[np.int64]
F4 = npt.NDArray[np.float32]

REACH_PX: Final = 4
"""How far from a pixel the deviation is looked at that is "the particle's own" there. A strong edge outshines its halo
this far; parts of a patchy particle farther apart are judged each by itself."""

_REACH: Final = disc(REACH_PX)
_CLOSE: Final = disc(2)
_NEXT: Final = np.ones((3, 3), np.uint8)


_NOISE_OF_MAXIMUM: Final = 3.0
"""By how much the largest of some fifty noisy pixels exceeds what is behind the noise, in standard deviations."""


def half_maximum_area(ratio: U8, regions: Regions, *, noise: float | None = None) -> F4:
    """Sub-pixel area of each particle above half of its own deviation, holes filled.

    A fixed threshold cuts a blurred edge further out the stronger the particle is; half of its own contrast cuts it
    at the same place whatever the contrast (the rule of NIST's study, J. Pharm. Sci. 2015, PMC5535275). Deviation is
    ``|ratio - 1|``, and a pixel's own maximum is that of the mask within 4 px of it, not of the whole particle: a
    translucent aggregate has strong and faint folds, and a single level would keep the strong ones only. What lies
    more than 4 px inside the mask is never cut off. Pixels inside count 1, those on the outline by the share of them
    inside, from the deviation and its slope.

    Parameters
    ----------
    ratio
        uint8 (H, W), code 160 = background.
    regions
        n regions of it.
    noise
        Noise of the picture in codes; default: measured from it. A maximum over noisy pixels is too large by some of
        it, which would matter for faint particles.

    Returns
    -------
    float32 (n,), px.

    Examples
    --------
    >>> from edge_app.segmentation.threshold import segment
    >>> sizes = []
    >>> for contrast in (0.15, 0.6):
    ...     disc = np.full((64, 64), 1.0, np.float32)
    ...     _ = cv2.circle(disc, (32, 32), 8, 1.0 - contrast, cv2.FILLED)
    ...     ratio = np.rint(160 * cv2.GaussianBlur(disc, (0, 0), 1.5)).astype(np.uint8)
    ...     sizes.append(float(half_maximum_area(ratio, segment(ratio))[0]))
    >>> abs(sizes[0] / sizes[1] - 1) < 0.02
    True
    """
    n = len(regions)
    if n == 0:
        return np.zeros(0, np.float32)
    row, pixels = regions.pixel_row, regions.pixels
    # One pixel of background beyond what any of the operations below reaches.
    atlas = pack(regions, margin_px=REACH_PX + 1)
    deviation = np.zeros(atlas.shape, np.uint8)
    mask = np.zeros(atlas.shape, np.uint8)
    here = np.abs(ratio.ravel()[pixels].astype(np.int16) - RATIO_ONE).astype(np.uint8)
    deviation.ravel()[atlas.index] = here
    mask.ravel()[atlas.index] = 1
    spare = _NOISE_OF_MAXIMUM * (noise_codes(ratio, grid_px=8) if noise is None else noise)
    own = np.asarray(cv2.dilate(deviation, _REACH), np.uint8).ravel()[atlas.index].astype(np.float32)
    half = np.maximum(own - np.float32(spare), 0.0) / np.float32(2)
    core = np.asarray(cv2.erode(mask, _REACH), np.uint8)
    core.ravel()[atlas.index[here >= half]] = 1
    core = np.asarray(cv2.morphologyEx(core, cv2.MORPH_CLOSE, _CLOSE), np.uint8)
    contours, _ = cv2.findContours(core, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(core, contours, -1, 1, cv2.FILLED)
    whole = core.ravel()[atlas.index]
    rim = (cv2.dilate(core, _NEXT) != cv2.erode(core, _NEXT)).ravel()[atlas.index]
    share = whole.astype(np.float64)
    share[rim] = _share_inside(ratio, pixels[rim], half[rim])
    return np.bincount(row, weights=share, minlength=n).astype(np.float32)


def _share_inside(ratio: U8, at: I8, half: F4) -> F4:
    """How much of some outline pixels lies inside the half-maximum line, from the deviation there and its slope."""
    height, width = ratio.shape
    x, y = at % width, at // width
    left, right = np.maximum(x - 1, 0), np.minimum(x + 1, width - 1)
    upper, lower = np.maximum(y - 1, 0) * width, np.minimum(y + 1, height - 1) * width
    picture = ratio.ravel()

    def deviation(index: I8) -> F4:
        return np.abs(picture[index].astype(np.float32) - RATIO_ONE)

    slope = np.hypot(
        deviation(y * width + right) - deviation(y * width + left), deviation(lower + x) - deviation(upper + x)
    )
    return np.clip(0.5 + (deviation(at) - half) / np.maximum(slope / 2, 1.0), 0.0, 1.0).astype(np.float32)
