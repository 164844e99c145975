"""Tracks against NIST's own, against its rule written out plainly, and against a simulated cell's identities."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import measure
from edge_app.measurement.tracks import TrackRule, Tracks, find_tracks, summarise_tracks
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.segmenter import Segmenter

NIST_UM_PER_PX = 0.759
SAMPLE = Path(__file__).parent / "data" / "nist_track_sample.csv"
# Of FlowImageTrack100_Sample_Out.csv: first image, images, mean time, mean x, mean diameter, slope.
NIST_TRACKS = [
    (1, 4, 15.35, 694.12, 5.11, 4.52e3),
    (5, 4, 15.70, 520.00, 5.56, 4.14e3),
    (8, 5, 15.81, 500.90, 5.31, 4.72e3),
    (12, 4, 15.83, 529.62, 4.96, 4.10e3),
    (16, 4, 15.87, 700.12, 5.02, 3.49e3),
    (20, 5, 15.94, 569.50, 7.01, 3.88e3),
    (21, 5, 15.94, 556.10, 5.33, 3.88e3),
    (27, 5, 15.99, 709.00, 5.09, 4.22e3),
    (33, 4, 16.01, 782.62, 4.95, 4.18e3),
    (34, 5, 16.04, 512.80, 5.22, 4.05e3),
    (40, 5, 16.08, 726.90, 4.86, 4.04e3),
    (47, 4, 16.11, 766.38, 4.69, 3.92e3),
    (55, 4, 16.15, 797.38, 4.84, 4.54e3),
]


def _particles(frame: Any, time_s: Any, x: Any, y: Any, ecd_um: Any, border: Any = None) -> Particles:
    n = len(frame)
    columns: dict[str, Any] = {name: np.zeros(n, np.float32) for name in Particles.__dataclass_fields__}
    columns |= {
        "frame": np.asarray(frame, np.int32),
        "time_s": np.asarray(time_s, np.float32),
        "centroid_x_px": np.asarray(x, np.float32),
        "centroid_y_px": np.asarray(y, np.float32),
        "ecd_um": np.asarray(ecd_um, np.float32),
        "border": np.zeros(n, bool) if border is None else np.asarray(border, bool),
    }
    return Particles(**columns)


def test_the_tracks_are_those_that_nist_publishes_for_its_sample() -> None:
    with SAMPLE.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    number, x, y, size, time_s = (
        np.array([float(r[k]) for r in rows])
        for k in ("Particle ID", "Capture X", "Capture Y", "Diameter (FD)", "Elapsed Time")
    )
    x += np.array([float(r["Image Width"]) for r in rows]) / 2
    y += np.array([float(r["Image Height"]) for r in rows]) / 2
    inside = (y >= 50) & (y <= 900)  # what NIST leaves out at both ends of the picture
    frame = np.unique(time_s, return_inverse=True)[1]
    tracks = find_tracks(_particles(frame, time_s, x, y, size, ~inside), um_per_px=NIST_UM_PER_PX)
    assert tracks.counted[: len(NIST_TRACKS)].all()
    for k, (first, images, middle_s, middle_x, _, slope) in enumerate(NIST_TRACKS):
        assert number[tracks.first[k]] == first
        assert tracks.images[k] == images
        assert tracks.time_s[k] == pytest.approx(middle_s, abs=0.006)
        assert tracks.x_um[k] / NIST_UM_PER_PX == pytest.approx(middle_x, abs=0.006)
        assert tracks.speed_um_per_s[k] / NIST_UM_PER_PX == pytest.approx(slope, rel=0.002)
    mean_size = [float(size[tracks.track == k].mean()) for k in range(len(NIST_TRACKS))]
    assert mean_size == pytest.approx([t[4] for t in NIST_TRACKS], abs=0.006)
    median_size = [float(np.median(size[tracks.track == k])) for k in range(len(NIST_TRACKS))]
    assert tracks.ecd_um[: len(NIST_TRACKS)] == pytest.approx(median_size, abs=1e-5)


def _plainly(p: Particles, um_per_px: float, rule: TrackRule) -> list[int]:
    """NIST's rule, image by image, for rows in the order of time."""
    track = [-1] * len(p)
    number = 0
    for row in range(len(p)):
        if track[row] >= 0 or p.border[row]:
            continue
        at = row
        while True:
            track[at] = number
            for j in range(at + 1, len(p)):
                dx, dy = ((float(c[j]) - float(c[at])) * um_per_px for c in (p.centroid_x_px, p.centroid_y_px))
                if (
                    track[j] < 0
                    and not p.border[j]
                    and p.frame[j] > p.frame[at]
                    and float(p.time_s[j]) <= float(p.time_s[at]) + rule.ahead_s
                    and abs(dx) < rule.across_um
                    and -rule.back_um < dy < rule.along_um
                    and abs(float(p.ecd_um[j]) / float(p.ecd_um[at]) - 1) < rule.size_share
                ):
                    at = j
                    break
            else:
                break
        number += 1
    return track


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.floats(0.4, 2.0))
def test_every_image_is_where_the_rule_puts_it(seed: int, n: int, um_per_px: float) -> None:
    rng = np.random.default_rng(seed)
    frame = np.sort(rng.integers(0, 12, n))
    p = _particles(
        frame, frame / 20, rng.uniform(0, 12, n), rng.uniform(0, 600, n), rng.lognormal(2, 0.2, n), rng.random(n) < 0.1
    )
    rule = TrackRule()
    tracks = find_tracks(p, um_per_px=um_per_px, rule=rule)
    assert tracks.track.tolist() == _plainly(p, um_per_px, rule)
    used = tracks.track >= 0
    assert tracks.images.sum() == used.sum() == (~p.border).sum()
    for k in range(len(tracks)):
        rows = np.flatnonzero(tracks.track == k)
        assert tracks.first[k] == rows[0]
        assert tracks.ecd_um[k] == pytest.approx(float(np.median(p.ecd_um[rows])), rel=1e-6)
        assert np.all(np.diff(p.frame[rows]) > 0)


