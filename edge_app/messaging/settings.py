"""Options of the link to the lab network."""

import re
import socket
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["IDENTIFIER", "MqttSettings", "identifier_from"]

IDENTIFIER = re.compile(r"[a-z0-9-]+")
"""What a site's, a device's and a run's name is made of, so that it fits in a topic, a file name and a URL."""


def identifier_from(name: str, *, fallback: str = "device") -> str:
    """Make a name fit for a topic: lower case, everything else than ``[a-z0-9]`` becomes one ``-``.

    Examples
    --------
    >>> identifier_from("Lab_3.MFI")
    'lab-3-mfi'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or fallback


class MqttSettings(BaseModel):
    """Where results are published and how hard the link is kept.

    Examples
    --------
    >>> MqttSettings(url="mqtts://results@broker.lab.example", site="basel", device="mfi-3").root
    'mfi/1/basel/mfi-3'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        "embedded",
        description='"embedded" (own broker on 127.0.0.1), "off", or mqtt://, mqtts://, ws://, wss:// user@host:port',
    )
    site: str = Field("lab", description="Second level of every topic, [a-z0-9-]")
    device: str = Field("", description="Third level of every topic, [a-z0-9-]; empty: made of the host's name")
    prefix: str = Field("mfi", description="First level of every topic")
    username: str = Field("", description="User where the URL names none")
    password_file: Path | None = Field(
        None, description="File with the password; the environment variable EDGE_APP_MQTT_PASSWORD goes before it"
    )
    ca_file: Path | None = Field(None, description="CA certificate (PEM) of the broker; empty: the system's own")
    client_cert_file: Path | None = Field(None, description="This device's certificate (PEM)")
    client_key_file: Path | None = Field(None, description="Key of this device's certificate (PEM)")
    check_hostname: bool = Field(True, description="Whether the broker's certificate must bear its host name")
    allow_insecure: bool = Field(False, description="Allow an unencrypted link without a password to another machine")
    keepalive_s: int = Field(20, ge=5, le=3600, description="Longest silence before a dead link is noticed")
    will_delay_s: int = Field(
        5, ge=0, le=60, description="How long the broker waits before it says that this device is lost (MQTT 5)"
    )
    connect_timeout_s: float = Field(5.0, gt=0, le=60, description="Longest wait for the broker's answer")
    reconnect_min_s: float = Field(0.5, gt=0, le=60, description="First pause before connecting again")
    reconnect_max_s: float = Field(15.0, gt=0, le=3600, description="Longest pause before connecting again")
    ack_timeout_s: float = Field(30.0, gt=0, le=600, description="An unanswered message ends the link after this")
    listener_grace_s: float = Field(
        120.0,
        ge=0,
        le=3600,
        description="After an outage, how long windows wait for the listeners that there were before it (MQTT 5)",
    )
    max_waiting_windows: int = Field(
        3600, ge=60, description="More waiting windows of a run than this are merged in pairs; none is dropped"
    )
    flush_s: float = Field(5.0, ge=0, le=600, description="Longest wait at the end of a run for what is not delivered")
    embedded_port: int = Field(
        1883, ge=0, le=65535, description="Port of the embedded broker; a free one if it is taken or 0"
    )

    @field_validator("site", "device", "prefix")
    @classmethod
    def _identifier(cls, value: str) -> str:
        if value and not IDENTIFIER.fullmatch(value):
            raise ValueError(f"is {value!r}, may hold only a-z, 0-9 and -")
        return value

    @field_validator("site", "prefix")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value:
            raise ValueError("must not be empty")
        return value

    @property
    def enabled(self) -> bool:
        """Whether anything is published at all."""
        return self.url != "off"

    @property
    def device_id(self) -> str:
        """The device's name in topics."""
        return self.device or identifier_from(socket.gethostname())

    @property
    def root(self) -> str:
        """Root of every topic; ``1`` is the major version of the tree."""
        return f"{self.prefix}/1/{self.site}/{self.device_id}"
