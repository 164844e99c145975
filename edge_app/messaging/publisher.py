"""Keeps the link to the broker and moves what waits on disk over it, in a thread of its own."""

import json
import logging
import queue
import random
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from edge_app.errors import UserError
from edge_app.measurement.calibration import Calibration
from edge_app.messaging.embedded_broker import EmbeddedBroker
from edge_app.messaging.link import NO_SUBSCRIBERS, Link, LinkEvent, ProtocolChoice, Will, tls_context
from edge_app.messaging.messages import Info, Message, State, Status, utc_text
from edge_app.messaging.mqtt_url import BrokerAddress, broker_address
from edge_app.messaging.outbox import (
    IN_FLIGHT_LIMIT,
    PendingRecord,
    PendingRegistry,
    RunOutbox,
    WaitingMessage,
    default_state_dir,
)
from edge_app.messaging.provenance import calibration_words
from edge_app.messaging.settings import MqttSettings
from edge_app.messaging.topics import TOPIC_RULES, Topics

__all__ = ["DeliveryReport", "Publisher", "PublisherCounters"]

log = logging.getLogger(__name__)

_POLL_S: Final = 1.0
"""Longest time between two looks into the outboxes, whether or not somebody called ``notify``."""
_PROBE_S: Final = 1.0
"""Pause between two tries of a window that nobody heard."""
_REFUSED_PAUSE_S: Final = 10.0
"""Pause after the broker refused a message that it may take later (access rules, quota)."""


@dataclass(frozen=True, kw_only=True)
class PublisherCounters:
    """Counters since the start of the process.

    Attributes
    ----------
    published
        Outbox messages that the broker has acknowledged.
    waiting
        Outbox messages on disk that it has not.
    reconnects
        Links made after the first.
    merged
        Windows that became part of another because too many waited.
    discarded
        Volatile messages (``stats``) made while there was no link.
    refused
        Messages that the broker answered with a refusal; they wait.
    """

    published: int = 0
    waiting: int = 0
    reconnects: int = 0
    merged: int = 0
    discarded: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class DeliveryReport:
    """What became of the outbox: ``delivered`` since the start, ``waiting`` on disk for the next start."""

    delivered: int
    waiting: int


@dataclass(kw_only=True)
class _Source:
    """An outbox being drained."""

    pending: PendingRecord
    outbox: RunOutbox
    adopted: bool
    growing: bool
    cursor: int = 0
    replay_upto: int = 0
    acknowledged: set[int] = field(default_factory=set)
    unheard: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Sent:
    source: _Source
    message: WaitingMessage
    at: float


@dataclass(frozen=True)
class _Command:
    kind: Literal["wake", "status", "info", "attach", "stop"]
    record: Path | None = None
    run_id: str = ""
    pending: PendingRecord | None = None


@dataclass(frozen=True)
class _Volatile:
    topic: str
    payload: str


