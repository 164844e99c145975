"""Backgrounds of a FlowCam export: which there are, and which one a particle was seen against."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.flowcam.export import FlowCamTable, find_backgrounds
from edge_app.capture.flowcam.pictures import read_grey
from edge_app.capture.image_files import GreyScaling, ImageFileError
from edge_app.capture.problems import Problems
from edge_app.capture.uri import SourceUri
from edge_app.errors import UserError

__all__ = ["background_number", "check_places", "read_backgrounds"]

_MOST_OUTSIDE: Final = 0.1
"""Share of the particles that may lie outside of the frame before table and background do not belong together."""


def read_backgrounds(
    where: SourceUri, directory: Path, problems: Problems, scaling: GreyScaling
) -> dict[int, npt.NDArray[np.uint8]]:
    """Read the backgrounds of an export.

    Returns
    -------
    Number -> uint8 (H, W), in the order of the numbers, all of one size; one of another size than most counts as
    ``wrong_size``.

    Raises
    ------
    UserError
        If no background can be read.
    """
    backgrounds: dict[int, npt.NDArray[np.uint8]] = {}
    paths = find_backgrounds(directory)
    for number, path in sorted(paths.items()):
        try:
            backgrounds[number] = np.rint(read_grey(path, scaling)).astype(np.uint8)
        except ImageFileError as error:
            problems.add(error.reason, f"{path}: {error.text}")
    sizes = Counter(picture.shape for picture in backgrounds.values())
    usual = max(sizes, key=lambda shape: (sizes[shape], shape), default=(0, 0))
    for number in [n for n, picture in backgrounds.items() if picture.shape != usual]:
        found, needed = (f"{s[1]} x {s[0]}" for s in (backgrounds.pop(number).shape, usual))
        problems.add("wrong_size", f"{paths[number]}: {found} px, the other backgrounds are {needed}")
    if not backgrounds:
        because = f"; {problems.messages[-1]}" if problems.messages else ""
        raise UserError(f"{where}: no background picture (cal_image_000001.tif), frames cannot be rebuilt{because}")
    return backgrounds


def background_number(table: FlowCamTable, row: int) -> int | None:
    """Number of a row's background; None where the table does not say.

    Examples
    --------
    >>> table = FlowCamTable(Path("run.lst"), "017", {"cal_image": np.array([1.0, np.nan])})
    >>> background_number(table, 0), background_number(table, 1)
    (1, None)
    """
    numbers = table.numbers("cal_image")
    return int(numbers[row]) if numbers is not None and np.isfinite(numbers[row]) else None


def check_places(table: FlowCamTable, backgrounds: Mapping[int, npt.NDArray[np.uint8]]) -> None:
    """Refuse a background that the table's frames do not fit: some crops reach over the border, many do not.

    Raises
    ------
    UserError
        If more than a tenth of the particles lie wholly outside of it.
    """
    height, width = next(iter(backgrounds.values())).shape
    x, y, w, h = (table.columns[k].astype(np.int64) for k in ("src_x", "src_y", "image_w", "image_h"))
    outside = int(((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0)).sum())
    if outside > _MOST_OUTSIDE * len(table):
        raise UserError(
            f"{table.path}: {outside} of {len(table)} particles lie outside of the background picture of "
            f"{width} x {height} px; it is not that of these frames"
        )
