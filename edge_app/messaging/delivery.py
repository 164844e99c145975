"""Sends what waits over one link and takes the broker's answers: what is in flight, refused, unheard, delivered."""

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edge_app.messaging.backlog import Backlog, DrainedOutbox
from edge_app.messaging.counters import Tally
from edge_app.messaging.link import NO_SUBSCRIBERS, Link, LinkEvent
from edge_app.messaging.outbox import IN_FLIGHT_LIMIT, WaitingMessage
from edge_app.messaging.topics import TOPIC_RULES, Topics

__all__ = ["Delivery"]

log = logging.getLogger(__name__)

_PROBE_S: Final = 1.0
"""Pause between two tries of a window that nobody heard."""
_REFUSED_PAUSE_S: Final = 10.0
"""Pause after the broker refused a message that it may take later (access rules, quota)."""


@dataclass(frozen=True)
class _Sent:
    source: DrainedOutbox
    message: WaitingMessage
    at: float


class Delivery:
    """What goes over one link, from its opening to its end. To be used by one thread only.

    Parameters
    ----------
    link
        An open link.
    backlog
        What waits.
    topics
        The device's own.
    tally
        Counts refusals.
    on_problem
        Told in one line what the broker refuses.
    heard
        Whether somebody was subscribed to windows over an earlier link.
    listener_grace_s
        How long after an outage windows wait for their listeners.
    """

    def __init__(
        self,
        link: Link,
        *,
        backlog: Backlog,
        topics: Topics,
        tally: Tally,
        on_problem: Callable[[str], None],
        heard: bool,
        listener_grace_s: float,
    ) -> None:
        self.heard = heard
        self._link = link
        self._backlog = backlog
        self._topics = topics
        self._tally = tally
        self._on_problem = on_problem
        self._listener_grace_s = listener_grace_s
        self._linked_at = time.monotonic()
        self._sent: dict[int, _Sent] = {}
        self._own_mids: set[int] = set()
        self._pause_until = 0.0
        self._probing = False

    @property
    def pause_s(self) -> float:
        """How long nothing is sent from now on; 0 if there is no pause."""
        return max(self._pause_until - time.monotonic(), 0.0)

    @property
    def own_said(self) -> bool:
        """Whether the broker has acknowledged all that was said by :meth:`say`."""
        return not self._own_mids

    @property
    def is_done(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        return not self._sent and self._backlog.is_drained()

    def oldest_unanswered_s(self) -> float:
        """For how long the oldest message in flight has had no answer; 0 if there is none."""
        oldest = min((sent.at for sent in self._sent.values()), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def say(self, kind: str, payload: str) -> None:
        """Send a message that does not wait on disk: ``info`` or ``status``."""
        rule = TOPIC_RULES[kind]
        mid = self._link.publish(self._topics.of(kind), payload, qos=rule.qos, retain=rule.retain)
        if mid is not None and rule.qos:
            self._own_mids.add(mid)

    def fill(self) -> None:
        """Send what waits, oldest run first, as far as the limit of messages in flight allows."""
        if self.pause_s > 0:
            return
        limit = 1 if self._probing else IN_FLIGHT_LIMIT
        for source in self._backlog.outboxes:
            if source.unheard:
                if any(sent.source is source for sent in self._sent.values()):
                    return
                source.cursor = min(source.cursor, min(source.unheard) - 1)
                source.unheard.clear()
            while (room := limit - len(self._sent)) > 0:
                try:
                    messages = source.outbox.fetch(after_id=source.cursor, limit=room)
                except sqlite3.Error as error:
                    log.warning("%s: waiting messages cannot be read (%s)", source.pending.record, error)
                    self._pause_until = time.monotonic() + _PROBE_S
                    return
                for message in messages:
                    if message.id not in source.acknowledged and not self._send(source, message):
                        return
                    source.cursor = message.id
                if len(messages) < room:
                    break
            if len(self._sent) >= limit:
                return

    def _send(self, source: DrainedOutbox, message: WaitingMessage) -> bool:
        replayed = source.adopted or message.id <= source.replay_upto
        payload = message.replayed_payload() if replayed else message.payload
        mid = self._link.publish(message.topic, payload, qos=message.qos, retain=message.retain)
        if mid is None:
            return False
        if message.qos == 0:
            source.acknowledged.add(message.id)
        else:
            self._sent[mid] = _Sent(source, message, time.monotonic())
        return True

    def take_answer(self, event: LinkEvent, *, may_hold: bool = True) -> None:
        """Take the broker's answer to one message (``ack``).

        Parameters
        ----------
        event
            The answer.
        may_hold
            Whether a window that nobody heard may wait for its listeners.
        """
        self._own_mids.discard(event.mid)
        sent = self._sent.pop(event.mid, None)
        if sent is None:
            return
        source, message = sent.source, sent.message
        if event.code >= 0x80:
            # Not delivered, whatever the reason: it stays first in the queue, and is tried again after a pause.
            source.unheard.add(message.id)
            self._pause_until = time.monotonic() + _REFUSED_PAUSE_S
            self._tally.add(refused=1)
            self._on_problem(f"{self._link.address} refuses {message.topic}: {event.text}")
            return
        is_window = message.kind == "histogram"
        if may_hold and is_window and event.code == NO_SUBSCRIBERS and self._awaits_listeners(source, message):
            source.unheard.add(message.id)
            self._pause_until = time.monotonic() + _PROBE_S
            self._probing = True
            return
        if is_window and event.code != NO_SUBSCRIBERS:
            self.heard = self.heard or self._link.version == 5
            self._probing = False
        source.acknowledged.add(message.id)

    def _awaits_listeners(self, source: DrainedOutbox, message: WaitingMessage) -> bool:
        """Whether a window that nobody heard should wait.

        After an outage the subscribers reconnect too, and often later than we: what is published before they are back
        is lost to them though the broker has acknowledged it. So where there were listeners before, windows that waited
        are held back until there are some again, for a limited time.
        """
        in_grace = time.monotonic() - self._linked_at < self._listener_grace_s
        return self.heard and in_grace and (message.id <= source.replay_upto or self._probing)
