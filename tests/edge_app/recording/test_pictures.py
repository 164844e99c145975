import cv2
import numpy as np
import pytest
import recorded_runs as runs
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.recording.pictures import PictureOptions, PicturePicker, sample_keys
from edge_app.recording.record_reader import open_record
from edge_app.segmentation.particles import Particles

CLASSES = runs.CLASSES


def run_pictures(rng, frames_of_windows, options):
    """Pass random frames through a picker; returns what was kept and every particle there was."""
    picker = PicturePicker(classes=CLASSES, options=options)
    kept, every, order = [], [], 0
    for seq, frames in enumerate(frames_of_windows):
        row = 0
        for n in frames:
            particles = runs.particles_of_frame(rng, frame=order, n=n)
            index, confidence, _ = runs.classify(rng, n)
            ratio = rng.integers(90, 170, runs.SHAPE, np.uint8)
            picker.add(ratio, particles, index, confidence)
            keys = sample_keys(particles.frame, particles.x_px, particles.y_px)
            every += [
                (seq, row + i, CLASSES[index[i]], float(confidence[i]), float(particles.ecd_um[i]), int(keys[i]))
                for i in range(n)
                if particles.weight[i] > 0
            ]
            row, order = row + n, order + 1
        kept.append(picker.close_window())
    return picker, kept, every


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 30), max_size=3), max_size=8),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_the_gallery_is_exact_over_the_whole_run(frames_of_windows, gallery, seed):
    options = PictureOptions(gallery=gallery, per_window=3)
    _, kept, every = run_pictures(np.random.default_rng(seed), frames_of_windows, options)
    have = {(seq, p.row) for seq, pictures in enumerate(kept) for p in pictures}

    def ids(rows):
        return {(r[0], r[1]) for r in rows[:gallery]}

    for name in CLASSES:
        own = [r for r in every if r[2] == name]
        assert ids(sorted(own, key=lambda r: (-r[4], r[0], r[1]))) <= have
        assert ids(sorted(own, key=lambda r: (r[5], r[0], r[1]))) <= have
        if name != "unknown":
            assert ids(sorted(own, key=lambda r: (r[3], r[0], r[1]))) <= have
    known = {(r[0], r[1]): r for r in every}
    for seq, pictures in enumerate(kept):
        assert [p.row for p in pictures] == sorted({p.row for p in pictures})
        for p in pictures:
            assert (p.class_name, p.confidence, p.ecd_um, p.sample_key) == known[seq, p.row][2:]


def test_same_frames_same_pictures_and_budgets_hold():
    frames = [[40] * 5] * 30
    options = PictureOptions(gallery=4, per_window=5, per_run=1000)
    (first, kept, _), (_, again, _) = (run_pictures(np.random.default_rng(3), frames, options) for _ in range(2))
    assert kept == again
    assert sum(map(len, kept)) <= 1000
    assert first.dropped == 0
    # After the first windows a gallery grows slowly: what is kept is mostly the five of the window.
    assert 5 <= len(kept[-1]) <= 15 < len(kept[0])


def test_a_budget_of_a_run_is_never_exceeded_and_what_it_cost_is_counted():
    picker, kept, _ = run_pictures(np.random.default_rng(0), [[40] * 3] * 4, PictureOptions(gallery=20, per_run=50))
    assert sum(map(len, kept)) == 50
    assert picker.dropped > 0


def test_nothing_is_kept_when_nothing_is_asked_for():
    _, kept, _ = run_pictures(np.random.default_rng(0), [[20], [20]], PictureOptions(gallery=0, per_window=0))
    assert kept == [[], []]


def one_particle(x, y, w, h, *, weight=1.0):
    values = runs.particles_of_frame(np.random.default_rng(0), frame=4, n=1)
    changed = {"x_px": x, "y_px": y, "width_px": w, "height_px": h, "weight": weight}
    columns = {name: getattr(values, name) for name in Particles.__dataclass_fields__}
    return Particles(**columns | {k: np.array([v], columns[k].dtype) for k, v in changed.items()})


@pytest.mark.parametrize(
    ("box", "where"),
    [((30, 20, 10, 8), (24, 14, 22, 20)), ((0, 0, 5, 5), (0, 0, 11, 11)), ((120, 90, 8, 6), (114, 84, 14, 12))],
)
def test_a_picture_is_the_frame_around_the_particle(box, where):
    ratio = np.random.default_rng(0).integers(0, 255, runs.SHAPE, np.uint8)
    before = ratio.copy()
    picker = PicturePicker(classes=CLASSES)
    picker.add(ratio, one_particle(*box), np.array([2]), np.array([0.75], np.float32))
    ratio[:] = 0  # the buffer is used again before the window closes
    (picture,) = picker.close_window()
    x, y, w, h = where
    assert (picture.x_px, picture.y_px, picture.width_px, picture.height_px) == where
    assert set(picture.kinds) == {"largest", "least_certain", "sample"}
    assert (picture.class_name, picture.confidence, picture.frame) == ("protein_aggregate", 0.75, 4)
    decoded = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded, before[y : y + h, x : x + w])


def test_a_very_large_particle_is_reduced():
    picker = PicturePicker(classes=CLASSES, options=PictureOptions(longest_px=32, margin_px=0))
    picker.add(np.full(runs.SHAPE, 160, np.uint8), one_particle(0, 0, 128, 64), np.array([0]), np.array([1.0]))
    (picture,) = picker.close_window()
    assert (picture.width_px, picture.height_px) == (128, 64)
    assert cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_UNCHANGED).shape == (16, 32)


def test_particles_on_the_border_are_not_taken():
    picker = PicturePicker(classes=CLASSES)
    picker.add(np.zeros(runs.SHAPE, np.uint8), one_particle(0, 0, 9, 9, weight=0), np.array([0]), np.array([1.0]))
    assert picker.close_window() == []


def test_the_sample_is_even_over_sizes_and_places():
    rng = np.random.default_rng(0)
    frame, x, y = rng.integers(0, 10_000, 50_000), rng.integers(0, 1280, 50_000), rng.integers(0, 1024, 50_000)
    keys = sample_keys(frame, x, y)
    assert len(np.unique(keys)) > 49_990
    picked = np.argsort(keys)[:5000]
    for values, top in ((frame, 10_000), (x, 1280), (y, 1024)):
        share = np.histogram(values[picked], bins=10, range=(0, top))[0] / 500
        assert 0.8 < share.min() <= share.max() < 1.2  # 500 +- 22 each


def test_the_record_answers_for_a_report(tmp_path):
    path = runs.write_run(tmp_path, windows=12, per_frame=25)
    with open_record(path) as record:
        rows = record.particles()
        counted = rows.particles.weight > 0
        for name in runs.CLASSES:
            largest = record.pictures("largest", class_name=name, limit=20)
            own = np.sort(rows.particles.ecd_um[counted & (rows.class_names == name)])[::-1][:20]
            assert [p.ecd_um for p in largest] == own.tolist()
        doubtful = record.pictures("least_certain", limit=20)
        known = counted & (rows.class_names != "unknown")
        assert [p.confidence for p in doubtful] == np.sort(rows.confidence[known])[:20].tolist()
        assert {p.class_name for p in record.pictures("sample", class_name="unknown", limit=20)} == {"unknown"}
        for p in record.pictures():
            at = np.flatnonzero((rows.window == p.window) & (rows.row == p.row))
            assert len(at) == 1
            assert p.particle_id == f"{p.window}-{p.row}"
            assert rows.class_names[at[0]] == p.class_name
            assert rows.particles.frame[at[0]] == p.frame
