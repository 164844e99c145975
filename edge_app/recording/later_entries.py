"""What is done with a record after its run: noted in its audit chain, or the file moved."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_app.errors import UserError
from edge_app.recording.audit import Manifest, append_entry, current_user
from edge_app.recording.errors import recording_error
from edge_app.recording.event import Event
from edge_app.recording.record_file import head, open_for_writing, sync_folder, transaction
from edge_app.recording.record_rows import insert_events, write_meta

__all__ = ["add_audit_entry", "add_facts", "move_record"]


def add_audit_entry(
    path: Path, *, action: str, reason: str, details: Mapping[str, Any] | None = None, user: str | None = None
) -> str:
    """Note in a record, finished or not, that something was done with it and why; returns the new head of the chain.

    Raises
    ------
    UserError
        If there is no such record or the reason is empty.
    RecordingError
        If it cannot be written.
    """
    if not reason.strip():
        raise UserError(f"{path}: {action}: a reason is needed")
    connection = open_for_writing(path)
    try:
        with transaction(connection, path) as audit_id:
            manifest = Manifest()
            happening = Event(kind=action, message=reason, details=details or {})
            insert_events(connection, manifest, [happening], seq=None, audit_id=audit_id)
            append_entry(
                connection,
                entry_id=audit_id,
                action=action,
                reason=reason,
                manifest=manifest,
                user=user or current_user(),
            )
        return head(connection)
    finally:
        connection.close()


def add_facts(path: Path, facts: Mapping[str, Any], *, action: str, reason: str, user: str | None = None) -> str:
    """Add entries to ``meta`` of a record, finished or not, under an audit entry; returns the new head of the chain.

    Nothing that is there already can be replaced.

    Parameters
    ----------
    facts
        Key -> JSON value, for example where a record comes from.
    action, reason, user
        Of the audit entry.

    Raises
    ------
    UserError
        If there is no such record or the reason is empty.
    ValueError
        If one of the keys is taken.
    RecordingError
        If it cannot be written.
    """
    if not reason.strip():
        raise UserError(f"{path}: {action}: a reason is needed")
    connection = open_for_writing(path)
    try:
        with transaction(connection, path):
            write_meta(connection, facts, action=action, reason=reason, user=user or current_user())
        return head(connection)
    finally:
        connection.close()


def move_record(path: Path, directory: Path) -> Path:
    """Move a record that nobody has open into another folder of the same file system; returns where it is now.

    Raises
    ------
    UserError
        If a record of that name is there already.
    RecordingError
        If it cannot be moved.
    """
    target = directory / path.name
    if target.exists():
        raise UserError(f"{target}: a record of this run is there already")
    # Opening and closing puts what a reader left in the write-ahead log into the file itself.
    open_for_writing(path).close()
    try:
        os.replace(path, target)
        sync_folder(directory)
    except OSError as error:
        raise recording_error(target, error) from error
    return target
