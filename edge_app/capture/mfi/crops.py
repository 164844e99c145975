"""An MFI export with a picture per particle in place of frames: the pictures, each with its row of the table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_app.capture.crops import CropSource
from edge_app.capture.directory import probe_pictures
from edge_app.capture.image_files import GreyScaling
from edge_app.capture.mfi.consistency import holds_frames
from edge_app.capture.mfi.export import MfiExport, find_mfi_export
from edge_app.errors import UserError

__all__ = ["open_mfi_crops"]


def open_mfi_crops(uri: str) -> CropSource:
    """Open the particle pictures of an MFI export, each with its row of the table.

    The number in a picture's name is looked up in the column ``#`` (without it, in ``Particle #``).

    Raises
    ------
    UserError
        If there is no picture, or the pictures are frames.

    Examples
    --------
    >>> open_mfi_crops("mfi:nowhere")
    Traceback (most recent call last):
        ...
    edge_app.errors.UserError: mfi:nowhere: directory does not exist
    """
    export = find_mfi_export(uri)
    size = probe_pictures(export.images, GreyScaling(bits=export.options.bits))
    if export.table is not None and holds_frames(export, size):
        raise UserError(f"{export.where}: holds frames, not particle pictures; use `edge-app run {uri}`")
    return CropSource(
        export.where.path,
        export.images,
        uri=str(export.where),
        bits=export.options.bits,
        instrument=_rows_of_pictures(export),
        problems=export.problems,
    )


def _rows_of_pictures(export: MfiExport) -> Mapping[Path, Mapping[str, object]]:
    """Row of each picture that has one of its own: column name -> value."""
    table = export.table
    if table is None:
        return {}
    key = next((name for name in ("#", "Particle #") if name in table.columns), None)
    if key is None:
        return {}
    numbers = table.numbers(key)
    if numbers is None:
        return {}
    unique, first, times = np.unique(numbers, return_index=True, return_counts=True)
    row_of = {int(n): int(i) for n, i, t in zip(unique, first, times, strict=True) if t == 1 and np.isfinite(n)}
    rows: dict[Path, Mapping[str, object]] = {}
    without = 0
    for path in export.images:
        number = export.number_of(path)
        row = row_of.get(number) if number is not None else None
        if row is None:
            without += 1
        else:
            rows[path] = {k: v[row].item() for k, v in table.columns.items()}
    if without:
        export.problems.add("no_row", f"{table.path}: {without} pictures have no row of their own in it", times=without)
    return rows
