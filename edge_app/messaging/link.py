"""One connection to a broker: connected once, dropped once, never reused.

A link reports everything that happens to it as :class:`LinkEvent` objects in the queue of its owner, so that the owner
works in one thread and needs no lock.
"""

import contextlib
import queue
import ssl
from dataclasses import dataclass
from typing import Any, Final, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_app.errors import UserError
from edge_app.messaging.mqtt_url import BrokerAddress

__all__ = ["NO_SUBSCRIBERS", "Link", "LinkEvent", "ProtocolChoice", "Will", "tls_context"]

NO_SUBSCRIBERS: Final = 0x10
"""Reason of a PUBACK: taken by the broker, but nobody is subscribed (MQTT 5)."""

UNSUPPORTED_PROTOCOL: Final = 0x84
"""Reason of a refusal: another version of MQTT is needed (a 3.1.1 broker says 1, which paho translates)."""

_FIRST_ANSWER_S: Final = 2.0

_SESSION_S: Final = 60
"""How much longer than the will's delay a session lives on (MQTT 5): without a session the delay would be 0."""


@dataclass(frozen=True, kw_only=True)
class LinkEvent:
    """What a link tells its owner.

    ``open``: accepted by the broker. ``refused``: answered with a refusal, or not reachable. ``closed``: lost, or
    ended without an answer. ``ack``: message ``mid`` acknowledged with ``code``. ``message``: something received.
    """

    kind: Literal["open", "refused", "closed", "ack", "message"]
    link: "Link"
    code: int = 0
    text: str = ""
    mid: int = 0
    topic: str = ""
    payload: bytes = b""


class ProtocolChoice:
    """Which version of MQTT the broker speaks: 5 if it can, else 3.1.1, as its own answers tell.

    A broker of the older kind refuses with its own code, closes the connection without an answer, or (amqtt, where
    there is a will) waits for the rest of a greeting that it misreads. The version that worked is kept; it is
    questioned again only by such an answer.
    """

    def __init__(self, *, first: Literal[4, 5] = 5) -> None:
        self.version: Literal[4, 5] = first
        self._worked = False

    def worked(self) -> None:
        """The broker accepted a link of this version."""
        self._worked = True

    def patience_s(self, longest_s: float) -> float:
        """How long to wait for an answer: not long for the first answer to a version that may not be understood."""
        return longest_s if self._worked or self.version == 4 else min(longest_s, _FIRST_ANSWER_S)

    def failed(self, event: "LinkEvent | None") -> bool:
        """The attempt ended with this event (None: without any); whether to try the other version right now."""
        if event is not None and event.kind != "closed" and event.code != UNSUPPORTED_PROTOCOL:
            return False
        self.version = 4 if self.version == 5 else 5
        # Where this version had worked, it may as well be a broker that is just going down: no hurry then.
        now, self._worked = not self._worked, False
        return now


@dataclass(frozen=True, kw_only=True)
class Will:
    """What the broker says for a device that went without a word: retained, QoS 1."""

    topic: str
    payload: str
    delay_s: int = 0


class _HandshakeSocket(ssl.SSLSocket):
    """A socket that does not outlive a handshake that failed: the client library forgets it without closing it."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError:
            self.close()
            raise


def tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """TLS as the address asks for.

    Raises
    ------
    UserError
        If a certificate or key cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=str(address.ca_file) if address.ca_file else None)
        if address.client_cert_file and address.client_key_file:
            # An empty password makes a protected key an error instead of a question on the terminal.
            context.load_cert_chain(str(address.client_cert_file), str(address.client_key_file), password="")
    except (ssl.SSLError, OSError) as error:
        names = ", ".join(str(f) for f in (address.ca_file, address.client_cert_file, address.client_key_file) if f)
        raise UserError(f"mqtt: certificate or key cannot be read ({names}): {error}") from error
    context.check_hostname = address.check_hostname
    context.sslsocket_class = _HandshakeSocket
    return context


