"""What the publisher's thread is told: by the link, and by the threads that measure."""

import queue
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_app.messaging.link import LinkEvent
from edge_app.messaging.outbox import PendingRecord

__all__ = ["Command", "Mail", "Mailbox", "Volatile"]


@dataclass(frozen=True)
class Command:
    """Something to do; ``attach`` names the run record and the claim on it, None where another holds it."""

    kind: Literal["wake", "status", "info", "attach", "stop"]
    record: Path | None = None
    run_id: str = ""
    pending: PendingRecord | None = None


@dataclass(frozen=True)
class Volatile:
    """A message that is published now or never."""

    topic: str
    payload: str


Mail = LinkEvent | Command | Volatile


class Mailbox(queue.SimpleQueue[Mail]):
    """Any thread puts in, one takes out; never waits to put in.

    Examples
    --------
    >>> mailbox = Mailbox()
    >>> mailbox.put(Command("wake"))
    >>> mailbox.next(0.0).kind
    'wake'
    >>> mailbox.next(0.0) is None
    True
    """

    def next(self, timeout_s: float) -> Mail | None:
        """The oldest, waited for at most so long; None if there is none."""
        try:
            return self.get(timeout=timeout_s) if timeout_s > 0 else self.get_nowait()
        except queue.Empty:
            return None
