"""The run record, write side: one SQLite file per run, one transaction per window."""

import json
import os
import platform
import re
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edge_app import __version__
from edge_app.errors import UserError
from edge_app.measurement.histogram import FINE_EDGES_UM
from edge_app.measurement.window import Window
from edge_app.recording.audit import Manifest, append_entry, current_user, utc_now
from edge_app.recording.errors import recording_error
from edge_app.recording.event import Event, Severity
from edge_app.recording.later_entries import add_audit_entry, add_facts, move_record
from edge_app.recording.outgoing import Outgoing, enqueue
from edge_app.recording.particle_columns import pack_particles
from edge_app.recording.pictures import Picture
from edge_app.recording.record_file import head, open_for_writing, sync_folder, transaction
from edge_app.recording.record_reader import Record
from edge_app.recording.record_rows import (
    column_rows,
    insert,
    insert_events,
    pack_companion,
    picture_row,
    window_row,
    write_meta,
)
from edge_app.recording.schema import (
    APPLICATION_ID,
    DDL,
    RECORD_SCHEMA,
    SCHEMA_VERSION,
    connect_writer,
)
from edge_app.recording.writer_mark import is_alive, writer_mark
from edge_app.segmentation.particles import Particles

__all__ = ["RunRecord", "RunState", "add_audit_entry", "add_facts", "move_record", "new_run_id", "recover"]

RunState = Literal["completed", "stopped", "interrupted", "failed"]
"""How a run ended: its source did, the user stopped it, the process died, or an error ended it."""

_RUN_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_OPEN_HERE: set[Path] = set()


def new_run_id(now: datetime | None = None) -> str:
    """Name a run: UTC time and four random hex digits, in order of time by name.

    Examples
    --------
    >>> new_run_id(datetime(2026, 11, 21, 7, 45, tzinfo=timezone.utc))[:-4]
    '20261121t074500z-'
    """
    moment = (now or datetime.now(timezone.utc)).astimezone(timezone.utc)
    return f"{moment:%Y%m%dt%H%M%Sz}-{secrets.token_hex(2)}"


