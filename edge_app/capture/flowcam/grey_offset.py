"""Grey levels by which the crops of a FlowCam export are brighter than its background.

The camera has colour and the crops keep it; the background is grey. Put back as they are, crops would stand out of the
frame as bright boxes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.flowcam.backgrounds import background_number
from edge_app.capture.flowcam.export import FlowCamTable
from edge_app.capture.flowcam.pictures import collage_keys, read_grey
from edge_app.capture.image_files import GreyScaling, ImageFileError

__all__ = ["choose_collages", "measure_grey_offset"]

_OFFSET_COLLAGES: Final = 8
"""Collages, spread over the run, from whose crops the grey offset is measured."""


def choose_collages(table: FlowCamTable, files: Mapping[str, Path]) -> dict[str, Path]:
    """At most 8 collages, spread over the run, to measure the offset on: key of the name -> file.

    Parameters
    ----------
    files
        The export's pictures, as :func:`edge_app.capture.flowcam.pictures.find_pictures` gives them.
    """
    there = [n for n in dict.fromkeys(collage_keys(table)) if n in files]
    return {n: files[n] for n in _spread(there, _OFFSET_COLLAGES)}


def _spread(names: list[str], count: int) -> list[str]:
    return [names[i] for i in sorted({round(i) for i in np.linspace(0, len(names) - 1, count)})] if names else []


def measure_grey_offset(
    table: FlowCamTable,
    chosen: Mapping[str, Path],
    backgrounds: Mapping[int, npt.NDArray[np.uint8]],
    scaling: GreyScaling,
) -> tuple[float, int]:
    """Measure by how many levels crops are brighter than the background.

    The one-pixel border of a crop is mostly background. Median of crop minus background there, then the mean of what
    lies within 3 robust standard deviations of it, which resolves less than one level and is not moved by
    particles that reach the border.

    Parameters
    ----------
    chosen
        Collages to measure on, as :func:`choose_collages` gives them.
    backgrounds
        Number -> uint8 (H, W).
    scaling
        Bit depth of collages and backgrounds.

    Returns
    -------
    Grey levels of 255, to three digits, and the number of border pixels behind them; 0, 0 where there are none.
    """
    columns = table.columns
    names = np.array(collage_keys(table))
    differences: list[npt.NDArray[np.float32]] = []
    for name, path in chosen.items():
        try:
            collage = read_grey(path, scaling)
        except ImageFileError:
            continue  # told when its frame comes
        for row in np.flatnonzero(names == name):
            x, y, w, h, sx, sy = (
                int(columns[k][row]) for k in ("image_x", "image_y", "image_w", "image_h", "src_x", "src_y")
            )
            number = background_number(table, int(row))
            background = backgrounds.get(-1 if number is None else number, next(iter(backgrounds.values())))
            inside = min(x, y, sx, sy) >= 0 and x + w <= collage.shape[1] and y + h <= collage.shape[0]
            if not inside or sx + w > background.shape[1] or sy + h > background.shape[0] or min(w, h) < 3:
                continue
            difference = collage[y : y + h, x : x + w] - background[sy : sy + h, sx : sx + w]
            differences += [difference[0], difference[-1], difference[1:-1, 0], difference[1:-1, -1]]
    if not differences:
        return 0.0, 0
    pixels = np.concatenate(differences)
    middle = np.median(pixels)
    spread = 1.4826 * float(np.median(np.abs(pixels - middle)))
    near = pixels[np.abs(pixels - middle) <= max(3.0 * spread, 1.0)]
    return round(float(near.mean(dtype=np.float64)), 3), len(pixels)
