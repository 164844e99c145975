"""Numbers per particle, for all particles of a frame at once."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.measurement.border_weight import border_weight
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.half_maximum import half_maximum_area
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import Regions, centroids

__all__ = ["contour_perimeter", "edge_gradient", "feret_diameters", "hull_pixels", "measure", "with_learned_size"]

F8 = npt.NDArray[np.float64]
I4 = npt.NDArray[np.int32]
F4 = npt.NDArray[np.float32]
I8 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

_ANGLES: Final = np.arange(36) * (np.pi / 36)
_DIRECTIONS: Final = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])
_HALF_PIXELS: Final = np.maximum(np.abs(_DIRECTIONS[0]), np.abs(_DIRECTIONS[1]))
"""What half a pixel at either end adds to the distance of pixel centres (outline through the middle of pixel edges)."""


def _segment_sum(values: F8, start: I8) -> F8:
    """Sum of each row of a ragged array (rows may be empty)."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    return total[start[1:]] - total[start[:-1]]


def _next_in_row(start: I8) -> I8:
    """Index of the following element, the first one after the last of each row (rows are not empty)."""
    following = np.arange(1, start[-1] + 1)
    following[start[1:] - 1] = start[:-1]
    return following


def hull_points(regions: Regions) -> tuple[npt.NDArray[np.int32], I8]:
    """Corners of the convex hulls of all contours: int32 (m, 2) and row starts."""
    start = regions.contour_start
    # One C call of some 2 us per particle: no vectorised hull comes near it.
    parts = [cv2.convexHull(regions.contour[a:b]) for a, b in zip(start[:-1].tolist(), start[1:].tolist(), strict=True)]
    corner = np.asarray(np.concatenate(parts).reshape(-1, 2) if parts else np.zeros((0, 2)), np.int32)
    return corner, np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)


def hull_pixels(corner: npt.NDArray[np.int32], start: I8) -> F8:
    """Pixels whose centre lies in the convex hull of the pixel centres: Pick's theorem, exact.

    ``N = A + B/2 + 1`` with the hull's area A and the lattice points B on its outline. Counting pixels, as the area
    does, makes ``solidity`` exactly 1 for a digital disc or rectangle and never more.
    """
    following = _next_in_row(start)
    p, q = corner.astype(np.int64), corner[following].astype(np.int64)
    twice = _segment_sum((p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).astype(np.float64), start)
    step = np.abs(q - p)
    on_outline = _segment_sum(np.gcd(step[:, 0], step[:, 1]).astype(np.float64), start)
    return np.abs(twice) / 2.0 + on_outline / 2.0 + 1.0


def feret_diameters(corner: npt.NDArray[np.int32], start: I8) -> tuple[F4, F4, F4]:
    """Largest, smallest and mean caliper distance over 36 directions (every 5 degrees), px, float32 (n,) each.

    From hull corners (pixel centres), with the outline through the middle of the outer pixel edges.
    """
    if len(start) == 1:
        none = np.zeros(0, np.float32)
        return none, none, none
    along = corner.astype(np.float32) @ _DIRECTIONS.astype(np.float32)
    reach = np.maximum.reduceat(along, start[:-1], axis=0) - np.minimum.reduceat(along, start[:-1], axis=0)
    reach += _HALF_PIXELS.astype(np.float32)
    return reach.max(1), reach.min(1), reach.mean(1)


def contour_perimeter(contour: npt.NDArray[np.int32], step: npt.NDArray[np.int32], start: I8, pieces: I4) -> F4:
    """Perimeter of outer contours, px, float32 (n,).

    Length of the 8-connected chain through pixel centres with the unbiased weights of Vossepoel and Smeulders
    (0.980 per even step, 1.406 per odd step, -0.091 per corner), moved outwards by half a pixel (+ pi for each
    closed contour, Steiner).

    Parameters
    ----------
    contour, step, start, pieces
        ``contour``, ``contour_step``, ``contour_start`` and ``pieces`` of :class:`Regions`.

    References
    ----------
    A. M. Vossepoel, A. W. M. Smeulders, Computer Graphics and Image Processing 20 (1982) 347.
    """
    following = np.arange(len(contour)) + step
    move = contour[following] - contour
    manhattan = np.abs(move).sum(1)
    turned = (move[following] != move).any(1)
    length = np.array([0.0, 0.980, 1.406])[np.minimum(manhattan, 2)] - 0.091 * (turned & (manhattan > 0))
    return (np.maximum(_segment_sum(length, start), 0.0) + np.pi * pieces).astype(np.float32)


def edge_gradient(ratio: U8, regions: Regions) -> F4:
    """Mean Sobel gradient over the outline, fraction of background per px, float32 (n,)."""
    start = regions.contour_start
    if len(start) == 1:
        return np.zeros(0, np.float32)
    height, width = ratio.shape
    x, y = regions.contour[:, 0].astype(np.int64), regions.contour[:, 1].astype(np.int64)
    columns = [np.maximum(x - 1, 0), x, np.minimum(x + 1, width - 1)]
    lines = [np.maximum(y - 1, 0) * width, y * width, np.minimum(y + 1, height - 1) * width]
    flat = ratio.ravel()
    v = [[flat[line + column].astype(np.float32) for column in columns] for line in lines]
    gx = (v[0][2] + 2 * v[1][2] + v[2][2]) - (v[0][0] + 2 * v[1][0] + v[2][0])
    gy = (v[2][0] + 2 * v[2][1] + v[2][2]) - (v[0][0] + 2 * v[0][1] + v[0][2])
    total = _segment_sum(np.hypot(gx, gy).astype(np.float64), start)
    return (total / np.diff(start) / (8.0 * RATIO_ONE)).astype(np.float32)


