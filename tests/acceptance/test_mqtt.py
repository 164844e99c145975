"""Whole runs against a real broker that fails, and a program that is killed."""

import json
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest

from edge_app.recording.record_reader import open_record


class Listener:
    """An independent subscriber (QoS 1, session kept over broker restarts by subscribing again)."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="acceptance", protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("mfi/1/#", qos=1)
        self._client.on_message = self._take
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with self._lock:
            self.messages.append((message.topic.split("/", 4)[4], json.loads(message.payload)))

    def of(self, topic: str) -> list[dict[str, Any]]:
        with self._lock:
            return [payload for name, payload in self.messages if name == topic]

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()


@pytest.fixture
def listener(mosquitto):
    subscriber = Listener(mosquitto.port)
    yield subscriber
    subscriber.close()


def by_key(windows: list[dict[str, Any]], run_id: str) -> dict[int, dict[str, Any]]:
    """Windows of a run by their key; a message that comes twice must say the same."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for window in windows:
        if window["run_id"] == run_id:
            found[window["seq"]].append({k: v for k, v in window.items() if k != "replayed"})
    for copies in found.values():
        assert all(copy == copies[0] for copy in copies)
    return {seq: copies[0] for seq, copies in found.items()}


def counts_of(message: dict[str, Any]) -> np.ndarray:
    return np.array([message["counts"][name] for name in sorted(message["counts"])])


def recorded(path: Path) -> tuple[list[int], np.ndarray]:
    with open_record(path) as record:
        total = record.total().histogram
        order = np.argsort(total.classes)
        return [window.seq for window in record.windows()], total.counts[order]


def test_windows_total_and_record_agree_and_every_topic_is_used(app, mosquitto, listener, wait_for, tmp_path) -> None:
    source = "sim:?concentration=60000&seed=2&frames=60"
    result = app.json("run", source, "--out", tmp_path / "r", "--mqtt", mosquitto.url)
    assert result["messages"]["waiting"] == 0
    wait_for(lambda: bool(listener.of("summary")), what="summary")
    seqs, counts = recorded(tmp_path / "r")
    windows = by_key(listener.of("histogram"), result["run_id"])
    assert sorted(windows) == seqs
    assert (sum(counts_of(w) for w in windows.values()) == counts).all()
    assert (counts_of(listener.of("histogram/total")[-1]) == counts).all()
    assert listener.of("summary")[-1]["n"] == result["particles"] == counts.sum()
    assert listener.of("summary")[-1]["per_ml"]["all"] == result["per_ml"]
    assert {w["pipeline"] for w in windows.values()} == {result["pipeline_id"]}
    assert {"status", "info", "run", "histogram", "histogram/total", "summary", "event"} <= {
        topic for topic, _ in listener.messages
    }


def test_broker_that_stops_in_the_middle_loses_no_window(app, mosquitto, listener, wait_for, tmp_path) -> None:
    out = tmp_path / "r"
    process = app.start(
        "run", "sim:?concentration=20000&seed=4&frames=100&realtime=1", "--out", out, "--mqtt", mosquitto.url, "--json"
    )
    wait_for(lambda: len(listener.of("histogram")) >= 2, what="two windows")
    mosquitto.stop()
    with pytest.raises(AssertionError):  # three seconds without a broker, while windows close
        wait_for(lambda: False, seconds=3)
    mosquitto.start()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    result = json.loads(stdout.strip().splitlines()[-1])
    seqs, counts = recorded(out)
    wait_for(lambda: len(by_key(listener.of("histogram"), result["run_id"])) == len(seqs), what="every window")
    windows = by_key(listener.of("histogram"), result["run_id"])
    assert sorted(windows) == seqs
    assert (sum(counts_of(w) for w in windows.values()) == counts).all()
    assert any(w["replayed"] for w in listener.of("histogram"))


def test_kill_loses_no_closed_window_and_the_will_is_seen(app, mosquitto, listener, wait_for, tmp_path) -> None:
    settings = tmp_path / "s.toml"
    settings.write_text("[mqtt]\nwill_delay_s = 1\n")
    out = tmp_path / "killed"
    process = app.start(
        "run", "sim:?concentration=60000&seed=4&realtime=1", "--out", out, "--mqtt", mosquitto.url, "--config", settings
    )
    wait_for(lambda: len(listener.of("histogram")) >= 2, what="two windows")
    mosquitto.stop()  # what closes now can only wait on disk

    def windows_on_disk() -> int:
        with open_record(out) as record:
            return len(list(record.windows()))

    before = windows_on_disk()
    wait_for(lambda: windows_on_disk() >= before + 2, what="windows while the broker is down")
    process.kill()
    process.wait(10)
    seqs, counts = recorded(out)
    with open_record(out) as record:
        killed_run = record.run_id
        assert not record.finished
    mosquitto.start()
    result = app.json(
        "run", "sim:?seed=1&frames=12", "--out", tmp_path / "next", "--mqtt", mosquitto.url, "--config", settings
    )
    wait_for(lambda: len(by_key(listener.of("histogram"), killed_run)) == len(seqs), what="windows of the killed run")
    windows = by_key(listener.of("histogram"), killed_run)
    assert sorted(windows) == seqs
    assert (sum(counts_of(w) for w in windows.values()) == counts).all()
    assert result["run_id"] != killed_run
    with open_record(out) as record:
        assert record.finished
        assert record.summary()["state"] == "interrupted"


def test_the_will_is_seen_after_a_kill(app, mosquitto, listener, wait_for, tmp_path) -> None:
    settings = tmp_path / "s.toml"
    settings.write_text("[mqtt]\nwill_delay_s = 0\n")
    process = app.start(
        "run", "sim:?seed=4&realtime=1", "--out", tmp_path / "r", "--mqtt", mosquitto.url, "--config", settings
    )
    wait_for(lambda: any(s["state"] == "running" for s in listener.of("status")), what="running")
    boot_id = listener.of("status")[-1]["boot_id"]
    process.kill()
    process.wait(10)
    wait_for(lambda: listener.of("status")[-1]["state"] == "lost", what="the will")
    assert listener.of("status")[-1]["boot_id"] == boot_id


def test_embedded_broker_serves_a_subscriber_while_the_run_goes_on(app, wait_for, tmp_path) -> None:
    source = "sim:?concentration=60000&seed=1&frames=80&realtime=1"
    process = app.start("run", source, "--out", tmp_path / "r", "--json")
    wait_for((app.state / "broker.json").exists, what="the embedded broker")
    lines = app("watch", "--seconds", "8", "--json").stdout.splitlines()
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    topics = {json.loads(line)["topic"].split("/", 4)[4] for line in lines}
    assert "histogram" in topics or "histogram/total" in topics
    assert json.loads(stdout.strip().splitlines()[-1])["messages"]["waiting"] == 0
