"""The publisher against real brokers: mosquitto, and once the embedded one."""

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jsonschema
import numpy as np
import paho.mqtt.client as mqtt
import pytest
from publishing_device import DEVICE, RUN_ID, Device, window

from edge_app.messaging.embedded_broker import EmbeddedBroker
from edge_app.messaging.publisher import Publisher
from edge_app.messaging.schemas import SCHEMA_DIR
from edge_app.messaging.settings import MqttSettings

PROGRAM = Path(__file__).with_name("publishing_device.py")
ROOT = f"mfi/1/lab/{DEVICE}"
TREE = {
    "status": (1, True),
    "info": (1, True),
    "run": (1, True),
    "histogram": (1, False),
    "histogram/total": (1, True),
    "summary": (1, True),
    "stats": (0, False),
    "event": (1, False),
}


@pytest.fixture
def device(tmp_path, mosquitto):
    made = Device(mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    yield made
    made.publisher.stop(0)
    made.record.close()


@pytest.fixture
def spawn(tmp_path):
    """Start the device as a program of its own; it is killed at the end."""
    started = []

    def start(url: str, *options: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(
                [sys.executable, str(PROGRAM), url, str(tmp_path / "state"), str(tmp_path / "runs"), *options],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def last_line(process: subprocess.Popen, *, until_at_least: int) -> int:
    """Number of the last window that the program says it has closed, once it is so high."""
    for line in process.stdout:
        if int(line) >= until_at_least:
            return int(line)
    pytest.fail("the program ended early")


def check_schema(message) -> None:
    body = message.body
    schema = json.loads((SCHEMA_DIR / f"{body['schema'].replace('/', '-')}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(body)
    # Every field is in the schema, though the schema allows more.
    assert set(body) == set(schema["properties"])


def check_whole_run(listener, port: int, listen, *, windows: int, keeps_qos: bool = True) -> None:
    """Everything that must hold for a run, whatever the broker."""
    assert {m.topic for m in listener.received if m.topic.startswith("mfi/")} == {f"{ROOT}/{s}" for s in TREE}
    for message in listener.received:
        if message.topic.startswith("mfi/"):
            check_schema(message)
            # amqtt hands everything out with the subscription's QoS.
            assert message.qos == (TREE[message.suffix][0] if keeps_qos else 1), message.topic
    order = [m.suffix for m in listener.received if m.topic.startswith("mfi/")]
    assert order.index("info") < order.index("status") < order.index("histogram")
    assert [b["seq"] for b in listener.windows()] == list(range(windows))
    assert not any(b["replayed"] for b in listener.windows())
    assert listener.states()[-2:] == ["running", "disconnected"]
    late = listen(port)
    retained = {s for s, (_, retain) in TREE.items() if retain}
    deadline = time.monotonic() + 10
    while {m.suffix for m in late.received if m.topic.startswith(ROOT)} != retained:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert late.of("status")[-1].body["state"] == "disconnected"


def check_sum(listener, windows: int) -> None:
    """Sum of the windows = total = what the device counted."""
    total = listener.of("histogram/total")[-1].body
    assert total["last_seq"] == windows - 1
    assert total["windows"] == windows
    wanted = window(0)
    for seq in range(1, windows):
        wanted = wanted + window(seq)
    for name, row in zip(wanted.histogram.classes, range(len(wanted.histogram.classes)), strict=True):
        summed = np.sum([b["counts"][name] for b in listener.windows()], axis=0)
        np.testing.assert_array_equal(summed, total["counts"][name])
        np.testing.assert_array_equal(summed, wanted.histogram.counts[row])
        weighted = np.sum([b["weighted"][name] for b in listener.windows()], axis=0)
        np.testing.assert_allclose(weighted, total["weighted"][name], rtol=1e-12)
    for key in ("n", "frames", "frames_lost", "frames_rejected"):
        assert sum(b[key] for b in listener.windows()) == total[key]
    assert total["n"] == wanted.particles
    assert sum(b["volume_ml"] for b in listener.windows()) == pytest.approx(total["volume_ml"])


def test_a_run_publishes_exactly_the_tree(device, mosquitto, listen, until):
    listener = listen(mosquitto.port)
    for _ in range(12):
        device.close_window()
    report = device.finish()
    assert report.waiting == 0
    assert report.delivered == 12 * 2 + 3
    until(lambda: "disconnected" in listener.states())
    # The listener came after the first messages of the device; what is retained reached it all the same.
    check_sum(listener, 12)
    assert {b["run_id"] for b in listener.windows()} == {RUN_ID}


def test_whole_run_at_mosquitto(tmp_path, mosquitto, listen, until):
    listener = listen(mosquitto.port)
    device = Device(mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    assert device.publisher.wait_connected(10)
    for _ in range(25):
        device.close_window()
    assert device.finish().waiting == 0
    until(lambda: "disconnected" in listener.states())
    check_whole_run(listener, mosquitto.port, listen, windows=25)
    check_sum(listener, 25)
    assert not list((tmp_path / "state" / "pending").iterdir()), "nothing waits, so nothing is noted"


def test_whole_run_at_the_embedded_broker(tmp_path, listen, until):
    # A broker that outlives the device, so that what it retains can be looked at.
    with EmbeddedBroker(port=0) as broker:
        listener = listen(broker.port)
        device = Device(broker.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
        assert device.publisher.wait_connected(10)
        for _ in range(25):
            device.close_window()
        assert device.finish().waiting == 0
        until(lambda: "disconnected" in listener.states())
        check_whole_run(listener, broker.port, listen, windows=25, keeps_qos=False)
        check_sum(listener, 25)


def test_own_broker_is_started_and_everything_reaches_a_listener_before_it_ends(tmp_path, listen, until):
    device = Device("embedded", state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    assert device.publisher.wait_connected(15)
    port = int(device.publisher.url.rsplit(":", 1)[1])
    listener = listen(port)
    for _ in range(10):
        device.close_window()
    assert device.finish().waiting == 0
    until(lambda: "disconnected" in listener.states())
    assert [b["seq"] for b in listener.windows()] == list(range(10))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the broker ends with the device"


@pytest.mark.parametrize("broker_kind", ["mosquitto", "embedded"])
def test_will_is_seen_after_a_kill(broker_kind, request, tmp_path, spawn, listen, until):
    if broker_kind == "mosquitto":
        port = request.getfixturevalue("mosquitto").port
        broker = None
    else:
        broker = EmbeddedBroker(port=0)
        broker.start()
        port = broker.port
    try:
        listener = listen(port)
        process = spawn(f"mqtt://127.0.0.1:{port}", "--will-delay", "1")
        until(lambda: "running" in listener.states())
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: "lost" in listener.states(), timeout_s=10)
        will = next(m for m in listener.of("status") if m.body["state"] == "lost")
        check_schema(will)
        assert will.body["boot_id"] == "boot-killed"
        late = listen(port)
        until(lambda: late.states(), what="the will is retained")
        assert late.states()[-1] == "lost"
    finally:
        if broker is not None:
            broker.stop()


def test_broker_stopped_and_started_again_every_window_arrives_once(device, mosquitto, listen, until):
    listener = listen(mosquitto.port, lasting=True)
    until(lambda: device.publisher.connected)

    def close_windows(n: int) -> None:
        for _ in range(n):
            device.close_window()
            time.sleep(0.02)

    close_windows(15)
    until(lambda: len(listener.windows()) > 0)
    mosquitto.stop()
    until(lambda: not device.publisher.connected)
    end = time.monotonic() + 3.0
    while time.monotonic() < end:
        close_windows(5)
    mosquitto.start()
    close_windows(15)
    report = device.finish(20.0)
    assert report.waiting == 0
    until(lambda: len(listener.windows()) == device.windows, what="all windows")
    until(lambda: "disconnected" in listener.states())
    check_sum(listener, device.windows)
    assert sorted(b["seq"] for b in listener.windows()) == list(range(device.windows))
    assert {b["replayed"] for b in listener.windows()} == {False, True}
    assert device.publisher.counters().reconnects == 1
    assert listener.states()[-1] == "disconnected"


def test_windows_wait_for_listeners_that_come_back_later_than_we(device, mosquitto, listen, until):
    """A listener without a lasting session is told nothing that was published before it is back."""
    listener = listen(mosquitto.port, connect_pause_s=2.5)
    until(lambda: device.publisher.connected)
    device.close_window()
    until(lambda: len(listener.windows()) == 1)
    until(lambda: device.publisher.counters().published >= 3)
    mosquitto.stop()
    until(lambda: not device.publisher.connected)
    for _ in range(30):
        device.close_window()
    mosquitto.start()
    until(lambda: device.publisher.connected)
    device.close_window()
    until(lambda: len(listener.windows()) == 32)
    assert device.finish().waiting == 0
    check_sum(listener, 32)


def test_no_listener_at_all_is_no_reason_to_wait(device, until):
    for _ in range(30):
        device.close_window()
    began = time.monotonic()
    assert device.finish().waiting == 0
    assert time.monotonic() - began < 5.0


def test_killed_device_delivers_at_its_next_start(tmp_path, mosquitto, spawn, listen, until):
    listener = listen(mosquitto.port, lasting=True)
    process = spawn(mosquitto.url)
    last_line(process, until_at_least=5)
    mosquitto.stop()
    closed = last_line(process, until_at_least=25)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    closed = max([closed, *(int(line) for line in process.stdout if line.strip().isdigit())])
    mosquitto.start()
    assert len(listener.windows()) <= closed
    record = next((tmp_path / "runs").glob("*.sqlite"))
    assert (tmp_path / "state" / "pending" / f"{RUN_ID}.json").is_file()

    second = Device(
        mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs", run_id="20261121t080000z-0002"
    )
    second.close_window()
    assert second.finish().waiting == 0
    mine = lambda: [b for b in listener.windows() if b["run_id"] == RUN_ID]  # noqa: E731
    until(lambda: len(mine()) >= closed + 1, what="every window that was closed")
    seqs = sorted(b["seq"] for b in mine())
    # The window after the last that was said may have been committed too: then it is there as well.
    assert seqs == list(range(len(seqs)))
    assert len(seqs) in (closed + 1, closed + 2)
    late = [m.body for m in listener.of("histogram") if m.body["run_id"] == RUN_ID and m.body["replayed"]]
    assert late
    assert max(b["seq"] for b in late) == seqs[-1]
    for body in mine():
        assert body["counts"] == dict(zip(body["counts"], window(body["seq"]).histogram.counts.tolist(), strict=True))
    # Old totals do not hide the new run from a listener that comes now.
    newcomer = listen(mosquitto.port)
    until(lambda: newcomer.of("histogram/total"))
    assert newcomer.of("histogram/total")[-1].body["run_id"] == "20261121t080000z-0002"
    assert not list((tmp_path / "state" / "pending").iterdir())
    assert record.is_file()


def test_late_listener_recovers_from_the_total(device, mosquitto, listen, until):
    for _ in range(20):
        device.close_window()
    until(lambda: device.publisher.counters().published >= 42)
    listener = listen(mosquitto.port)
    until(lambda: listener.of("histogram/total"))
    total = listener.of("histogram/total")[-1]
    assert total.retain
    assert total.body["last_seq"] == 19
    device.close_window()
    until(lambda: listener.windows())
    assert listener.windows()[0]["seq"] == 20


def test_refused_by_the_broker_is_not_connected(tmp_path, mosquitto_factory, until):
    broker = mosquitto_factory(extra="allow_anonymous false")
    device = Device(broker.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    device.close_window()
    until(lambda: device.publisher.problem)
    assert not device.publisher.wait_connected(1.0)
    assert "refused: not authorized" in device.publisher.problem
    report = device.finish(0.5)
    assert report.delivered == 0
    assert report.waiting == 5
    assert list((tmp_path / "state" / "pending").iterdir())


def make_certificates(directory: Path) -> tuple[Path, Path]:
    """A key and a certificate of 127.0.0.1 that is its own authority."""
    key, certificate = directory / "broker.key", directory / "broker.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    return key, certificate


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_encrypted_with_a_password_from_the_environment(tmp_path, mosquitto_factory, monkeypatch, until, recwarn):
    key, certificate = make_certificates(tmp_path)
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "mfi-t", "correct horse"], check=True)
    tls = f"cafile {certificate}\ncertfile {certificate}\nkeyfile {key}\n"
    broker = mosquitto_factory(extra=f"{tls}allow_anonymous false\npassword_file {passwords}")
    url = broker.url.replace("mqtt://", "mqtts://mfi-t@")

    def problem_with(run_id: str, **settings) -> str:
        device = Device(
            url, state_dir=tmp_path / run_id, run_dir=tmp_path / "runs", run_id=run_id, check_hostname=True, **settings
        )
        device.close_window()
        until(lambda: device.publisher.connected or device.publisher.problem)
        problem = device.publisher.problem
        device.finish(0.2 if problem else 10)
        return problem

    monkeypatch.setenv("EDGE_APP_MQTT_PASSWORD", "correct horse")
    assert problem_with("r1", ca_file=certificate) == ""
    assert "certificate verify failed" in problem_with("r2")
    monkeypatch.setenv("EDGE_APP_MQTT_PASSWORD", "wrong")
    assert "refused: not authorized" in problem_with("r3", ca_file=certificate)
    gc.collect()
    # Plain sockets of other tests' clients are collected whenever it happens to be; an encrypted one is ours.
    assert not [str(w.message) for w in recwarn if "SSLSocket" in str(w.message)]


def test_over_websockets(tmp_path, mosquitto_factory, listen, until):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    broker = mosquitto_factory(extra=f"allow_anonymous true\nlistener {port} 127.0.0.1\nprotocol websockets")
    listener = listen(broker.port)
    device = Device(f"ws://127.0.0.1:{port}/mqtt", state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    assert device.publisher.wait_connected(10), device.publisher.problem
    device.close_window()
    assert device.finish().waiting == 0
    until(lambda: len(listener.windows()) == 1)


def test_message_refused_by_access_rules_waits(tmp_path, mosquitto_factory, until, listen):
    rules = tmp_path / "acl"
    rules.write_text(f"topic read #\ntopic write {ROOT}/status\ntopic write {ROOT}/info\n")
    broker = mosquitto_factory(extra=f"allow_anonymous true\nacl_file {rules}")
    device = Device(broker.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    device.close_window()
    until(lambda: "refuses" in device.publisher.problem)
    assert device.publisher.counters().refused > 0
    report = device.finish(0.3)
    assert report.delivered == 0
    assert report.waiting == 5


def test_broker_down_all_the_time(tmp_path, until):
    device = Device("mqtt://127.0.0.1:1", state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    for _ in range(3):
        device.close_window()
    until(lambda: "not reachable" in device.publisher.problem)
    began = time.monotonic()
    report = device.finish(0.5)
    assert time.monotonic() - began < 5.0
    assert (report.delivered, report.waiting) == (0, 9)


def test_broker_that_never_answers_holds_nobody_up(tmp_path):
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"mqtt://127.0.0.1:{mute.getsockname()[1]}"
        device = Device(url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs", connect_timeout_s=1.0)
        began = time.monotonic()
        for _ in range(200):
            device.publisher.notify()
            device.publisher.publish_volatile("stats", {"schema": "mfi.stats/1"})
            device.publisher.set_status("running")
        assert time.monotonic() - began < 0.5
        device.close_window()
        assert device.finish(0.2).waiting == 5


class OldBroker:
    """A door in front of a real broker that hangs up on MQTT 5, as some old brokers do."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.versions: list[int] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            first = client.recv(4096)
            self.versions.append(first[first.index(b"MQTT") + 4])
            if self.versions[-1] == 5:
                client.close()
                continue
            upstream = socket.create_connection(("127.0.0.1", self._target))
            upstream.sendall(first)
            for a, b in ((client, upstream), (upstream, client)):
                threading.Thread(target=self._copy, args=(a, b), daemon=True).start()

    @staticmethod
    def _copy(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
        except OSError:
            pass
        finally:
            for end in (a, b):
                end.close()

    def close(self) -> None:
        self._server.close()


def test_broker_that_hangs_up_on_mqtt_5_gets_3_1_1(tmp_path, mosquitto, listen, until):
    old = OldBroker(mosquitto.port)
    listener = listen(mosquitto.port)
    device = Device(f"mqtt://127.0.0.1:{old.port}", state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    assert device.publisher.wait_connected(10)
    assert old.versions == [5, 4]
    device.close_window()
    assert device.finish().waiting == 0
    until(lambda: len(listener.windows()) == 1)
    assert not listener.windows()[0]["replayed"], "asking for the version is no outage"
    old.close()


def test_broker_that_refuses_mqtt_5_gets_3_1_1(tmp_path, caplog):
    with EmbeddedBroker(port=0) as broker, caplog.at_level("INFO", "edge_app.messaging.publisher"):
        device = Device(broker.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
        assert device.publisher.wait_connected(10)
        assert "MQTT 3.1.1" in caplog.text
        device.close_window()
        assert device.finish().waiting == 0


def test_late_will_of_an_earlier_start_is_corrected(device, mosquitto, listen, until):
    until(lambda: device.publisher.connected)
    listener = listen(mosquitto.port)
    until(lambda: "running" in listener.states())
    ghost = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    ghost.connect("127.0.0.1", mosquitto.port)
    ghost.loop_start()
    lost = {"schema": "mfi.status/1", "state": "lost", "boot_id": "boot-of-yesterday", "since": ""}
    ghost.publish(f"{ROOT}/status", json.dumps(lost), qos=1, retain=True).wait_for_publish(5)
    until(lambda: "lost" in listener.states())
    until(lambda: listener.states()[-1] == "running")
    ghost.disconnect()
    ghost.loop_stop()


def test_record_attached_again_after_it_was_drained(tmp_path, mosquitto, spawn, listen, until):
    """Closing an interrupted record adds messages to one that may have been let go of already."""
    listener = listen(mosquitto.port)
    first = Device(mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    first.close_window()
    assert first.finish().waiting == 0
    second = Device(mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs", run_id="20261121t08z-2")
    assert second.publisher.wait_connected(10)
    record = tmp_path / "runs" / f"{RUN_ID}.sqlite"
    second.publisher.attach(record, RUN_ID)
    second.publisher.attach(record, RUN_ID)
    from edge_app.messaging.messages import outgoing
    from edge_app.recording.outgoing import enqueue
    from edge_app.recording.schema import connect_writer

    connection = connect_writer(record)
    enqueue(connection, RUN_ID, [outgoing(second.publisher.topics, second.event("interrupted"))])
    connection.close()
    second.publisher.notify()
    until(lambda: [m for m in listener.of("event") if m.body["code"] == "interrupted"])
    second.close_window()
    assert second.finish().waiting == 0


def test_too_many_waiting_windows_are_merged_and_nothing_is_lost(tmp_path, mosquitto, listen, until):
    listener = listen(mosquitto.port, lasting=True)
    mosquitto.stop()
    device = Device(mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs", max_waiting_windows=60)
    for _ in range(200):
        device.close_window()
    until(lambda: device.publisher.counters().merged >= 100)
    mosquitto.start()
    until(lambda: device.publisher.connected)
    assert device.finish(20).waiting == 0
    until(lambda: "disconnected" in listener.states())
    assert len(listener.windows()) < 150
    covered = [s for b in listener.windows() for s in range(b["first_seq"], b["seq"] + 1)]
    assert sorted(covered) == list(range(200)), "every window in exactly one message"
    assert sum(b["windows"] for b in listener.windows()) == 200
    check_sum(listener, 200)


def test_off_does_nothing(tmp_path):
    publisher = Publisher(MqttSettings(url="off"), boot_id="b", info={"app_version": "1"}, state_dir=tmp_path)
    publisher.start()
    publisher.attach(tmp_path / "none.sqlite", "none")
    publisher.notify()
    publisher.publish_volatile("stats", {})
    publisher.set_status("running")
    assert not publisher.enabled
    assert not publisher.connected
    assert publisher.stop().waiting == 0
    assert not list(tmp_path.iterdir())
