"""``edge-app watch`` as a program."""

import json
import subprocess
import sys

import pytest
from publishing_device import DEVICE, RUN_ID, Device

COMMAND = [sys.executable, "-m", "edge_app", "watch"]


@pytest.fixture
def device(tmp_path, mosquitto):
    made = Device(mosquitto.url, state_dir=tmp_path / "state", run_dir=tmp_path / "runs")
    for _ in range(5):
        made.close_window()
    assert made.publisher.wait_connected(10)
    yield made
    made.publisher.stop(1.0)
    made.record.close()


@pytest.fixture
def watch(tmp_path):
    def run(*options: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*COMMAND, *options],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), "EDGE_APP_STATE": str(tmp_path / "none")},
        )

    return run


def test_once_shows_what_is_retained(device, mosquitto, watch, until):
    until(lambda: device.publisher.counters().published >= 12)
    shown = watch("--mqtt", mosquitto.url, "--once")
    assert shown.returncode == 0, shown.stderr
    assert f"running  lab/{DEVICE}" in shown.stdout
    assert RUN_ID in shown.stdout
    assert f"{device.total.particles} particles" in shown.stdout


def test_once_as_json(device, mosquitto, watch, until):
    until(lambda: device.publisher.counters().published >= 12)
    shown = watch("--mqtt", mosquitto.url, "--once", "--json", "--device", DEVICE)
    assert shown.returncode == 0, shown.stderr
    [found] = json.loads(shown.stdout)["devices"]
    assert (found["site"], found["device"], found["state"]) == ("lab", DEVICE, "running")
    assert found["total"]["n"] == device.total.particles


def test_messages_line_by_line(device, mosquitto, watch):
    process = subprocess.Popen(
        [*COMMAND, "--mqtt", mosquitto.url, "--json", "--seconds", "20"], stdout=subprocess.PIPE, text=True
    )
    try:
        first = json.loads(process.stdout.readline())
        assert first["topic"].startswith("mfi/1/lab/")
        device.close_window()
        for line in process.stdout:
            message = json.loads(line)
            if message["topic"].endswith("/histogram") and message["payload"]["seq"] == 5:
                break
        else:
            pytest.fail("the window did not come")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_seconds_end_it(device, mosquitto, watch):
    shown = watch("--mqtt", mosquitto.url, "--seconds", "1")
    assert shown.returncode == 0, shown.stderr
    assert f"lab/{DEVICE} running" in shown.stdout


def test_no_device_is_no_success(mosquitto, watch):
    shown = watch("--mqtt", mosquitto.url, "--once", "--seconds", "0.5")
    assert shown.returncode == 1
    assert "no device publishes under mfi/1/+/+/#" in shown.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mqtt", "mqtt://127.0.0.1:1", "--once"], "not reachable"),
        (["--mqtt", "off"], "nothing to watch"),
        (["--mqtt", "nonsense"], "--mqtt: 'nonsense' is no broker"),
        (["--mqtt", "mqtt://10.0.0.1"], "open to the network"),
        (["--device", "Big"], "--device: is 'Big'"),
    ],
)
def test_what_cannot_be_watched_is_one_line_and_exit_code_2(watch, options, words):
    shown = watch(*options)
    assert shown.returncode == 2, shown.stderr
    assert words in shown.stderr
    assert shown.stderr.count("\n") == 1