def measure(
    ratio: U8,
    regions: Regions,
    *,
    frame: int,
    time_s: float,
    calibration: Calibration,
    centroid_px: F4 | None = None,
) -> Particles:
    """Measure all particles of a frame.

    Parameters
    ----------
    ratio
        uint8 (H, W), code 160 = background.
    regions
        Its n regions.
    frame, time_s
        Sequence number and time of the frame, copied to every row.
    calibration
        Turns px into um. By the size rule ``learned`` no size is known yet: ``ecd_um`` is nan until
        `with_learned_size`.
    centroid_px
        (n, 2) x and y of the regions where they are known already; default: computed.

    Returns
    -------
    Particles with n rows, in the order of ``regions``. ``COLUMN_DOCS`` has every formula.

    Examples
    --------
    >>> from edge_app.measurement.calibration import nominal_calibration
    >>> from edge_app.segmentation.threshold import segment
    >>> ratio = np.full((64, 64), 160, np.uint8)
    >>> ratio[20:30, 30:40] = 80
    >>> scale = nominal_calibration(um_per_px=1, depth_um=100)
    >>> p = measure(ratio, segment(ratio), frame=7, time_s=0.5, calibration=scale)
    >>> int(p.area_px[0]), float(p.intensity_mean[0]), float(p.solidity[0])
    (100, 0.5, 1.0)
    """
    n = len(regions)
    row, pixels, start = regions.pixel_row, regions.pixels, regions.pixel_start
    width = regions.width_frame_px
    area = np.maximum(regions.area_px.astype(np.float64), 1.0)
    value = ratio.ravel()[pixels]
    mean = np.bincount(row, weights=value, minlength=n) / area
    square = np.bincount(row, weights=value.astype(np.float64) ** 2, minlength=n) / area
    lowest = np.minimum.reduceat(value, start[:-1]) if n else value
    highest = np.maximum.reduceat(value, start[:-1]) if n else value
    corner, corner_start = hull_points(regions)
    longest, shortest, _ = feret_diameters(corner, corner_start)
    convex = hull_pixels(corner, corner_start) if n else area
    perimeter = contour_perimeter(regions.contour, regions.contour_step, regions.contour_start, regions.pieces)
    half_area = half_maximum_area(ratio, regions)
    middle = centroids(regions) if centroid_px is None else centroid_px
    scale = np.float32(calibration.um_per_px)
    one = np.float64(RATIO_ONE)
    border = regions.border

    def f4(values: npt.NDArray[np.floating]) -> F4:
        return np.asarray(values, np.float32)

    return Particles(
        frame=np.full(n, frame, np.int32),
        time_s=np.full(n, time_s, np.float32),
        x_px=regions.x_px,
        y_px=regions.y_px,
        width_px=regions.width_px,
        height_px=regions.height_px,
        centroid_x_px=middle[:, 0],
        centroid_y_px=middle[:, 1],
        area_px=regions.area_px,
        half_max_area_px=half_area,
        ecd_um=calibration.ecd_um(regions.area_px, half_area),
        max_feret_um=longest * scale,
        min_feret_um=shortest * scale,
        perimeter_um=perimeter * scale,
        aspect_ratio=f4(shortest / np.maximum(longest, 1e-6)),
        circularity=f4(np.minimum(1.0, 2.0 * np.sqrt(np.pi * area) / np.maximum(perimeter, 1e-6))),
        solidity=f4(np.minimum(1.0, area / convex)),
        intensity_mean=f4(mean / one),
        intensity_min=f4(lowest / one),
        intensity_max=f4(highest / one),
        intensity_std=f4(np.sqrt(np.maximum(square - mean**2, 0.0)) / one),
        edge_gradient=edge_gradient(ratio, regions),
        border=border,
        weight=border_weight(
            regions.width_px, regions.height_px, border, frame_width_px=width, frame_height_px=regions.height_frame_px
        ),
    )


def with_learned_size(particles: Particles, learned_ecd_px: F4, *, calibration: Calibration) -> Particles:
    """The particles with what the network reads of their size; by the size rule ``learned`` their ``ecd_um`` too.

    Parameters
    ----------
    particles
        n rows of `measure`.
    learned_ecd_px
        float32 (n,), px of the frame.
    calibration
        As given to `measure`.

    Examples
    --------
    >>> from edge_app.measurement.calibration import nominal_calibration
    >>> from edge_app.segmentation.threshold import segment
    >>> ratio = np.full((64, 64), 160, np.uint8)
    >>> ratio[20:30, 30:40] = 80
    >>> scale = nominal_calibration(um_per_px=1.5, depth_um=100, size_rule="learned")
    >>> p = measure(ratio, segment(ratio), frame=7, time_s=0.5, calibration=scale)
    >>> read = with_learned_size(p, np.array([8.0], np.float32), calibration=scale)
    >>> float(p.ecd_um[0]), float(read.ecd_um[0])
    (nan, 12.0)
    """
    if calibration.size_rule != "learned":
        return particles.with_columns(learned_ecd_px=learned_ecd_px)
    size = calibration.ecd_um(particles.area_px, particles.half_max_area_px, learned_ecd_px)
    return particles.with_columns(learned_ecd_px=learned_ecd_px, ecd_um=size)
