"""Messages that wait on disk until the broker has acknowledged them.

They wait in the ``outbox`` table of the run record, because they are committed there in the same transaction as the
window they speak of. Here they are read, deleted and merged, over a connection of our own. Which records may still
hold messages is kept beside, in ``<state>/pending``, for the next start after a kill.
"""

import fcntl
import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from edge_app.messaging.messages import HistogramMessage, merge_histograms

__all__ = ["IN_FLIGHT_LIMIT", "PendingRecord", "PendingRegistry", "RunOutbox", "WaitingMessage", "default_state_dir"]

log = logging.getLogger(__name__)

IN_FLIGHT_LIMIT: Final = 20
"""Most messages sent and not yet acknowledged.

Messages are sent in the order of their ids, so only the first ``IN_FLIGHT_LIMIT`` that wait in a record can ever have
been sent. These are never merged, whatever process sent them: merged, they could be counted twice by a subscriber.
"""

_MERGE_CHUNK: Final = 200


def default_state_dir() -> Path:
    """``EDGE_APP_STATE``, else ``$XDG_STATE_HOME/edge-app``, else ``~/.local/state/edge-app``."""
    if own := os.environ.get("EDGE_APP_STATE"):
        return Path(own)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "edge-app"


@dataclass(frozen=True, kw_only=True)
class WaitingMessage:
    """One row of the outbox; ``payload`` is JSON."""

    id: int
    topic: str
    payload: str
    qos: int
    retain: bool
    kind: str
    run_id: str
    seq: int | None

    def replayed_payload(self) -> str:
        """The payload with ``"replayed": true`` where its message knows that field."""
        body = json.loads(self.payload)
        if "replayed" not in body:
            return self.payload
        body["replayed"] = True
        return json.dumps(body, separators=(",", ":"), ensure_ascii=False)


class RunOutbox:
    """The outbox of one run record. To be used by one thread only.

    Parameters
    ----------
    record
        The run record, an SQLite file that has an ``outbox`` table.
    busy_s
        Longest wait for the record's own writer.

    Raises
    ------
    sqlite3.Error
        If the file is no run record or is locked for longer.
    """

    def __init__(self, record: Path, *, busy_s: float = 10.0) -> None:
        self.record = record
        self._db = sqlite3.connect(f"file:{quote(str(record))}?mode=rw", uri=True, timeout=busy_s, isolation_level=None)
        # A deletion that a power cut undoes sends a message again, which is harmless; it is not worth waiting for.
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute("SELECT id FROM outbox LIMIT 1").fetchone()

    def close(self) -> None:
        """Close the connection; the messages stay."""
        self._db.close()

    def fetch(self, *, after_id: int, limit: int) -> list[WaitingMessage]:
        """The next messages in the order in which they were committed."""
        rows = self._db.execute(
            "SELECT id, topic, payload, qos, retain, kind, run_id, seq FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (after_id, limit),
        ).fetchall()
        return [
            WaitingMessage(
                id=r[0], topic=r[1], payload=r[2], qos=r[3], retain=bool(r[4]), kind=r[5], run_id=r[6], seq=r[7]
            )
            for r in rows
        ]

    def delete(self, ids: Sequence[int]) -> None:
        """Forget messages that the broker has acknowledged."""
        with self._transaction():
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(i,) for i in ids])

    def count(self) -> int:
        """Number of messages that wait."""
        return int(self._db.execute("SELECT count(*) FROM outbox").fetchone()[0])

    def last_id(self) -> int:
        """Highest id that waits, 0 if none."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM outbox").fetchone()[0])

    def drop_superseded(self, *, protect: int = IN_FLIGHT_LIMIT) -> int:
        """Delete retained messages that a later one on the same topic replaces; returns their number."""
        with self._transaction():
            return self._db.execute(
                "DELETE FROM outbox WHERE retain = 1 AND id > ? AND id NOT IN"
                " (SELECT max(id) FROM outbox WHERE retain = 1 GROUP BY topic)",
                (self._protected_id(protect),),
            ).rowcount

    def merge(self, *, keep: int, protect: int = IN_FLIGHT_LIMIT) -> int:
        """Merge adjacent windows pairwise until at most ``keep`` wait or no pair is left.

        The first ``protect`` messages are left as they are (``IN_FLIGHT_LIMIT``). Counts, frames and volumes add; the
        merged message names its windows by ``first_seq``, ``seq`` and ``windows``.

        Returns
        -------
        int
            Number of messages that became part of another.
        """
        first_id, merged = self._protected_id(protect), 0
        while (waiting := self.count_windows()) > keep:
            done = 0
            after: int | None = first_id
            while after is not None and waiting - done > keep:
                joined, after = self._merge_chunk(after, most=waiting - done - keep)
                done += joined
            merged += done
            if done == 0:
                break
        return merged

    def count_windows(self) -> int:
        """Number of windows that wait."""
        return int(self._db.execute("SELECT count(*) FROM outbox WHERE kind = 'histogram'").fetchone()[0])

    def _protected_id(self, protect: int) -> int:
        row = self._db.execute("SELECT max(id) FROM (SELECT id FROM outbox ORDER BY id LIMIT ?)", (protect,)).fetchone()
        return int(row[0] or 0)

    def _merge_chunk(self, after: int, *, most: int) -> tuple[int, int | None]:
        """Merge pairs among the next windows in one short transaction, so that the record's writer never waits long."""
        rows = self._db.execute(
            "SELECT id, payload FROM outbox WHERE kind = 'histogram' AND id > ? ORDER BY id LIMIT ?",
            (after, _MERGE_CHUNK),
        ).fetchall()
        joined: list[tuple[str, int, int]] = []
        index = 0
        while index + 1 < len(rows) and len(joined) < most:
            (id_a, a), (id_b, b) = rows[index], rows[index + 1]
            try:
                first, second = HistogramMessage.model_validate_json(a), HistogramMessage.model_validate_json(b)
                both = merge_histograms(first, second)
            except ValueError:
                # Not adjacent, or made by another version: it goes out as it is.
                index += 1
                continue
            joined.append((both.payload(), id_b, id_a))
            index += 2
        with self._transaction():
            self._db.executemany("UPDATE outbox SET payload = ? WHERE id = ?", [(p, b) for p, b, _ in joined])
            self._db.executemany("DELETE FROM outbox WHERE id = ?", [(a,) for _, _, a in joined])
        return len(joined), (rows[-1][0] if len(rows) == _MERGE_CHUNK else None)

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)


