"""Which pixels are a particle: darker or brighter than the background by more than the noise."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.segmentation.kernels import disc
from edge_app.segmentation.regions import LabelledMask, LabelOverflow, Regions, find_regions, label_mask
from edge_app.segmentation.settings import DEFAULT_SETTINGS, SegmentationSettings, ThresholdSettings

__all__ = [
    "close_mask",
    "instrument_mask",
    "instrument_settings",
    "join_neighbours",
    "part_neighbours",
    "segment",
    "threshold_codes",
    "threshold_mask",
]

U8 = npt.NDArray[np.uint8]


def threshold_codes(noise: float, *, settings: ThresholdSettings = DEFAULT_SETTINGS.threshold) -> int:
    """Deviation from 160 at which a pixel counts, in codes, from the frame's noise in codes.

    The larger of a fixed share of the background and a multiple of the noise, rounded up; the noise counts up to a
    ceiling.

    Examples
    --------
    >>> threshold_codes(0.5), threshold_codes(3.0)
    (7, 11)
    """
    by_noise = min(settings.noise_factor * noise, settings.ceiling_fraction * RATIO_ONE)
    return max(1, int(np.ceil(max(settings.floor_fraction * RATIO_ONE, by_noise) - 1e-9)))


def threshold_mask(ratio: U8, codes: int) -> U8:
    """Pixels that are at least ``codes`` darker or brighter than the background, uint8 0/255.

    Both sides: translucent particles change sign through focus, and one side alone breaks them into pieces.
    """
    inside = cv2.inRange(ratio, np.array([RATIO_ONE - codes + 1]), np.array([RATIO_ONE + codes - 1]))
    return cv2.bitwise_not(inside, dst=inside).astype(np.uint8, copy=False)


def instrument_mask(image: U8, background: U8, *, dark: int, light: int) -> U8:
    """An instrument's own rule: more than ``dark`` grey levels below or ``light`` above its background, uint8 0/255."""
    below = cv2.subtract(background, image)
    above = cv2.subtract(image, background)
    _, darker = cv2.threshold(below, dark, 255, cv2.THRESH_BINARY)
    _, brighter = cv2.threshold(above, light, 255, cv2.THRESH_BINARY)
    return cv2.bitwise_or(darker, brighter).astype(np.uint8, copy=False)