class RunRecord:
    """Writes the record of a run. Everything is in the file when a call returns, or nothing of it is.

    Calls may come from any thread, one at a time. Leaving the ``with`` block without :meth:`finish` leaves the
    record open to :func:`recover`, as a crash would.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, run_id: str, user: str) -> None:
        self.path = path
        self.run_id = run_id
        self._connection = connection
        self._user = user
        self._lock = threading.RLock()
        meta = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('classes', 'edges_um', 'finished')"))
        self.classes: tuple[str, ...] = tuple(json.loads(meta["classes"]))
        self.edges_um: tuple[float, ...] = tuple(
            float("inf") if e is None else float(e) for e in json.loads(meta["edges_um"])
        )
        self.finished = "finished" in meta
        (last,) = connection.execute("SELECT coalesce(max(seq), -1) FROM windows").fetchone()
        self._last_seq = int(last)
        _OPEN_HERE.add(path.resolve())

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        run_id: str,
        settings: Mapping[str, Any],
        identity: Mapping[str, Any],
        info: Mapping[str, Any],
        classes: Sequence[str],
        edges_um: Sequence[float] = FINE_EDGES_UM,
        calibration: Mapping[str, Any] | None = None,
        bundle: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        outgoing: Sequence[Outgoing] = (),
        user: str | None = None,
    ) -> "RunRecord":
        """Begin a record ``directory/<run_id>.sqlite``; the file appears whole or not at all.

        Parameters
        ----------
        directory
            Made if it is missing.
        run_id
            ``[a-z0-9-]``, see :func:`new_run_id`.
        settings, identity, info, calibration, bundle
            Settings of the run, its pipeline identity, what the source knows of itself, the calibration and the model
            bundle (name, version, SHA-256): kept as JSON under these names in ``meta``.
        classes
            Class names in the order of ``class_index``, ``unknown`` last.
        edges_um
            Size bins of the histograms.
        extra
            Further entries of ``meta`` (sample, operator).
        outgoing
            Messages to be sent about the beginning.
        user
            Name in the audit chain; default: of the process.

        Raises
        ------
        UserError
            If the folder cannot be made or the record is there already.
        RecordingError
            If there is no room.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise UserError(f"run id {run_id!r}: allowed are a-z, 0-9 and -, up to 100 characters")
        path = directory / f"{run_id}.sqlite"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{directory}: folder for run records cannot be made ({error.strerror})") from error
        if path.exists():
            raise UserError(f"{path}: a record of this run is there already")
        name = user or current_user()
        meta = {
            "schema": RECORD_SCHEMA,
            "run_id": run_id,
            "started": utc_now(),
            "software": {
                "edge_app": __version__,
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
            },
            "writer": writer_mark(),
            "settings": settings,
            "identity": identity,
            "info": info,
            "calibration": calibration,
            "bundle": bundle,
            "classes": list(classes),
            "edges_um": [e if np.isfinite(e) else None for e in edges_um],
        }
        clash = meta.keys() & (extra or {}).keys()
        if clash:
            raise ValueError(f"meta entries {sorted(clash)} are the record's own")
        # Built under another name and renamed, so that no reader ever meets a record without its tables.
        partial = path.with_name(f"{path.name}.partial")
        try:
            partial.unlink(missing_ok=True)
            connection = connect_writer(partial, mode="rwc")
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
                for statement in DDL.strip().split(";\n"):
                    connection.execute(statement.rstrip(";"))
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                write_meta(connection, {**meta, **(extra or {})}, action="created", reason="run started", user=name)
                enqueue(connection, run_id, outgoing)
                connection.execute("COMMIT")
            finally:
                connection.close()
            os.replace(partial, path)
            sync_folder(directory)
            connection = connect_writer(path)
        except (sqlite3.Error, OSError) as error:
            for leftover in (partial, Path(f"{partial}-wal"), Path(f"{partial}-shm")):
                leftover.unlink(missing_ok=True)
            raise recording_error(path, error) from error
        return cls(path, connection, run_id, name)

    def commit_window(
        self,
        window: Window,
        particles: Particles,
        *,
        class_index: npt.NDArray[np.integer],
        confidence: npt.NDArray[np.floating],
        probabilities: npt.NDArray[np.floating] | None = None,
        pictures: Sequence[Picture] = (),
        events: Sequence[Event] = (),
        outgoing: Sequence[Outgoing] = (),
        companion: Mapping[str, npt.NDArray[np.generic]] | None = None,
        frames_sha256: str | None = None,
    ) -> None:
        """Write a closed window and everything that belongs to it, in one transaction.

        Parameters
        ----------
        window
            Its counts; ``seq`` must be above that of the window before.
        particles, class_index, confidence, probabilities
            A row per particle: measured columns, class (n,), confidence (n,), probabilities (n, classes).
        pictures
            From :meth:`PicturePicker.close_window`.
        events, outgoing
            What happened in it, and the messages that report it.
        companion
            The instrument's own columns, one value per particle *of the instrument*.
        frames_sha256
            Hash over all frames up to the end of this window (:class:`FrameHash`).

        Raises
        ------
        RecordingError
            If it could not be written, for example because the disk is full. The window is not in the record then,
            and may be committed again.
        ValueError
            If the window or its columns do not fit the record.
        """
        if window.run_id != self.run_id:
            raise ValueError(f"window of run {window.run_id} in the record of {self.run_id}")
        if window.seq <= self._last_seq:
            raise ValueError(f"window {window.seq} after window {self._last_seq}")
        if (window.histogram.classes, window.histogram.edges_um) != (self.classes, self.edges_um):
            raise ValueError("the window's histogram has other classes or bins than the record")
        columns = list(pack_particles(particles, class_index, confidence, probabilities, classes=self.classes))
        kept = [picture_row(window.seq, p) for p in sorted(pictures, key=lambda p: p.row)]
        with self._transaction() as (connection, audit_id):
            manifest = Manifest()
            row = window_row(window, len(particles), frames_sha256, audit_id)
            insert(connection, manifest, "windows", [row])
            insert(connection, manifest, "particle_columns", column_rows(window.seq, columns))
            if companion:
                own = [pack_companion(name, values) for name, values in companion.items()]
                insert(connection, manifest, "companion_columns", column_rows(window.seq, own))
            insert(connection, manifest, "pictures", kept)
            insert_events(connection, manifest, events, seq=window.seq, audit_id=audit_id)
            append_entry(
                connection,
                entry_id=audit_id,
                action="window",
                reason=f"window {window.seq} closed",
                manifest=manifest,
                user=self._user,
            )
            enqueue(connection, self.run_id, outgoing)
        self._last_seq = window.seq

    def event(
        self,
        kind: str,
        message: str,
        *,
        severity: Severity = "info",
        time_s: float | None = None,
        details: Mapping[str, Any] | None = None,
        outgoing: Sequence[Outgoing] = (),
    ) -> None:
        """Record something that happened now, outside of a window; arguments as in :class:`Event`."""
        happening = Event(kind=kind, message=message, severity=severity, time_s=time_s, details=details or {})
        with self._transaction() as (connection, audit_id):
            manifest = Manifest()
            insert_events(connection, manifest, [happening], seq=None, audit_id=audit_id)
            append_entry(connection, entry_id=audit_id, action="event", reason=kind, manifest=manifest, user=self._user)
            enqueue(connection, self.run_id, outgoing)

    def enqueue(self, messages: Sequence[Outgoing]) -> None:
        """Put messages into the outbox that report neither a window nor an event."""
        with self._transaction() as (connection, _):
            enqueue(connection, self.run_id, messages)

    def finish(
        self,
        summary: Mapping[str, Any],
        *,
        state: RunState = "completed",
        reason: str = "",
        frames_sha256: str | None = None,
        outgoing: Sequence[Outgoing] = (),
    ) -> None:
        """Close the record for good.

        Parameters
        ----------
        summary
            What the run reports at its end; kept as it is beside what the windows add up to.
        state, reason
            How and why it ended.
        frames_sha256
            Hash over all frames of the run.
        outgoing
            Messages about the end.
        """
        if self.finished:
            raise ValueError(f"the record of {self.run_id} is finished already")
        meta: dict[str, Any] = {"finished": {"time": utc_now(), "state": state, "reason": reason}, "summary": summary}
        if frames_sha256 is not None:
            meta["frames_sha256"] = frames_sha256
        with self._transaction() as (connection, _):
            write_meta(connection, meta, action="finished", reason=reason or state, user=self._user)
            enqueue(connection, self.run_id, outgoing)
        self.finished = True

    @property
    def head(self) -> str:
        """Hash of the last entry of the audit chain: kept elsewhere, it pins everything up to here."""
        with self._lock:
            return head(self._connection)

    def close(self) -> None:
        """Release the file; safe to call twice."""
        with self._lock:
            self._connection.close()
            _OPEN_HERE.discard(self.path.resolve())

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[tuple[sqlite3.Connection, int]]:
        with self._lock:
            if self.finished:
                raise ValueError(f"the record of {self.run_id} is finished")
            with transaction(self._connection, self.path) as audit_id:
                yield self._connection, audit_id


def recover(
    path: Path,
    *,
    reason: str = "the program ended without closing the run",
    outgoing: Sequence[Outgoing] = (),
    user: str | None = None,
) -> bool:
    """Close a record that was left unfinished, as ``interrupted``, with an event.

    Returns
    -------
    bool
        Whether there was anything to do: False for a finished record and for one that is still being written.

    Raises
    ------
    UserError
        If there is no such record.
    RecordingError
        If it cannot be written.
    """
    with Record(path) as record:
        if record.finished or _is_in_use(path, record.meta["writer"]):
            return False
        run_id, summary = record.run_id, record.summary()
    connection = open_for_writing(path)
    with RunRecord(path, connection, run_id, user or current_user()) as left:
        if left.finished:  # by its writer, which ended between our looking at it and now
            return False
        left.event("interrupted", reason, severity="warning", details={"last_window": left._last_seq})
        left.finish(summary, state="interrupted", reason=reason, outgoing=outgoing)
    return True


def _is_in_use(path: Path, writer: Mapping[str, Any]) -> bool:
    if not is_alive(writer):
        return False
    # Our own process is alive for certain, and may still have closed a record without finishing it.
    return writer.get("pid") != os.getpid() or path.resolve() in _OPEN_HERE
