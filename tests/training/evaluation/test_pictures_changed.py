"""What is done to crops: corruptions, masks, particles taken out."""

import numpy as np
import pytest
from skimage.draw import disk
from skimage.morphology import disk as sk_disk

from training.evaluation.background_only import without_particle
from training.evaluation.corruptions import SEVERITIES, blur_disc, brightness, contrast
from training.evaluation.particle_masks import mask_ecd_um, particle_masks

CODES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


def with_disc(radius: float, code: int = 90, side: int = 40) -> np.ndarray:
    picture = np.full((side, side), 160, np.uint8)
    rows, columns = disk((side / 2, side / 2), radius)
    picture[rows, columns] = code
    return picture[None, ..., None]


def test_the_table_is_that_of_the_stability_study() -> None:
    table = {c.name: list(c.values.items()) for c in SEVERITIES}
    assert table["defocus blur"] == [(0, 0), (1, 0.5), (2, 1), (3, 1.5), (4, 2), (5, 3)]
    assert [v for _, v in table["contrast"]] == [3.5, 3, 2.5, 2, 1.5, 1, 0.9, 0.8, 0.7, 0.5, 0.3]
    assert [v for _, v in table["brightness"]] == [-150, -135, -120, -90, -50, 0, 50, 90, 120, 135, 150]
    assert [s for s, _ in table["contrast"]] == [s for s, _ in table["brightness"]] == list(range(-5, 6))


@pytest.mark.parametrize("corruption", SEVERITIES, ids=lambda c: c.name)
def test_severity_0_leaves_a_crop_as_it_is(corruption) -> None:  # type: ignore[no-untyped-def]
    assert np.array_equal(corruption.apply(CODES, corruption.values[0]), CODES)


def test_contrast_and_brightness_follow_their_formulas_and_keep_the_background() -> None:
    x = np.arange(256.0)
    assert np.array_equal(contrast(CODES, 0.5).ravel(), np.rint(160 + 0.5 * (x - 160)))
    assert contrast(CODES, 3.5).ravel()[160] == 160
    down = brightness(CODES, -90).ravel()
    assert np.array_equal(down, np.clip(np.rint(160 * np.maximum(x - 90, 0) / 70), 0, 255))
    blind = brightness(CODES, 120).ravel()
    assert (blind[136:] == 160).all()
    assert blind[100] == round(160 * 220 / 255)


def test_blur_is_the_mean_over_a_disc() -> None:
    point = np.full((1, 21, 21, 1), 100, np.uint8)
    point[0, 10, 10] = 255
    spread = blur_disc(point, 3)[0, ..., 0].astype(float) - 100
    assert spread[10, 10] == pytest.approx(155 / (np.pi * 9), abs=0.6)
    assert not spread[~np.pad(sk_disk(4).astype(bool), 6)].any()
    assert spread.sum() == pytest.approx(155, rel=0.1)
    flat = np.full((2, 9, 9, 1), 160, np.uint8)
    assert np.array_equal(blur_disc(flat, 1.5), flat)


def test_a_mask_has_the_area_of_the_disc_and_its_ring_is_filled() -> None:
    ring = with_disc(9)
    rows, columns = disk((20, 20), 5)
    ring[0, rows, columns] = 160
    masks = particle_masks(np.concatenate([with_disc(9), ring]))
    assert masks[0].sum() == masks[1].sum() == pytest.approx(np.pi * 81, rel=0.03)
    size = mask_ecd_um(with_disc(9), np.array([18.0]), window_px=40, um_per_px=1.33)
    assert size[0] == pytest.approx(18 * 1.33, rel=0.02)
    # A box of 80 px was reduced to the window's 40.
    assert mask_ecd_um(with_disc(9), np.array([80.0]), window_px=40, um_per_px=1.33)[0] == pytest.approx(2 * size[0])
    assert np.isnan(mask_ecd_um(np.full((1, 40, 40, 1), 160, np.uint8), np.array([8.0]), window_px=40, um_per_px=1.3))


def test_without_its_particle_a_crop_is_background_of_the_same_run() -> None:
    rng = np.random.default_rng(0)
    crops, groups = [], []
    for i in range(20):
        noisy = with_disc(4 + i % 5, code=60 + 3 * i)
        # Run a is darker by one code and less noisy; only the box is noisy, as it is cut.
        level, sd = (159, 0.6) if i % 2 else (161, 1.2)
        noise = np.rint(rng.normal(level - 160, sd, (16, 22))).astype(int)
        noisy[0, 12:28, 9:31, 0] = np.clip(noisy[0, 12:28, 9:31, 0] + noise, 0, 255)
        crops.append(noisy)
        groups.append("a" if i % 2 else "b")
    pixels = np.concatenate(crops)
    empty = without_particle(pixels, np.array(groups))
    assert np.abs(empty.astype(int) - 160).max() <= 4
    inside = empty[:, 16:24, 16:24, 0].astype(float)
    mean = [inside[[g == name for g in groups]].mean() for name in "ab"]
    assert mean[0] == pytest.approx(159, abs=0.3)
    assert mean[1] == pytest.approx(161, abs=0.3)
    assert np.array_equal(empty[:, :10], pixels[:, :10])
    assert np.array_equal(empty, without_particle(pixels, np.array(groups)))
