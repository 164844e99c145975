"""How many particles a seen particle stands for: those of its size that the border cut."""

import numpy as np
import numpy.typing as npt

__all__ = ["border_weight"]


def border_weight(
    width_px: npt.NDArray[np.integer],
    height_px: npt.NDArray[np.integer],
    border: npt.NDArray[np.bool_],
    *,
    frame_width_px: int,
    frame_height_px: int,
) -> npt.NDArray[np.float32]:
    """Miles-Lantuejoul weight: a particle with a large box is cut by the border more often, and counts for more.

    A ``w x h`` box lies wholly inside a ``W x H`` frame with probability ``(1 - w/W)(1 - h/H)``; the weight is its
    inverse, and 0 for a particle on the border.

    Parameters
    ----------
    width_px, height_px
        Boxes, (n,).
    border
        Whether the particle touches the border, (n,).

    References
    ----------
    C. Lantuejoul, Computer Graphics and Image Processing 14 (1980) 354; R. E. Miles (1974).

    Examples
    --------
    >>> border_weight(np.array([128, 5]), np.array([0, 5]), np.array([False, True]), frame_width_px=1280,
    ...     frame_height_px=1024).round(3)
    array([1.111, 0.   ], dtype=float32)
    """
    free_x = np.maximum(1.0, frame_width_px - np.asarray(width_px, np.float64))
    free_y = np.maximum(1.0, frame_height_px - np.asarray(height_px, np.float64))
    weight = (frame_width_px / free_x) * (frame_height_px / free_y)
    return np.where(border, 0.0, weight).astype(np.float32)
