from collections.abc import Callable

import numpy as np
import pytest

from edge_app.capture.frame import Frame
from edge_app.capture.source import SourceInfo
from edge_app.errors import UserError
from edge_app.measurement.window import REJECTION_REASONS
from edge_app.segmentation import SegmentationSettings, Segmenter

Make = Callable[..., Frame]


def flat(value: int, sequence: int = 0, shape: tuple[int, int] = (384, 512)) -> Frame:
    return Frame(image=np.full(shape, value, np.uint8), sequence=sequence, time_s=float(sequence))


@pytest.mark.parametrize("primed", [True, False])
def test_moving_particles_are_found_from_the_first_frame_on(make_frame: Make, scatter: Callable, primed: bool) -> None:
    frames = [make_frame(scatter(20, seed=k), sequence=k) for k in range(6)]
    s = Segmenter()
    if primed:
        s.prime([f.image for f in frames])
    for frame in frames:
        result = s.process(frame)
        assert result.reason is None
        assert len(result.regions) == 20
        assert result.ratio is not None
        assert result.noise == pytest.approx(1.5 / 195, rel=0.5)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_hardly_any_frames(make_frame: Make, scatter: Callable, count: int) -> None:
    s = Segmenter()
    places = scatter(16, seed=0)
    frames = [make_frame(places[8 * k : 8 * k + 8], sequence=k) for k in range(count)]
    s.prime([f.image for f in frames])
    assert [len(s.process(f).regions) for f in frames] == [8] * count


def test_empty_frame(make_frame: Make) -> None:
    result = Segmenter().process(make_frame([]))
    assert result.reason is None
    assert len(result.regions) == 0
    assert "stuck" not in result.rejected


@pytest.mark.parametrize(("value", "reason"), [(0, "frame_dark"), (255, "frame_bright")])
def test_black_and_white_frames(make_frame: Make, scatter: Callable, value: int, reason: str) -> None:
    s = Segmenter()
    assert s.process(flat(value)).reason == reason  # as the first frame
    good = make_frame(scatter(9, seed=1), sequence=1)
    assert len(s.process(good).regions) == 9
    assert s.process(flat(value, 2)).reason == reason  # in mid-run
    assert len(s.process(make_frame(scatter(9, seed=2), sequence=3)).regions) == 9
    assert s.counters[reason] == 2


def test_white_field_with_dark_discs_is_analysed() -> None:
    image = np.full((300, 300), 255, np.uint8)
    image[100:120, 100:120] = 0
    result = Segmenter().process(Frame(image=image, sequence=0, time_s=0.0))
    assert result.reason is None
    assert result.regions.area_px.tolist() == [400]


def test_other_size_in_mid_run(make_frame: Make) -> None:
    s = Segmenter()
    s.process(make_frame([]))
    assert s.process(flat(200, 1, (200, 200))).reason == "frame_size"
    assert s.process(make_frame([(60, 60, 5, 0.4)], sequence=2)).reason is None


def test_one_frame_of_another_size_does_not_decide_the_size(make_frame: Make) -> None:
    segmenter = Segmenter(SegmentationSettings())
    frames = [flat(200, shape=(50, 60)), *(flat(200, i) for i in range(1, 4))]
    segmenter.prime([frame.image for frame in frames])
    assert [segmenter.process(frame).reason for frame in frames] == ["frame_size", None, None, None]


def test_lamp_drift_makes_no_particles(make_frame: Make, scatter: Callable) -> None:
    s = Segmenter()
    for k in range(40):
        gain = 1.0 - 0.012 * k  # down to 53 %
        result = s.process(make_frame(scatter(12, seed=k), gain=gain, sequence=k))
        assert result.reason is None
        assert len(result.regions) == 12
        # Known only up to the first frame's own background.
        assert result.gain == pytest.approx(gain, rel=0.03)


def test_gain_leaves_every_measure_alone(make_frame: Make, scatter: Callable) -> None:
    discs = scatter(15, seed=4)
    areas = []
    for gain in (0.7, 1.0, 1.2):
        result = Segmenter().process(make_frame(discs, gain=gain, noise=0.0))
        areas.append(result.regions.area_px)
    for other in areas[1:]:
        assert np.abs(other - areas[0]).max() <= 0.06 * areas[0].min() + 3


def test_a_particle_that_stays_is_reported_stuck_not_absorbed(make_frame: Make, scatter: Callable) -> None:
    s = Segmenter()
    s.prime([make_frame([], sequence=100 + k).image for k in range(5)])
    seen = []
    for k in range(12):
        discs = [d for d in scatter(10, seed=k) if abs(d[0] - 250) > 25 or abs(d[1] - 190) > 25]
        result = s.process(make_frame([(250, 190, 6, 0.5), *discs], sequence=k))
        seen.append((len(result.regions) - len(discs), result.rejected.get("stuck", 0), result.stuck_counted_before))
    assert seen[:4] == [(1, 0, 0), (1, 0, 0), (1, 0, 0), (0, 1, 3)]
    assert all(extra == 0 for extra, _, _ in seen[4:]), (
        "healed into the background, it hides nothing and counts nothing"
    )


def test_without_healing_a_stuck_particle_never_fades(make_frame: Make) -> None:
    settings = SegmentationSettings.model_validate({"stuck": {"heal_background": False}})
    s = Segmenter(settings)
    s.prime([make_frame([], sequence=100 + k).image for k in range(5)])
    for k in range(60):
        result = s.process(make_frame([(250, 190, 6, 0.9)], sequence=k))
    assert result.rejected["stuck"] == 1
    assert result.stuck_objects == 1
    assert s.counters["stuck"] == 57


