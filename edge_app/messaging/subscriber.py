"""Listens to devices: keeps a subscription alive over outages, in a thread of its own."""

import logging
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable
from typing import Literal

from edge_app.messaging.link import Link, LinkEvent, ProtocolChoice
from edge_app.messaging.mqtt_url import BrokerAddress

__all__ = ["Subscriber"]

log = logging.getLogger(__name__)


class Subscriber:
    """Calls ``on_message(topic, payload)`` for everything that is published under a topic filter.

    Parameters
    ----------
    address
        The broker.
    topic_filter
        For example ``mfi/1/+/+/#``.
    on_message
        Called in the subscriber's thread, one message after the other.

    Examples
    --------
    >>> from edge_app.messaging.mqtt_url import broker_address
    >>> listener = Subscriber(broker_address("mqtt://127.0.0.1:1"), topic_filter="mfi/#", on_message=print)
    >>> listener.start(); listener.wait_settled(5.0); listener.connected; listener.stop()
    True
    False
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        topic_filter: str,
        on_message: Callable[[str, bytes], object],
        connect_timeout_s: float = 5.0,
        keepalive_s: int = 20,
        reconnect_max_s: float = 5.0,
    ) -> None:
        self.address = address
        self.problem = ""
        self._filter = topic_filter
        self._on_message = on_message
        self._connect_timeout_s = connect_timeout_s
        self._keepalive_s = keepalive_s
        self._reconnect_max_s = reconnect_max_s
        self._events: queue.SimpleQueue[LinkEvent | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._connected = threading.Event()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mqtt-subscriber", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the subscription stands."""
        return self._connected.is_set()

    @property
    def stopped(self) -> bool:
        """Whether it was told to end."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Start listening."""
        self._thread.start()

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until the first attempt has ended, either way; whether it has."""
        return self._settled.wait(timeout_s)

    def stop(self) -> None:
        """End the subscription."""
        self._stopping.set()
        self._events.put(None)
        if self._thread.is_alive():
            self._thread.join(self._connect_timeout_s + 2.0)

    def _run(self) -> None:
        protocol, pause = ProtocolChoice(), 0.2
        client_id = f"watch-{secrets.token_hex(6)}"
        while not self._stopping.is_set():
            link, again = self._attempt(protocol, client_id)
            if link is not None:
                pause = 0.2
                self._listen(link)
            elif again:
                continue
            self._settled.set()
            self._stopping.wait(pause * random.uniform(0.5, 1.0))
            pause = min(2.0 * pause, self._reconnect_max_s)

    def _attempt(self, protocol: ProtocolChoice, client_id: str) -> tuple[Link | None, bool]:
        version: Literal[4, 5] = protocol.version
        link = Link(
            self.address,
            client_id=client_id,
            version=version,
            events=self._events,
            keepalive_s=self._keepalive_s,
            connect_timeout_s=self._connect_timeout_s,
        )
        link.connect()
        until = time.monotonic() + protocol.patience_s(self._connect_timeout_s)
        while (left := until - time.monotonic()) > 0 and not self._stopping.is_set():
            try:
                event = self._events.get(timeout=left)
            except queue.Empty:
                break
            if event is None or event.link is not link:
                continue
            if event.kind == "open":
                protocol.worked()
                return link, False
            if event.kind in ("refused", "closed"):
                link.drop()
                self.problem = f"{self.address} {event.text}"
                return None, protocol.failed(event)
        link.drop()
        self.problem = f"{self.address} does not answer"
        return None, protocol.failed(None)

    def _listen(self, link: Link) -> None:
        link.subscribe(self._filter)
        self.problem = ""
        self._connected.set()
        self._settled.set()
        try:
            while not self._stopping.is_set():
                try:
                    event = self._events.get(timeout=1.0)
                except queue.Empty:
                    if link.alive:
                        continue
                    return
                if event is None or event.link is not link:
                    continue
                if event.kind == "closed":
                    self.problem = f"{self.address} {event.text}"
                    return
                if event.kind == "message":
                    try:
                        self._on_message(event.topic, event.payload)
                    except Exception:
                        # A message from elsewhere must not end the listening.
                        log.exception("message on %s", event.topic)
        finally:
            self._connected.clear()
            if self._stopping.is_set():
                link.close()
            else:
                link.drop()
