"""What goes wrong while a record is written."""

import errno
import shutil
import sqlite3
from pathlib import Path

from edge_app.errors import UserError

__all__ = ["RecordingError", "recording_error"]


class RecordingError(UserError):
    """The record (or an export) could not be written; everything committed before stays as it is."""


def recording_error(path: Path, error: sqlite3.Error | OSError) -> RecordingError:
    """One clear line for a failed write: the file, the cause and the space that is left.

    Parameters
    ----------
    path
        File that was written.
    error
        What SQLite or the file system said.
    """
    if isinstance(error, OSError):
        text = error.strerror or str(error)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    else:
        text = str(error)
        full = "database or disk is full" in text
    cause = "disk full" if full else text
    try:
        free = f"{shutil.disk_usage(path.parent).free / 1e6:.1f} MB free on its file system"
    except OSError:
        free = "free space unknown"
    return RecordingError(f"{path}: cannot be written ({cause}; {free}); everything recorded before is kept")
