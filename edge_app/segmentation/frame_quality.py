"""When a whole frame is left out, and why: cheap looks at a grid of pixels."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.segmentation.ratio import grey_median
from edge_app.segmentation.regions import Regions
from edge_app.segmentation.settings import DEFAULT_SETTINGS, QualitySettings

__all__ = ["FrameLight", "judge_light", "judge_particles", "look_at", "unevenness"]

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FrameLight:
    """Grey levels of a frame over a grid of pixels."""

    median: float
    lowest: int
    saturated_fraction: float


def look_at(image: U8, *, grid_px: int = 8) -> FrameLight:
    """Median and saturation over a grid of pixels; the lowest value over all of them.

    Examples
    --------
    >>> look_at(np.full((64, 64), 200, np.uint8))
    FrameLight(median=200.0, lowest=200, saturated_fraction=0.0)
    """
    sample = image[::grid_px, ::grid_px]
    return FrameLight(
        median=grey_median(sample),
        lowest=int(image.min()),
        saturated_fraction=float((sample >= 254).mean()),
    )


def judge_light(
    light: FrameLight, *, background_level: float | None, settings: QualitySettings = DEFAULT_SETTINGS.quality
) -> str | None:
    """Reason to leave a frame out for its light alone (``frame_dark``, ``frame_bright``), or None.

    A white field with dark particles on it (a reference picture) is not rejected: only one in which nothing is
    darker than the limit of the camera.
    """
    least = float(settings.dark_level)
    if background_level is not None:
        least = max(least, settings.dark_fraction * background_level)
    if light.median < least:
        return "frame_dark"
    if light.saturated_fraction >= settings.saturated_fraction and light.lowest >= 250:
        return "frame_bright"
    return None


def unevenness(ratio: U8, *, cell_px: int = 32) -> float:
    """Slow texture of a ratio picture as a fraction of the background.

    The mean over cells, a median over 5 x 5 cells to take particles out, and the rms about the whole's median.

    Examples
    --------
    >>> unevenness(np.full((256, 256), 160, np.uint8))
    0.0
    """
    height, width = ratio.shape
    if height < 5 * cell_px or width < 5 * cell_px:
        return 0.0
    cells = cv2.resize(ratio, (width // cell_px, height // cell_px), interpolation=cv2.INTER_AREA)
    slow = cv2.medianBlur(cells, 5).astype(np.float32)
    return float(np.sqrt(np.mean((slow - np.median(slow)) ** 2)) / RATIO_ONE)


def judge_particles(
    regions: Regions, *, uneven: float, settings: QualitySettings = DEFAULT_SETTINGS.quality
) -> str | None:
    """Reason to leave a frame out for what is in it (``frame_overload``, ``frame_uneven``), or None."""
    frame_px = regions.height_frame_px * regions.width_frame_px
    covered = int(regions.area_px.sum())
    largest = int(regions.area_px.max()) if len(regions) else 0
    # A crowd also makes the slow texture uneven, so it is asked for first; one large thing is no crowd.
    if covered > settings.covered_fraction * frame_px and largest <= covered / 2:
        return "frame_overload"
    if uneven > settings.uneven_fraction or largest > settings.region_fraction * frame_px:
        return "frame_uneven"
    return None
