"""Frames against their own truth: counts, places, flow, light and repeatability."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest

from edge_app.capture.frame import Frame
from edge_app.capture.simulation.flow_cell import SimulatedFlowCell, open_simulation
from edge_app.capture.simulation.sprite_library import SpriteLibrary
from edge_app.capture.source import FrameSource
from edge_app.errors import UserError

MIX = "silicone_oil:0.5,air_bubble:0.2,cellulose:0.3"
QUIET = "noise=0&shading=0&led_drift=0&led_flicker_fraction=0&fixed_pattern_fraction=0&dirt=0&stuck=0"


@pytest.fixture
def cell(sprites: Path):
    def open_cell(query: str = "", *, mix: str = MIX) -> SimulatedFlowCell:
        return open_simulation(f"sim:?sprites={sprites}&mix={mix}&{query}")

    return open_cell


def _digest(frames: list[Frame]) -> str:
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(frame.image.tobytes())
        assert frame.truth is not None
        for column in vars(frame.truth).values():
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


def test_it_is_a_frame_source_that_tells_what_it_is(cell) -> None:
    source = cell("frames=3&width=320&height=256&rate_hz=8&depth_um=80&flow_rate=150")
    assert isinstance(source, FrameSource)
    info = source.info
    assert (info.kind, info.width_px, info.height_px, info.frame_rate_hz) == ("sim", 320, 256, 8)
    assert (info.um_per_px, info.depth_um, info.flow_rate_ul_per_min, info.frames_total) == (1.33, 80, 150, 3)
    assert len(str(info.details["sprites_sha256"])) == 64
    frames = list(source.frames())
    assert [f.sequence for f in frames] == [0, 1, 2]
    assert [f.time_s for f in frames] == [0, 0.125, 0.25]
    for f in frames:
        assert (f.image.dtype, f.image.shape) == (np.uint8, (256, 320))
        assert f.image.flags.c_contiguous
        assert (f.lost_before, f.name) == (0, "sim")
        with pytest.raises(ValueError, match="read-only"):
            f.image[0, 0] = 1


def test_info_uri_opens_the_same_frames(cell) -> None:
    first = cell("frames=4&width=320&height=256&seed=5&concentration=400000")
    again = open_simulation(first.info.uri)
    assert _digest(list(first.frames())) == _digest(list(again.frames()))


def test_same_seed_same_bytes_at_any_reading_speed(cell) -> None:
    query = "frames=12&width=480&height=320&concentration=300000&schlieren=0.01&bubble_bursts_per_min=60&strobe_us=200"
    query += "&seed="
    fast = _digest(list(cell(query + "3").frames()))
    slow = []
    for frame in cell(query + "3").frames():
        time.sleep(0.01)
        slow.append(frame)
    assert _digest(slow) == fast
    assert _digest(list(cell(query + "4").frames())) != fast


def test_concentration_times_volume_is_the_mean_count_of_centres(cell) -> None:
    # Liquid is new in every frame at this flow, so that frames are independent and Poisson bounds hold.
    frames, per_ml = 1500, 2_000_000.0
    source = cell(
        f"frames={frames}&width=128&height=96&concentration={per_ml}&flow_rate=20000&rate_hz=1&stuck=0",
        mix="silicone_oil:1",
    )
    counts = []
    for frame in source.frames():
        t = frame.truth
        cx, cy = t.x_px + t.width_px / 2 - 0.5, t.y_px + t.height_px / 2 - 0.5
        counts.append(int(((cx > -0.5) & (cx < 127.5) & (cy > -0.5) & (cy < 95.5)).sum()))
    expected = per_ml * 128 * 96 * 1.33**2 * 100 * 1e-12
    assert abs(np.sum(counts) - frames * expected) < 4 * np.sqrt(frames * expected)
    # Poisson: variance equal to the mean, within 4 standard errors of a variance.
    assert abs(np.var(counts) / np.mean(counts) - 1) < 4 * np.sqrt(2 / frames)


@pytest.mark.parametrize("flow", ["flow_rate=200&rate_hz=10", "flow_rate=30&rate_hz=10"])
def test_border_weights_give_the_concentration_back_whatever_the_overlap_of_frames(cell, flow: str) -> None:
    # Only particles wholly inside count, each for the positions that it could have had (Miles-Lantuejoul).
    runs = []
    for seed in range(8):
        width, height, frames, per_ml = 256, 192, 150, 600_000.0
        source = cell(
            f"frames={frames}&width={width}&height={height}&concentration={per_ml}&stuck=0&seed={seed}&{flow}"
            "&size_law=lognormal&size_median_um=20&size_sigma_ln=0.4"
        )
        total = 0.0
        for frame in source.frames():
            t = frame.truth
            inside = (t.x_px >= 0) & (t.y_px >= 0) & (t.x_px + t.width_px <= width) & (t.y_px + t.height_px <= height)
            free = (width - t.width_px[inside]) * (height - t.height_px[inside])
            total += float((width * height / free).sum())
        runs.append(total / (frames * width * height * 1.33**2 * 100 * 1e-12) / per_ml)
    # Repeats are correlated: the spread of the runs themselves is the yardstick.
    assert abs(np.mean(runs) - 1) < 4 * np.std(runs, ddof=1) / np.sqrt(len(runs))
    assert abs(np.mean(runs) - 1) < 0.05


def test_shares_and_sizes_are_those_asked_for(cell) -> None:
    source = cell(
        "frames=400&width=256&height=256&concentration=1500000&flow_rate=20000&rate_hz=1&stuck=0",
        mix="silicone_oil:0.7,rubber:0.3",
    )
    family, ecd = [], []
    for frame in source.frames():
        family.append(frame.truth.family)
        ecd.append(frame.truth.ecd_um)
    names, sizes = np.concatenate(family), np.concatenate(ecd)
    n = len(names)
    assert n > 4000
    assert abs((names == "rubber").mean() - 0.3) < 4 * np.sqrt(0.21 / n)
    # Power law of slope 2 from 2.5 um (the smallest sprite) to 60 um: share of at least 10 um.
    share = (10.0**-2 - 60.0**-2) / (2.5**-2 - 60.0**-2)
    # Sprites come in steps of 28 %, so that the edge at 10 um may be off by half of one.
    low, high = share / 1.28, share * 1.28
    assert low - 4 * np.sqrt(share / n) < (sizes >= 10).mean() < high + 4 * np.sqrt(share / n)


def test_no_particle_is_smaller_or_larger_than_asked_for(cell) -> None:
    for frame in cell("frames=20&size_min_um=9&size_max_um=21&concentration=300000&stuck=9").frames():
        assert frame.truth.ecd_um.min() >= 9
        assert frame.truth.ecd_um.max() <= 21


def test_truth_boxes_hold_what_is_dark_or_bright_and_nothing_else_is(cell) -> None:
    checked = 0
    for frame in cell(f"frames=60&width=480&height=400&concentration=150000&{QUIET}").frames():
        t = frame.truth
        changed = np.abs(frame.image.astype(int) - 205) > 40
        boxed = np.zeros(changed.shape, bool)
        for i in range(len(t.ecd_um)):
            x0, y0 = int(np.floor(t.x_px[i])), int(np.floor(t.y_px[i]))
            x1, y1 = int(np.ceil(t.x_px[i] + t.width_px[i])), int(np.ceil(t.y_px[i] + t.height_px[i]))
            boxed[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = True
            smallest = 15 if t.family[i] == "cellulose" else 6
            if t.ecd_um[i] < smallest or min(x0, y0) < 3 or x1 > 477 or y1 > 397:
                continue
            others = [
                j for j in range(len(t.ecd_um)) if j != i
                and t.x_px[j] < x1 + 3 and t.x_px[j] + t.width_px[j] > x0 - 3
                and t.y_px[j] < y1 + 3 and t.y_px[j] + t.height_px[j] > y0 - 3
            ]  # fmt: skip
            if others:
                continue
            rows, columns = np.nonzero(changed[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3])
            found = np.array([columns.min() + x0 - 3, rows.min() + y0 - 3, np.ptp(columns) + 1, np.ptp(rows) + 1])
            true = np.array([t.x_px[i], t.y_px[i], t.width_px[i], t.height_px[i]])
            assert np.abs(found - true).max() < 1.7, (t.family[i], found, true)
            # The area above half of its contrast is the true one (discs and rods render as they are).
            contrast = {"silicone_oil": 0.5, "air_bubble": 0.8, "cellulose": 0.3}[str(t.family[i])]
            off = np.abs(frame.image[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3].astype(int) - 205)
            area = (off > 205 * contrast / 2).sum() * 1.33**2
            assert 2 * np.sqrt(area / np.pi) == pytest.approx(t.ecd_um[i], rel=0.12)
            checked += 1
        assert not (changed & ~boxed).any()
    assert checked > 30


def test_crescents_point_away_from_the_middle_of_the_field(cell) -> None:
    outward = []
    for frame in cell(
        f"frames=60&concentration=30000&size_min_um=15&size_max_um=60&{QUIET}", mix="silicone_oil:1"
    ).frames():
        t = frame.truth
        for i in range(len(t.ecd_um)):
            true = np.array([t.x_px[i] + t.width_px[i] / 2 - 0.5, t.y_px[i] + t.height_px[i] / 2 - 0.5])
            x0, y0 = int(t.x_px[i]) - 2, int(t.y_px[i]) - 2
            x1, y1 = int(x0 + t.width_px[i]) + 5, int(y0 + t.height_px[i]) + 5
            middle = true - [639.5, 511.5]
            if x0 < 0 or y0 < 0 or x1 > 1280 or y1 > 1024 or np.hypot(*middle) < 300:
                continue
            dark = 205.0 - frame.image[y0:y1, x0:x1]
            y, x = np.mgrid[y0:y1, x0:x1]
            shift = np.array([(dark * x).sum(), (dark * y).sum()]) / dark.sum() - true
            outward.append(float(shift @ middle) / np.hypot(*shift) / np.hypot(*middle))
    assert len(outward) > 50
    assert np.median(outward) > 0.95


def test_depth_sets_the_speed_and_the_mean_is_the_flow_rate(cell) -> None:
    source = cell(
        "frames=400&width=512&height=512&concentration=200000&flow_rate=40&rate_hz=10&stuck=0", mix="silicone_oil:1"
    )
    mean = 40e9 / 60 / (100 * 2500)
    last: dict[int, float] = {}
    z, way, x_moves = [], [], []
    last_x: dict[int, float] = {}
    for frame in source.frames():
        t = frame.truth
        now = dict(zip(t.particle_id.tolist(), (t.y_px + t.height_px / 2).tolist(), strict=True))
        now_x = dict(zip(t.particle_id.tolist(), (t.x_px + t.width_px / 2).tolist(), strict=True))
        for i, particle in enumerate(t.particle_id.tolist()):
            if particle in last:
                z.append(float(t.z_um[i]))
                way.append((now[particle] - last[particle]) * 1.33 * 10)
                x_moves.append(now_x[particle] - last_x[particle])
        last, last_x = now, now_x
    speed, depth = np.array(way), np.array(z)
    assert len(speed) > 1000
    assert np.abs(x_moves).max() < 0.01
    assert speed.max() <= 1.5 * mean * 1.001
    assert speed.max() > 1.45 * mean
    # Sprites stand at 15 and 45 um from focus: 15 um stands for 0..30 um, 45 um for what is nearer to the walls.
    middle = speed[np.abs(depth) < 20].mean()
    wall = speed[np.abs(depth) > 40].mean()
    fine = np.linspace(0, 30, 1000)
    assert middle == pytest.approx(1.5 * mean * (1 - (fine / 50) ** 2).mean(), rel=0.05)
    assert wall < 0.55 * middle


def test_flux_of_new_particles_is_concentration_times_flow_through_the_field(cell) -> None:
    frames = 300
    source = cell(
        f"frames={frames}&width=256&height=64&concentration=2e7&flow_rate=10&rate_hz=50&stuck=0&size_max_um=4",
        mix="silicone_oil:1",
    )
    ids: set[int] = set()
    at_start = 0
    for frame in source.frames():
        t = frame.truth
        centre = t.x_px + t.width_px / 2 - 0.5
        ids.update(t.particle_id[(centre > -0.5) & (centre < 255.5)].tolist())
        at_start = at_start or len(ids)
    ul_per_s = 10 / 60 * (256 * 1.33) / 2500
    # Particles stay off the walls by their radius (1.25 to 2 um) and so run 3 % faster than the liquid on average.
    expected = 1.03 * 20_000 * ul_per_s * (frames - 1) / 50
    assert expected > 2000
    assert abs(len(ids) - at_start - expected) < 4 * np.sqrt(expected) + 0.02 * expected


def test_one_particle_keeps_its_id_its_family_and_its_size(cell) -> None:
    seen: dict[int, tuple[str, float, float]] = {}
    repeats = 0
    for frame in cell("frames=80&concentration=60000&stuck=0&rate_hz=10&flow_rate=200").frames():
        t = frame.truth
        assert len(set(t.particle_id.tolist())) == len(t.particle_id)
        for i, particle in enumerate(t.particle_id.tolist()):
            what = (str(t.family[i]), float(t.ecd_um[i]), float(t.z_um[i]))
            repeats += particle in seen
            assert seen.setdefault(particle, what) == what
    # 10 frames/s of 1.36 mm at 13 mm/s: many particles are seen twice or more, most of them slow ones near a wall.
    assert repeats > 0.1 * len(seen)


def test_stuck_particles_are_in_every_frame_at_their_place(cell) -> None:
    boxes = []
    for frame in cell("frames=6&stuck=3&stuck_from_frame=2&concentration=2000").frames():
        t = frame.truth
        stuck = t.stuck
        assert t.particle_id[stuck].tolist() == ([0, 1, 2] if frame.sequence >= 2 else [])
        if stuck.any():
            boxes.append(np.stack([t.x_px, t.y_px, t.width_px, t.height_px])[:, stuck])
    assert len(boxes) == 4
    for box in boxes[1:]:
        np.testing.assert_array_equal(box, boxes[0])


def test_noise_is_that_asked_for_at_background_and_follows_the_light(cell) -> None:
    query = "frames=120&width=200&height=160&shading=0&dirt=0&led_drift=0&led_flicker_fraction=0&flow_rate=0&noise=0.02"
    stack = np.stack([f.image for f in cell(query + "&concentration=0&stuck=0").frames()]).astype(np.float32)
    rounding = 1 / 12
    spread = np.sqrt(stack.var(0, ddof=1).mean() - rounding)
    assert spread == pytest.approx(0.02 * 205, rel=0.03)
    assert stack.mean() == pytest.approx(205, abs=0.3)
    # Independent from frame to frame and from pixel to pixel.
    residual = stack - stack.mean(0)
    assert abs((residual[1:] * residual[:-1]).mean() / residual.var()) < 0.03
    assert abs((residual[:, :, 1:] * residual[:, :, :-1]).mean() / residual.var()) < 0.03
    # Inside a nearly black particle there is a tenth of the light, and of the shot noise; the read noise stays.
    dark = list(cell(query + "&concentration=0&stuck=3&size_min_um=30&size_max_um=60", mix="rubber:1").frames())
    stack = np.stack([f.image for f in dark]).astype(np.float32)
    black = stack.mean(0) < 0.102 * 205
    assert black.sum() > 200
    want = 0.02 * 205 * np.sqrt(0.1 + 0.9 * 0.1)
    assert np.sqrt(stack.var(0, ddof=1)[black].mean() - rounding) == pytest.approx(want, rel=0.08)


def test_lamp_drifts_and_flickers_as_asked(cell) -> None:
    query = "frames=200&width=200&height=160&noise=0&concentration=0&stuck=0&rate_hz=10&led_drift_period_s=20"
    drift = np.array([f.image.mean() for f in cell(query + "&led_drift=0.1&led_flicker_fraction=0").frames()])
    wave = 205 * (1 + 0.1 * np.sin(2 * np.pi * np.arange(200) / 200))
    np.testing.assert_allclose(drift, wave, atol=0.6)
    flicker = np.array([f.image.mean() for f in cell(query + "&led_drift=0&led_flicker_fraction=0.02").frames()])
    assert flicker.std() / 205 == pytest.approx(0.02, rel=0.2)


def test_shading_darkens_the_corners_and_dirt_is_the_same_in_every_frame(cell) -> None:
    query = "frames=2&noise=0&concentration=0&stuck=0&led_drift=0&led_flicker_fraction=0&fixed_pattern_fraction=0"
    shaded = next(iter(cell(query + "&shading=0.2&dirt=0").frames())).image.astype(float)
    corners = np.mean([shaded[0, 0], shaded[0, -1], shaded[-1, 0], shaded[-1, -1]])
    assert corners / shaded.max() == pytest.approx(0.8, abs=0.03)
    clean = next(iter(cell(query + "&dirt=0").frames())).image.astype(int)
    first, second = (f.image.astype(int) for f in cell(query + "&dirt=12").frames())
    np.testing.assert_array_equal(first, second)
    assert (clean - first).max() > 3


def test_motion_smears_along_the_flow_only(cell) -> None:
    query = f"frames=30&width=320&height=256&concentration=300000&size_min_um=10&size_max_um=20&{QUIET}"

    def widths(strobe_us: float) -> tuple[float, float]:
        half_light = 205 * 0.55
        along, across = 0, 0
        for frame in cell(query + f"&strobe_us={strobe_us}", mix="rubber:1").frames():
            dark = frame.image < half_light
            grey = (frame.image < 185) & (frame.image > 40)
            along += int((grey & ~dark).sum())
            across += int(dark.sum())
        return along, across

    sharp, smeared = widths(0), widths(400)
    assert smeared[0] > 1.5 * sharp[0]
    one = cell(query + "&strobe_us=0", mix="rubber:1")
    same = cell(query + "&strobe_us=5", mix="rubber:1")
    assert _digest(list(one.frames())) == _digest(list(same.frames()))


def test_bursts_add_bubbles_for_their_time(cell) -> None:
    query = "frames=600&width=256&height=256&concentration=20000&stuck=0&seed=2"
    bubbles = [
        int((f.truth.family == "air_bubble").sum())
        for f in cell(
            query + "&bubble_bursts_per_min=6&bubble_burst_per_ml=2e6&bubble_burst_s=1.5", mix="silicone_oil:1"
        ).frames()
    ]
    active = np.array(bubbles) > 3
    # 6 a minute, 1.5 s each, in one minute of frames: 9 s of 60, widely spread.
    assert 15 < active.sum() < 250
    begins = (np.diff(active.astype(int)) == 1).sum()
    assert 1 <= begins <= 16
    calm = cell(query, mix="silicone_oil:1")
    assert not any((f.truth.family == "air_bubble").any() for f in calm.frames())


def test_schlieren_have_the_contrast_asked_for_and_run_with_the_flow(cell) -> None:
    query = f"frames=3&width=320&height=256&concentration=0&rate_hz=100&flow_rate=20&{QUIET}"
    query += "&schlieren=0.03&schlieren_size_um=60"
    images = [f.image.astype(float) for f in cell(query).frames()]
    assert images[0].std() / 205 == pytest.approx(0.03, rel=0.35)
    way = round(20e9 / 60 / (100 * 2500) / 100 / 1.33)
    assert way > 5
    np.testing.assert_allclose(images[1][way:], images[0][:-way], atol=1.01)


def test_lost_frames_are_told_and_the_others_are_the_same(cell) -> None:
    query = "frames=200&width=96&height=64&seed=8&concentration=500000"
    whole = {f.sequence: f for f in cell(query).frames()}
    source = cell(query + "&lose=0.2")
    frames = list(source.frames())
    assert source.info.frames_total == len(frames) < 200
    assert sum(f.lost_before for f in frames) + len(frames) == 200
    assert frames[-1].sequence == 199
    expected = -1
    for f in frames:
        expected += f.lost_before + 1
        assert f.sequence == expected
        np.testing.assert_array_equal(f.image, whole[f.sequence].image)
        np.testing.assert_array_equal(f.truth.particle_id, whole[f.sequence].truth.particle_id)
    assert 20 <= 200 - len(frames) <= 64


def test_endless_stream_goes_on_until_closed_and_loses_like_a_finite_one(cell) -> None:
    query = "width=64&height=64&lose=0.3&seed=3&concentration=0"
    finite = [f.sequence for f in cell(query + "&frames=50").frames()]
    source = cell(query + "&frames=0")
    assert source.info.frames_total is None
    endless = []
    for f in source.frames():
        endless.append(f.sequence)
        if f.sequence >= 60:
            source.close()
            source.close()
    assert [s for s in endless if s < 49] == [s for s in finite if s < 49]
    assert endless[-1] < 70


def test_prerendered_frames_repeat_with_new_ids_and_the_same_stuck_ones(cell) -> None:
    query = "width=128&height=96&concentration=1000000&seed=8&stuck=2"
    plain = list(cell(query + "&frames=5").frames())
    cycled = list(cell(query + "&frames=15&prerender=5").frames())
    assert [f.sequence for f in cycled] == list(range(15))
    assert [f.time_s for f in cycled] == pytest.approx([i / 10 for i in range(15)])
    moving: list[set[int]] = [set(), set(), set()]
    for i, f in enumerate(cycled):
        np.testing.assert_array_equal(f.image, plain[i % 5].image)
        np.testing.assert_array_equal(f.truth.ecd_um, plain[i % 5].truth.ecd_um)
        assert f.truth.particle_id[f.truth.stuck].tolist() == [0, 1]
        moving[i // 5].update(f.truth.particle_id[~f.truth.stuck].tolist())
    assert min(len(ids) for ids in moving) > 0
    assert not moving[0] & moving[1]
    assert not moving[1] & moving[2]
    np.testing.assert_array_equal(cycled[3].truth.particle_id, plain[3].truth.particle_id)


def test_realtime_keeps_the_rate_and_close_ends_the_wait(cell) -> None:
    source = cell("frames=6&width=64&height=64&concentration=0&rate_hz=20&realtime=1")
    start = time.monotonic()
    assert len(list(source.frames())) == 6
    assert time.monotonic() - start >= 5 / 20
    slow = cell("frames=2&width=64&height=64&concentration=0&rate_hz=0.01&realtime=1")
    stream = slow.frames()
    next(stream)
    slow.close()
    start = time.monotonic()
    assert list(stream) == []
    assert time.monotonic() - start < 5


def test_composing_is_cheaper_than_drawing_the_noise_of_a_frame_anew(cell) -> None:
    # A ratio of two times on the same machine, not a time: what makes the simulation fast is the bank of noise.
    source = cell("frames=40&concentration=175000")
    stream = source.frames()
    next(stream)
    start = time.process_time()
    n = sum(1 for _ in stream)
    per_frame = (time.process_time() - start) / n
    rng = np.random.default_rng(0)
    start = time.process_time()
    for _ in range(3):
        rng.standard_normal((1024, 1280), dtype=np.float32)
    fresh = (time.process_time() - start) / 3
    assert per_frame < fresh


def test_another_scale_resamples_sprites_and_keeps_um(cell) -> None:
    source = cell(
        f"um_per_px=2.0&frames=10&width=400&height=320&concentration=60000&size_min_um=20&{QUIET}", mix="rubber:1"
    )
    assert source.info.um_per_px == 2.0
    sizes = []
    for frame in source.frames():
        t = frame.truth
        inside = (t.x_px > 0) & (t.y_px > 0) & (t.x_px + t.width_px < 399) & (t.y_px + t.height_px < 319)
        np.testing.assert_allclose(t.width_px[inside] * 2.0, t.ecd_um[inside], atol=2.7)
        if inside.all() and len(t.ecd_um):
            dark = (frame.image < 205 * 0.55).sum() * 4.0
            sizes.append(dark / (np.pi / 4 * (t.ecd_um.astype(float) ** 2).sum()))
    assert len(sizes) >= 2
    assert np.median(sizes) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize(
    ("query", "mix", "words"),
    [
        ("", "unobtainium:1", ["unobtainium", "allowed: silicone_oil"]),
        ("size_min_um=80", "glass:0,silicone_oil:1", ["no silicone_oil", "size_min_um 80"]),
        ("focus_offset_um=40", "silicone_oil:1", ["focus_offset_um 40", "sprites reach from -45 to 45"]),
    ],
)
def test_what_the_sprites_do_not_hold_is_one_line(cell, query: str, mix: str, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        cell(query, mix=mix)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_sprite_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.npz: sprite file cannot be read"):
        open_simulation(f"sim:?sprites={tmp_path / 'none.npz'}")
    other = tmp_path / "other.npz"
    other.write_bytes(b"not a zip")
    with pytest.raises(UserError, match=r"other\.npz: not a sprite file"):
        open_simulation(f"sim:?sprites={other}")


def test_burst_without_bubbles_on_hand_is_one_line(library: SpriteLibrary, tmp_path: Path) -> None:
    from edge_app.capture.simulation.scene import read_scene
    from edge_app.capture.simulation.sprite_library import pack

    rows = library.find(family="rubber").tolist()
    alone = pack(
        families=("rubber",),
        patches=[library.patch(i) for i in rows],
        masks=[library.mask(i) for i in rows],
        family=[0] * len(rows),
        columns={
            name: getattr(library, name)[rows].tolist()
            for name in ("ecd_um", "max_feret_um", "z_um", "field_radius", "um_per_px")
        },
        metadata={},
    )
    with pytest.raises(UserError, match="air_bubble"):
        SimulatedFlowCell(read_scene("sim:?mix=rubber:1&bubble_bursts_per_min=1"), alone)
