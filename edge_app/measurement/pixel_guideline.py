"""What ISO 13322-2 asks of the number of pixels across a particle, said about a run."""

from dataclasses import dataclass
from typing import Final

__all__ = ["LARGEST_SHARE_OF_SIDE", "MINIMUM_PIXELS", "PixelGuideline", "pixel_guideline"]

MINIMUM_PIXELS: Final = 9
"""Least pixels across a particle that is to be sized; quoted second-hand, not read in the standard."""

LARGEST_SHARE_OF_SIDE: Final = 1 / 3
"""Largest particle as a share of the frame's shorter side; quoted second-hand, not read in the standard."""


@dataclass(frozen=True, kw_only=True)
class PixelGuideline:
    """Sizes between which the guideline is kept, and the sentence for a report."""

    smallest_um: float
    largest_um: float
    text: str


def pixel_guideline(
    *, um_per_px: float, frame_width_px: int, frame_height_px: int, reporting_from_um: float
) -> PixelGuideline:
    """Guideline of ISO 13322-2 on pixels per particle, for an instrument's scale.

    Examples
    --------
    >>> round(pixel_guideline(um_per_px=1.7, frame_width_px=1280, frame_height_px=1024,
    ...     reporting_from_um=5.0).smallest_um, 1)
    15.3
    """
    smallest = MINIMUM_PIXELS * um_per_px
    largest = min(frame_width_px, frame_height_px) * um_per_px * LARGEST_SHARE_OF_SIDE
    text = (
        f"ISO 13322-2:2021 (limits quoted second-hand) asks for at least {MINIMUM_PIXELS} px across a particle and at "
        f"most 1/3 of the frame's shorter side: at {um_per_px:g} um/px that is {smallest:.1f} to {largest:.0f} um. "
    )
    if reporting_from_um < smallest:
        text += (
            f"Sizes from {reporting_from_um:g} to {smallest:.1f} um are reported below that guideline: "
            "they rest on the halo around a particle and on the calibration curve, and depend on the threshold."
        )
    else:
        text += f"All sizes reported (from {reporting_from_um:g} um) keep the lower limit."
    return PixelGuideline(smallest_um=smallest, largest_um=largest, text=text)
