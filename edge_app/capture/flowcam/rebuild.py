"""A frame that a FlowCam did not export, rebuilt: its crops put back on its background."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["put_crops_back"]


def put_crops_back(
    background: npt.NDArray[np.uint8], crops: Sequence[npt.NDArray[np.uint8]], places_px: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Put crops on a background, in their order; what reaches over its border is cut off.

    Parameters
    ----------
    background
        uint8 (H, W); not written to.
    crops
        uint8 (h, w) each.
    places_px
        Left and upper edge of each crop in the frame, px; may be negative.

    Returns
    -------
    image
        uint8 (H, W).
    clipped
        Which crops leave the frame.

    Examples
    --------
    >>> image, clipped = put_crops_back(np.full((2, 3), 9, np.uint8), [np.zeros((1, 2), np.uint8)], [(2, 1)])
    >>> image.tolist(), clipped
    ([[9, 9, 9], [9, 9, 0]], [0])
    """
    image = background.copy()
    height, width = image.shape
    clipped = []
    for i, (crop, (x, y)) in enumerate(zip(crops, places_px, strict=True)):
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + crop.shape[1], width), min(y + crop.shape[0], height)
        if x1 - x0 < crop.shape[1] or y1 - y0 < crop.shape[0]:
            clipped.append(i)
        if x1 > x0 and y1 > y0:
            image[y0:y1, x0:x1] = crop[y0 - y : y1 - y, x0 - x : x1 - x]
    return image, clipped
