"""Whether the pictures and the particle table of an MFI export belong together."""

from pathlib import Path

import numpy as np

from edge_app.capture.image_files import ImageFileError, count_pictures, read_pictures
from edge_app.capture.mfi.export import MfiExport

__all__ = ["count_rows_outside", "count_rows_without_frame", "holds_frames"]


def holds_frames(export: MfiExport, size: tuple[int, int]) -> bool:
    """Whether pictures of this size (width, height, px) are frames: half of the table's boxes at least fit into one.

    Particles lie all over the frame, so pictures of particles hold hardly any of the boxes; a row that is wrong by
    itself must not decide it.
    """
    if export.table is None:
        return True
    reach = [export.table.numbers(name) for name in ("X Right", "Y Bottom")]
    for side, column in zip(size, reach, strict=True):
        known = column[np.isfinite(column)] if column is not None else np.empty(0)
        if len(known) and side < np.median(known):
            return False
    if reach[0] is None and reach[1] is None:
        # No places in the table: frames of one camera are of one size, particle pictures are not.
        return len({_size(path) for path in export.images[:20]} - {None}) <= 1
    return True


def _size(path: Path) -> tuple[int, ...] | None:
    try:
        return next(read_pictures(path)).shape
    except ImageFileError:
        return None


def count_rows_without_frame(export: MfiExport, numbered: list[tuple[int, Path]]) -> int:
    """Count rows of frames that are not there as ``no_frame``.

    Parameters
    ----------
    numbered
        As :func:`edge_app.capture.mfi.frame_numbers.number_frames` gives them.

    Returns
    -------
    Number of frames that are there.
    """
    present: list[int] = []
    for first, path in numbered:
        present.extend(range(first, first + count_pictures(path)))
    if export.table is not None and "Frame #" in export.table.columns:
        rows = int((~np.isin(export.table.columns["Frame #"], present)).sum())
        if rows:
            export.problems.add(
                "no_frame", f"{export.table.path}: {rows} rows are of frames without a picture", times=rows
            )
    return len(present)


def count_rows_outside(export: MfiExport, size: tuple[int, int]) -> None:
    """Count rows whose box does not lie in the frame (width, height, px) as ``outside``.

    Such a table is of another camera setting, or damaged.
    """
    table = export.table
    if table is None:
        return
    outside = np.zeros(len(table), dtype=bool)
    for side, (low, high) in zip(size, (("X Left", "X Right"), ("Y Top", "Y Bottom")), strict=True):
        first, last = table.numbers(low), table.numbers(high)
        outside |= (first < 0) if first is not None else False
        outside |= (last > side) if last is not None else False
    if outside.any():
        export.problems.add(
            "outside",
            f"{table.path}: {int(outside.sum())} rows have a box outside of the frame of {size[0]} x {size[1]} px",
            times=int(outside.sum()),
        )
