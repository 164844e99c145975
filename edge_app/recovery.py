"""What an earlier run left open when its program died."""

import json
from collections.abc import Callable
from pathlib import Path

from edge_app.errors import UserError
from edge_app.recording.run_record import recover

__all__ = ["recover_earlier"]


def recover_earlier(out: Path, state_dir: Path, *, on_message: Callable[[str], None]) -> None:
    """Close records that a crash left open, in a folder and among those with messages still to send.

    Parameters
    ----------
    out
        Folder of records; need not be there.
    state_dir
        Where the records with messages to send are named.
    on_message
        Called with a line about each.
    """
    left = set(out.glob("*.sqlite")) if out.is_dir() else set()
    for entry in (state_dir / "pending").glob("*.json"):
        try:
            left.add(Path(json.loads(entry.read_text(encoding="utf-8"))["record"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    for path in sorted(left):
        try:
            if path.is_file() and recover(path):
                on_message(f"{path}: was left open by an interrupted run; closed with all its windows")
        except UserError as error:
            on_message(str(error))
