"""One camera picture, and what came beside it."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LARGEST_NUMBER", "RATIO_ONE", "Companion", "Frame", "FrameTruth"]

LARGEST_NUMBER: Final = 2**31 - 1
"""Largest number of a frame: that of a column of the run record, too. A larger one is a date or a mistake."""

RATIO_ONE: Final = 160
"""Code of "as bright as the background" in every uint8 ratio picture of the house: ratio = code / 160.

160 leaves room for bright halos up to 1.59 x background and keeps the step (0.6 %) below camera noise.
"""


@dataclass(frozen=True, kw_only=True)
class FrameTruth:
    """What a simulated frame holds, a row per particle (arrays of equal length).

    ``x_px, y_px, width_px, height_px`` is the box of the true mask in the full frame (may reach over the border,
    as the particle does), ``ecd_um`` the true equivalent circular diameter, ``z_um`` the distance from focus.
    """

    particle_id: npt.NDArray[np.int64]
    family: npt.NDArray[np.str_]
    x_px: npt.NDArray[np.float32]
    y_px: npt.NDArray[np.float32]
    width_px: npt.NDArray[np.float32]
    height_px: npt.NDArray[np.float32]
    ecd_um: npt.NDArray[np.float32]
    z_um: npt.NDArray[np.float32]
    stuck: npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Companion:
    """The instrument's own numbers for one frame, kept beside ours and never mixed with them.

    ``columns`` maps the instrument's column name to one value per particle of this frame.
    """

    instrument: str
    columns: dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A grey picture from the flow cell.

    Attributes
    ----------
    image
        uint8, shape (H, W), C-contiguous; never written to by a reader of it.
    sequence
        Number of the frame in its source. For an instrument's export it is the instrument's own frame number.
    time_s
        Seconds since the start of the run, from the source (camera clock, file, or sequence / rate), not
        from the wall clock.
    lost_before
        Frames known to be lost between the previous delivered frame and this one; None: the source cannot know.
    name
        Where it came from, for messages (file name, ``sim``).
    page
        Place in its file, where a file holds several frames; else 0.
    """

    image: npt.NDArray[np.uint8]
    sequence: int
    time_s: float
    lost_before: int | None = 0
    name: str = ""
    page: int = 0
    truth: FrameTruth | None = field(default=None, repr=False)
    companion: Companion | None = field(default=None, repr=False)
