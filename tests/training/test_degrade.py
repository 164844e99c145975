"""Degraded crops: as many as asked, as far as the stability study's severity 2 and no farther, background in place."""

import numpy as np
import pytest

from training.datasets.labelled import LabelledCrops
from training.degrade import BIAS, CONTRAST, degrade_batch
from training.evaluation.corruptions import SEVERITIES, brightness, contrast


@pytest.fixture
def crops() -> LabelledCrops:
    n = 600
    y, x = np.mgrid[:40, :40] - 19.5
    dark = 160 - 100 * np.exp(-(x**2 + y**2) / 30) + 40 * np.exp(-(x**2 + y**2) / 4)
    pixels = np.repeat(np.rint(dark).astype(np.uint8)[None, ..., None], n, axis=0)
    blank = np.zeros(n, np.float32)
    return LabelledCrops(
        pixels=pixels,
        context=np.zeros((n, 4), np.float32),
        label=np.zeros(n, np.int64),
        group=np.arange(n),
        box_px=blank + 12,
        ecd_um=blank + 8,
        field_radius=blank,
        depth_um=blank,
        um_per_px=blank + 1.33,
    )


def test_a_share_is_degraded_the_same_by_the_same_seed_and_the_rest_is_left_alone(crops: LabelledCrops) -> None:
    one = degrade_batch(crops, np.random.default_rng(4), share=0.25)
    again = degrade_batch(crops, np.random.default_rng(4), share=0.25)
    assert np.array_equal(one.pixels, again.pixels)
    changed = (one.pixels != crops.pixels).any(axis=(1, 2, 3))
    assert 0.17 < changed.mean() < 0.30  # a strength near nothing leaves a crop as it was
    assert np.array_equal(one.label, crops.label)
    # What is degraded says nothing of size any more.
    assert np.isnan(one.ecd_um[changed]).all()
    assert 0.2 < np.isnan(one.ecd_um).mean() < 0.3
    assert np.array_equal(np.isnan(one.ecd_um), np.isnan(one.depth_um))


def test_no_share_takes_nothing_from_the_generator(crops: LabelledCrops) -> None:
    rng = np.random.default_rng(4)
    assert degrade_batch(crops, rng, share=0.0) is crops
    assert rng.random() == np.random.default_rng(4).random()


def test_background_stays_where_it_is(crops: LabelledCrops) -> None:
    out = degrade_batch(crops, np.random.default_rng(4), share=1.0).pixels
    assert (np.abs(out[:, 0, 0, 0].astype(int) - 160) <= 1).all()


def test_weaker_than_severity_3(crops: LabelledCrops) -> None:
    table = {c.name: c.values for c in SEVERITIES}
    assert table["contrast"][3] <= CONTRAST[0]
    assert CONTRAST[1] < table["contrast"][-3]
    assert table["brightness"][-3] < BIAS[0]
    assert BIAS[1] < table["brightness"][3]
    bright, dark = brightness(crops.pixels[:1], BIAS[0]), brightness(crops.pixels[:1], BIAS[1])
    low, high = contrast(crops.pixels[:1], CONTRAST[0]), contrast(crops.pixels[:1], CONTRAST[1])
    out = degrade_batch(crops, np.random.default_rng(4), share=1.0).pixels
    middle = out[:, 16, 16, 0]
    limits = [int(p[0, 16, 16, 0]) for p in (bright, dark, low, high)]
    assert min(limits) - 1 <= middle.min()
    assert middle.max() <= max(limits) + 1


def test_all_three_kinds_are_met(crops: LabelledCrops) -> None:
    out = degrade_batch(crops, np.random.default_rng(4), share=1.0)
    contrast_of = 160.0 - out.pixels[:, 19:21, 12, 0].mean(axis=1)
    was = 160.0 - float(crops.pixels[0, 19:21, 12, 0].mean())
    assert (contrast_of < 0.8 * was).any()
    assert (contrast_of > 1.5 * was).any()
    sharp = np.abs(np.diff(out.pixels.astype(int), axis=2)).max(axis=(1, 2, 3))
    assert sharp.min() < np.abs(np.diff(crops.pixels[0].astype(int), axis=1)).max()
