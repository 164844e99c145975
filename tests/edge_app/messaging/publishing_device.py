"""A device that counts made-up particles: windows for tests, and a program that tests start and kill.

python publishing_device.py URL STATE_DIR RUN_DIR [--run-id R] [--windows N] [--interval S]
"""

import argparse
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window
from edge_app.messaging.messages import (
    Event,
    Message,
    Run,
    Stats,
    histogram_message,
    outgoing,
    summary_message,
    total_message,
    utc_text,
)
from edge_app.messaging.provenance import Provenance
from edge_app.messaging.publisher import Publisher
from edge_app.messaging.settings import MqttSettings
from edge_app.recording.run_record import RunRecord
from edge_app.segmentation.particles import Particles

CLASSES = ("silicone_oil", "protein_aggregate", "glass", "unknown")
DEVICE = "mfi-t"
RUN_ID = "20261121t074500z-0001"
STARTED = datetime(2026, 11, 21, 7, 45, tzinfo=timezone.utc)


def window(seq: int, *, run_id: str = RUN_ID, particles: int = 40) -> Window:
    """Window with content that depends on its number alone."""
    rng = np.random.default_rng(seq)
    histogram = Histogram.of(
        rng.integers(0, len(CLASSES), particles),
        (2.0 + rng.gamma(1.5, 5.0, particles)).astype(np.float32),
        rng.choice([0.0, 1.0, 1.0173], particles),
        classes=CLASSES,
    )
    return Window(
        run_id=run_id,
        seq=seq,
        first_frame=14 * seq,
        last_frame=14 * seq + 13,
        t0_s=float(seq),
        t1_s=float(seq + 1),
        frames=13,
        frames_lost=1,
        frames_rejected=seq % 2,
        rejected={"border": 2, "stuck": 1} if seq % 2 else {"border": 1},
        volume_ml=0.0031,
        histogram=histogram,
    )


def no_particles() -> Particles:
    """Zero rows: the messages here do not depend on them."""
    types = {"frame": "i4", "x_px": "i4", "y_px": "i4", "width_px": "i4", "height_px": "i4", "area_px": "i4"}
    types |= {"half_max_area_px": "i4", "border": "?"}
    return Particles(**{name: np.zeros(0, types.get(name, "f4")) for name in Particles.__dataclass_fields__})


CALIBRATION = nominal_calibration(um_per_px=1.33, depth_um=100.0).model_copy(
    update={
        "id": "cal-beads", "calibrated": True, "created": "2026-11-09T07:45:00Z", "expires": "2026-11-21T07:45:10Z",
    }
)  # fmt: skip
"""Expires 10 s after the start of the windows."""


def provenance(boot_id: str) -> Provenance:
    return Provenance(
        device=DEVICE, boot_id=boot_id, pipeline="ab" * 32, model_sha256="cd" * 32, calibration=CALIBRATION
    )


class Device:
    """Commits windows to a run record and lets a publisher deliver them, as the pipeline does."""

    def __init__(
        self, url: str, *, state_dir: Path, run_dir: Path, run_id: str = RUN_ID, boot_id: str = "boot-a", **settings
    ):
        self.run_id = run_id
        self.provenance = provenance(boot_id)
        self.publisher = Publisher(
            MqttSettings(
                url=url, device=DEVICE, embedded_port=0, **{"reconnect_max_s": 1.0, "will_delay_s": 0, **settings}
            ),
            boot_id=boot_id,
            info={"app_version": "0.1", "classes": list(CLASSES)},
            calibration=CALIBRATION,
            state_dir=state_dir,
        )
        self.publisher.start()
        self.record = RunRecord.create(
            run_dir, run_id=run_id, settings={}, identity={}, info={}, classes=CLASSES, user="test"
        )
        self.publisher.attach(self.record.path, run_id)
        self.publisher.set_status("running", run_id)
        self.windows = 0
        self.total: Window | None = None
        self.say(Run(device=DEVICE, boot_id=boot_id, run_id=run_id, started=utc_text(STARTED), source="sim:"))
        self.say(self.event("run_started"))

    def event(self, code: str) -> Event:
        return Event(
            device=DEVICE,
            boot_id=self.provenance.boot_id,
            id=f"{self.run_id}-{code}",
            severity="info",
            code=code,
            text=code,
            run_id=self.run_id,
        )

    def say(self, *messages: Message) -> None:
        self.record.enqueue([outgoing(self.publisher.topics, m) for m in messages])
        self.publisher.notify()

    def close_window(self) -> None:
        one = window(self.windows, run_id=self.run_id)
        self.total = one if self.total is None else self.total + one
        self.record.commit_window(
            one,
            no_particles(),
            class_index=np.zeros(0, np.int16),
            confidence=np.zeros(0, np.float32),
            outgoing=[
                outgoing(self.publisher.topics, histogram_message(one, provenance=self.provenance, started=STARTED)),
                outgoing(self.publisher.topics, total_message(self.total, provenance=self.provenance, started=STARTED)),
            ],
        )
        self.windows += 1
        self.publisher.notify()
        self.publisher.publish_volatile("stats", Stats(device=DEVICE, boot_id=self.provenance.boot_id))

    def finish(self, flush_s: float = 10.0):
        assert self.total is not None
        self.say(
            summary_message(
                self.total,
                provenance=self.provenance,
                started=STARTED,
                ended=STARTED,
                windows=self.windows,
                notes=["made up"],
            )
        )
        report = self.publisher.stop(flush_s)
        self.record.close()
        return report


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--run-id", default=RUN_ID)
    parser.add_argument("--boot-id", default="boot-killed")
    parser.add_argument("--windows", type=int, default=10_000)
    parser.add_argument("--interval", type=float, default=0.02)
    parser.add_argument("--will-delay", type=int, default=0)
    options = parser.parse_args()
    device = Device(
        options.url,
        state_dir=options.state_dir,
        run_dir=options.run_dir,
        run_id=options.run_id,
        boot_id=options.boot_id,
        will_delay_s=options.will_delay,
    )
    for _ in range(options.windows):
        device.close_window()
        print(device.windows - 1, flush=True)
        time.sleep(options.interval)
    return 0 if device.finish().waiting == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
