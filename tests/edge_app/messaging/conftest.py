"""A real broker, and a listener that remembers everything."""

import getpass
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

sys.path.insert(0, str(Path(__file__).parent))

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


def wait_until(condition: Callable[[], object], *, timeout_s: float = 20.0, what: str = "") -> None:
    """Look again and again until it is so; fail after the deadline."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {timeout_s} s: {what or condition}")
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Mosquitto:
    """A mosquitto of our own that can be stopped and started again, with its memory on disk."""

    def __init__(self, directory: Path, *, extra: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._config = directory / f"mosquitto-{self.port}.conf"
        data = directory / f"mosquitto-{self.port}"
        data.mkdir()
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\npersistence true\npersistence_location {data}/\n"
            f"user {getpass.getuser()}\nset_tcp_nodelay true\n{extra}\n"
        )
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, what="mosquitto is up")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "mosquitto ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None


@pytest.fixture
def mosquitto_factory(tmp_path) -> Iterator[Callable[..., Mosquitto]]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    made: list[Mosquitto] = []

    def make(**options) -> Mosquitto:
        made.append(Mosquitto(tmp_path, **options))
        made[-1].start()
        return made[-1]

    yield make
    for broker in made:
        broker.stop()


@pytest.fixture
def mosquitto(mosquitto_factory) -> Mosquitto:
    return mosquitto_factory()


@dataclass(frozen=True)
class Received:
    topic: str
    payload: bytes
    retain: bool
    qos: int

    @property
    def body(self) -> dict:
        return json.loads(self.payload)

    @property
    def suffix(self) -> str:
        return self.topic.split("/", 4)[4]


class Listener:
    """Subscribed to everything; ``lasting``: the broker keeps what it misses."""

    def __init__(self, port: int, *, lasting: bool = False, connect_pause_s: float = 0.1) -> None:
        self.received: list[Received] = []
        self._subscribed = threading.Event()
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=f"listener-{id(self)}", clean_session=not lasting
        )
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _c, _u, m: self.received.append(
            Received(m.topic, m.payload, bool(m.retain), m.qos)
        )
        # Its first pause decides when it is back after an outage: it never is before this.
        self._client.reconnect_delay_set(min_delay=connect_pause_s, max_delay=connect_pause_s)
        self._client.connect("127.0.0.1", port, keepalive=10)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def of(self, suffix: str) -> list[Received]:
        return [m for m in list(self.received) if m.topic.count("/") >= 4 and m.suffix == suffix]

    def windows(self) -> list[dict]:
        """The windows, each once by its key."""
        return list({(b["run_id"], b["seq"]): b for b in (m.body for m in self.of("histogram"))}.values())

    def states(self) -> list[str]:
        return [m.body["state"] for m in self.of("status")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(port: int, **options) -> Listener:
        made.append(Listener(port, **options))
        return made[-1]

    yield make
    for listener in made:
        listener.close()


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until
