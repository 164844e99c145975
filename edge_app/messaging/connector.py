"""Makes links to the device's broker, one attempt at a time, and says why there is none."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from edge_app.errors import UserError
from edge_app.messaging.embedded_broker import EmbeddedBroker
from edge_app.messaging.link import Link, LinkEvent, ProtocolChoice, Will, tls_context
from edge_app.messaging.mailbox import Mail, Mailbox
from edge_app.messaging.mqtt_url import BrokerAddress, broker_address
from edge_app.messaging.settings import MqttSettings

__all__ = ["Connector"]

log = logging.getLogger(__name__)


class Connector:
    """The way to the broker, which is started here if it is the embedded one.

    Parameters
    ----------
    settings
        Broker and limits.
    client_id
        Unique at the broker.
    mailbox
        Gets what the links report.
    state_dir
        For the embedded broker: where its address is noted.
    will
        Made anew for each attempt.
    on_other_mail
        Given what comes in during an attempt and is not about its link.

    Raises
    ------
    UserError
        If the broker's URL, password file or certificates cannot be used.
    """

    def __init__(
        self,
        settings: MqttSettings,
        *,
        client_id: str,
        mailbox: Mailbox,
        state_dir: Path,
        will: Callable[[], Will],
        on_other_mail: Callable[[Mail | None], None],
    ) -> None:
        self.problem = ""
        self.address: BrokerAddress | None = None
        self._settings = settings
        self._client_id = client_id
        self._mailbox = mailbox
        self._state_dir = state_dir
        self._will = will
        self._on_other_mail = on_other_mail
        self._embedded = settings.url == "embedded"
        self._broker: EmbeddedBroker | None = None
        # The embedded broker speaks 3.1.1 alone: no need to ask it.
        self._protocol = ProtocolChoice(first=4 if self._embedded else 5)
        if settings.enabled and not self._embedded:
            self.address = broker_address(settings.url, settings)
            if self.address.tls:
                tls_context(self.address)

    def connect(self) -> Link | None:
        """One attempt, with the older protocol right after it where the broker does not speak the newer."""
        if not self._ensure_broker():
            return None
        for _ in range(2):
            link, problem, again = self._attempt()
            if link is not None:
                self.problem = ""
                return link
            if not again:
                break
        self.tell(problem)
        return None

    def tell(self, problem: str) -> None:
        """Say why there is no link, once per reason."""
        if problem != self.problem:
            log.warning("no link to the broker: %s; messages wait on disk", problem)
        self.problem = problem

    def close(self) -> None:
        """End the embedded broker, if there is one."""
        if self._broker is not None:
            self._broker.stop()

    def _ensure_broker(self) -> bool:
        if not self._embedded:
            return True
        if self._broker is None or not self._broker.running:
            port = self._broker.port if self._broker is not None and self._broker.port else self._settings.embedded_port
            self._broker = EmbeddedBroker(port=port, state_dir=self._state_dir)
            try:
                self._broker.start()
            except (UserError, OSError) as error:
                self.tell(str(error))
                return False
        self.address = broker_address(self._broker.url)
        return True

    def _attempt(self) -> tuple[Link | None, str, bool]:
        """Connect and wait for the answer: the link, or what is wrong and whether to try the other protocol version."""
        assert self.address is not None
        link = Link(
            self.address,
            client_id=self._client_id,
            version=self._protocol.version,
            events=self._mailbox,
            will=self._will(),
            keepalive_s=self._settings.keepalive_s,
            connect_timeout_s=self._settings.connect_timeout_s,
        )
        link.connect()
        until = time.monotonic() + self._protocol.patience_s(self._settings.connect_timeout_s)
        while (left := until - time.monotonic()) > 0:
            event = self._mailbox.next(left)
            if not isinstance(event, LinkEvent):
                self._on_other_mail(event)
                continue
            if event.link is not link:
                continue
            if event.kind == "open":
                self._protocol.worked()
                return link, "", False
            if event.kind in ("refused", "closed"):
                link.drop()
                return None, f"{self.address} {event.text}", self._protocol.failed(event)
        link.drop()
        return None, f"{self.address} does not answer", self._protocol.failed(None)
