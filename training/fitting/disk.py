"""Room on the disk: asked for before the work, and one line when it runs out all the same."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_app.errors import UserError

__all__ = ["disk_errors", "require_free", "write_atomically"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}


def require_free(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder on a disk with less room.

    Parameters
    ----------
    folder : Path
        Need not exist yet.
    needed_bytes : int

    Raises
    ------
    UserError
    """
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < needed_bytes:
        raise UserError(f"{folder}: {free / 1e6:.1f} MB free on its disk, needed are {needed_bytes / 1e6:.1f} MB")


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, or one that cannot be written, into a `UserError` that names where."""
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        if error.errno in _FULL or "No space left" in str(error):
            raise UserError(
                f"{where}: the disk is full or the file is over the limit on its size; make room and give the same "
                "command again, it goes on from the last whole epoch"
            ) from None
        if error.errno in _REFUSED:
            raise UserError(f"{where}: cannot be written ({error.strerror})") from None
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write so that a kill or a full disk leaves either the old file or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if error.filename is None:
            error.filename = str(path)
        raise
