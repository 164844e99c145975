"""Which frame of an MFI run each picture is: by the number in its name, or by its place in a stack."""

from pathlib import Path

import numpy as np

from edge_app.capture.image_files import count_pictures
from edge_app.capture.mfi.export import DEFAULT_PATTERN, MfiExport
from edge_app.errors import UserError

__all__ = ["number_frames"]


def number_frames(export: MfiExport) -> list[tuple[int, Path]]:
    """Give each picture file the number of its (first) frame.

    Files without a number count as ``no_number``, those whose number another one has as ``duplicate``.

    Returns
    -------
    Number of the file's first page and the file, in the order of the numbers; page k of it is k numbers on.

    Raises
    ------
    UserError
        If no picture has a number in its name.

    Examples
    --------
    >>> import cv2
    >>> from tempfile import TemporaryDirectory
    >>> from edge_app.capture.mfi.export import find_mfi_export
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("frame_7.png", "frame_12.png"):
    ...         _ = cv2.imwrite(f"{folder}/{name}", np.zeros((8, 8), np.uint8))
    ...     numbered = number_frames(find_mfi_export(f"mfi:{folder}"))
    >>> [(number, path.name) for number, path in numbered]
    [(7, 'frame_7.png'), (12, 'frame_12.png')]
    """
    stacks = _number_stacks(export)
    if stacks is not None:
        return stacks
    numbered: dict[int, Path] = {}
    for path in export.images:
        number = export.number_of(path)
        if number is None:
            export.problems.add("no_number", f"{path}: no frame number in the name (pattern {export.options.pattern})")
        elif number in numbered:
            export.problems.add("duplicate", f"{path}: frame number {number} is that of {numbered[number].name}")
        else:
            numbered[number] = path
    if not numbered:
        raise UserError(
            f"{export.where}: no picture has a frame number in its name (pattern {export.options.pattern}), "
            f"the first is {export.images[0].name}"
        )
    return sorted(numbered.items())


def _number_stacks(export: MfiExport) -> list[tuple[int, Path]] | None:
    """Number stacks that hold the run one after the other: page 1 of the first is frame 1.

    None where the pictures are no stacks, or where their names tell the frame: by a pattern that is given, or by
    numbers as far apart as the stacks are long.
    """
    pages = [count_pictures(path) for path in export.images]
    if min(pages[:-1] or pages) < 2 or (len(pages) > 1 and export.options.pattern != DEFAULT_PATTERN):
        return None
    named = [export.number_of(path) for path in export.images]
    if len(pages) > 1 and all(
        here is not None and after is not None and after >= here + n
        for here, after, n in zip(named[:-1], named[1:], pages[:-1], strict=True)
    ):
        return None
    firsts = [1, *(1 + np.cumsum(pages)[:-1]).tolist()]
    return list(zip(firsts, export.images, strict=True))
