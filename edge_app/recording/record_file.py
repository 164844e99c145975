"""The file of a run record: opened for writing, one transaction at a time, its folder on disk."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_app.errors import UserError
from edge_app.recording.audit import next_entry_id
from edge_app.recording.errors import RecordingError, recording_error
from edge_app.recording.schema import check_version, connect_writer

__all__ = ["head", "open_for_writing", "sync_folder", "transaction"]


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[int]:
    """Everything or nothing; yields the number of the audit entry to be written."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield next_entry_id(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except sqlite3.IntegrityError as error:
        raise ValueError(str(error)) from error
    except sqlite3.Error as error:
        raise recording_error(path, error) from error


def head(connection: sqlite3.Connection) -> str:
    """Hash of the last entry of the audit chain."""
    return str(connection.execute("SELECT entry_sha256 FROM audit ORDER BY id DESC LIMIT 1").fetchone()[0])


def open_for_writing(path: Path) -> sqlite3.Connection:
    """Open a record that is there already."""
    if not path.is_file():
        raise UserError(f"{path}: no such run record")
    try:
        connection = connect_writer(path)
        check_version(connection, path)
    except sqlite3.Error as error:
        raise RecordingError(f"{path}: cannot be opened for writing ({error})") from error
    return connection


def sync_folder(directory: Path) -> None:
    """Bring the folder's own entry to disk: a new or renamed file is not safe before."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
