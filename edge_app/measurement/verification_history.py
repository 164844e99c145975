"""Verifications over time: a file that shows when it was altered, and what was known of the system at a moment."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from edge_app.errors import UserError
from edge_app.measurement.suitability import SCHEMA, Suitability

__all__ = [
    "HISTORY_FILE",
    "Entry",
    "VerificationResult",
    "VerificationState",
    "append_history",
    "history_for_record",
    "read_history",
    "state_at",
]

HISTORY_FILE: Final = "suitability.jsonl"
"""Name of the history in the state folder."""
GENESIS: Final = "0" * 64
KEPT: Final = 30
"""So many verifications go into a run record: enough for control limits, and a run of eight."""
_ENTRY: Final = ("time", "who", "passed", "calibration_id", "lot", "software", "sha256")
_CHECK: Final = ("name", "value", "unit", "limit", "passed")

Entry: TypeAlias = Mapping[str, Any]
VerificationResult: TypeAlias = Literal["passed", "failed", "missing", "altered"]


@dataclass(frozen=True, kw_only=True)
class VerificationState:
    """What was known of the system at a moment.

    Attributes
    ----------
    result
        Of the last verification before the moment; ``missing``: there is none, ``altered``: the history is not what it
        was when it was written.
    last
        That verification.
    age_days
        Its age at the moment.
    after
        The first verification after the moment, where the history knows one: it brackets the run.
    history
        Verifications up to ``after``, oldest first.
    problem
        What is wrong with the history.
    """

    result: VerificationResult
    last: Entry | None = None
    age_days: float | None = None
    after: Entry | None = None
    history: tuple[Entry, ...] = ()
    problem: str = ""


def append_history(path: Path, suitability: Suitability) -> None:
    """Add a verification to a history, one JSON line each; every line holds the hash of the one before.

    Raises
    ------
    UserError
        If the file cannot be written, or is no history.
    """
    lines = _lines(path)
    tree = suitability.tree() | {"previous_sha256": _hash(lines[-1]) if lines else GENESIS}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(tree, sort_keys=True, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(f"{path}: history cannot be written ({error.strerror})") from error


def read_history(path: Path) -> list[dict[str, Any]]:
    """All verifications of a history, oldest first; each with the hash of its line as ``sha256``.

    Raises
    ------
    UserError
        If a line is not what it was when it was written, or a line is missing before the last.
    """
    found: list[dict[str, Any]] = []
    previous = GENESIS
    for number, line in enumerate(_lines(path), 1):
        try:
            tree = json.loads(line)
            good = tree["schema"] == SCHEMA and tree["previous_sha256"] == previous
            _moment(tree["time"])
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise UserError(f"{path}: line {number} does not follow the line before it: the history was altered")
        previous = _hash(line)
        found.append({**tree, "sha256": previous})
    return found


def history_for_record(path: Path, *, most: int = KEPT) -> dict[str, Any]:
    """The latest verifications as a run record keeps them; a history that cannot be read is named, and stops no run."""
    try:
        history = read_history(path)
    except UserError as error:
        return {"history": [], "problem": str(error)}
    return {
        "history": [
            {k: e.get(k) for k in _ENTRY} | {"checks": [{k: c.get(k) for k in _CHECK} for c in e.get("checks", ())]}
            for e in history[-most:]
        ],
        "problem": "",
    }


def state_at(history: Sequence[Entry], moment: datetime, *, problem: str = "") -> VerificationState:
    """What a history says of the system at a moment; verifications later than the first one after it play no part.

    Examples
    --------
    >>> history = [{"time": "2026-03-01T08:00:00Z", "passed": True}, {"time": "2026-03-08T08:00:00Z", "passed": False}]
    >>> found = state_at(history, datetime(2026, 3, 2, 8, tzinfo=timezone.utc))
    >>> found.result, found.age_days, found.after["passed"]
    ('passed', 1.0, False)
    >>> state_at([], datetime(2026, 3, 2, tzinfo=timezone.utc)).result
    'missing'
    """
    if problem:
        return VerificationState(result="altered", problem=problem)
    in_order = sorted(history, key=lambda e: _moment(e["time"]))
    before = [e for e in in_order if _moment(e["time"]) <= moment]
    after = next((e for e in in_order if _moment(e["time"]) > moment), None)
    known = tuple(before) if after is None else (*before, after)
    if not before:
        return VerificationState(result="missing", after=after, history=known)
    last = before[-1]
    return VerificationState(
        result="passed" if last["passed"] else "failed",
        last=last,
        age_days=(moment - _moment(last["time"])).total_seconds() / 86400,
        after=after,
        history=known,
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: history cannot be read ({error})") from error


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
