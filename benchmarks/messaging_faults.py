"""What arrives at a subscriber when the broker is away for a while and when the device is killed.

``python benchmarks/messaging_faults.py [--down-s 30] [--json]`` needs ``mosquitto``. One window is closed every
``--interval-s``; the broker is stopped in the middle and started again; then the device is killed with SIGKILL while
the broker is away, and started anew. Exit code 0 only if every closed window arrived, and its counts add up.
"""

import argparse
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as mqtt

from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window
from edge_app.messaging.messages import histogram_message, outgoing, total_message
from edge_app.messaging.provenance import Provenance
from edge_app.messaging.publisher import Publisher
from edge_app.messaging.settings import MqttSettings
from edge_app.recording.run_record import RunRecord
from edge_app.segmentation.particles import Particles

CLASSES = ("silicone_oil", "air_bubble", "protein_aggregate", "protein_mimic", "glass", "cellulose", "bead", "unknown")
PARTICLES_PER_WINDOW = 600


def window(run_id: str, seq: int) -> Window:
    """A window at line rate, made of its number alone."""
    rng = np.random.default_rng(seq)
    return Window(
        run_id=run_id,
        seq=seq,
        first_frame=14 * seq,
        last_frame=14 * seq + 13,
        t0_s=float(seq),
        t1_s=seq + 1.0,
        frames=14,
        frames_lost=0,
        frames_rejected=0,
        rejected={"border": 12},
        volume_ml=0.0032,
        histogram=Histogram.of(
            rng.integers(0, len(CLASSES), PARTICLES_PER_WINDOW),
            (2.0 + rng.gamma(1.5, 4.0, PARTICLES_PER_WINDOW)).astype(np.float32),
            np.full(PARTICLES_PER_WINDOW, 1.0173),
            classes=CLASSES,
        ),
    )


def no_particles() -> Particles:
    """Zero rows; this is about messages."""
    integer = {"frame", "x_px", "y_px", "width_px", "height_px", "area_px"}
    names = Particles.__dataclass_fields__
    kinds = {n: np.int32 if n in integer else bool if n == "border" else np.float32 for n in names}
    return Particles(**{n: np.zeros(0, kind) for n, kind in kinds.items()})


def run_device(url: str, work: Path, *, run_id: str, windows: int, interval_s: float, flush_s: float) -> int:
    """Close windows one after the other and say each number; the number of messages left waiting."""
    scale = nominal_calibration(um_per_px=1.33, depth_um=100.0)
    provenance = Provenance(device="fault-test", boot_id=run_id, pipeline="-", model_sha256="-", calibration=scale)
    settings = MqttSettings(url=url, device="fault-test", will_delay_s=1)
    publisher = Publisher(settings, boot_id=run_id, info={"app_version": "-"}, state_dir=work / "state")
    publisher.start()
    total: Window | None = None
    with RunRecord.create(work / "runs", run_id=run_id, settings={}, identity={}, info={}, classes=CLASSES) as record:
        publisher.attach(record.path, run_id)
        publisher.set_status("running", run_id)
        for seq in range(windows):
            one = window(run_id, seq)
            total = one if total is None else total + one
            messages = [
                histogram_message(one, provenance=provenance),
                total_message(total, provenance=provenance),
            ]
            record.commit_window(
                one,
                no_particles(),
                class_index=np.zeros(0, np.int16),
                confidence=np.zeros(0, np.float32),
                outgoing=[outgoing(publisher.topics, m) for m in messages],
            )
            publisher.notify()
            print(seq, flush=True)
            time.sleep(interval_s)
        return publisher.stop(flush_s).waiting


class Broker:
    """A mosquitto with its memory on disk."""

    def __init__(self, work: Path) -> None:
        found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
        if found is None:
            sys.exit("mosquitto is not installed")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        (work / "broker").mkdir()
        config = work / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            f"persistence_location {work / 'broker'}/\nuser {getpass.getuser()}\n"
        )
        self._command = [found, "-c", str(config)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, 10.0)

    def stop(self) -> None:
        """Stop in order, as a service manager does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """Counts what arrives; ``lasting``: with a session that the broker keeps."""

    def __init__(self, port: int, *, lasting: bool) -> None:
        self.copies: Counter[tuple[str, int]] = Counter()
        self.windows: dict[tuple[str, int], dict[str, Any]] = {}
        self.totals: dict[str, dict[str, Any]] = {}
        self.states: list[str] = []
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=f"check-{lasting}", clean_session=not lasting
        )
        self._client.on_connect = lambda client, *_: client.subscribe("mfi/#", 1)
        self._client.on_message = lambda _c, _u, message: self._take(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _take(self, message: mqtt.MQTTMessage) -> None:
        body = json.loads(message.payload)
        if message.topic.endswith("/histogram"):
            key = body["run_id"], body["seq"]
            self.copies[key] += 1
            self.windows[key] = body
        elif message.topic.endswith("/total"):
            self.totals[body["run_id"]] = body
        elif message.topic.endswith("/status"):
            self.states.append(body["state"])

    def seqs(self, run_id: str) -> list[int]:
        """Windows of a run that arrived."""
        return sorted(seq for run, seq in self.windows if run == run_id)

    def adds_up(self, run_id: str) -> bool:
        """Whether the sum of the windows is the newest total."""
        bodies = [b for (run, _), b in self.windows.items() if run == run_id]
        total = self.totals.get(run_id)
        return total is not None and all(
            np.sum([b["counts"][c] for b in bodies], axis=0).tolist() == total["counts"][c] for c in CLASSES
        )


def wait_until(condition: Callable[[], object], timeout_s: float) -> bool:
    """Poll; whether it came true in time."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def said(device: "subprocess.Popen[str]", *, at_least: int) -> int:
    """Read what the device says until it has closed this many windows."""
    assert device.stdout is not None
    last = -1
    for line in device.stdout:
        last = int(line)
        if last + 1 >= at_least:
            break
    return last


