"""Live view of any device, as an MQTT subscriber."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from edge_app.config import load_settings
from edge_app.errors import UserError
from edge_app.messaging.board import Board
from edge_app.messaging.embedded_broker import find_embedded_broker
from edge_app.messaging.live_view import LiveView, is_dumb, plain_line, render
from edge_app.messaging.mqtt_url import BrokerAddress, broker_address
from edge_app.messaging.outbox import default_state_dir
from edge_app.messaging.settings import IDENTIFIER, MqttSettings
from edge_app.messaging.subscriber import Subscriber
from edge_app.messaging.topics import TREE_VERSION, parse_topic

__all__ = ["watch"]


@click.command()
@click.option("--mqtt", "url", metavar="URL", help="Broker; default: the settings' one, else the one of this machine.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Settings file (TOML).")
@click.option("--site", metavar="S", help="Only this site.")
@click.option("--device", metavar="D", help="Only this device.")
@click.option("--once", is_flag=True, help="Show what is known and end; exit code 1 if there is no device.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End after N seconds.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object per line: every message, or with --once a state."
)
def watch(
    url: str | None,
    config_file: Path | None,
    site: str | None,
    device: str | None,
    once: bool,
    seconds: float | None,
    as_json: bool,
) -> None:
    """Show devices live: counts by class and size, as they are published.

    On a terminal it is a picture that is drawn anew; in a pipe it is a line per message. Ctrl-C ends it.

    Example: edge-app watch --mqtt mqtts://reader@broker.lab.example --device mfi-3
    """
    for option, value in (("--site", site), ("--device", device)):
        if value is not None and not IDENTIFIER.fullmatch(value):
            raise UserError(f"{option}: is {value!r}, may hold only a-z, 0-9 and -")
    settings = load_settings(config_file).mqtt
    address = _address(url, settings)
    console = Console()
    try:
        if once:
            _once(address, settings, site=site, device=device, as_json=as_json, console=console, seconds=seconds)
        elif as_json or is_dumb(console):
            _lines(address, settings, site=site, device=device, as_json=as_json, seconds=seconds)
        else:
            _live(address, settings, site=site, device=device, console=console, seconds=seconds)
    except KeyboardInterrupt:
        # The way to end it.
        return


def _address(url: str | None, settings: MqttSettings) -> BrokerAddress:
    wanted, key = (url, "--mqtt") if url is not None else (settings.url, "mqtt.url")
    if wanted == "off":
        raise UserError(f'{key}: is "off": there is nothing to watch; give the URL of a broker')
    if wanted == "embedded":
        wanted = find_embedded_broker(default_state_dir()) or f"mqtt://127.0.0.1:{settings.embedded_port or 1883}"
    return broker_address(wanted, settings, key=key)


def _filter(settings: MqttSettings, site: str | None, device: str | None) -> str:
    return f"{settings.prefix}/{TREE_VERSION}/{site or '+'}/{device or '+'}/#"


def _ends(seconds: float | None) -> float:
    return float("inf") if seconds is None else time.monotonic() + seconds


def _live(
    address: BrokerAddress,
    settings: MqttSettings,
    *,
    site: str | None,
    device: str | None,
    console: Console,
    seconds: float | None,
) -> None:
    end = _ends(seconds)
    view = LiveView(address, site=site, device=device, prefix=settings.prefix, console=console, screen=True)
    try:
        with view:
            while time.monotonic() < end:
                time.sleep(0.1)
    finally:
        # The second screen is gone; the last picture is what one wants to keep.
        console.print(view.picture())


def _lines(
    address: BrokerAddress,
    settings: MqttSettings,
    *,
    site: str | None,
    device: str | None,
    as_json: bool,
    seconds: float | None,
) -> None:
    board = Board(site=site, device=device)

    def show(topic: str, payload: bytes) -> None:
        if not board.take(topic, payload):
            return
        place = parse_topic(topic)
        state = next(d for d in board.devices() if place is not None and (d.site, d.device) == place[:2])
        line = (
            json.dumps({"topic": topic, "payload": json.loads(payload)})
            if as_json
            else plain_line(topic, payload, state)
        )
        if line is not None:
            click.echo(line)

    subscriber = _listening(address, settings, site=site, device=device, on_message=show)
    end = _ends(seconds)
    try:
        while time.monotonic() < end:
            time.sleep(min(0.1, max(end - time.monotonic(), 0.0)))
    finally:
        subscriber.stop()


def _once(
    address: BrokerAddress,
    settings: MqttSettings,
    *,
    site: str | None,
    device: str | None,
    as_json: bool,
    console: Console,
    seconds: float | None,
) -> None:
    board = Board(site=site, device=device)
    subscriber = _listening(address, settings, site=site, device=device, on_message=board.take)
    try:
        # What is retained comes at once; a moment of silence after it means that there is no more.
        end, quiet_since, known = _ends(3.0 if seconds is None else seconds), time.monotonic(), 0.0
        while time.monotonic() < end:
            newest = max((d.seen_at for d in board.devices()), default=0.0)
            if newest != known:
                known, quiet_since = newest, time.monotonic()
            if known and time.monotonic() - quiet_since > 0.3:
                break
            time.sleep(0.02)
        devices = board.devices()
    finally:
        subscriber.stop()
    if not devices:
        click.echo(f"no device publishes under {_filter(settings, site, device)} at {address}", err=True)
        raise SystemExit(1)
    if as_json:
        kinds = ("status", "info", "run", "total", "window", "summary", "stats")
        states: list[dict[str, Any]] = [
            {
                "site": d.site,
                "device": d.device,
                "state": d.state,
                **{k: getattr(d, k) for k in kinds},
                "events": list(d.events),
            }
            for d in devices
        ]
        click.echo(json.dumps({"devices": states}))
        return
    console.print(
        render(devices, width=console.size.width, height=max(console.size.height - 1, 40), heading=str(address))
    )


def _listening(
    address: BrokerAddress,
    settings: MqttSettings,
    *,
    site: str | None,
    device: str | None,
    on_message: Callable[[str, bytes], object],
) -> Subscriber:
    """Subscribe, or end with one line where there is no broker: nobody looks at a picture that could tell later."""
    subscriber = Subscriber(address, topic_filter=_filter(settings, site, device), on_message=on_message)
    subscriber.start()
    subscriber.wait_settled(15.0)
    if not subscriber.connected:
        problem = subscriber.problem or f"{address} does not answer"
        subscriber.stop()
        raise UserError(f"mqtt: {problem}")
    return subscriber