def test_the_order_of_the_rows_within_a_run_does_not_matter_for_what_is_joined() -> None:
    rng = np.random.default_rng(4)
    frame = np.repeat(np.arange(6), 3)
    x = np.tile([100.0, 200.0, 300.0], 6)
    p = _particles(frame, frame / 20, x, 30.0 * frame + 20, np.tile([5.0, 8.0, 12.0], 6))
    shuffled = rng.permutation(len(p))
    for rows in (np.arange(len(p)), shuffled):
        tracks = find_tracks(p.take(rows), um_per_px=1.0)
        assert len(tracks) == 3
        assert sorted(tracks.ecd_um.tolist()) == [5.0, 8.0, 12.0]
        assert tracks.speed_um_per_s == pytest.approx([600.0] * 3)


def test_what_rests_and_what_is_seen_once_does_not_count() -> None:
    frame = np.array([0, 0, 0, 1, 1, 2])
    p = _particles(frame, frame / 10, [10, 100, 200, 10, 200, 10], [50, 50, 50, 51, 150, 50], [5, 5, 5, 5, 5, 5])
    rule = TrackRule()
    tracks = find_tracks(p, um_per_px=1.0, rule=rule)
    assert tracks.counted.tolist() == [False, False, True]
    found = summarise_tracks(
        tracks, rule=rule, seconds=60.0, frame_interval_s=0.1, height_um=500.0, flow_rate_ul_per_min=100.0,
        imaged_share=0.5,
    )  # fmt: skip
    assert (found.particles, found.images, found.single_images, found.resting) == (1, 6, 1, 1)
    assert found.volume_ml == pytest.approx(0.05)
    assert found.per_ml is not None
    assert found.per_ml["5"] == pytest.approx(20.0)
    assert found.per_ml["10"] == 0.0
    assert found.speed_um_per_s == pytest.approx((1000.0,) * 3)
    assert found.views_of_fastest == pytest.approx(5.0)


def test_nothing_at_all() -> None:
    rule = TrackRule()
    tracks = find_tracks(_particles([], [], [], [], []), um_per_px=1.0)
    found = summarise_tracks(tracks, rule=rule, seconds=0.0, frame_interval_s=0.1, height_um=500.0)
    assert len(tracks) == found.particles == 0
    assert [found.speed_um_per_s, found.per_ml, found.volume_ml, found.views_of_fastest] == [None] * 4


