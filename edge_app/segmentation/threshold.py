"""Which pixels are a particle: darker or brighter than the background by more than the noise."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.segmentation.regions import LabelOverflow, Regions, find_regions
from edge_app.segmentation.settings import DEFAULT_SETTINGS, ThresholdSettings

__all__ = ["close_mask", "instrument_mask", "join_neighbours", "segment", "threshold_codes", "threshold_mask"]

U8 = npt.NDArray[np.uint8]

_DISC: Final = {r: cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1)) for r in range(1, 65)}


def threshold_codes(noise: float, *, settings: ThresholdSettings = DEFAULT_SETTINGS.threshold) -> int:
    """Deviation from 160 at which a pixel counts, in codes, from the frame's noise in codes.

    The larger of a fixed share of the background and a multiple of the noise, rounded up.

    Examples
    --------
    >>> threshold_codes(0.5), threshold_codes(3.0)
    (7, 12)
    """
    return max(1, int(np.ceil(max(settings.floor_fraction * RATIO_ONE, settings.noise_factor * noise) - 1e-9)))


def threshold_mask(ratio: U8, codes: int) -> U8:
    """Pixels that are at least ``codes`` darker or brighter than the background, uint8 0/255.

    Both sides: translucent particles change sign through focus, and one side alone breaks them into pieces.
    """
    inside = cv2.inRange(ratio, np.array([RATIO_ONE - codes + 1]), np.array([RATIO_ONE + codes - 1]))
    return cv2.bitwise_not(inside, dst=inside).astype(np.uint8, copy=False)


def instrument_mask(image: U8, background: U8, *, dark: int, light: int) -> U8:
    """An instrument's own rule: at least ``dark`` grey levels below or ``light`` above its background, uint8 0/255."""
    below = cv2.subtract(background, image)
    above = cv2.subtract(image, background)
    _, darker = cv2.threshold(below, dark - 1, 255, cv2.THRESH_BINARY)
    _, brighter = cv2.threshold(above, light - 1, 255, cv2.THRESH_BINARY)
    return cv2.bitwise_or(darker, brighter).astype(np.uint8, copy=False)


def close_mask(mask: U8, *, radius_px: int) -> U8:
    """Close gaps up to ``2 * radius_px`` wide; never takes a pixel away and grows nothing onto the border."""
    if radius_px == 0:
        return mask
    disc = _DISC[radius_px]
    # Outside of the frame counts as empty, or the erosion leaves a bridge from a near particle to the border.
    closed = cv2.erode(cv2.dilate(mask, disc), disc, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return cv2.bitwise_or(closed, mask).astype(np.uint8, copy=False)


def join_neighbours(mask: U8, *, distance_px: int) -> U8:
    """Label picture in which pieces up to ``distance_px`` apart share a label, uint16 (H, W), 0 outside the mask."""
    grown = cv2.dilate(mask, _DISC[max(1, (distance_px + 1) // 2)])
    _, labels = cv2.connectedComponentsWithAlgorithm(grown, 8, cv2.CV_16U, cv2.CCL_DEFAULT)
    labels[mask == 0] = 0
    return labels.astype(np.uint16, copy=False)


def segment(
    ratio: U8, *, noise: float = 0.0, settings: ThresholdSettings = DEFAULT_SETTINGS.threshold, raw: U8 | None = None
) -> Regions:
    """Find the particles of a ratio picture: threshold on both sides, close, fill, label.

    Parameters
    ----------
    ratio
        uint8 (H, W), code 160 = background.
    noise
        Noise of the picture in codes, from :func:`edge_app.segmentation.ratio.noise_codes`.
    raw
        Mask made by another rule (:func:`instrument_mask`) in place of the two-sided threshold.

    Returns
    -------
    Regions of any area; the caller drops those below ``settings.min_area_px`` and counts them.

    Raises
    ------
    LabelOverflow
        If there are more than can be told apart.
    """
    mask = threshold_mask(ratio, threshold_codes(noise, settings=settings)) if raw is None else raw
    closed = close_mask(mask, radius_px=settings.closing_radius_px)
    regions = find_regions(closed, raw=mask, max_regions=60_000)
    large = regions.area_px >= settings.min_area_px
    if int(large.sum()) > settings.max_particles:
        raise LabelOverflow(f"{int(large.sum())} particles in a frame, at most {settings.max_particles}")
    return regions
