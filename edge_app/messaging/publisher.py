"""Publishes a device's messages: what the measuring threads call, and the thread that serves the link for them."""

import json
import logging
import random
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_app.measurement.calibration import Calibration
from edge_app.messaging.backlog import UPKEEP_S, Backlog
from edge_app.messaging.connector import Connector
from edge_app.messaging.counters import DeliveryReport, PublisherCounters, Tally
from edge_app.messaging.delivery import Delivery
from edge_app.messaging.link import Link, LinkEvent, Will
from edge_app.messaging.mailbox import Command, Mail, Mailbox, Volatile
from edge_app.messaging.messages import Info, Message, State
from edge_app.messaging.outbox import PendingRegistry, default_state_dir
from edge_app.messaging.self_description import SelfDescription
from edge_app.messaging.settings import MqttSettings
from edge_app.messaging.topics import Topics

__all__ = ["Publisher"]

log = logging.getLogger(__name__)


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
        self.topics = Topics.from_settings(settings)
        state_dir = default_state_dir() if state_dir is None else state_dir
        self._self = SelfDescription(self.topics, boot_id=boot_id, info=info, calibration=calibration)
        self._mailbox = Mailbox()
        self._tally = Tally()
        self._registry = PendingRegistry(state_dir)
        self._wake_pending = threading.Event()
        self._connected = threading.Event()
        self._finished = threading.Event()
        self._deadline: float | None = None
        self._thread: threading.Thread | None = None
        self._connector = Connector(
            settings,
            client_id=f"{self.topics.device}-{boot_id}",
            mailbox=self._mailbox,
            state_dir=state_dir,
            will=self._will,
            on_other_mail=self._handle_offline,
        )
        # Below: touched by the worker's thread only.
        self._backlog = Backlog(
            self._registry, boot_id=boot_id, max_waiting_windows=settings.max_waiting_windows, tally=self._tally
        )
        self._outage = False
        self._links = 0
        self._heard = False
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
        return "" if self._connector.address is None else str(self._connector.address)

    @property
    def problem(self) -> str:
        """Why there is no link, one line; empty if there is one."""
        return self._connector.problem

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
        self._mailbox.put(Command("attach", record, run_id, self._registry.claim(record, run_id, boot_id=self.boot_id)))

    def notify(self) -> None:
        """Say that new messages are committed."""
        if self.enabled and not self._wake_pending.is_set():
            self._wake_pending.set()
            self._mailbox.put(Command("wake"))

    def publish_volatile(self, kind: str, payload: Message | Mapping[str, Any] | str) -> None:
        """Publish something that is worth nothing later (``stats``); gone if there is no link."""
        if not self.enabled:
            return
        text = payload if isinstance(payload, str) else _json(payload)
        self._mailbox.put(Volatile(self.topics.of(kind), text))

    def set_status(self, state: State, run_id: str | None = None, *, detail: str = "") -> None:
        """Set the device's state; published now and after every reconnection."""
        self._self.set_status(state, run_id=run_id, detail=detail)
        if self.enabled:
            self._mailbox.put(Command("status"))

    def set_info(self, info: Info | Mapping[str, Any]) -> None:
        """Replace what the device says of itself, for example after a change of the calibration."""
        self._self.set_info(info)
        if self.enabled:
            self._mailbox.put(Command("info"))

    def counters(self) -> PublisherCounters:
        """Counters for ``stats``."""
        return self._tally.now

    def stop(self, flush_s: float | None = None) -> DeliveryReport:
        """Deliver what waits, for at most ``flush_s`` (default: the settings'), say goodbye and end.

        What is not delivered stays on disk and goes out at the next start. Safe to call twice.
        """
        if self._thread is None:
            return DeliveryReport(delivered=0, waiting=0)
        if self._deadline is None:
            flush = self.settings.flush_s if flush_s is None else flush_s
            self._deadline = time.monotonic() + flush
            self._mailbox.put(Command("stop"))
        # Room for the goodbye and for a connection attempt that is under way.
        self._finished.wait(max(self._deadline - time.monotonic(), 0.0) + self.settings.connect_timeout_s + 3.0)
        return DeliveryReport(delivered=self._tally.now.published, waiting=self._tally.now.waiting)

    # The thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._backlog.adopt()
            pause = self.settings.reconnect_min_s
            while not self._time_is_up():
                link = self._connector.connect()
                if link is not None:
                    pause = self.settings.reconnect_min_s
                    if self._serve(link):
                        break
                self._outage = True
                self._offline(pause * self._random.uniform(0.5, 1.0))
                longest = self.settings.reconnect_max_s if self._deadline is None else self.settings.reconnect_min_s
                pause = min(2.0 * pause, longest)
                if self._deadline is not None and not self._backlog.holds_any():
                    break
        except Exception:
            # A fault here must not end a measurement: what is not sent waits on disk.
            log.exception("publishing ended; messages wait on disk for the next start")
        finally:
            self._connected.clear()
            self._end()
            self._finished.set()

    def _time_is_up(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _will(self) -> Will:
        lost = self._self.status_now("lost")
        return Will(topic=self.topics.of("status"), payload=lost.payload(), delay_s=self.settings.will_delay_s)

    def _offline(self, pause_s: float) -> None:
        """Wait before the next attempt; keeps the outboxes small meanwhile."""
        until = time.monotonic() + pause_s
        while (left := until - time.monotonic()) > 0 and not self._time_is_up():
            if self._deadline is not None:
                left = min(left, max(self._deadline - time.monotonic(), 0.0))
            event = self._mailbox.next(min(left, UPKEEP_S))
            self._handle_offline(event)
            self._backlog.upkeep()
            if isinstance(event, Command) and event.kind == "stop":
                # Worth one more try at once.
                return

    def _handle_offline(self, event: Mail | None) -> None:
        if isinstance(event, Volatile):
            self._tally.add(discarded=1)
        elif isinstance(event, Command):
            self._handle_command(event)

    def _handle_command(self, command: Command) -> None:
        if command.kind == "attach":
            assert command.record is not None
            self._backlog.attach(command.record, command.run_id, command.pending)
        elif command.kind == "wake":
            self._wake_pending.clear()

    def _serve(self, link: Link) -> bool:
        """Use the link until it is lost (False) or everything is said and done (True)."""
        self._links += 1
        self._tally.links(self._links)
        delivery = Delivery(
            link,
            backlog=self._backlog,
            topics=self.topics,
            tally=self._tally,
            on_problem=self._connector.tell,
            heard=self._heard,
            listener_grace_s=self.settings.listener_grace_s,
        )
        self._backlog.start_over(after_outage=self._outage)
        link.subscribe(self.topics.of("status"))
        delivery.say("info", self._self.info.payload())
        delivery.say("status", self._self.status.payload())
        log.info("connected to %s, MQTT %s", link.address, "5" if link.version == 5 else "3.1.1")
        self._connected.set()
        try:
            while True:
                delivery.fill()
                if self._deadline is not None and (self._time_is_up() or delivery.is_done):
                    self._goodbye(link, delivery)
                    return True
                event = self._mailbox.next(self._patience_s(delivery))
                # Everything that has come in is taken before the disk is touched again: one deletion for many.
                while event is not None:
                    if isinstance(event, LinkEvent) and event.link is link and event.kind == "closed":
                        self._connector.tell(f"{link.address} {event.text}")
                        link.drop()
                        return False
                    self._handle_online(link, delivery, event)
                    event = self._mailbox.next(0.0)
                self._backlog.forget_delivered()
                if not link.alive or delivery.oldest_unanswered_s() > self.settings.ack_timeout_s:
                    self._connector.tell(f"{link.address} does not acknowledge")
                    link.drop()
                    return False
                self._backlog.upkeep()
        finally:
            self._connected.clear()
            self._heard = delivery.heard
            self._backlog.forget_delivered()

    def _patience_s(self, delivery: Delivery) -> float:
        waits = [UPKEEP_S]
        if (pause_s := delivery.pause_s) > 0:
            waits.append(pause_s)
        if self._deadline is not None:
            waits.append(max(self._deadline - time.monotonic(), 0.001))
        return min(waits)

    def _handle_online(self, link: Link, delivery: Delivery, event: Mail) -> None:
        if isinstance(event, Volatile):
            link.publish(event.topic, event.payload, qos=0, retain=False)
        elif isinstance(event, Command):
            self._handle_command(event)
            if event.kind == "status":
                delivery.say("status", self._self.status.payload())
            elif event.kind == "info":
                delivery.say("info", self._self.info.payload())
        elif event.link is link and event.kind == "ack":
            delivery.take_answer(event)
        elif event.link is link and event.kind == "message":
            self._handle_status_message(delivery, event)

    def _handle_status_message(self, delivery: Delivery, event: LinkEvent) -> None:
        """Correct a `lost` that is not true any more: a late will of an earlier link or an earlier process."""
        try:
            body = json.loads(event.payload)
            state, boot_id = body["state"], body["boot_id"]
        except (ValueError, KeyError, TypeError):
            return
        if state == "lost":
            delivery.say("status", self._self.status.payload())
            return
        # Right after a start this is the retained state of the process before; only a later one is a rival.
        rival = boot_id != self.boot_id and state != "disconnected" and time.monotonic() - self._started_at > 30.0
        if rival and not self._conflict_told:
            self._conflict_told = True
            log.warning("another device publishes as %s; give each its own mqtt.device", self.topics.root)

    def _goodbye(self, link: Link, delivery: Delivery) -> None:
        """Say `disconnected` and wait a moment for the broker to have it."""
        self._self.set_status("disconnected")
        delivery.say("status", self._self.status.payload())
        until = time.monotonic() + 2.0
        while not delivery.own_said and (left := until - time.monotonic()) > 0:
            event = self._mailbox.next(left)
            if isinstance(event, LinkEvent) and event.link is link:
                if event.kind == "closed":
                    break
                if event.kind == "ack":
                    delivery.take_answer(event, may_hold=False)
        link.close()

    def _end(self) -> None:
        while (event := self._mailbox.next(0.0)) is not None:
            if isinstance(event, Command):
                self._handle_command(event)
        self._backlog.close()
        self._connector.close()


def _json(payload: Message | Mapping[str, Any]) -> str:
    if isinstance(payload, Message):
        return payload.payload()
    return json.dumps(payload, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
