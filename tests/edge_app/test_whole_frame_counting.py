"""Whole frames through the device's own loop: the count against the truth, short form of the benchmark of that name."""

import numpy as np
import pytest

from benchmarks.whole_frame_counting import PARTS, Study, account, bias, coverage, run_once, shipped_classifier, study
from edge_app.measurement.window import Window

RUNS = 4


@pytest.fixture(scope="module")
def found() -> Study:
    return study(shipped_classifier(), concentration=175_000.0, runs=RUNS, frames=40, seed=8)


def test_the_parts_of_a_bias_add_up_to_it(found: Study) -> None:
    for size_um in (5.0, 10.0, 25.0):
        row = bias(found, size_um)
        assert sum(row[name] for name in PARTS) == pytest.approx(row["bias"], abs=1e-9)


def test_counting_is_unbiased_beside_the_reading_of_sizes(found: Study) -> None:
    row = bias(found, 5.0)
    assert row["true"] > 400
    # What no count can see is not its fault: faint protein in focus, and sizes read across the edge.
    counting = row["bias"] - row["faint"] - row["sizing"]
    assert abs(counting) < 0.02 + 3 / np.sqrt(row["true"])
    assert abs(row["stuck"]) < 0.01
    assert row["burst"] < 0.02
    assert -0.02 < row["merged"] <= 0


def test_nothing_is_lost_without_a_number(found: Study) -> None:
    left_out = found.left_out
    assert left_out["frame_bubbles"] > 0
    assert left_out["lost"] > 0
    # Every frame that the camera exposed is in one of the numbers.
    assert left_out["analysed"] + left_out["lost"] + left_out["frame_bubbles"] == RUNS * 40


def test_the_interval_holds_what_runs_give_on_average(found: Study) -> None:
    row = coverage(found, 10.0, share=0.04)
    assert row["coverage_as_read"] >= 0.5  # 1 or none of 4 comes once in 2,000 times


def test_a_burst_was_the_whole_count_of_a_thin_sample() -> None:
    classifier = shipped_classifier()
    bursts = {"bubble_bursts_per_min": "30", "stuck_count": "0", "lose": "0"}
    run = run_once(classifier, concentration=2_000.0, frames=60, seed=5, scene=bursts)
    bubbles = [int((t.family == "air_bubble").sum()) for t in run.truth.values()]
    assert max(bubbles) > 15
    total: Window = sum((w.window for w in run.windows[1:]), run.windows[0].window)
    assert total.rejected["frame_bubbles"] >= sum(n > 8 for n in bubbles)
    assert total.frames > 20
    row = account(run)[5.0]
    assert row["burst"] <= 2
