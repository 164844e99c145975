"""Which record a command takes where a folder holds several, and that it says so."""

from pathlib import Path

import click

from edge_app.recording.record_reader import find_record

__all__ = ["chosen_record"]


def chosen_record(path: Path, run_id: str | None = None) -> Path:
    """The record as `find_record` finds it; of several in a folder it is said which one was taken.

    Raises
    ------
    UserError
        If there is none.
    """
    found = find_record(path, run_id)
    if run_id is None and path.is_dir():
        several = sum(1 for p in path.glob("*.sqlite") if p.is_file())
        if several > 1:
            click.echo(f"{path} holds {several} records: the newest, {found.name}, is taken", err=True)
    return found