@pytest.fixture(scope="module")
def cell() -> tuple[Particles, npt.NDArray[np.int64], dict[int, float], float]:
    """A slow flow through a narrow cell: images, true identity of each, true size of each particle, um per px."""
    source = open_simulation(
        "sim:?concentration=25000&mix=glass:1&size_min_um=6&size_max_um=30&flow_rate=6&cell_width_mm=0.8512&rate_hz=10"
        "&width=640&height=512&frames=300&seed=11&stuck=0&dirt=0&strobe_us=10"
    )
    info = source.info
    assert info.um_per_px
    scale = nominal_calibration(um_per_px=info.um_per_px, depth_um=100.0)
    segmenter = Segmenter.for_source(info)
    parts: list[Particles] = []
    identity: list[npt.NDArray[np.int64]] = []
    sizes: dict[int, float] = {}
    for frame in source.frames():
        result = segmenter.process(frame)
        if result.reason is not None or result.ratio is None or frame.truth is None:
            continue
        p = measure(result.ratio, result.regions, frame=frame.sequence, time_s=frame.time_s, calibration=scale)
        t = frame.truth
        inside_y = (t.y_px + t.height_px > 0) & (t.y_px < info.height_px)
        sizes |= dict(zip(t.particle_id[inside_y].tolist(), t.ecd_um[inside_y].tolist(), strict=True))
        own = np.full(len(p), -1)
        if len(t.x_px) and len(p):
            away = np.hypot(
                t.x_px + t.width_px / 2 - p.centroid_x_px[:, None], t.y_px + t.height_px / 2 - p.centroid_y_px[:, None]
            )
            own = np.where(away.min(1) < 10, t.particle_id[away.argmin(1)], -1)
        parts.append(p)
        identity.append(own)
    return Particles.concatenate(parts), np.concatenate(identity), sizes, info.um_per_px


RULE = TrackRule(along_um=250.0)


@pytest.fixture(scope="module")
def tracks(cell: tuple[Particles, npt.NDArray[np.int64], dict[int, float], float]) -> Tracks:
    return find_tracks(cell[0], um_per_px=cell[3], rule=RULE)


def test_simulated_particles_are_told_apart_and_counted_once(
    cell: tuple[Particles, npt.NDArray[np.int64], dict[int, float], float], tracks: Tracks
) -> None:
    particles, identity, _, _ = cell
    known = (identity >= 0) & (tracks.track >= 0)
    pure = [len(set(identity[known & (tracks.track == k)])) <= 1 for k in np.flatnonzero(tracks.counted)]
    assert np.mean(pure) > 0.97
    twice = {i for i in set(identity[known].tolist()) if (identity[known] == i).sum() >= 2}
    assert int(tracks.counted.sum()) == pytest.approx(len(twice), rel=0.05)
    assert len(particles) > 2 * len(twice)


def test_the_concentration_is_that_of_the_sample_beside_the_default_one(
    cell: tuple[Particles, npt.NDArray[np.int64], dict[int, float], float], tracks: Tracks
) -> None:
    particles, _, _, um_per_px = cell
    found = summarise_tracks(
        tracks, rule=RULE, seconds=30.0, frame_interval_s=0.1, height_um=512 * um_per_px, flow_rate_ul_per_min=6.0
    )
    assert found.views_of_fastest is not None
    assert found.views_of_fastest > 2
    assert found.per_ml is not None
    assert found.volume_ml == pytest.approx(0.003)
    # 75 particles or so flow past: 25,000 per mL within three standard deviations.
    assert found.per_ml["2"] == pytest.approx(25_000, rel=3 / np.sqrt(75))
    frame_ml = 640 * 512 * um_per_px**2 * 100e-12
    default = float(particles.weight.sum()) / (300 * frame_ml)
    assert found.per_ml["2"] == pytest.approx(default, rel=0.35)


def test_speeds_are_those_of_the_parabola(
    cell: tuple[Particles, npt.NDArray[np.int64], dict[int, float], float], tracks: Tracks
) -> None:
    # 6 uL/min through 100 um x 0.8512 mm: mean 1175 um/s, at most 1.5 times that in the middle of the depth.
    mean = 6e9 / 60 / (100 * 851.2)
    speed = tracks.speed_um_per_s[tracks.counted]
    assert float(np.percentile(speed, 98)) == pytest.approx(1.5 * mean, rel=0.05)
    # By number of particles that pass, as each counts once: flux-weighted mean is 1.2 times the mean speed.
    assert float(speed.mean()) == pytest.approx(1.2 * mean, rel=0.08)


def test_the_median_of_a_track_scatters_less_than_its_images(
    cell: tuple[Particles, npt.NDArray[np.int64], dict[int, float], float], tracks: Tracks
) -> None:
    particles, identity, sizes, _ = cell
    long = np.flatnonzero(tracks.counted & (tracks.images >= 4))
    rows = np.isin(tracks.track, long) & (identity >= 0)
    truth = np.array([sizes[i] for i in identity[rows].tolist()])
    single = np.log(particles.ecd_um[rows] / truth)
    joined = np.log(tracks.ecd_um[tracks.track[rows]] / truth)
    assert float(np.std(joined)) < float(np.std(single))
