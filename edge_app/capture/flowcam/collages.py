"""Crops and masks of a FlowCam export, cut from its collages by the rows of its table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.flowcam.export import FlowCamTable
from edge_app.capture.flowcam.pictures import file_key, file_name, read_grey
from edge_app.capture.image_files import GreyScaling, ImageFileError
from edge_app.capture.problems import Problems

__all__ = ["Collages"]

_CACHED: Final = 4
"""Collages kept in memory: rows of one frame are of one or two that follow one another."""

_Cache = dict[str, npt.NDArray[np.uint8] | None]


class Collages:
    """Collages of an export, read when a row needs them.

    Parameters
    ----------
    directory
        For messages.
    table
        Says where a row's crop lies (``collage_file``, ``image_x, image_y, image_w, image_h``, px).
    files
        Pictures of the export by the key of their name.
    scaling
        Bit depth of the crops.
    grey_offset
        Grey levels taken off every crop.
    problems
        Takes rows without a crop as ``no_collage``, files that cannot be read by their own reason.
    """

    def __init__(
        self,
        directory: Path,
        table: FlowCamTable,
        files: Mapping[str, Path],
        *,
        scaling: GreyScaling,
        grey_offset: float,
        problems: Problems,
    ) -> None:
        self._directory, self._table, self._files = directory, table, files
        self._scaling, self._grey_offset, self._problems = scaling, grey_offset, problems
        self._collages: _Cache = {}
        self._masks: _Cache = {}

    def crop(self, row: int) -> npt.NDArray[np.uint8] | None:
        """Crop of a table row, uint8 (image_h, image_w), level with the background; None where it cannot be had."""
        name = self._name(row)
        collage = self._load(name, self._collages, offset=self._grey_offset, scaling=self._scaling)
        if collage is None:
            self._problems.add_once("no_collage", f"{self._directory}: collage {name or '(no name)'} cannot be read")
            return None
        x, y, w, h = self._box(row)
        if x < 0 or y < 0 or y + h > collage.shape[0] or x + w > collage.shape[1]:
            self._problems.add("no_collage", f"{self._table.path.name}: row {row + 1}: box is outside of {name}")
            return None
        return collage[y : y + h, x : x + w]

    def mask(self, row: int) -> npt.NDArray[np.bool_] | None:
        """The instrument's own mask of a table row, bool (image_h, image_w); None without a mask file."""
        stem, _, suffix = self._name(row).rpartition(".")
        picture = self._load(f"{stem}_bin.{suffix}", self._masks, offset=0.0, scaling=GreyScaling())
        if picture is None:
            return None
        x, y, w, h = self._box(row)
        return picture[y : y + h, x : x + w] > 127

    def _name(self, row: int) -> str:
        return file_name(str(self._table.columns["collage_file"][row]))

    def _box(self, row: int) -> tuple[int, int, int, int]:
        x, y, w, h = (int(self._table.columns[k][row]) for k in ("image_x", "image_y", "image_w", "image_h"))
        return x, y, w, h

    def _load(self, name: str, cache: _Cache, *, offset: float, scaling: GreyScaling) -> npt.NDArray[np.uint8] | None:
        key = file_key(name)
        if key not in cache:
            while len(cache) >= _CACHED:
                cache.pop(next(iter(cache)))
            cache[key] = self._read(self._files.get(key), offset=offset, scaling=scaling)
        return cache[key]

    def _read(self, path: Path | None, *, offset: float, scaling: GreyScaling) -> npt.NDArray[np.uint8] | None:
        if path is None:
            return None
        try:
            mean = read_grey(path, scaling)
        except ImageFileError as error:
            self._problems.add_once(error.reason, f"{path}: {error.text}")
            return None
        return np.clip(np.rint(mean - np.float32(offset)), 0, 255).astype(np.uint8)
