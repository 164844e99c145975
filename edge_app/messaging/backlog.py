"""The run records whose messages wait: claimed, drained oldest run first, kept small, let go when they are done."""

import logging
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edge_app.messaging.counters import Tally
from edge_app.messaging.outbox import PendingRecord, PendingRegistry, RunOutbox

__all__ = ["UPKEEP_S", "Backlog", "DrainedOutbox"]

log = logging.getLogger(__name__)

UPKEEP_S: Final = 1.0
"""Pause between two looks at how much waits."""


@dataclass(kw_only=True, eq=False)
class DrainedOutbox:
    """An outbox being drained.

    Attributes
    ----------
    pending
        The claim on its record.
    outbox
        The messages on disk.
    adopted
        Left by an earlier process.
    growing
        The run goes on: more will come.
    cursor
        Highest id that was sent over this link.
    replay_upto
        Highest id that waited when the link came back.
    acknowledged
        Ids delivered and not yet deleted.
    unheard
        Ids to be sent again.
    """

    pending: PendingRecord
    outbox: RunOutbox
    adopted: bool
    growing: bool
    cursor: int = 0
    replay_upto: int = 0
    acknowledged: set[int] = field(default_factory=set)
    unheard: set[int] = field(default_factory=set)

    def holds_any(self) -> bool:
        """Whether anything waits on disk; yes, where it cannot be read."""
        try:
            return self.outbox.last_id() > 0
        except sqlite3.Error:
            return True


class Backlog:
    """Everything that waits on this device. To be used by one thread only.

    Parameters
    ----------
    registry
        Where it is noted which records hold messages.
    boot_id
        Of this start of the program.
    max_waiting_windows
        Above this, adjacent windows of a record are merged.
    tally
        Counts what was delivered, waits and was merged.
    """

    def __init__(self, registry: PendingRegistry, *, boot_id: str, max_waiting_windows: int, tally: Tally) -> None:
        self.outboxes: list[DrainedOutbox] = []
        self._registry = registry
        self._boot_id = boot_id
        self._max_waiting_windows = max_waiting_windows
        self._tally = tally
        self._next_upkeep = 0.0

    def adopt(self) -> None:
        """Take on what earlier processes left."""
        for pending in self._registry.adopt():
            log.info("%s holds messages of an earlier process", pending.record)
            self._open(pending, adopted=True)

    def attach(self, record: Path, run_id: str, pending: PendingRecord | None) -> None:
        """Take on the record of a run that begins; those before it grow no more."""
        if any(drained.pending.run_id == run_id for drained in self.outboxes):
            return
        # No claim: another process holds the record, or this one did until just now.
        pending = pending or self._registry.claim(record, run_id, boot_id=self._boot_id)
        if pending is None:
            log.error("%s: its messages are published by another process", record)
            return
        self._open(pending, adopted=False)

    def _open(self, pending: PendingRecord, *, adopted: bool) -> None:
        try:
            outbox = RunOutbox(pending.record)
        except sqlite3.Error as error:
            log.warning("%s: waiting messages cannot be read (%s)", pending.record, error)
            pending.release(done=False)
            return
        if not adopted:
            for drained in self.outboxes:
                drained.growing = False
        self.outboxes.append(DrainedOutbox(pending=pending, outbox=outbox, adopted=adopted, growing=not adopted))

    def start_over(self, *, after_outage: bool) -> None:
        """A new link: whatever is not acknowledged is sent again, as a replay if it waited for the link."""
        for drained in self.outboxes:
            drained.cursor = 0
            drained.unheard.clear()
            if drained.adopted or after_outage:
                drained.outbox.drop_superseded()
            drained.replay_upto = drained.outbox.last_id() if after_outage else 0

    def holds_any(self) -> bool:
        """Whether anything waits on disk."""
        return any(drained.holds_any() for drained in self.outboxes)

    def is_drained(self) -> bool:
        """Whether everything is delivered and deleted."""
        return not any(d.acknowledged or d.unheard or d.holds_any() for d in self.outboxes)

    def forget_delivered(self) -> None:
        """Delete what is acknowledged; if the disk does not let us, again later."""
        for drained in self.outboxes:
            if not drained.acknowledged:
                continue
            try:
                drained.outbox.delete(sorted(drained.acknowledged))
            except sqlite3.Error as error:
                log.warning("%s: delivered messages cannot be deleted (%s)", drained.pending.record, error)
                continue
            self._tally.add(published=len(drained.acknowledged))
            drained.acknowledged.clear()

    def upkeep(self) -> None:
        """Once in a while: count what waits, merge where it is too much, let go of runs that are done."""
        now = time.monotonic()
        if now < self._next_upkeep:
            return
        self._next_upkeep = now + UPKEEP_S
        waiting, merged = 0, 0
        for drained in list(self.outboxes):
            try:
                count = drained.outbox.count()
                if count > self._max_waiting_windows:
                    drained.outbox.drop_superseded()
                    # Down to half, so that it is not done again for every new window.
                    if drained.outbox.count_windows() > self._max_waiting_windows:
                        merged += drained.outbox.merge(keep=self._max_waiting_windows // 2)
                    count = drained.outbox.count()
            except sqlite3.Error as error:
                log.warning("%s: waiting messages cannot be counted (%s)", drained.pending.record, error)
                continue
            waiting += count
            if count == 0 and not drained.growing and not drained.acknowledged:
                self._release(drained, done=True)
        self._tally.waits(waiting)
        self._tally.add(merged=merged)

    def close(self) -> None:
        """Let go of every record; what still waits in one is noted for the next start."""
        waiting = 0
        for drained in list(self.outboxes):
            try:
                count = drained.outbox.count()
            except sqlite3.Error:
                count = 1
            waiting += count
            self._release(drained, done=count == 0)
        self._tally.waits(waiting)

    def _release(self, drained: DrainedOutbox, *, done: bool) -> None:
        drained.outbox.close()
        drained.pending.release(done=done)
        self.outboxes.remove(drained)