class Publisher:
    """Publishes a device's messages; nothing here ever waits for the network in the caller's thread.

    Parameters
    ----------
    settings
        Broker, names and limits. With ``url="off"`` every method is there and does nothing.
    boot_id
        Of this start of the program, ``[a-z0-9-]``.
    info
        What the device is; site, device and boot id are filled in.
    calibration
        The one that numbers are made with, stated in every status; None where nothing is measured.
    state_dir
        Where it is noted which run records hold waiting messages; None: :func:`default_state_dir`.

    Raises
    ------
    UserError
        If the broker's URL, password file or certificates cannot be used.

    Examples
    --------
    >>> publisher = Publisher(MqttSettings(url="off"), boot_id="b1", info={"app_version": "0.1"})
    >>> publisher.start()
    >>> publisher.stop()
    DeliveryReport(delivered=0, waiting=0)
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        boot_id: str,
        info: Info | Mapping[str, Any],
        calibration: Calibration | None = None,
        state_dir: Path | None = None,
    ) -> None:
        self.settings = settings
        self.boot_id = boot_id
        self._calibration = calibration
        self.topics = Topics.from_settings(settings)
        self._state_dir = default_state_dir() if state_dir is None else state_dir
        self._registry = PendingRegistry(self._state_dir)
        self._embedded = settings.url == "embedded"
        self._address: BrokerAddress | None = None
        if settings.enabled and not self._embedded:
            self._address = broker_address(settings.url, settings)
            if self._address.tls:
                tls_context(self._address)
        self._info = self._complete(info)
        self._status = self._status_now("init")
        self._events: queue.SimpleQueue[LinkEvent | _Command | _Volatile] = queue.SimpleQueue()
        self._wake_pending = threading.Event()
        self._connected = threading.Event()
        self._finished = threading.Event()
        self._counters = PublisherCounters()
        self._problem = ""
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        # Below: touched by the worker's thread only.
        self._broker: EmbeddedBroker | None = None
        self._sources: list[_Source] = []
        self._sent: dict[int, _Sent] = {}
        self._own_mids: set[int] = set()
        # The embedded broker speaks 3.1.1 alone: no need to ask it.
        self._protocol = ProtocolChoice(first=4 if self._embedded else 5)
        self._outage = False
        self._links = 0
        self._heard = False
        self._pause_until = 0.0
        self._probing = False
        self._next_upkeep = 0.0
        self._conflict_told = False
        self._started_at = time.monotonic()
        self._random = random.Random(boot_id)

    # What the pipeline calls ------------------------------------------------------------------------------------

    @property
    def enabled(self) -> bool:
        """Whether anything is published; if not, no outbox rows need be made."""
        return self.settings.enabled

    @property
    def connected(self) -> bool:
        """Whether a broker has accepted this device and the link stands."""
        return self._connected.is_set()

    @property
    def url(self) -> str:
        """The broker for people to read and to subscribe to (no password); empty if off or not yet started."""
        return "" if self._address is None else str(self._address)

    @property
    def problem(self) -> str:
        """Why there is no link, one line; empty if there is one."""
        return self._problem

    def start(self) -> None:
        """Start the thread: broker if embedded, leftovers of earlier processes, connection."""
        if self.enabled and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="mqtt-publisher", daemon=True)
            self._thread.start()

    def wait_connected(self, timeout_s: float) -> bool:
        """Wait for the link at most so long; whether it is there."""
        return self._connected.wait(timeout_s)

    def attach(self, record: Path, run_id: str) -> None:
        """Drain this run record's outbox from now on; runs attached before are drained to their end.

        To be called once the record exists and before its first window is committed, so that none is forgotten by a
        kill right after. Attaching a record again, for example one of an earlier process that was closed just now, is
        allowed.
        """
        if not self.enabled:
            return
        self._events.put(_Command("attach", record, run_id, self._registry.claim(record, run_id, boot_id=self.boot_id)))

    def notify(self) -> None:
        """Say that new messages are committed."""
        if self.enabled and not self._wake_pending.is_set():
            self._wake_pending.set()
            self._events.put(_Command("wake"))

    def publish_volatile(self, kind: str, payload: Message | Mapping[str, Any] | str) -> None:
        """Publish something that is worth nothing later (``stats``); gone if there is no link."""
        if not self.enabled:
            return
        text = payload if isinstance(payload, str) else _json(payload)
        self._events.put(_Volatile(self.topics.of(kind), text))

    def set_status(self, state: State, run_id: str | None = None, *, detail: str = "") -> None:
        """Set the device's state; published now and after every reconnection."""
        self._status = self._status_now(state, run_id=run_id, detail=detail)
        if self.enabled:
            self._events.put(_Command("status"))

    def set_info(self, info: Info | Mapping[str, Any]) -> None:
        """Replace what the device says of itself, for example after a change of the calibration."""
        self._info = self._complete(info)
        if self.enabled:
            self._events.put(_Command("info"))

    def counters(self) -> PublisherCounters:
        """Counters for ``stats``."""
        return self._counters

    def stop(self, flush_s: float | None = None) -> DeliveryReport:
        """Deliver what waits, for at most ``flush_s`` (default: the settings'), say goodbye and end.

        What is not delivered stays on disk and goes out at the next start. Safe to call twice.
        """
        if self._thread is None:
            return DeliveryReport(delivered=0, waiting=0)
        if self._deadline is None:
            flush = self.settings.flush_s if flush_s is None else flush_s
            self._deadline = time.monotonic() + flush
            self._events.put(_Command("stop"))
        # Room for the goodbye and for a connection attempt that is under way.
        self._finished.wait(max(self._deadline - time.monotonic(), 0.0) + self.settings.connect_timeout_s + 3.0)
        return DeliveryReport(delivered=self._counters.published, waiting=self._counters.waiting)

    # The thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._adopt()
            pause = self.settings.reconnect_min_s
            while not self._time_is_up():
                link = self._connect()
                if link is not None:
                    pause = self.settings.reconnect_min_s
                    if self._serve(link):
                        break
                self._outage = True
                self._offline(pause * self._random.uniform(0.5, 1.0))
                longest = self.settings.reconnect_max_s if self._deadline is None else self.settings.reconnect_min_s
                pause = min(2.0 * pause, longest)
                if self._deadline is not None and not any(self._look(s) for s in self._sources):
                    break
        except Exception:
            # A fault here must not end a measurement: what is not sent waits on disk.
            log.exception("publishing ended; messages wait on disk for the next start")
        finally:
            self._connected.clear()
            self._end()
            self._finished.set()

    def _adopt(self) -> None:
        for pending in self._registry.adopt():
            log.info("%s holds messages of an earlier process", pending.record)
            self._open(pending, adopted=True)

    def _attach(self, command: _Command) -> None:
        if any(source.pending.run_id == command.run_id for source in self._sources):
            return
        assert command.record is not None
        # No claim: another process holds the record, or this one did until just now.
        pending = command.pending or self._registry.claim(command.record, command.run_id, boot_id=self.boot_id)
        if pending is None:
            log.error("%s: its messages are published by another process", command.record)
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
            for source in self._sources:
                source.growing = False
        self._sources.append(_Source(pending=pending, outbox=outbox, adopted=adopted, growing=not adopted))

    def _time_is_up(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _next(self, timeout_s: float) -> LinkEvent | _Command | _Volatile | None:
        try:
            return self._events.get(timeout=max(timeout_s, 0.0)) if timeout_s > 0 else self._events.get_nowait()
        except queue.Empty:
            return None

    def _offline(self, pause_s: float) -> None:
        """Wait before the next attempt; keeps the outboxes small meanwhile."""
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0 and not self._time_is_up():
            if self._deadline is not None:
                left = min(left, max(self._deadline - time.monotonic(), 0.0))
            event = self._next(min(left, _POLL_S))
            self._handle_offline(event)
            self._upkeep()
            if isinstance(event, _Command) and event.kind == "stop":
                # Worth one more try at once.
                return

    def _handle_offline(self, event: LinkEvent | _Command | _Volatile | None) -> None:
        if isinstance(event, _Volatile):
            self._counters = replace(self._counters, discarded=self._counters.discarded + 1)
        elif isinstance(event, _Command):
            self._handle_command(event)

    def _handle_command(self, command: _Command) -> None:
        if command.kind == "attach":
            self._attach(command)
        elif command.kind == "wake":
            self._wake_pending.clear()

    def _connect(self) -> Link | None:
        """One attempt, with the older protocol right after it where the broker does not speak the newer."""
        if not self._ensure_broker():
            return None
        for _ in range(2):
            link, problem, again = self._attempt()
            if link is not None:
                return link
            if not again:
                break
        self._tell(problem)
        return None

    def _ensure_broker(self) -> bool:
        if not self._embedded:
            return True
        if self._broker is None or not self._broker.running:
            port = self._broker.port if self._broker is not None and self._broker.port else self.settings.embedded_port
            self._broker = EmbeddedBroker(port=port, state_dir=self._state_dir)
            try:
                self._broker.start()
            except (UserError, OSError) as error:
                self._tell(str(error))
                return False
        self._address = broker_address(self._broker.url)
        return True

    def _attempt(self) -> tuple[Link | None, str, bool]:
        """Connect and wait for the answer: the link, or what is wrong and whether to try the other protocol version."""
        assert self._address is not None
        lost = self._status_now("lost")
        link = Link(
            self._address,
            client_id=f"{self.topics.device}-{self.boot_id}",
            version=self._protocol.version,
            events=self._events,
            will=Will(topic=self.topics.of("status"), payload=lost.payload(), delay_s=self.settings.will_delay_s),
            keepalive_s=self.settings.keepalive_s,
            connect_timeout_s=self.settings.connect_timeout_s,
        )
        link.connect()
        until = time.monotonic() + self._protocol.patience_s(self.settings.connect_timeout_s)
        while (left := until - time.monotonic()) > 0:
            event = self._next(left)
            if not isinstance(event, LinkEvent):
                self._handle_offline(event)
                continue
            if event.link is not link:
                continue
            if event.kind == "open":
                self._protocol.worked()
                return link, "", False
            if event.kind in ("refused", "closed"):
                link.drop()
                return None, f"{self._address} {event.text}", self._protocol.failed(event)
        link.drop()
        return None, f"{self._address} does not answer", self._protocol.failed(None)

    def _tell(self, problem: str) -> None:
        """Say why there is no link, once per reason."""
        if problem != self._problem:
            log.warning("no link to the broker: %s; messages wait on disk", problem)
        self._problem = problem

    def _serve(self, link: Link) -> bool:
        """Use the link until it is lost (False) or everything is said and done (True)."""
        self._links += 1
        self._problem = ""
        self._counters = replace(self._counters, reconnects=self._links - 1)
        self._sent.clear()
        self._own_mids.clear()
        self._pause_until, self._probing = 0.0, False
        linked_at = time.monotonic()
        for source in self._sources:
            source.cursor = 0
            source.unheard.clear()
            if source.adopted or self._outage:
                source.outbox.drop_superseded()
            source.replay_upto = source.outbox.last_id() if self._outage else 0
        link.subscribe(self.topics.of("status"))
        self._say(link, "info", self._info.payload())
        self._say(link, "status", self._status.payload())
        log.info("connected to %s, MQTT %s", self._address, "5" if self._protocol.version == 5 else "3.1.1")
        self._connected.set()
        try:
            while True:
                self._fill(link)
                if self._deadline is not None and (self._time_is_up() or self._is_drained()):
                    self._goodbye(link)
                    return True
                event = self._next(self._patience())
                # Everything that has come in is taken before the disk is touched again: one deletion for many.
                while event is not None:
                    if isinstance(event, LinkEvent) and event.link is link and event.kind == "closed":
                        self._tell(f"{self._address} {event.text}")
                        link.drop()
                        return False
                    self._handle_online(link, event, linked_at)
                    event = self._next(0.0)
                self._forget_delivered()
                if self._is_dead(link):
                    self._tell(f"{self._address} does not acknowledge")
                    link.drop()
                    return False
                self._upkeep()
        finally:
            self._connected.clear()
            self._forget_delivered()

    def _say(self, link: Link, kind: str, payload: str) -> None:
        rule = TOPIC_RULES[kind]
        mid = link.publish(self.topics.of(kind), payload, qos=rule.qos, retain=rule.retain)
        if mid is not None and rule.qos:
            self._own_mids.add(mid)

    def _patience(self) -> float:
        now = time.monotonic()
        waits = [_POLL_S]
        if self._pause_until > now:
            waits.append(self._pause_until - now)
        if self._deadline is not None:
            waits.append(max(self._deadline - now, 0.001))
        return min(waits)

    def _is_drained(self) -> bool:
        return not self._sent and not any(s.acknowledged or s.unheard or self._look(s) for s in self._sources)

    def _look(self, source: _Source) -> bool:
        """Whether anything waits in an outbox."""
        try:
            return source.outbox.last_id() > 0
        except sqlite3.Error:
            return True

    def _is_dead(self, link: Link) -> bool:
        oldest = min((s.at for s in self._sent.values()), default=None)
        return not link.alive or (oldest is not None and time.monotonic() - oldest > self.settings.ack_timeout_s)

    def _handle_online(self, link: Link, event: LinkEvent | _Command | _Volatile, linked_at: float) -> None:
        if isinstance(event, _Volatile):
            link.publish(event.topic, event.payload, qos=0, retain=False)
        elif isinstance(event, _Command):
            self._handle_command(event)
            if event.kind == "status":
                self._say(link, "status", self._status.payload())
            elif event.kind == "info":
                self._say(link, "info", self._info.payload())
        elif event.link is link and event.kind == "ack":
            self._handle_ack(event, linked_at)
        elif event.link is link and event.kind == "message":
            self._handle_status_message(link, event)

    def _handle_ack(self, event: LinkEvent, linked_at: float) -> None:
        self._own_mids.discard(event.mid)
        sent = self._sent.pop(event.mid, None)
        if sent is None:
            return
        source, message = sent.source, sent.message
        if event.code >= 0x80:
            # Not delivered, whatever the reason: it stays first in the queue, and is tried again after a pause.
            source.unheard.add(message.id)
            self._pause_until = time.monotonic() + _REFUSED_PAUSE_S
            self._counters = replace(self._counters, refused=self._counters.refused + 1)
            self._tell(f"{self._address} refuses {message.topic}: {event.text}")
            return
        is_window = message.kind == "histogram"
        if is_window and event.code == NO_SUBSCRIBERS and self._awaits_listeners(source, message, linked_at):
            source.unheard.add(message.id)
            self._pause_until = time.monotonic() + _PROBE_S
            self._probing = True
            return
        if is_window and event.code != NO_SUBSCRIBERS:
            self._heard = self._heard or self._protocol.version == 5
            self._probing = False
        source.acknowledged.add(message.id)

    def _awaits_listeners(self, source: _Source, message: WaitingMessage, linked_at: float) -> bool:
        """Whether a window that nobody heard should wait.

        After an outage the subscribers reconnect too, and often later than we: what is published before they are back
        is lost to them though the broker has acknowledged it. So where there were listeners before, windows that waited
        are held back until there are some again, for a limited time.
        """
        in_grace = time.monotonic() - linked_at < self.settings.listener_grace_s
        return self._heard and in_grace and (message.id <= source.replay_upto or self._probing)

    def _handle_status_message(self, link: Link, event: LinkEvent) -> None:
        """Correct a `lost` that is not true any more: a late will of an earlier link or an earlier process."""
        try:
            body = json.loads(event.payload)
            state, boot_id = body["state"], body["boot_id"]
        except (ValueError, KeyError, TypeError):
            return
        if state == "lost":
            self._say(link, "status", self._status.payload())
            return
        # Right after a start this is the retained state of the process before; only a later one is a rival.
        rival = boot_id != self.boot_id and state != "disconnected" and time.monotonic() - self._started_at > 30.0
        if rival and not self._conflict_told:
            self._conflict_told = True
            log.warning("another device publishes as %s; give each its own mqtt.device", self.topics.root)

    def _fill(self, link: Link) -> None:
        """Send what waits, oldest run first, as far as the window in flight allows."""
        if time.monotonic() < self._pause_until:
            return
        limit = 1 if self._probing else IN_FLIGHT_LIMIT
        for source in self._sources:
            if source.unheard:
                if any(s.source is source for s in self._sent.values()):
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
                    if message.id not in source.acknowledged and not self._send(link, source, message):
                        return
                    source.cursor = message.id
                if len(messages) < room:
                    break
            if len(self._sent) >= limit:
                return

    def _send(self, link: Link, source: _Source, message: WaitingMessage) -> bool:
        replayed = source.adopted or message.id <= source.replay_upto
        payload = message.replayed_payload() if replayed else message.payload
        mid = link.publish(message.topic, payload, qos=message.qos, retain=message.retain)
        if mid is None:
            return False
        if message.qos == 0:
            source.acknowledged.add(message.id)
        else:
            self._sent[mid] = _Sent(source, message, time.monotonic())
        return True

    def _forget_delivered(self) -> None:
        """Delete what is acknowledged; if the disk does not let us, again later."""
        for source in self._sources:
            if not source.acknowledged:
                continue
            try:
                source.outbox.delete(sorted(source.acknowledged))
            except sqlite3.Error as error:
                log.warning("%s: delivered messages cannot be deleted (%s)", source.pending.record, error)
                continue
            self._counters = replace(self._counters, published=self._counters.published + len(source.acknowledged))
            source.acknowledged.clear()

    def _upkeep(self) -> None:
        """Once in a while: count what waits, merge where it is too much, let go of runs that are done."""
        now = time.monotonic()
        if now < self._next_upkeep:
            return
        self._next_upkeep = now + _POLL_S
        waiting, merged = 0, 0
        for source in list(self._sources):
            try:
                count = source.outbox.count()
                if count > self.settings.max_waiting_windows:
                    source.outbox.drop_superseded()
                    # Down to half, so that it is not done again for every new window.
                    if source.outbox.count_windows() > self.settings.max_waiting_windows:
                        merged += source.outbox.merge(keep=self.settings.max_waiting_windows // 2)
                    count = source.outbox.count()
            except sqlite3.Error as error:
                log.warning("%s: waiting messages cannot be counted (%s)", source.pending.record, error)
                continue
            waiting += count
            if count == 0 and not source.growing and not source.acknowledged:
                self._release(source, done=True)
        self._counters = replace(self._counters, waiting=waiting, merged=self._counters.merged + merged)

    def _release(self, source: _Source, *, done: bool) -> None:
        source.outbox.close()
        source.pending.release(done=done)
        self._sources.remove(source)

    def _goodbye(self, link: Link) -> None:
        """Say `disconnected` and wait a moment for the broker to have it."""
        self._status = self._status_now("disconnected")
        self._say(link, "status", self._status.payload())
        until = time.monotonic() + 2.0
        while self._own_mids and (left := until - time.monotonic()) > 0:
            event = self._next(left)
            if isinstance(event, LinkEvent) and event.link is link:
                if event.kind == "closed":
                    break
                if event.kind == "ack":
                    self._handle_ack(event, 0.0)
        link.close()

    def _end(self) -> None:
        while (event := self._next(0.0)) is not None:
            if isinstance(event, _Command):
                self._handle_command(event)
        waiting = 0
        for source in list(self._sources):
            try:
                count = source.outbox.count()
            except sqlite3.Error:
                count = 1
            waiting += count
            self._release(source, done=count == 0)
        self._counters = replace(self._counters, waiting=waiting)
        if self._broker is not None:
            self._broker.stop()

    def _status_now(self, state: State, *, run_id: str | None = None, detail: str = "") -> Status:
        known = {} if self._calibration is None else dict(calibration_words(self._calibration))
        return Status.model_validate(
            {"state": state, "boot_id": self.boot_id, "since": utc_text(), "run_id": run_id, "detail": detail, **known}
        )

    def _complete(self, info: Info | Mapping[str, Any]) -> Info:
        names = {"site": self.topics.site, "device": self.topics.device, "boot_id": self.boot_id}
        if isinstance(info, Info):
            return info.model_copy(update=names)
        return Info.model_validate({**info, **names})


def _json(payload: Message | Mapping[str, Any]) -> str:
    if isinstance(payload, Message):
        return payload.payload()
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
