"""Masks to regions: connected components as ragged arrays, no object and no picture per particle."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["LabelOverflow", "LabelledMask", "Regions", "centroids", "find_regions", "label_mask", "ragged_index"]

U2 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]


_COLUMNS: Final = ("x_px", "y_px", "width_px", "height_px", "area_px", "raw_area_px", "pieces")


class LabelOverflow(Exception):
    """A mask with more components than can be told apart."""


def ragged_index(start: I8, rows: I8) -> tuple[I8, I8]:
    """Indices of the elements of some rows of a ragged array, and the new row starts.

    Examples
    --------
    >>> index, start = ragged_index(np.array([0, 2, 5]), np.array([1]))
    >>> index.tolist(), start.tolist()
    ([2, 3, 4], [0, 3])
    """
    length = (start[1:] - start[:-1])[rows]
    new = np.concatenate([[0], np.cumsum(length)]).astype(np.int64)
    return np.arange(new[-1]) + np.repeat(start[:-1][rows] - new[:-1], length), new


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of one frame, n rows, in the order of their first pixel (top to bottom, left to right).

    Attributes
    ----------
    height_frame_px, width_frame_px
        Size of the frame.
    x_px, y_px, width_px, height_px
        Bounding boxes, int32 (n,).
    area_px
        Pixels of the mask after hole filling, int32 (n,).
    raw_area_px
        Pixels of it that differ from the background themselves, int32 (n,).
    pixels, pixel_start
        Flat indices of all mask pixels, int64, a region after the other, each in raster order; region i has
        ``pixels[pixel_start[i]:pixel_start[i + 1]]``.
    pieces
        Separate pieces of the region, int32 (n,); 1 unless neighbours were joined.
    contour, contour_start
        Outer contours (8-connected, closed, through pixel centres) as int32 (m, 2) of x, y, in the same manner.
    contour_step
        Distance in the array from each contour point to the one that follows it on its closed contour, int32 (m,).
    """

    height_frame_px: int
    width_frame_px: int
    x_px: I4
    y_px: I4
    width_px: I4
    height_px: I4
    area_px: I4
    raw_area_px: I4
    pieces: I4
    pixels: I8
    pixel_start: I8
    contour: I4
    contour_step: I4
    contour_start: I8

    def __len__(self) -> int:
        return len(self.x_px)

    @cached_property
    def pixel_row(self) -> I8:
        """Row of each entry of ``pixels``, int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.pixel_start))

    @cached_property
    def labels(self) -> I4:
        """Label picture, int32 (H, W): 0 outside, 1 + row inside. Built on demand."""
        picture = np.zeros(self.height_frame_px * self.width_frame_px, np.int32)
        picture[self.pixels] = self.pixel_row + 1
        return picture.reshape(self.height_frame_px, self.width_frame_px)

    @cached_property
    def mask(self) -> U8:
        """Mask of all regions, uint8 0/1 (H, W). Built on demand."""
        picture = np.zeros(self.height_frame_px * self.width_frame_px, np.uint8)
        picture[self.pixels] = 1
        return picture.reshape(self.height_frame_px, self.width_frame_px)

    @property
    def border(self) -> npt.NDArray[np.bool_]:
        """Whether a region touches the border of the frame, (n,)."""
        return (
            (self.x_px == 0)
            | (self.y_px == 0)
            | (self.x_px + self.width_px == self.width_frame_px)
            | (self.y_px + self.height_px == self.height_frame_px)
        )

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> "Regions":
        """No region in a frame of this shape."""
        none, start = np.zeros(0, np.int32), np.zeros(1, np.int64)
        return cls(
            height_frame_px=shape[0], width_frame_px=shape[1], x_px=none, y_px=none, width_px=none, height_px=none,
            area_px=none, raw_area_px=none, pieces=none, pixels=np.zeros(0, np.int64), pixel_start=start,
            contour=np.zeros((0, 2), np.int32), contour_step=none, contour_start=start,
        )  # fmt: skip

    def take(self, rows: npt.NDArray[np.bool_] | I8) -> "Regions":
        """Keep the regions that a mask or an index array names."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else np.asarray(rows, np.int64)
        pixel, pixel_start = ragged_index(self.pixel_start, chosen)
        point, contour_start = ragged_index(self.contour_start, chosen)
        columns = {name: getattr(self, name)[chosen] for name in _COLUMNS}
        return Regions(
            height_frame_px=self.height_frame_px, width_frame_px=self.width_frame_px, pixels=self.pixels[pixel],
            pixel_start=pixel_start, contour=self.contour[point], contour_step=self.contour_step[point],
            contour_start=contour_start, **columns,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LabelledMask:
    """A mask with its holes filled, taken apart.

    Attributes
    ----------
    filled
        uint8 0/1 (H, W).
    labels
        uint16 (H, W): 0 outside, a number of its own in each 8-connected component. The numbers have no order.
    contours
        Outer contour of each component, int32 (k, 1, 2).
    """

    filled: U8
    labels: U2
    contours: Sequence[I4]


def label_mask(mask: U8, *, max_regions: int = 60_000) -> LabelledMask:
    """Fill the holes of a mask and label its components.

    Holes are what 4-connection cannot reach from outside, as in ``scipy.ndimage.binary_fill_holes``; a component inside
    the hole of another one becomes part of it.

    Raises
    ------
    LabelOverflow
        If there are more than ``max_regions`` contours.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(contours) > max_regions:
        raise LabelOverflow(f"{len(contours)} regions in a frame, at most {max_regions}")
    filled = np.zeros(mask.shape[:2], np.uint8)
    if contours:
        cv2.drawContours(filled, contours, -1, 1, cv2.FILLED)
    _, labels = cv2.connectedComponentsWithAlgorithm(filled, 8, cv2.CV_16U, cv2.CCL_DEFAULT)
    return LabelledMask(
        filled=filled, labels=np.asarray(labels, np.uint16), contours=[np.asarray(c, np.int32) for c in contours]
    )


def find_regions(
    mask: U8 | LabelledMask, *, raw: U8 | None = None, joined: U2 | None = None, max_regions: int = 60_000
) -> Regions:
    """Fill the holes of a mask and take it apart into 8-connected regions.

    Parameters
    ----------
    mask
        uint8 (H, W), non-zero in particles, or what :func:`label_mask` made of it. What lies inside an outer contour
        belongs to the region.
    raw
        uint8 (H, W), non-zero where the picture itself passed the threshold; default: ``mask``.
    joined
        Label picture (uint16, 0 outside the filled mask) that says which pieces are one region, in place of
        8-connection.
    max_regions
        Most regions allowed (labels are 16 bit, 3 times faster here than 32 bit).

    Raises
    ------
    LabelOverflow
        If there are more.

    Examples
    --------
    >>> ring = np.zeros((7, 7), np.uint8)
    >>> ring[1:6, 1:6] = 1
    >>> ring[2:5, 2:5] = 0
    >>> r = find_regions(ring)
    >>> r.area_px.tolist(), r.raw_area_px.tolist()
    ([25], [16])
    """
    parts = mask if isinstance(mask, LabelledMask) else label_mask(mask, max_regions=max_regions)
    filled, contours = parts.filled, parts.contours
    shape = (filled.shape[0], filled.shape[1])
    if not contours:
        return Regions.empty(shape)
    picture = parts.labels if joined is None else joined
    pixels = np.flatnonzero(filled.view(np.bool_))
    label = picture.ravel()[pixels]
    # Own order, by first pixel: the library's numbering is not promised to stay the same between versions or threads.
    last = int(label.max())
    first = np.full(last + 1, filled.size, np.int64)
    first[label[::-1]] = pixels[::-1]
    order = np.argsort(first, kind="stable")
    n = int((first < filled.size).sum())
    rank = np.zeros(last + 1, np.uint16)
    rank[order[:n]] = np.arange(n)
    row = rank[label]
    by_row = np.argsort(row, kind="stable")
    area = np.bincount(row, minlength=n)
    before = raw if raw is not None else filled if isinstance(mask, LabelledMask) else mask
    raw_values = before.ravel()[pixels] != 0
    points = np.concatenate(contours).reshape(-1, 2)
    length = np.array([len(c) for c in contours], np.int64)
    start = np.concatenate([[0], np.cumsum(length)])
    step = np.ones(len(points), np.int32)
    step[start[1:] - 1] = 1 - length
    contour_row = rank[picture[points[start[:-1], 1], points[start[:-1], 0]]]
    piece_order = np.argsort(contour_row, kind="stable")
    point, _ = ragged_index(start, piece_order)
    contour = points[point]
    contour_length = np.bincount(contour_row, weights=length, minlength=n).astype(np.int64)
    contour_start = np.concatenate([[0], np.cumsum(contour_length)])
    low = np.minimum.reduceat(contour, contour_start[:-1], axis=0)
    high = np.maximum.reduceat(contour, contour_start[:-1], axis=0)
    return Regions(
        height_frame_px=shape[0],
        width_frame_px=shape[1],
        x_px=low[:, 0].astype(np.int32),
        y_px=low[:, 1].astype(np.int32),
        width_px=(high - low + 1)[:, 0].astype(np.int32),
        height_px=(high - low + 1)[:, 1].astype(np.int32),
        area_px=area.astype(np.int32),
        raw_area_px=np.bincount(row, weights=raw_values, minlength=n).astype(np.int32),
        pieces=np.bincount(contour_row, minlength=n).astype(np.int32),
        pixels=pixels[by_row],
        pixel_start=np.concatenate([[0], np.cumsum(area)]).astype(np.int64),
        contour=contour.astype(np.int32),
        contour_step=step[point],
        contour_start=contour_start,
    )


def centroids(regions: Regions) -> npt.NDArray[np.float32]:
    """Centroids of the filled masks, x and y in px, float32 (n, 2).

    Examples
    --------
    >>> from edge_app.segmentation.threshold import segment
    >>> ratio = np.full((64, 64), 160, np.uint8)
    >>> ratio[20:30, 31:42] = 80
    >>> centroids(segment(ratio)).tolist()
    [[36.0, 24.5]]
    """
    n = len(regions)
    row, width = regions.pixel_row, max(1, regions.width_frame_px)
    area = np.maximum(regions.area_px, 1)
    x = np.bincount(row, weights=regions.pixels % width, minlength=n) / area
    y = np.bincount(row, weights=regions.pixels // width, minlength=n) / area
    return np.stack([x, y], axis=1).astype(np.float32)
