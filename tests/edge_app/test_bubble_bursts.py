"""Bursts of air bubbles: left out with their volume, and nothing else is."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from edge_app.bubble_bursts import FRAMES_AFTER, BubbleBursts
from edge_app.classification.rejection import Classification
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import measure
from edge_app.segmentation.threshold import segment
from edge_app.windowing import ClosedWindow, CountedFrame, WindowBuilder

CLASSES = ("air_bubble", "glass", "unknown")
SCALE = nominal_calibration(um_per_px=1, depth_um=100)


def frame(sequence: int, bubbles: int, *, others: int = 1, size_px: int = 8, reason: str | None = None) -> CountedFrame:
    """A frame with that many squares called bubbles, and others called glass."""
    ratio = np.full((200, 400), 160, np.uint8)
    for k in range(bubbles + others):
        y, x = 10 + 20 * (k // 18), 10 + 20 * (k % 18)
        ratio[y : y + size_px, x : x + size_px] = 80
    particles = measure(ratio, segment(ratio), frame=sequence, time_s=sequence / 10, calibration=SCALE)
    n = len(particles)
    assert n == bubbles + others
    return CountedFrame(
        sequence=sequence,
        time_s=sequence / 10,
        reason=reason,
        lost_before=0,
        particles=particles,
        classification=Classification(
            class_index=np.array([0] * bubbles + [1] * others, np.int16),
            confidence=np.ones(n, np.float32),
            probabilities=np.eye(2, dtype=np.float32)[[0] * bubbles + [1] * others],
        ),
        rejected=Counter(stuck=1),
        found_stuck=np.zeros((0, 3), np.float32),
        ratio=ratio,
        latency_ms=1.0,
    )


def windows(frames: list[CountedFrame], leave_out: bool = True) -> list[ClosedWindow]:
    builder = WindowBuilder(
        run_id="r",
        classes=CLASSES,
        frame_volume_ml=lambda height, width: 1e-4,
        length_s=1.0,
        leave_out_bubble_bursts=leave_out,
    )
    closed = [w for f in frames for w in builder.add(f)]
    return closed + list(builder.flush())


def counts(bursts: dict[int, int], *, frames: int = 60) -> list[CountedFrame]:
    return [frame(i, bursts.get(i, i % 7 == 0)) for i in range(frames)]


def test_the_frames_of_a_burst_are_left_out_with_their_volume() -> None:
    found = windows(counts({30: 12, 31: 25, 32: 25, 33: 6}))
    total = sum((w.window for w in found[1:]), found[0].window)
    # One before, four of the burst, and those after it.
    left_out = 1 + 4 + FRAMES_AFTER
    assert total.rejected["frame_bubbles"] == total.frames_rejected == left_out
    assert total.frames == 60 - left_out
    assert total.volume_ml == pytest.approx(total.frames * 1e-4)
    assert total.histogram.counts[1].sum() == total.frames
    assert total.rejected["stuck"] == total.frames
    assert not np.isin(np.arange(29, 39), np.concatenate([w.particles.frame for w in found])).any()


def stack(first: int, pages: int, bubbles: int) -> list[CountedFrame]:
    return [replace(frame(first + page, bubbles), page=page) for page in range(pages)]


def test_a_stack_of_pictures_is_a_run_of_its_own() -> None:
    # As a folder of reference stacks of discs, which the network calls bubbles: none of the first, many of the others.
    stacks = [*stack(0, 14, 0), *stack(14, 5, 30), *stack(19, 5, 12), *stack(24, 5, 40)]
    found = windows(stacks)
    assert sum(w.window.frames_rejected for w in found) == 0
    seen = np.concatenate([w.particles.frame for w in found])
    assert np.bincount(seen).tolist() == [1] * 14 + [31] * 5 + [13] * 5 + [41] * 5
    in_one = [replace(f, page=k) for k, f in enumerate(stacks)]
    assert sum(w.window.frames_rejected for w in windows(in_one)) > 5


def test_a_burst_within_a_stack_is_still_one() -> None:
    pages = [*stack(0, 20, 0), *stack(20, 3, 25), *stack(23, 20, 0)]
    in_one = [replace(f, page=k) for k, f in enumerate(pages)]
    assert sum(w.window.frames_rejected for w in windows(in_one)) == 1 + 3 + FRAMES_AFTER


def test_frames_stay_in_order_and_in_their_windows() -> None:
    found = windows(counts({19: 12, 20: 25}))
    assert [w.window.seq for w in found] == list(range(6))
    assert [(w.window.first_frame, w.window.last_frame) for w in found] == [(10 * k, 10 * k + 9) for k in range(6)]
    # The one before the burst is in the window before.
    assert [w.window.frames_rejected for w in found] == [0, 2, 6, 0, 0, 0]


def test_a_burst_that_the_run_begins_with_is_found_too() -> None:
    found = windows(counts({0: 20, 1: 30, 2: 25, 3: 9}))
    total = sum((w.window for w in found[1:]), found[0].window)
    assert total.frames_rejected == 4 + FRAMES_AFTER
    assert [w.window.first_frame for w in found] == [10 * k for k in range(6)]


def test_a_run_too_short_to_know_the_usual_is_counted_whole() -> None:
    found = windows(counts({4: 30}, frames=8))
    assert (found[0].window.frames, found[0].window.frames_rejected) == (8, 0)


def test_a_shower_of_other_particles_is_the_samples_own() -> None:
    frames = [frame(i, 0, others=40 if 30 <= i < 35 else 1) for i in range(60)]
    total = sum((w.window for w in windows(frames)[1:]), windows(frames)[0].window)
    assert total.frames == 60
    assert total.particles == 55 + 5 * 40


def test_it_can_be_switched_off_and_knows_no_bubbles_without_their_class() -> None:
    frames = counts({30: 25, 31: 25})
    assert sum(w.window.frames for w in windows(frames, leave_out=False)) == 60
    builder = WindowBuilder(
        run_id="r", classes=("oil", "glass", "unknown"), frame_volume_ml=lambda h, w: 1.0, length_s=9
    )
    closed = [w for f in frames for w in builder.add(f)] + list(builder.flush())
    assert closed[0].window.frames == 60


def test_small_ones_are_no_burst_and_frames_left_out_for_another_reason_are_not_asked() -> None:
    small = [frame(i, 25 if i == 30 else 0, size_px=3) for i in range(60)]
    assert sum(w.window.frames for w in windows(small)) == 60
    dark = counts({})
    dark[30] = frame(30, 0, others=0, reason="frame_dark")
    total = sum((w.window for w in windows(dark)[1:]), windows(dark)[0].window)
    assert total.rejected["frame_dark"] == total.frames_rejected == 1


@pytest.mark.parametrize("rate", [0.02, 0.5, 3.0, 20.0])
def test_chance_is_no_burst(rate: float) -> None:
    numbers = np.random.default_rng(int(100 * rate)).poisson(rate, 20_000)
    bursts = BubbleBursts()
    assert sum(bursts.update(int(n)) for n in numbers) == 0


@pytest.mark.parametrize(("usual", "more"), [(0.02, 8), (1.0, 20), (10.0, 40)])
def test_a_burst_over_any_usual_rate_is_found(usual: float, more: int) -> None:
    rng = np.random.default_rng(3)
    bursts = BubbleBursts()
    for _ in range(60):
        bursts.update(int(rng.poisson(usual)))
    assert all(bursts.update(int(rng.poisson(usual)) + more) for _ in range(10))


def test_a_change_that_stays_becomes_the_usual() -> None:
    rng = np.random.default_rng(4)
    bursts = BubbleBursts()
    left_out = [bursts.update(int(rng.poisson(0.1 if i < 300 else 20))) for i in range(900)]
    assert all(left_out[300:440])
    assert not any(left_out[500:])
