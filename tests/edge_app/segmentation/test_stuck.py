import numpy as np

from edge_app.segmentation.settings import StuckSettings
from edge_app.segmentation.stuck import StuckFilter


def columns(rows: list[tuple[float, float, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array(rows, float).reshape(-1, 3)
    return table[:, 0].astype(np.float32), table[:, 1].astype(np.float32), table[:, 2].astype(np.int32)


def test_a_resting_object_among_passing_ones() -> None:
    rng = np.random.default_rng(0)
    f = StuckFilter((1024, 1280))
    wrong = found = 0
    for k in range(60):
        rows = [(640 + rng.uniform(-0.6, 0.6), 500 + rng.uniform(-0.6, 0.6), int(rng.integers(90, 110)))]
        rows += [(rng.uniform(5, 1270), rng.uniform(5, 1020), int(rng.integers(20, 400))) for _ in range(60)]
        verdict = f.update(*columns(rows))
        found += bool(verdict.stuck[0])
        wrong += int(verdict.stuck[1:].sum())
        if k == 3:
            assert verdict.confirmed[0]
            assert verdict.counted_before == 3
    assert found == 57
    assert wrong == 0
    assert f.objects == 1


def test_size_must_be_alike_and_place_too() -> None:
    f = StuckFilter((200, 200))
    for k in range(10):
        assert not f.update(*columns([(50, 50, 100 if k % 2 else 400)])).stuck[0]
    f = StuckFilter((200, 200))
    for k in range(10):
        assert not f.update(*columns([(20 + 3 * k, 50, 100)])).stuck[0]


def test_missed_frames_are_forgiven_then_forgotten() -> None:
    settings = StuckSettings(frames=3, missed_frames=1)
    f = StuckFilter((200, 200), settings)
    seen = [(1, False), (0, False), (1, False), (0, False), (1, True), (0, False), (0, False), (1, False)]
    for present, expected in seen:
        verdict = f.update(*columns([(50, 50, 100)] * present))
        assert bool(verdict.stuck.any()) is expected


def test_two_objects_do_not_share_a_candidate() -> None:
    f = StuckFilter((200, 200))
    for _k in range(6):
        verdict = f.update(*columns([(50, 50, 30), (50, 50 + 1.0, 30)]))
        assert verdict.stuck.shape == (2,)
        assert f.objects <= 2
    assert verdict.stuck.any()


def test_thousands_of_objects_and_none() -> None:
    rng = np.random.default_rng(1)
    f = StuckFilter((1024, 1280))
    for _ in range(5):
        rows = np.stack([rng.uniform(0, 1279, 5000), rng.uniform(0, 1023, 5000), rng.integers(9, 200, 5000)], axis=1)
        stuck = f.update(*columns(rows.tolist())).stuck
    assert stuck.mean() < 0.01, "a crowd is not stuck"
    assert len(f.update(*columns([])).stuck) == 0
