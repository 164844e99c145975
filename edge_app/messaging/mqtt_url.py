"""Broker addresses: what a user writes, checked, with passwords and certificates from where they belong."""

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, unquote, urlsplit

from edge_app.errors import UserError
from edge_app.messaging.settings import MqttSettings

__all__ = ["PASSWORD_VARIABLE", "BrokerAddress", "broker_address", "is_loopback", "redacted"]

PASSWORD_VARIABLE = "EDGE_APP_MQTT_PASSWORD"
"""Environment variable that holds the password of the broker."""

_SCHEMES: dict[str, tuple[Literal["tcp", "websockets"], bool, int]] = {
    "mqtt": ("tcp", False, 1883),
    "mqtts": ("tcp", True, 8883),
    "ws": ("websockets", False, 80),
    "wss": ("websockets", True, 443),
}


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """A broker that can be connected to. ``str()`` of it never shows the password."""

    host: str
    port: int
    transport: Literal["tcp", "websockets"] = "tcp"
    tls: bool = False
    path: str = "/mqtt"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    check_hostname: bool = True

    def __str__(self) -> str:
        scheme = next(name for name, form in _SCHEMES.items() if form[:2] == (self.transport, self.tls))
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.username}@" if self.username else ""
        path = self.path if self.transport == "websockets" else ""
        return f"{scheme}://{user}{host}:{self.port}{path}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself.

    Examples
    --------
    >>> is_loopback("localhost"), is_loopback("127.0.0.53"), is_loopback("::1"), is_loopback("10.0.0.1")
    (True, True, True, False)
    """
    if host.lower() in ("localhost", "ip6-localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def broker_address(url: str, settings: MqttSettings | None = None, *, key: str = "mqtt.url") -> BrokerAddress:
    """Read a broker URL, ``scheme://[user[:password]@]host[:port][/path][?allow_insecure=1]``.

    The password comes from the URL, else from ``EDGE_APP_MQTT_PASSWORD``, else from ``settings.password_file``.

    Parameters
    ----------
    url
        ``mqtt://`` (1883), ``mqtts://`` (8883), ``ws://`` (80) or ``wss://`` (443).
    settings
        User, certificates and whether an open link is allowed.
    key
        What an error calls the URL.

    Raises
    ------
    UserError
        If the URL, the password file or a certificate cannot be used, or if the link would be open to the network.

    Examples
    --------
    >>> str(broker_address("mqtts://results:secret@broker.lab.example"))
    'mqtts://results@broker.lab.example:8883'
    """
    settings = settings or MqttSettings()
    forms = "mqtt://, mqtts://, ws:// or wss:// host[:port]"
    try:
        parts = urlsplit(url.strip())
        port, host = parts.port, parts.hostname
    except ValueError as error:
        raise UserError(f"{key}: {redacted(url)!r} cannot be read ({error}); must be {forms}") from error
    if parts.scheme not in _SCHEMES or not host:
        raise UserError(f'{key}: {redacted(url)!r} is no broker; must be "embedded", "off", or {forms}')
    if port == 0:
        raise UserError(f"{key}: port is 0, must be 1 to 65535")
    query = parse_qs(parts.query)
    if unknown := sorted(set(query) - {"allow_insecure"}):
        raise UserError(f"{key}: unknown option {unknown[0]!r}, allowed is allow_insecure")
    transport, tls, default_port = _SCHEMES[parts.scheme]
    username = unquote(parts.username) if parts.username else settings.username
    password = unquote(parts.password) if parts.password else _password(settings)
    allowed = settings.allow_insecure or query.get("allow_insecure", ["0"])[-1].lower() in ("1", "true", "yes")
    if not (tls or username or allowed or is_loopback(host)):
        raise UserError(
            f"{key}: {redacted(url)} is open to the network without encryption or user; use mqtts://, name a user, "
            "or set mqtt.allow_insecure = true"
        )
    files = {
        "ca_file": settings.ca_file,
        "client_cert_file": settings.client_cert_file,
        "client_key_file": settings.client_key_file,
    }
    for name, path in files.items():
        if tls and path is not None and not path.is_file():
            raise UserError(f"mqtt.{name}: {path} does not exist")
    if tls and (settings.client_cert_file is None) != (settings.client_key_file is None):
        raise UserError("mqtt.client_cert_file and mqtt.client_key_file are needed together; found one of them")
    return BrokerAddress(
        host=host,
        port=port or default_port,
        transport=transport,
        tls=tls,
        path=parts.path if len(parts.path) > 1 else "/mqtt",
        username=username,
        password=password if username else "",
        check_hostname=settings.check_hostname,
        **(files if tls else {}),
    )


def _password(settings: MqttSettings) -> str:
    if PASSWORD_VARIABLE in os.environ:
        return os.environ[PASSWORD_VARIABLE]
    if settings.password_file is None:
        return ""
    try:
        return settings.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UserError(f"mqtt.password_file: {settings.password_file} cannot be read ({reason})") from error


def redacted(url: str) -> str:
    """The URL without what may be a password, also where it is not a valid one."""
    scheme, mark, rest = url.rpartition("://")
    return f"{scheme}{mark}{rest.rsplit('@', 1)[-1]}"
