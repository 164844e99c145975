"""The tables of a run record, their version, and how a file is opened."""

import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from edge_app.errors import UserError

__all__ = [
    "APPLICATION_ID",
    "AUDITED_TABLES",
    "DDL",
    "RECORD_SCHEMA",
    "SCHEMA_VERSION",
    "NewerRecordError",
    "check_version",
    "connect_reader",
    "connect_writer",
]

RECORD_SCHEMA: Final = "mfi.record/1"
SCHEMA_VERSION: Final = 1
"""``PRAGMA user_version`` of a record that this code writes."""
APPLICATION_ID: Final = 0x4D464952
"""``PRAGMA application_id``: "MFIR"."""

DDL: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, audit_id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (
    seq INTEGER PRIMARY KEY, first_frame INTEGER NOT NULL, last_frame INTEGER NOT NULL, t0_s REAL NOT NULL,
    t1_s REAL NOT NULL, frames INTEGER NOT NULL, frames_lost INTEGER NOT NULL, frames_rejected INTEGER NOT NULL,
    rejected TEXT NOT NULL, volume_ml REAL NOT NULL, counts TEXT NOT NULL, weighted TEXT NOT NULL,
    row_count INTEGER NOT NULL, frames_sha256 TEXT, audit_id INTEGER NOT NULL
);
CREATE TABLE particle_columns (
    seq INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, codec TEXT NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (seq, position)
);
CREATE TABLE companion_columns (
    seq INTEGER NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, dtype TEXT NOT NULL, codec TEXT NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (seq, position)
);
CREATE TABLE pictures (
    seq INTEGER NOT NULL, particle_row INTEGER NOT NULL, kinds TEXT NOT NULL, class TEXT NOT NULL,
    confidence REAL NOT NULL, ecd_um REAL NOT NULL, sample_key INTEGER NOT NULL, frame INTEGER NOT NULL,
    x_px INTEGER NOT NULL, y_px INTEGER NOT NULL, width_px INTEGER NOT NULL, height_px INTEGER NOT NULL,
    png BLOB NOT NULL, PRIMARY KEY (seq, particle_row)
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, seq INTEGER, time_s REAL, kind TEXT NOT NULL, severity TEXT NOT NULL,
    message TEXT NOT NULL, details TEXT NOT NULL, audit_id INTEGER NOT NULL
);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY, time TEXT NOT NULL, user TEXT NOT NULL, action TEXT NOT NULL, reason TEXT NOT NULL,
    manifest TEXT NOT NULL, content_sha256 TEXT NOT NULL, previous_sha256 TEXT NOT NULL, entry_sha256 TEXT NOT NULL
);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, payload TEXT NOT NULL, qos INTEGER NOT NULL,
    retain INTEGER NOT NULL, kind TEXT NOT NULL, run_id TEXT NOT NULL, seq INTEGER
);
"""

AUDITED_TABLES: Final[dict[str, tuple[str, ...]]] = {
    "meta": ("key",),
    "windows": ("seq",),
    "particle_columns": ("seq", "position"),
    "companion_columns": ("seq", "position"),
    "pictures": ("seq", "particle_row"),
    "events": ("id",),
}
"""Tables under the audit chain and their keys. ``outbox`` is not: its rows go once they are delivered."""

_BUSY_TIMEOUT_S: Final = 30.0


class NewerRecordError(UserError):
    """A record of a newer program: not damaged, and nothing can be said of it."""


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is no run record, or one of a newer program.

    Raises
    ------
    UserError
        With one line that says which.
    """
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: not a readable run record ({error})") from error
    if application != APPLICATION_ID:
        raise UserError(f"{path}: not a run record (an SQLite file of something else)")
    if version > SCHEMA_VERSION:
        raise NewerRecordError(
            f"{path}: run record of version {version}, this program reads up to {SCHEMA_VERSION}: use a newer edge-app"
        )
    if version < 1:
        raise UserError(f"{path}: run record of version {version}, allowed are 1 to {SCHEMA_VERSION}")


def connect_writer(path: Path, *, mode: str = "rw") -> sqlite3.Connection:
    """Open a record for writing: WAL, every commit on disk before it returns, transactions begun by hand.

    Parameters
    ----------
    path
        Record file.
    mode
        SQLite's URI mode, ``rwc`` creates the file.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.execute("PRAGMA synchronous=FULL")
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a record for reading; works beside a writer, on a record left by a crash and on a read-only disk.

    Raises
    ------
    UserError
        If the file is missing, cannot be opened or is no run record of a known version.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such run record")
    name = quote(str(path.resolve()))
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        # Opened for writing but told not to: only such a connection tidies up the -wal and -shm files behind it.
        uris = [f"file:{name}?mode=rw"]
    else:
        uris = [f"file:{name}?mode=ro", f"file:{name}?mode=ro&immutable=1"]
    problem: Exception | None = None
    for uri in uris:
        connection = None
        try:
            connection = sqlite3.connect(
                uri, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA query_only=1")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            check_version(connection, path)
        except (sqlite3.Error, UnicodeError, UserError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, UserError):
                raise
            problem = error
            continue
        return connection
    raise UserError(f"{path}: not a readable run record ({problem})")
