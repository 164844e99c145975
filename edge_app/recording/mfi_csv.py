"""Particles under the instrument's own column names and units, so that existing sheets and scripts read them."""

from collections.abc import Iterable
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.mfi.table import MFI_COLUMNS
from edge_app.errors import UserError
from edge_app.measurement.calibration import Calibration
from edge_app.recording.tables import Chunk

__all__ = ["BACKGROUND_LEVEL_10BIT", "write_mfi_csv"]

BACKGROUND_LEVEL_10BIT: Final = 827
"""Grey level (of 0..1023) that stands for "as bright as the background": where the instrument's own exports have it."""

_ROW: Final = "%d,%d,%d,%.3f,%.3f,%d,%.3f,%.4f,%.1f,%.1f,%.1f,%.1f,%.3f,%.4f,%d,%d,%d,%d,%d"


def _number_in_frame(frame: npt.NDArray[np.integer], last: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Count from 1 within each frame, shape (n,); ``last`` is the frame and count that the rows before ended with."""
    n = len(frame)
    starts = np.flatnonzero(np.r_[True, frame[1:] != frame[:-1]])
    number = np.arange(1, n + 1) - np.repeat(starts, np.diff(np.r_[starts, n]))
    if int(frame[0]) == last[0]:
        # A frame is never split by windows that follow each other, but a re-analysed record may do so.
        number[: starts[1] if len(starts) > 1 else n] += last[1]
    return number


def write_mfi_csv(
    file: BinaryIO,
    chunks: Iterable[Chunk],
    *,
    calibration: Calibration | None,
    name: str,
    background_level: int = BACKGROUND_LEVEL_10BIT,
) -> int:
    """Write the particle table as the instrument would.

    ``Perimeter`` is in px (perimeter_um / um_per_px), ``Circularity`` = 2*sqrt(pi*A)/P, intensities are on the 10-bit
    scale (ratio to the background times ``background_level``, at most 1023), ``X Right`` and ``Y Bottom`` are the last
    column and row of the box, ``Edge Particle`` is 1 where the frame's border cuts the particle. ``#`` and ``Particle
    #`` (in its frame) count from 1.

    Parameters
    ----------
    file
        Binary file open for writing.
    chunks
        Rows of the particle table.
    calibration
        Of the record; its ``um_per_px`` takes lengths back to px.
    name
        Of the record, for messages.
    background_level
        10-bit level of the background.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    UserError
        If the record has no calibration.
    """
    if calibration is None:
        raise UserError(f"{name}: format mfi-csv needs um per px, the record holds no calibration")
    file.write((",".join(MFI_COLUMNS) + "\n").encode())
    rows, last = 0, (-1, 0)
    for chunk in chunks:
        n = len(chunk["frame"])
        if n == 0:
            continue
        number = _number_in_frame(chunk["frame"], last)
        last = int(chunk["frame"][-1]), int(number[-1])
        # Computed in float64: the rounding to the printed digits must not depend on the order of operations.
        grey = {
            k: np.clip(chunk[f"intensity_{k}"].astype(np.float64) * background_level, 0, 1023)
            for k in ("mean", "std", "min", "max")
        }
        columns = (
            np.arange(rows + 1, rows + n + 1),
            chunk["frame"],
            number,
            chunk["time_s"],
            chunk["ecd_um"],
            chunk["area_px"],
            chunk["perimeter_um"].astype(np.float64) / calibration.um_per_px,
            chunk["circularity"],
            grey["mean"],
            grey["std"],
            grey["min"],
            grey["max"],
            chunk["max_feret_um"],
            chunk["aspect_ratio"],
            chunk["x_px"],
            chunk["x_px"] + chunk["width_px"] - 1,
            chunk["y_px"],
            chunk["y_px"] + chunk["height_px"] - 1,
            chunk["border"],
        )
        lines = [_ROW % values for values in zip(*(c.tolist() for c in columns), strict=True)]
        file.write(("\n".join(lines) + "\n").encode())
        rows += n
    return rows