class _Transaction:
    """``BEGIN IMMEDIATE`` to ``COMMIT``: takes the write lock at once, where waiting for it is possible."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")


class PendingRecord:
    """A run record of which this process, and no other, publishes the messages.

    The claim is a lock on the entry's file, which the kernel releases however the process ends.
    """

    def __init__(self, entry: Path, handle: IO[str] | None, record: Path, run_id: str) -> None:
        self.record = record
        self.run_id = run_id
        self._entry = entry
        self._handle = handle

    def release(self, *, done: bool) -> None:
        """Give the record up; ``done``: nothing waits in it any more, so no later start need look at it."""
        if self._handle is None or self._handle.closed:
            return
        if done:
            self._entry.unlink(missing_ok=True)
        self._handle.close()


class PendingRegistry:
    """Which run records may still hold messages, one small file each."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir / "pending"

    def claim(self, record: Path, run_id: str, *, boot_id: str) -> PendingRecord | None:
        """Enter a run of this process; None if it is held already, by this process or another.

        Where the entry cannot be written (full or read-only disk) the run is published all the same, but what waits at
        its end is not looked for by a later start: a warning says so.
        """
        entry = self.directory / f"{run_id}.json"
        text = json.dumps({"record": str(record.absolute()), "run_id": run_id, "pid": os.getpid(), "boot_id": boot_id})
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = _locked(entry)
            if handle is None:
                return None
            handle.seek(0)
            handle.truncate()
            handle.write(text + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        except OSError as error:
            log.warning("%s: cannot be written (%s); messages of this run do not outlive it", entry, error.strerror)
            return PendingRecord(entry, None, record.absolute(), run_id)
        return PendingRecord(entry, handle, record.absolute(), run_id)

    def adopt(self) -> list[PendingRecord]:
        """Claim every record that no living process holds, oldest run first; entries without a record go."""
        found: list[PendingRecord] = []
        for entry in sorted(self.directory.glob("*.json")):
            handle = _locked(entry)
            if handle is None:
                continue
            try:
                record = Path(json.loads(handle.read())["record"])
            except (ValueError, KeyError, TypeError):
                record = None
            if record is None or not record.is_file():
                log.warning("%s names no run record that is still there, forgotten", entry)
                entry.unlink(missing_ok=True)
                handle.close()
                continue
            found.append(PendingRecord(entry, handle, record, entry.stem))
        return found


def _locked(entry: Path) -> IO[str] | None:
    """Open and lock a file, None if another holds it or it went away meanwhile."""
    handle = open(entry, "a+", encoding="utf-8")  # noqa: SIM115 - kept open for its lock
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    if os.fstat(handle.fileno()).st_nlink == 0:
        handle.close()
        return None
    handle.seek(0)
    return handle
