"""Messages that are committed together with what they report, and sent later."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Outgoing", "OutgoingKind", "enqueue"]

OutgoingKind = Literal["histogram", "total", "run", "summary", "event"]


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One message for the outbox.

    Attributes
    ----------
    topic
        Full MQTT topic.
    payload
        JSON text, or a mapping that is written as JSON.
    qos, retain
        As MQTT means them.
    kind
        What it reports: ``histogram``, ``total``, ``run``, ``summary`` or ``event``.
    seq
        Window it reports, None where it reports none.
    """

    topic: str
    payload: Mapping[str, Any] | str
    kind: OutgoingKind
    qos: int = 1
    retain: bool = False
    seq: int | None = None

    @property
    def text(self) -> str:
        """The payload as JSON text."""
        if isinstance(self.payload, str):
            return self.payload
        return json.dumps(self.payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def enqueue(connection: sqlite3.Connection, run_id: str, messages: Sequence[Outgoing]) -> None:
    """Add messages to the ``outbox`` table inside the caller's transaction."""
    connection.executemany(
        "INSERT INTO outbox (topic, payload, qos, retain, kind, run_id, seq) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(m.topic, m.text, int(m.qos), int(m.retain), m.kind, run_id, m.seq) for m in messages],
    )
