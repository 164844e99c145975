"""A file that is there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from edge_app.errors import UserError
from edge_app.recording.errors import recording_error

__all__ = ["atomic_file"]


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write to a file beside ``path`` and put it in place at the end; on any error nothing is left behind.

    Raises
    ------
    UserError
        If ``path`` is a folder, or its folder is missing or not writable.
    RecordingError
        If the disk is full.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, a file name is needed")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        handle = partial.open("wb")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise recording_error(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
