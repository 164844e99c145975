import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.classification.context import DESCRIPTORS, SIZE_SHARES
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.shape_moments import USR
from training.shape import columns_of_crops, columns_of_detection, drawn_size_shares

SCALE = nominal_calibration(um_per_px=1.0, depth_um=100)


def crop(a: float, b: float, *, side: int = 96, turned: float = 0.0, level: int = 80) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    u, v = np.cos(turned) * x + np.sin(turned) * y, -np.sin(turned) * x + np.cos(turned) * y
    picture = np.full((1, side, side, 1), 160, np.uint8)
    picture[0, ..., 0][(u / a) ** 2 + (v / b) ** 2 <= 1] = level
    return picture


@pytest.mark.parametrize(("a", "b"), [(40, 40), (44, 22), (45, 15)])
def test_descriptors_of_an_ellipse_are_those_of_its_formulas(a: float, b: float) -> None:
    found = {
        name: float(v[0]) for name, v in columns_of_crops(crop(a, b), names=DESCRIPTORS, calibration=SCALE).items()
    }
    ecd = 2 * np.sqrt(a * b)
    h = ((a - b) / (a + b)) ** 2
    perimeter = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))  # Ramanujan
    assert 2 ** found["log2_ecd_um"] == pytest.approx(ecd, rel=0.01)
    assert 2 ** found["log2_max_feret_um"] == pytest.approx(2 * a, rel=0.02)
    assert found["aspect_ratio"] == pytest.approx(b / a, abs=0.02)
    assert found["circularity"] == pytest.approx(np.pi * ecd / perimeter, abs=0.02)
    assert found["solidity"] > 0.98
    assert [found[f"intensity_{k}"] for k in ("mean", "min", "max", "std")] == pytest.approx([0.5, 0.5, 0.5, 0])


@given(st.floats(0, np.pi), st.floats(0.4, 0.9))
@settings(max_examples=20, deadline=None)
def test_a_turned_particle_has_the_same_columns(turned: float, ratio: float) -> None:
    names = (*DESCRIPTORS[:5], *USR)
    pictures = np.concatenate([crop(40, 40 * ratio, turned=t) for t in (0.0, turned)])
    found = columns_of_crops(pictures, names=names, calibration=SCALE)
    for name, (usual, now) in found.items():
        assert now == pytest.approx(usual, abs=0.2 if name.endswith("skew") else 0.05)


def test_crops_are_measured_each_for_itself_and_the_largest_region_counts() -> None:
    lone, empty, pair = crop(30, 30), np.full((1, 96, 96, 1), 160, np.uint8), crop(20, 10)
    pair[0, 2:6, 2:6] = 60
    touching = crop(60, 60)  # reaches all four sides of its window
    found = columns_of_crops(np.concatenate([lone, empty, pair, touching, lone]), names=["log2_ecd_um", *USR])
    alone = columns_of_crops(crop(20, 10), names=["log2_ecd_um", *USR])
    for name, values in found.items():
        assert values[0] == values[4]
        assert values[1] == 0
        assert values[2] == pytest.approx(alone[name][0], abs=1e-5)
    assert columns_of_crops(lone[:0], names=["solidity"]) == {}


def test_a_detection_is_measured_by_its_own_mask() -> None:
    picture = crop(20, 20)[0, ..., 0]
    picture[40:60, 75:90] = 40
    mask = (crop(20, 20)[0, ..., 0] < 160).astype(np.uint8)
    found = columns_of_detection(picture, mask, names=["intensity_min", *SIZE_SHARES], run_sizes=np.eye(6)[2])
    assert found["intensity_min"].tolist() == [0.5]
    assert [float(found[name][0]) for name in SIZE_SHARES] == [0, 0, 1, 0, 0, 0]


def test_runs_differ_and_each_is_drawn_the_same_again() -> None:
    drawn = np.array([drawn_size_shares(seed=3, run=k) for k in range(60)])
    assert drawn.sum(axis=1) == pytest.approx(np.ones(60))
    assert drawn.std(axis=0).min() > 0.005
    drawn_size_shares.cache_clear()
    assert np.array_equal(drawn[7], drawn_size_shares(seed=3, run=7))