def test_stuck_filter_off_counts_every_image_and_absorbs_nothing(make_frame: Make) -> None:
    settings = SegmentationSettings.model_validate({"stuck": {"enabled": False}})
    s = Segmenter(settings)
    s.prime([make_frame([], sequence=100 + k).image for k in range(5)])
    counts = [len(s.process(make_frame([(250, 190, 6, 0.88)], sequence=k)).regions) for k in range(80)]
    assert counts == [1] * 80


def test_what_was_on_the_window_before_is_told(make_frame: Make) -> None:
    s = Segmenter()
    s.prime([make_frame([(250, 190, 6, 0.5), (90, 80, 5, 0.6)], sequence=k).image for k in range(5)])
    assert s.window_objects == 2
    assert len(s.process(make_frame([(250, 190, 6, 0.5), (90, 80, 5, 0.6)], sequence=9)).regions) == 0


def test_a_background_that_went_stale_heals(make_frame: Make) -> None:
    # The stuck object moved by 15 px since the calibration: a ghost where it was, and itself, both at rest.
    s = Segmenter(initial_background=make_frame([(250, 190, 6, 0.5)], sequence=50).image)
    counts = [len(s.process(make_frame([(265, 190, 6, 0.5)], sequence=k)).regions) for k in range(8)]
    assert counts[0] >= 1
    assert counts[-1] == 0


def test_schlieren_and_bubble_burst(make_frame: Make) -> None:
    s = Segmenter()
    for k in range(3):
        s.process(make_frame([], sequence=k))
    y, x = np.mgrid[:384, :512]
    streaks = make_frame([], sequence=3).image * (1 + 0.08 * np.sin(x / 60.0 + y / 90.0))
    frame = Frame(image=np.clip(streaks, 0, 255).astype(np.uint8), sequence=3, time_s=0.3)
    assert s.process(frame).reason == "frame_uneven"
    assert s.process(make_frame([(250, 190, 120, 0.2)], sequence=4)).reason == "frame_uneven"
    assert s.process(make_frame([(250, 190, 6, 0.5)], sequence=5)).reason is None


def test_a_frame_full_of_particles_is_an_overload(make_frame: Make) -> None:
    s = Segmenter()
    s.process(make_frame([]))
    rng = np.random.default_rng(0)
    crowd = [
        (x + rng.uniform(-0.5, 0.5), y + rng.uniform(-0.5, 0.5), 8.5, 0.5)
        for x in range(12, 510, 25)
        for y in range(12, 380, 25)
    ]
    assert s.process(make_frame(crowd, sequence=1)).reason == "frame_overload"


@pytest.mark.parametrize(("count", "radius"), [(300, 6.0), (5000, 2.5)])
def test_dense_frames(make_frame: Make, scatter: Callable, count: int, radius: float) -> None:
    shape = (1536, 2048)
    discs = scatter(count, seed=3, shape=shape, radius=radius, ratio=0.4)
    s = Segmenter()
    s.prime([make_frame([], shape=shape, sequence=k).image for k in range(3)])
    result = s.process(make_frame(discs, shape=shape, sequence=9))
    assert result.reason is None
    assert len(result.regions) == count


def test_noise_alone_gives_almost_nothing(make_frame: Make) -> None:
    s = Segmenter()
    frames = [make_frame([], noise=3.0, sequence=k, shape=(1024, 1280)) for k in range(6)]
    s.prime([f.image for f in frames])
    assert sum(len(s.process(f).regions) for f in frames) <= 1


def test_every_reason_is_a_known_one(make_frame: Make, scatter: Callable) -> None:
    s = Segmenter()
    discs = [*scatter(5, seed=1), (0.0, 100.0, 8.0, 0.5), (300.0, 200.0, 1.2, 0.2)]
    result = s.process(make_frame(discs))
    assert set(result.rejected) <= set(REJECTION_REASONS)
    assert result.rejected["border"] == 1
    assert result.regions.border.sum() == 1


def test_instrument_thresholds(make_frame: Make) -> None:
    background = np.full((200, 200), 180, np.uint8)
    image = background.copy()
    image[50:60, 50:60] = 159
    image[50:60, 64:74] = 201
    image[120:130, 50:60] = 160
    info = SourceInfo(
        uri="flowcam:x", kind="flowcam", width_px=200, height_px=200, um_per_px=0.5, background=background,
        thresholds=(20, 20), details={"distance_to_neighbour_um": 3.0},
    )  # fmt: skip
    s = Segmenter.for_source(info, use_instrument_thresholds=True)
    result = s.process(Frame(image=image, sequence=0, time_s=0.0))
    assert result.regions.area_px.tolist() == [200]
    assert result.regions.pieces.tolist() == [2]
    own = Segmenter.for_source(info).process(Frame(image=image, sequence=0, time_s=0.0))
    assert len(own.regions) >= 2
    bare = SourceInfo(uri="dir:x", kind="dir", width_px=200, height_px=200)
    with pytest.raises(UserError, match="dir:x"):
        Segmenter.for_source(bare, use_instrument_thresholds=True)


def test_same_frames_same_result(make_frame: Make, scatter: Callable) -> None:
    frames = [make_frame(scatter(20, seed=k), sequence=k) for k in range(4)]

    def run() -> list[bytes]:
        s = Segmenter()
        s.prime([f.image for f in frames])
        results = [s.process(f) for f in frames]
        return [b"".join(a.tobytes() for a in (r.ratio, r.regions.pixels, r.regions.contour)) for r in results]

    assert run() == run()