class Link:
    """A connection attempt and, if it succeeds, the connection.

    Parameters
    ----------
    address
        The broker.
    client_id
        Unique at the broker.
    version
        5 for MQTT 5, 4 for MQTT 3.1.1.
    events
        Gets a :class:`LinkEvent` for everything that happens.
    will
        Last Will, None for a subscriber.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        client_id: str,
        version: Literal[4, 5],
        events: "queue.SimpleQueue[Any]",
        will: Will | None = None,
        keepalive_s: int = 20,
        connect_timeout_s: float = 5.0,
    ) -> None:
        self.address = address
        self.version = version
        self._events = events
        self._will = will
        self._keepalive_s = keepalive_s
        self._opened = False
        self._ended = False
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311,
            clean_session=True if version == 4 else None,
            transport=address.transport,
            reconnect_on_failure=False,
        )
        client.connect_timeout = connect_timeout_s
        if address.transport == "websockets":
            client.ws_set_options(path=address.path)
        if address.username:
            client.username_pw_set(address.username, address.password or None)
        if address.tls:
            client.tls_set_context(tls_context(address))
        if will is not None:
            properties = None
            if version == 5:
                properties = Properties(PacketTypes.WILLMESSAGE)
                properties.WillDelayInterval = will.delay_s
            client.will_set(will.topic, will.payload, qos=1, retain=True, properties=properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        self._client = client
        self._properties: Properties | None = None
        if version == 5:
            self._properties = Properties(PacketTypes.PUBLISH)
            self._properties.PayloadFormatIndicator = 1
            self._properties.ContentType = "application/json"

    def connect(self) -> None:
        """Connect; blocks for the network's answer, at most the connect timeout. The result is an event."""
        properties = None
        if self.version == 5 and self._will is not None:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = _SESSION_S + self._will.delay_s
        try:
            self._client.connect(
                self.address.host,
                self.address.port,
                keepalive=self._keepalive_s,
                # Resuming the session is what stops the delayed will of the link before.
                clean_start=self._will is None if self.version == 5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        except (OSError, ValueError, mqtt.WebsocketConnectionError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._end("refused", code=-1, text=f"not reachable: {reason}")
            return
        self._client.loop_start()

    @property
    def alive(self) -> bool:
        """Whether the broker accepted the link and it is not known to be broken."""
        return self._opened and not self._ended and self._client.is_connected()

    def publish(self, topic: str, payload: str, *, qos: int, retain: bool) -> int | None:
        """Send a message; its number for the acknowledgement, None if the link is down."""
        info = self._client.publish(topic, payload.encode(), qos=qos, retain=retain, properties=self._properties)
        return info.mid if info.rc == mqtt.MQTT_ERR_SUCCESS else None

    def subscribe(self, topic: str, *, qos: int = 1) -> None:
        """Ask for messages."""
        self._client.subscribe(topic, qos=qos)

    def close(self) -> None:
        """End in order: the broker forgets the will."""
        self._ended = True
        with contextlib.suppress(Exception):
            self._client.disconnect()
        self._client.loop_stop()

    def drop(self) -> None:
        """End without a word, as a dead network would: the will stays in force."""
        self._ended = True
        sock = self._client.socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.close()
        self._client.loop_stop()

    def _end(self, kind: Literal["refused", "closed"], *, code: int, text: str) -> None:
        if not self._ended:
            self._ended = True
            self._events.put(LinkEvent(kind=kind, link=self, code=code, text=text))

    def _on_connect(self, _c: mqtt.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Properties | None) -> None:
        if reason.is_failure:
            self._end("refused", code=reason.value, text=f"refused: {str(reason).lower()}")
            return
        self._opened = True
        self._events.put(LinkEvent(kind="open", link=self))

    def _on_disconnect(self, _c: mqtt.Client, _u: Any, _f: Any, reason: ReasonCode, _p: Properties | None) -> None:
        text = f"lost: {str(reason).lower()}" if self._opened else f"closed without an answer: {str(reason).lower()}"
        self._end("closed", code=reason.value, text=text)

    def _on_publish(self, _c: mqtt.Client, _u: Any, mid: int, reason: ReasonCode, _p: Properties | None) -> None:
        self._events.put(LinkEvent(kind="ack", link=self, mid=mid, code=reason.value, text=str(reason).lower()))

    def _on_message(self, _c: mqtt.Client, _u: Any, message: mqtt.MQTTMessage) -> None:
        self._events.put(LinkEvent(kind="message", link=self, topic=message.topic, payload=bytes(message.payload)))
