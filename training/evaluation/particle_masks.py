"""Where in a crop the particle lies, as a threshold sees it."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE

__all__ = ["mask_ecd_um", "particle_masks"]

_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


def particle_masks(
    pixels: npt.NDArray[np.uint8], *, threshold: float = 0.05, grow_px: int = 0
) -> npt.NDArray[np.bool_]:
    """Pixels that depart from the background, closed, filled, largest piece.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    threshold : float
        Fraction of the background, on both sides of it.
    grow_px : int
        Widened by so many pixels.

    Returns
    -------
    ndarray of bool (n, W, W)
        Empty where nothing departs so far.
    """
    cut = np.abs(pixels[..., 0].astype(np.int16) - RATIO_ONE) > threshold * RATIO_ONE
    masks = np.zeros(cut.shape, bool)
    wide = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow_px + 1, 2 * grow_px + 1))
    for i, one in enumerate(cut.astype(np.uint8)):
        padded = cv2.copyMakeBorder(one, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=0)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _DISC)
        outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if not outlines:
            continue
        filled = np.zeros_like(closed)
        cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, cv2.FILLED)
        if grow_px:
            filled = cv2.dilate(filled, wide)
        masks[i] = filled[3:-3, 3:-3] > 0
    return masks


def mask_ecd_um(
    pixels: npt.NDArray[np.uint8], longest_px: npt.NDArray[np.floating], *, window_px: int, um_per_px: float
) -> npt.NDArray[np.float32]:
    """Diameter of the circle of the mask's area, halo included; NaN where there is no mask.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    longest_px : ndarray (n,)
        Longer side of the box: a box larger than the window was reduced to it.
    window_px : int
    um_per_px : float
    """
    area = particle_masks(pixels).sum(axis=(1, 2))
    reduction = np.maximum(longest_px / window_px, 1.0)
    size = 2 * np.sqrt(area / np.pi) * reduction * um_per_px
    return np.where(area > 0, size, np.nan).astype(np.float32)
