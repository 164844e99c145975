"""Size that does not depend on contrast: the area above half of the particle's own deviation."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.segmentation.regions import Regions

__all__ = ["half_maximum_area"]


def half_maximum_area(ratio: npt.NDArray[np.uint8], regions: Regions) -> npt.NDArray[np.float32]:
    """Sub-pixel area of each particle above half of its own largest deviation, holes filled.

    A fixed threshold cuts a blurred edge further out the stronger the particle is; half of its own contrast cuts it
    at the same place whatever the contrast (the rule of NIST's study, J. Pharm. Sci. 2015, PMC5535275). Deviation is
    ``|ratio - 1|``; the largest one is the mean of the upper tenth of the mask's pixels, not of one noisy pixel.
    Pixels wholly inside count 1, those on the outline by the share of them inside, from the deviation and its slope.

    Parameters
    ----------
    ratio
        uint8 (H, W), code 160 = background.
    regions
        n regions of it.

    Returns
    -------
    float32 (n,), px.
    """
    n = len(regions)
    if n == 0:
        return np.zeros(0, np.float32)
    height, width = ratio.shape
    row, pixels = regions.pixel_row, regions.pixels
    deviation = np.abs(ratio.ravel()[pixels].astype(np.int16) - RATIO_ONE)
    # Largest deviation: mean of the upper tenth. Sorted by region, then by deviation, one 32-bit key each.
    key = np.sort(row.astype(np.int64) * 256 + deviation)
    value = (key & 255).astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(value)])
    end = regions.pixel_start[1:]
    tenth = np.maximum(1, (regions.area_px + 5) // 10)
    peak = (total[end] - total[end - tenth]) / tenth
    half = (peak / 2.0).astype(np.float32)
    inside = deviation >= half[row]
    picture = np.zeros(height * width, np.uint8)
    picture[pixels[inside]] = 1
    contours, _ = cv2.findContours(picture.reshape(height, width), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    core = picture.reshape(height, width)
    cv2.drawContours(core, contours, -1, 1, cv2.FILLED)
    area = np.bincount(row, weights=picture[pixels], minlength=n)
    return (area + _outline_share(ratio, core, row, pixels, half, n)).astype(np.float32)


def _outline_share(
    ratio: npt.NDArray[np.uint8],
    core: npt.NDArray[np.uint8],
    row: npt.NDArray[np.int64],
    pixels: npt.NDArray[np.int64],
    half: npt.NDArray[np.float32],
    n: int,
) -> npt.NDArray[np.float64]:
    """Correction of the pixel count by the share of outline pixels that the half-maximum line cuts off or leaves in."""
    grown = cv2.dilate(core, np.ones((3, 3), np.uint8)).ravel()
    shrunk = cv2.erode(core, np.ones((3, 3), np.uint8)).ravel()
    flat = core.ravel()
    rim = grown[pixels] != shrunk[pixels]
    at, label = pixels[rim], row[rim]
    height, width = ratio.shape
    x, y = at % width, at // width
    picture = ratio.ravel()

    def look(dx: int, dy: int) -> npt.NDArray[np.float32]:
        value = picture[np.clip(y + dy, 0, height - 1) * width + np.clip(x + dx, 0, width - 1)]
        return np.abs(value.astype(np.float32) - RATIO_ONE)

    slope = np.hypot(look(1, 0) - look(-1, 0), look(0, 1) - look(0, -1)) / 2.0
    here = look(0, 0)
    share = np.clip(0.5 + (here - half[label]) / np.maximum(slope, 1.0), 0.0, 1.0)
    return np.asarray(np.bincount(label, weights=share - flat[at], minlength=n), np.float64)
