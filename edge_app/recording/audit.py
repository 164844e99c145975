"""The audit chain: who did what, when and why, and a hash of every row that came with it.

Each entry holds a manifest (row -> SHA-256 of its values), the manifest's own SHA-256, and the SHA-256 of the entry
before it; its own hash is taken over all of that as canonical JSON (RFC 8785). Change one byte of a row, of an entry
or of their order, and :func:`verify_record` names it.

What a chain cannot show by itself: that its last entries were cut off, or that the whole file was written anew. For
that the hash of the last entry (``head``) has to be kept elsewhere, for example in the published run summary.
"""

import getpass
import hashlib
import json
import os
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import rfc8785

from edge_app.errors import UserError
from edge_app.recording.schema import AUDITED_TABLES, DDL, NewerRecordError, connect_reader

__all__ = ["AuditEntry", "Manifest", "Verdict", "append_entry", "current_user", "utc_now", "verify_record"]

GENESIS: Final = "0" * 64
"""``previous_sha256`` of the first entry."""

_REAL: Final = struct.Struct("<d")

_FIELDS: Final = (
    "id", "time", "user", "action", "reason", "manifest", "content_sha256", "previous_sha256", "entry_sha256",
)  # fmt: skip


def utc_now() -> str:
    """The wall clock, UTC, ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def current_user() -> str:
    """Name of the user that runs this process (the number where it has no name)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return f"uid-{os.getuid()}"


def row_sha256(table: str, values: Iterable[Any]) -> str:
    """Hash one row: table name, then each value with its type and length, so that no two rows share their bytes.

    Text is ``t<bytes>:<UTF-8>``, a blob ``b<bytes>:<blob>``, an integer ``i<decimal>;``, a real ``r<8 bytes, little
    endian>``, NULL ``n``.

    Parameters
    ----------
    table
        Name of the table.
    values
        What SQLite gives back for the row: int, float, str, bytes or None.
    """
    parts = [table.encode()]
    for value in values:
        kind = type(value)
        # By identity, most frequent first: a window has five hundred of these.
        if kind is int:
            parts.append(b"i%d;" % value)
        elif kind is bytes:
            parts += b"b%d:" % len(value), value
        elif kind is str or isinstance(value, str):
            data = value.encode("utf-8", "surrogatepass")
            parts += b"t%d:" % len(data), data
        elif isinstance(value, float):
            parts += b"r", _REAL.pack(value)
        elif isinstance(value, int):
            parts.append(b"i%d;" % value)
        elif value is None:
            parts.append(b"n")
        else:
            raise TypeError(f"{table}: a {kind.__name__} has no place in a record")
    return hashlib.sha256(b"".join(parts)).hexdigest()


@dataclass
class Manifest:
    """Hashes of the rows that one entry answers for; key ``table/key[/key]``."""

    rows: dict[str, str] = field(default_factory=dict)

    def add(self, table: str, row: Mapping[str, object]) -> None:
        """Take in a row; ``row`` maps column names, in the table's order, to values."""
        self.put(table, [row[k] for k in AUDITED_TABLES[table]], row.values())

    def put(self, table: str, key: Iterable[object], values: Iterable[object]) -> None:
        """Take in a row, its key and its values apart."""
        self.rows["/".join([table, *map(str, key)])] = row_sha256(table, values)

    @property
    def text(self) -> str:
        """Canonical JSON."""
        return rfc8785.dumps(self.rows).decode()


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """One link of the chain; fields as in the table ``audit``."""

    id: int
    time: str
    user: str
    action: str
    reason: str
    manifest: str
    content_sha256: str
    previous_sha256: str
    entry_sha256: str

    def computed_sha256(self) -> str:
        """Hash of the entry as it stands; the manifest enters by its own hash."""
        hashed: dict[str, Any] = {
            "id": self.id,
            "time": self.time,
            "user": self.user,
            "action": self.action,
            "reason": self.reason,
            "content_sha256": self.content_sha256,
            "previous_sha256": self.previous_sha256,
        }
        return hashlib.sha256(rfc8785.dumps(hashed)).hexdigest()