def close_mask(mask: U8, *, radius_px: int) -> U8:
    """Close gaps up to ``2 * radius_px`` wide; never takes a pixel away and grows nothing onto the border."""
    if radius_px == 0:
        return mask
    element = disc(radius_px)
    # Outside of the frame counts as empty, or the erosion leaves a bridge from a near particle to the border.
    closed = cv2.erode(cv2.dilate(mask, element), element, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return cv2.bitwise_or(closed, mask).astype(np.uint8, copy=False)


def join_neighbours(filled: U8, *, distance_px: int) -> npt.NDArray[np.uint16]:
    """Label picture in which pieces up to ``distance_px`` apart share a label, uint16 (H, W), 0 outside the mask."""
    grown = cv2.dilate(filled, disc(max(1, (distance_px + 1) // 2)))
    _, labels = cv2.connectedComponentsWithAlgorithm(grown, 8, cv2.CV_16U, cv2.CCL_DEFAULT)
    picture = np.asarray(labels, np.uint16)
    picture *= filled  # filled is 0 or 1
    return picture


def part_neighbours(closed: U8, parts: LabelledMask, raw: U8, ratio: U8, *, settings: ThresholdSettings) -> U8 | None:
    """Undo the closing between true neighbours: two compact, equally strong, equally signed particles side by side.

    Closing mends one translucent particle that fell to pieces, and would as well join two particles that lie within
    a few pixels. Those differ: each piece is a solid blob on its own, about as strong as the other, and both are
    darker (or both brighter) than the background, whereas the pieces of one particle are arcs, dashes, faint crumbs,
    or a dark and a bright part.

    Parameters
    ----------
    closed, parts, raw
        Mask after closing, uint8 (H, W), the same labelled, and before closing.
    ratio
        uint8 (H, W), code 160 = background.

    Returns
    -------
    The closed mask without the bridges between true neighbours, or None if there are none.
    """
    contours, _ = cv2.findContours(raw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    # A contour of k points encloses at least about k pixels only if it is compact; short ones are crumbs.
    pieces = [np.asarray(c, np.int32) for c in contours if len(c) >= 8]
    if len(pieces) < 2:
        return None
    owner = parts.labels[[int(c[0, 0, 1]) for c in pieces], [int(c[0, 0, 0]) for c in pieces]]
    shared = np.flatnonzero(np.bincount(owner) >= 2)
    parted: U8 | None = None
    for label in shared.tolist():
        blobs = [c for c, o in zip(pieces, owner.tolist(), strict=True) if o == label and _is_blob(c, settings)]
        bridge = _bridge(blobs, raw, ratio, radius_px=settings.closing_radius_px) if len(blobs) >= 2 else None
        if bridge is not None:
            if parted is None:
                parted = closed.copy()
            box, picture = bridge
            parted[box][picture] = 0
    return parted


def _is_blob(contour: npt.NDArray[np.int32], settings: ThresholdSettings) -> bool:
    """Whether a piece is solid and not drawn out: neither an arc nor a dash nor a crumb."""
    area = cv2.contourArea(contour) + len(contour) / 2.0 + 1.0
    if area < settings.min_area_px:
        return False
    hull = cv2.convexHull(contour)
    hull_area = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2.0 + 1.0
    _, (length, breadth), _ = cv2.minAreaRect(contour)
    return area >= 0.85 * hull_area and min(length, breadth) + 1.0 >= 0.5 * (max(length, breadth) + 1.0)


def _bridge(
    blobs: list[npt.NDArray[np.int32]], raw: U8, ratio: U8, *, radius_px: int
) -> tuple[tuple[slice, slice], npt.NDArray[np.bool_]] | None:
    """Pixels that closing put between blobs of like strength and sign."""
    reach = 2 * radius_px + 1
    x, y, width, height = cv2.boundingRect(np.concatenate(blobs))
    box = (
        slice(max(0, y - reach), min(raw.shape[0], y + height + reach)),
        slice(max(0, x - reach), min(raw.shape[1], x + width + reach)),
    )
    offset = (-(box[1].start), -(box[0].start))
    view = ratio[box].astype(np.int16) - RATIO_ONE
    strength, near = [], np.zeros(view.shape, np.uint8)
    pictures = []
    for contour in blobs:
        picture = np.zeros(view.shape, np.uint8)
        cv2.drawContours(picture, [contour], -1, 1, cv2.FILLED, offset=offset)
        values = view[picture != 0]
        strength.append(float(values[np.argmax(np.abs(values))]))
        pictures.append(picture)
    lead = max(strength, key=abs)
    # lead and its like: same sign, at least half as strong.
    like = [p for p, s in zip(pictures, strength, strict=True) if s * lead > 0 and abs(s) >= 0.5 * abs(lead)]
    if len(like) < 2:
        return None
    for picture in like:
        near += cv2.dilate(picture, disc(reach)).astype(np.uint8, copy=False)
    return box, (near >= 2) & (raw[box] == 0)


def segment(
    ratio: U8,
    *,
    noise: float = 0.0,
    settings: ThresholdSettings = DEFAULT_SETTINGS.threshold,
    raw: U8 | None = None,
) -> Regions:
    """Find the particles of a ratio picture: threshold on both sides, close, fill, label.

    Parameters
    ----------
    ratio
        uint8 (H, W), code 160 = background.
    noise
        Noise of the picture in codes, from :func:`edge_app.segmentation.ratio.noise_codes`.
    settings
        Threshold, closing and least area.
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
    parts = label_mask(closed)
    joined = None
    if settings.neighbour_distance_px:
        joined = join_neighbours(parts.filled, distance_px=settings.neighbour_distance_px)
    elif settings.closing_radius_px:
        parted = part_neighbours(closed, parts, mask, ratio, settings=settings)
        parts = parts if parted is None else label_mask(parted)
    regions = find_regions(parts, raw=mask, joined=joined)
    large = regions.area_px >= settings.min_area_px
    if int(large.sum()) > settings.max_particles:
        raise LabelOverflow(f"{int(large.sum())} particles in a frame, at most {settings.max_particles}")
    return regions


def instrument_settings(settings: SegmentationSettings, *, neighbour_distance_px: int) -> SegmentationSettings:
    """Settings for an instrument's own rule: its joining distance, holes filled, no closing.

    Parameters
    ----------
    settings
        What to start from.
    neighbour_distance_px
        The instrument's "distance to nearest neighbour" in px of its camera.
    """
    threshold = settings.threshold.model_copy(
        update={"closing_radius_px": 0, "neighbour_distance_px": neighbour_distance_px, "min_area_px": 4}
    )
    return settings.model_copy(update={"threshold": threshold})
