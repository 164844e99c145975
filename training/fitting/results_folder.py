"""A folder of results that are made piece by piece and are found again after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from edge_app.errors import UserError
from training.fitting.disk import disk_errors, require_free, write_atomically
from training.fitting.state import differing

__all__ = ["ResultsFolder", "refuse_other_folder"]

_PLAN: Final = "plan.json"


def refuse_other_folder(folder: Path) -> None:
    """Refuse a place that holds anything but results.

    Raises
    ------
    UserError
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, needed is a folder for the results")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / _PLAN).exists():
        raise UserError(f"{folder}: is not empty and holds no {_PLAN}; choose another folder")


class ResultsFolder:
    """Refuses a folder that holds something else, or results of another plan.

    Parameters
    ----------
    folder : Path
    plan : mapping
        What the results are of, for JSON.
    restart : bool
        Forget pieces that are there.

    Raises
    ------
    UserError
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any], *, restart: bool = False) -> None:
        self.folder = folder
        refuse_other_folder(folder)
        if (folder / _PLAN).exists():
            if restart:
                for piece in folder.glob("piece-*.json"):
                    piece.unlink()
            else:
                self._check(plan)
        require_free(folder, 20_000_000)
        self.write_json(_PLAN, plan)

    def _check(self, plan: Mapping[str, Any]) -> None:
        try:
            found = json.loads((self.folder / _PLAN).read_text())
        except ValueError:
            found = {}
        if others := differing(found, plan):
            raise UserError(
                f"{self.folder}: holds results of another plan ({'; '.join(others)}); choose another folder, or "
                "--restart to replace them"
            )

    def piece(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Result of one piece, made unless it is there."""
        path = self.folder / f"piece-{name}.json"
        if path.exists():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
        made = make()
        self.write_json(path.name, made)
        return made

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write whole or not at all."""
        with disk_errors(self.folder):
            write_atomically(self.folder / name, (json.dumps(content, indent=1) + "\n").encode())

    def write(self, name: str, content: bytes) -> None:
        """Write whole or not at all."""
        with disk_errors(self.folder):
            write_atomically(self.folder / name, content)