def measure(work: Path, *, down_s: float, interval_s: float) -> dict[str, Any]:
    """Both faults, one after the other."""
    broker = Broker(work)
    broker.start()
    lasting, plain = Subscriber(broker.port, lasting=True), Subscriber(broker.port, lasting=False)

    def device(run_id: str, windows: int) -> "subprocess.Popen[str]":
        command = [sys.executable, __file__, "--device", str(broker.port), str(work), run_id, str(windows)]
        return subprocess.Popen([*command, str(interval_s)], stdout=subprocess.PIPE, text=True)

    result: dict[str, Any] = {"down_s": down_s, "interval_s": interval_s}
    try:
        n = int((down_s + 10.0) / interval_s)
        process = device("run-1-outage", n)
        said(process, at_least=int(5.0 / interval_s))
        broker.stop()
        time.sleep(down_s)
        broker.start()
        began = time.monotonic()
        said(process, at_least=n)
        finished = process.wait()
        wait_until(lambda: len(plain.seqs("run-1-outage")) == n == len(lasting.seqs("run-1-outage")), 150.0)
        result["outage"] = {
            "windows": n,
            "delivered_at_end": finished == 0,
            "settled_s_after_return": round(time.monotonic() - began, 1),
            **{
                name: {
                    "arrived": len(s.seqs("run-1-outage")),
                    "copies_more_than_one": sum(c > 1 for (r, _), c in s.copies.items() if r == "run-1-outage"),
                    "sum_is_total": s.adds_up("run-1-outage"),
                }
                for name, s in (("lasting_session", lasting), ("plain_session", plain))
            },
        }

        process = device("run-2-killed", 100_000)
        said(process, at_least=20)
        lasting.states.clear()
        broker.stop()
        closed = said(process, at_least=60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        closed = max([closed, *(int(line) for line in process.stdout if line.strip())])
        broker.start()
        process = device("run-3-next", 5)
        said(process, at_least=5)
        process.wait()
        wait_until(lambda: len(lasting.seqs("run-2-killed")) > closed, 30.0)
        seqs = lasting.seqs("run-2-killed")
        result["killed_while_broker_away"] = {
            "windows": closed + 1,
            "arrived": len(seqs),
            "without_gap": seqs == list(range(len(seqs))),
            "replayed": sum(b["replayed"] for (r, _), b in lasting.windows.items() if r == "run-2-killed"),
        }

        process = device("run-4-will", 100_000)
        said(process, at_least=10)
        lasting.states.clear()
        began = time.monotonic()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        seen = wait_until(lambda: "lost" in lasting.states, 30.0)
        result["will"] = {"seen": seen, "after_s": round(time.monotonic() - began, 1), "will_delay_s": 1}
    finally:
        broker.stop()
    outage, killed = result["outage"], result["killed_while_broker_away"]
    result["passed"] = (
        all(outage[k]["arrived"] == n and outage[k]["sum_is_total"] for k in ("lasting_session", "plain_session"))
        and killed["arrived"] >= killed["windows"]
        and killed["without_gap"]
        and bool(result["will"]["seen"])
    )
    return result


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--down-s", type=float, default=30.0, help="how long the broker is away")
    parser.add_argument("--interval-s", type=float, default=0.2, help="time between two windows")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device is not None:
        port, work, run_id, windows, interval = options.device
        url = f"mqtt://127.0.0.1:{port}"
        waiting = run_device(
            url, Path(work), run_id=run_id, windows=int(windows), interval_s=float(interval), flush_s=150.0
        )
        return 0 if waiting == 0 else 1
    with tempfile.TemporaryDirectory() as work:
        result = measure(Path(work), down_s=options.down_s, interval_s=options.interval_s)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
