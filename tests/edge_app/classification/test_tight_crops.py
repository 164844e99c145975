import cv2
import numpy as np
import pytest

from edge_app.classification.crops import CropGeometry
from edge_app.classification.tight_crops import background_levels, crops_of_pictures, divide_by_level


def rings(level: float, count: int, rng: np.random.Generator, *, noise: float = 0.01) -> list[np.ndarray]:
    """Tight pictures of dark rings with bright cores, a soft halo that reaches the border, and camera noise."""
    out = []
    for _ in range(count):
        side = int(rng.integers(7, 30))
        other = side + int(rng.integers(-1, 2))
        y, x = np.mgrid[0:other, 0:side]
        r = np.hypot(x - (side - 1) / 2, y - (other - 1) / 2) / (side / 2)
        ratio = 1 - 0.6 * np.exp(-(((r - 0.6) / 0.25) ** 2)) + 0.5 * np.exp(-((r / 0.25) ** 2))
        picture = level * (ratio + noise * rng.standard_normal(ratio.shape))
        out.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return out


@pytest.mark.parametrize("level", [120, 185, 211, 230])
def test_level_of_one_run_is_found_within_two_percent(level: int) -> None:
    pictures = rings(level, 80, np.random.default_rng(level))
    error = background_levels(pictures) / level - 1
    assert abs(np.median(error)) < 0.01
    assert np.quantile(abs(error), 0.95) < 0.02


def test_runs_mixed_in_one_folder_keep_their_own_levels() -> None:
    rng = np.random.default_rng(5)
    pictures = rings(211, 120, rng) + rings(176, 60, rng)
    levels = background_levels(pictures)
    assert np.median(levels[:120]) == pytest.approx(211, rel=0.01)
    assert np.median(levels[120:]) == pytest.approx(176, rel=0.01)
    assert (abs(levels[120:] / 176 - 1) < 0.03).mean() > 0.95


def test_groups_with_few_pictures_lean_on_the_others() -> None:
    rng = np.random.default_rng(6)
    pictures = rings(200, 60, rng) + rings(200, 2, rng)
    levels = background_levels(pictures, groups=["a"] * 60 + ["b"] * 2)
    assert abs(levels[60:] / 200 - 1).max() < 0.02


def test_one_picture_alone_is_judged_by_its_own_corners() -> None:
    assert background_levels(rings(190, 1, np.random.default_rng(2)))[0] == pytest.approx(190, rel=0.03)


def test_order_of_the_result_is_the_order_of_the_pictures_and_sizes_may_differ() -> None:
    rng = np.random.default_rng(3)
    pictures = [*rings(211, 10, rng), np.full((80, 60), 211, np.uint8), np.full((5, 5), 211, np.uint8)]
    crops = crops_of_pictures(pictures, geometry=CropGeometry(), um_per_px=1.33)
    assert crops.pixels.shape == (12, 40, 40, 1)
    assert crops.context[10, 0] == pytest.approx(1.0)
    assert (crops.context[[*range(10), 11], 0] == 0).all()
    assert abs(crops.pixels[10].astype(int) - 160).max() <= 2


def test_brightness_of_the_run_does_not_reach_the_network() -> None:
    rng = np.random.default_rng(9)
    state = rng.bit_generator.state
    bright = rings(220, 30, rng, noise=0)
    rng.bit_generator.state = state
    dim = rings(150, 30, rng, noise=0)
    a = crops_of_pictures(bright, geometry=CropGeometry(), um_per_px=1.33).pixels.astype(int)
    b = crops_of_pictures(dim, geometry=CropGeometry(), um_per_px=1.33).pixels.astype(int)
    unsaturated = a < 180
    assert np.quantile(abs(a - b)[unsaturated], 0.999) <= 3


def test_division_is_exact_at_the_background_and_clips_above() -> None:
    picture = np.array([[211, 0, 255]], np.uint8)
    assert divide_by_level(picture, 211.0).tolist() == [[160, 0, 193]]
    assert divide_by_level(picture, 100.0).tolist() == [[255, 0, 255]]


def test_nothing_in_nothing_out() -> None:
    assert background_levels([]).shape == (0,)
    assert len(crops_of_pictures([], geometry=CropGeometry(), um_per_px=1.33)) == 0


def test_a_wide_margin_does_not_shrink_the_particle() -> None:
    rng = np.random.default_rng(3)
    geometry = CropGeometry()
    tight, wide = [], []
    for side in range(8, 24):
        picture = np.full((side, side), 205, np.uint8)
        cv2.circle(picture, (side // 2, side // 2), side // 2 - 2, 90, -1)
        tight.append(picture)
        around = np.full((side + 60, side + 60), 205.0) + rng.normal(0, 1.5, (side + 60, side + 60))
        around[30:-30, 30:-30] = picture
        wide.append(np.clip(np.rint(around), 0, 255).astype(np.uint8))
    a = crops_of_pictures(tight, geometry=geometry, um_per_px=1.33)
    b = crops_of_pictures(wide, geometry=geometry, um_per_px=1.33)
    assert not b.context.any()
    dark = [(crops.pixels < 120).sum((1, 2, 3)) for crops in (a, b)]
    assert np.array_equal(*dark)
