"""Structuring elements."""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["disc"]


@lru_cache(maxsize=64)
def disc(radius_px: int) -> npt.NDArray[np.uint8]:
    """A digital disc that looks the same from all four sides, uint8 0/1, read-only.

    ``cv2.getStructuringElement(cv2.MORPH_ELLIPSE, ...)`` does not: its elements are wider than high, and a mask
    closed with them changes when the picture is turned.

    Examples
    --------
    >>> disc(2).sum(1).tolist()
    [3, 5, 5, 5, 3]
    """
    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    element = (x * x + y * y <= (radius_px + 0.3) ** 2).astype(np.uint8)
    element.setflags(write=False)
    return element
