"""The particles of a frame side by side in a small picture, so that neighbourhood operations cost by their area."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.segmentation.regions import Regions

__all__ = ["Atlas", "pack"]

_WIDTH_PX: Final = 1024


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Where the pixels of some regions lie in the small picture.

    Attributes
    ----------
    shape
        Height and width of the picture.
    index
        Flat index into it of each entry of ``Regions.pixels``, int64.
    """

    shape: tuple[int, int]
    index: npt.NDArray[np.int64]


def pack(regions: Regions, *, margin_px: int) -> Atlas:
    """Give each region's box, with a margin on every side, a place of its own on shelves of falling height.

    Particles cover a few percent of a frame; the picture of them alone is some 50 times smaller than the frame, and a
    neighbour in the frame is none in it.

    Examples
    --------
    >>> from edge_app.segmentation.regions import find_regions
    >>> mask = np.zeros((50, 50), np.uint8)
    >>> mask[10:14, 10:13] = mask[40:42, 30:39] = 1
    >>> atlas = pack(find_regions(mask), margin_px=1)
    >>> picture = np.zeros(atlas.shape, np.uint8)
    >>> picture.ravel()[atlas.index] = 1
    >>> atlas.shape, int(picture.sum())
    ((6, 1035), 30)
    """
    n = len(regions)
    if n == 0:
        return Atlas(shape=(0, 0), index=np.zeros(0, np.int64))
    width = regions.width_px.astype(np.int64) + 2 * margin_px
    height = regions.height_px.astype(np.int64) + 2 * margin_px
    order = np.argsort(-height, kind="stable")
    along = np.concatenate([[0], np.cumsum(width[order])[:-1]])
    shelf = along // _WIDTH_PX
    first = np.flatnonzero(np.diff(shelf, prepend=-1))
    which = np.repeat(np.arange(len(first)), np.diff(np.append(first, n)))
    top = np.concatenate([[0], np.cumsum(height[order][first])])
    left_of, top_of = np.empty(n, np.int64), np.empty(n, np.int64)
    left_of[order] = along - along[first][which]
    top_of[order] = top[which]
    picture_width = _WIDTH_PX + int(width.max())
    y, x = np.divmod(regions.pixels, regions.width_frame_px)
    move_x, move_y = left_of + margin_px - regions.x_px, top_of + margin_px - regions.y_px
    row = regions.pixel_row
    return Atlas(shape=(int(top[-1]), picture_width), index=(y + move_y[row]) * picture_width + x + move_x[row])
