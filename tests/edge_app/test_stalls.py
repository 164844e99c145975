"""A source that falls silent: said while it lasts, closed on time afterwards, and nothing that is counted changes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_app.capture.frame import Frame
from edge_app.capture.registry import open_source
from edge_app.config import Settings
from edge_app.device_messages import stats_message
from edge_app.loop import LoopState
from edge_app.measurement.calibration import nominal_calibration
from edge_app.messaging.counters import PublisherCounters
from edge_app.messaging.provenance import Provenance
from edge_app.pipeline import Pipeline, RunRequest
from edge_app.recording.export import export_table
from edge_app.recording.record_reader import open_record
from edge_app.stall_watch import StallWatch
from edge_app.windowing import ClosedWindow

SCENE = "sim:?concentration=20000&frames=24&seed=5&width=512&height=400"
SILENT_S = 1.5


class _Halting:
    """A source that gives nothing for a while before one of its frames."""

    def __init__(self, source: Any, *, before: int) -> None:
        self._source, self._before = source, before
        self.info, self.problems, self.messages = source.info, source.problems, source.messages

    def frames(self) -> Iterator[Frame]:
        for frame in self._source.frames():
            if frame.sequence == self._before:
                time.sleep(SILENT_S)
            yield frame

    def close(self) -> None:
        self._source.close()


def _run(out: Path, monkeypatch: pytest.MonkeyPatch, *, halt_before: int | None) -> tuple[dict[str, Any], list[str]]:
    def opened(uri: str, *, frames: int | None = None) -> Any:
        source = open_source(uri, frames=frames)
        return source if halt_before is None else _Halting(source, before=halt_before)

    monkeypatch.setattr("edge_app.pipeline.open_source", opened)
    monkeypatch.setenv("XDG_STATE_HOME", str(out / "state"))
    settings = Settings.model_validate({"mqtt": {"url": "off"}, "window": {"length_s": 0.5}})
    lines: list[str] = []
    request = RunRequest(source=SCENE, out=out, stalled_after_s=0.5)
    return dict(Pipeline(request, settings, on_message=lines.append).run()), lines


def test_a_stall_is_told_with_its_length_and_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, lines = _run(tmp_path / "halted", monkeypatch, halt_before=20)
    assert result["source_stalls"] >= 1
    assert result["source_stalled_s"] >= SILENT_S
    with open_record(tmp_path / "halted") as record:
        events = {e.kind: e for e in record.events()}
        export_table(record, table="windows", out=tmp_path / "halted.csv")
        export_table(record, table="particles", out=tmp_path / "halted_particles.csv")
        windows = list(record.windows())
    stalled, resumed = events["source_stalled"], events["source_resumed"]
    assert stalled.severity == "warning"
    assert 0.5 <= stalled.details["silent_s"] < SILENT_S
    assert resumed.details["silent_s"] >= SILENT_S
    assert any("stalled, no frame for" in line for line in lines)
    assert any("went on after" in line for line in lines)
    # By the source's clock the frames came every 0.1 s: windows are cut there, not by when they arrived.
    assert [(w.first_frame, w.last_frame) for w in windows] == [(0, 4), (5, 9), (10, 14), (15, 19), (20, 23)]
    _run(tmp_path / "plain", monkeypatch, halt_before=None)
    with open_record(tmp_path / "plain") as record:
        export_table(record, table="windows", out=tmp_path / "plain.csv")
        export_table(record, table="particles", out=tmp_path / "plain_particles.csv")
    for name in ("", "_particles"):
        assert (tmp_path / f"halted{name}.csv").read_bytes() == (tmp_path / f"plain{name}.csv").read_bytes()


def test_short_waits_are_no_stall_and_each_stall_is_told_once() -> None:
    heard: list[tuple[str, float]] = []
    since: list[float | None] = [None]
    with StallWatch(
        lambda: since[0],
        after_s=0.3,
        on_stall=lambda s: heard.append(("stall", s)),
        on_resume=lambda s: heard.append(("resume", s)),
    ):
        for _ in range(5):
            since[0] = time.monotonic()
            time.sleep(0.05)
        assert heard == []
        for _ in range(2):
            since[0] = time.monotonic()
            time.sleep(0.8)
            since[0] = None
            time.sleep(0.3)
        since[0] = time.monotonic() - 5
        time.sleep(0.3)
        since[0] = None
    assert [kind for kind, _ in heard] == ["stall", "resume"] * 3
    assert all(s >= 0.3 for _, s in heard)
    assert heard[-1][1] >= 5


def test_rates_in_and_out_are_each_their_own(tmp_path: Path) -> None:
    calibration = nominal_calibration(um_per_px=1.33, depth_um=100)
    closed = ClosedWindow.__new__(ClosedWindow)
    object.__setattr__(closed, "latency_ms", np.array([4.0, 6.0], np.float32))
    stats = stats_message(
        closed,
        provenance=Provenance(device="d", boot_id="b", pipeline="p", model_sha256="m", calibration=calibration),
        run_id="r",
        before=LoopState(frames_in=10, frames_counted=8, particles=100),
        now=LoopState(frames_in=50, frames_counted=28, particles=300),
        elapsed_s=2.0,
        frames_dropped=3,
        counters=PublisherCounters(),
    )
    assert (stats.frames_per_s_in, stats.frames_per_s_out, stats.particles_per_s) == (20.0, 10.0, 100.0)
    assert stats.stages["frame"].p50_ms == pytest.approx(5.0)