def append_entry(
    connection: sqlite3.Connection, *, entry_id: int, action: str, reason: str, manifest: Manifest, user: str
) -> None:
    """Add the next link inside the caller's transaction.

    Parameters
    ----------
    entry_id
        Number of the entry, as it stands in the rows it answers for (:func:`next_entry_id`).
    action, reason, user
        What was done, why, and by whom.
    manifest
        The rows written with it.
    """
    last = connection.execute("SELECT entry_sha256 FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    text = manifest.text
    draft = AuditEntry(
        id=entry_id,
        time=utc_now(),
        user=user,
        action=action,
        reason=reason,
        manifest=text,
        content_sha256=hashlib.sha256(text.encode()).hexdigest(),
        previous_sha256=last[0] if last else GENESIS,
        entry_sha256="",
    )
    values = [getattr(draft, name) for name in _FIELDS[:-1]]
    connection.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*values, draft.computed_sha256()))


def next_entry_id(connection: sqlite3.Connection) -> int:
    """Number that the next entry will have (from 1)."""
    return int(connection.execute("SELECT coalesce(max(id), 0) + 1 FROM audit").fetchone()[0])


def read_entries(connection: sqlite3.Connection) -> Iterator[AuditEntry]:
    """Yield the chain in order, unchecked."""
    for row in connection.execute(f"SELECT {', '.join(_FIELDS)} FROM audit ORDER BY id"):
        yield AuditEntry(**dict(zip(_FIELDS, row, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the check of a record found.

    Attributes
    ----------
    ok
        Nothing in it was altered, added or taken away (up to the last entry).
    first_broken
        The first thing that is wrong, None if ``ok``.
    entries, windows
        Links and windows checked before that.
    finished
        Whether the record was closed; False: the run still goes on, or the end is missing.
    head
        Hash of the last link; compare it with the one kept elsewhere.
    """

    ok: bool
    first_broken: str | None
    entries: int
    windows: int
    finished: bool
    head: str


class _BrokenError(Exception):
    """Carries what is wrong out of the checks."""


def verify_record(path: Path, *, expected_head: str | None = None) -> Verdict:
    """Check every row of a run record against its audit chain.

    Parameters
    ----------
    path
        Record file.
    expected_head
        Hash of an entry that was kept elsewhere (usually of the last one): it must be in the chain, so that an end
        that was cut off, or a chain that was written anew, is found.

    Raises
    ------
    UserError
        If there is no such file, or it is of a newer program. A damaged one gives a verdict, not an error.

    Examples
    --------
    >>> import tempfile
    >>> from edge_app.recording.run_record import RunRecord
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with RunRecord.create(
    ...         Path(folder), run_id="r", settings={}, identity={}, info={}, classes=("glass", "unknown")
    ...     ) as record:
    ...         record.finish({})
    ...     verify_record(record.path).ok
    True
    """
    progress = _Progress()
    try:
        connection = connect_reader(path)
    except UserError as error:
        # A header that cannot be read is damage like any other, as long as the file is there.
        if path.is_file() and not isinstance(error, NewerRecordError):
            return progress.verdict(str(error).removeprefix(f"{path}: "))
        raise
    try:
        connection.execute("BEGIN")
        _check_file(connection)
        _check_rows(connection, progress)
        if expected_head is not None and expected_head not in progress.seen:
            raise _BrokenError(
                f"audit: no entry has the expected hash {expected_head}: the chain was cut or written anew"
            )
    except _BrokenError as broken:
        return progress.verdict(str(broken))
    except (sqlite3.Error, UnicodeError, ValueError, TypeError, OverflowError) as error:
        return progress.verdict(f"file damaged after audit entry {progress.entries}: {error}")
    finally:
        connection.close()
    return progress.verdict(None)


@dataclass
class _Progress:
    entries: int = 0
    windows: int = 0
    finished: bool = False
    head: str = GENESIS
    seen: set[str] = field(default_factory=set)

    def verdict(self, broken: str | None) -> Verdict:
        return Verdict(
            ok=broken is None,
            first_broken=None if broken is None else " ".join(broken.split()),
            entries=self.entries,
            windows=self.windows,
            finished=self.finished,
            head=self.head,
        )


def _schema_of(connection: sqlite3.Connection) -> dict[str, str]:
    return {
        f"{kind} {name}": sql
        for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")
        if not name.startswith("sqlite_")
    }


def _check_file(connection: sqlite3.Connection) -> None:
    (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if state != "ok":
        raise _BrokenError(f"file damaged: {state}")
    fresh = sqlite3.connect(":memory:")
    try:
        fresh.executescript(DDL)
        expected = _schema_of(fresh)
    finally:
        fresh.close()
    found = _schema_of(connection)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise _BrokenError(f"{name}: not as the record's version defines it")


def _dicts(cursor: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [c[0] for c in cursor.description]
    for row in cursor:
        yield dict(zip(names, row, strict=True))


def _check_rows(connection: sqlite3.Connection, progress: _Progress) -> None:
    by_entry: dict[object, list[tuple[str, dict[str, Any]]]] = {}
    for table in ("meta", "events"):
        for row in _dicts(connection.execute(f"SELECT * FROM {table}")):
            by_entry.setdefault(row["audit_id"], []).append((table, row))
    windows = _dicts(connection.execute("SELECT * FROM windows ORDER BY audit_id, seq"))
    window = next(windows, None)
    for entry in read_entries(connection):
        _check_link(entry, progress)
        actual = Manifest()
        while window is not None and window["audit_id"] == entry.id:
            actual.add("windows", window)
            for table in ("particle_columns", "companion_columns", "pictures"):
                # A key of two columns, which come first.
                for values in connection.execute(f"SELECT * FROM {table} WHERE seq = ?", (window["seq"],)):
                    actual.put(table, values[:2], values)
            progress.windows += 1
            window = next(windows, None)
        for table, row in by_entry.pop(entry.id, ()):
            actual.add(table, row)
            progress.finished |= table == "meta" and row["key"] == "finished"
        _compare(json.loads(entry.manifest), actual.rows, entry)
        progress.entries += 1
        progress.head = entry.entry_sha256
        progress.seen.add(progress.head)
    if window is not None:
        raise _BrokenError(f"windows/{window['seq']}: belongs to no audit entry")
    for rows in by_entry.values():
        table, row = rows[0]
        raise _BrokenError(f"{table}/{row[AUDITED_TABLES[table][0]]}: belongs to no audit entry")
    for table in ("particle_columns", "companion_columns", "pictures"):
        stray = connection.execute(
            f"SELECT seq FROM {table} WHERE seq NOT IN (SELECT seq FROM windows) LIMIT 1"
        ).fetchone()
        if stray is not None:
            raise _BrokenError(f"{table}/{stray[0]}: belongs to no window")
    if progress.entries == 0:
        raise _BrokenError("audit: no entry")


def _check_link(entry: AuditEntry, progress: _Progress) -> None:
    name = f"audit/{entry.id}"
    if entry.id != progress.entries + 1:
        raise _BrokenError(f"audit/{progress.entries + 1}: missing")
    if entry.previous_sha256 != progress.head:
        raise _BrokenError(f"{name}: does not follow the entry before it")
    if hashlib.sha256(entry.manifest.encode("utf-8", "surrogatepass")).hexdigest() != entry.content_sha256:
        raise _BrokenError(f"{name}: its manifest was altered")
    if entry.computed_sha256() != entry.entry_sha256:
        raise _BrokenError(f"{name}: altered")


def _compare(expected: dict[str, str], actual: dict[str, str], entry: AuditEntry) -> None:
    if expected == actual:
        return
    # A window before its columns and pictures: where it was moved they all are, and it is the cause.
    order = {table: i for i, table in enumerate(AUDITED_TABLES)}
    for key in sorted({*expected, *actual}, key=lambda k: (order.get(k.partition("/")[0], len(order)), k)):
        if expected.get(key) != actual.get(key):
            what = "missing" if key not in actual else "added" if key not in expected else "altered"
            raise _BrokenError(f"{key}: {what} (audit entry {entry.id}, {entry.action})")
