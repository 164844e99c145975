"""The measurement of this machine: complete, consistent, and of the whole loop."""

import json
import subprocess
import sys
from typing import Any

import pytest

from edge_app.speed import LINE_RATE_PER_MIN, HeldFrames, SpeedRequest

REQUIRED = {
    "loop_particles_per_min", "segmentation_frames_per_s", "classifier_particles_per_min", "line_rate_multiple",
    "backend", "threads", "p50_ms", "p99_ms", "rss_mb",
}  # fmt: skip


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    command = [sys.executable, "-m", "edge_app", "bench", "--json", "--frames", "40", "--repeats", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_json_has_everything_asked_for(result: dict[str, Any]) -> None:
    assert set(result) >= REQUIRED
    assert 0 < result["p50_ms"] <= result["p99_ms"]
    assert result["rss_mb"] > 20
    assert result["threads"] >= 1


def test_figures_agree_with_each_other(result: dict[str, Any]) -> None:
    per_min = result["loop_particles_per_min"]
    assert result["line_rate_multiple"] == pytest.approx(per_min / LINE_RATE_PER_MIN, abs=0.01)
    assert per_min == pytest.approx(result["loop_frames_per_s"] * result["particles_per_frame"] * 60, rel=0.01)
    # 175,000/mL times the volume of a frame, 0.232 uL, are 41 centres; particles cut by the border come on top.
    assert 38 < result["true_particles_per_frame"] < 50
    # The loop meets most of them: the measurement is of particles, not of empty frames.
    assert result["particles_per_frame"] > 0.5 * result["true_particles_per_frame"]
    assert result["loop_share_of_parts"] > 0
    assert result["run_particles_per_min"] > 0
    assert set(result["stage_ms"]) >= {"segment", "measure", "classify"}


def test_unknown_back_end_is_one_line_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "edge_app", "bench", "--backend", "abacus"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "abacus" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_held_frames_go_round_as_one_long_run() -> None:
    from edge_app.capture.simulation.flow_cell import open_simulation

    source = open_simulation(SpeedRequest(distinct_frames=3).uri)
    held = list(source.frames())
    again = list(HeldFrames(source.info, held, count=7).frames())
    assert [f.sequence for f in again] == list(range(7))
    assert [f.time_s for f in again] == pytest.approx([i / 10 for i in range(7)])
    assert all(f.image is held[i % 3].image for i, f in enumerate(again))
