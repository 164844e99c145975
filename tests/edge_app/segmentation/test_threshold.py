import cv2
import numpy as np
import pytest

from edge_app.segmentation.regions import LabelOverflow, find_regions, label_mask
from edge_app.segmentation.settings import SegmentationSettings, ThresholdSettings
from edge_app.segmentation.threshold import (
    close_mask,
    instrument_mask,
    instrument_settings,
    join_neighbours,
    segment,
    threshold_codes,
    threshold_mask,
)


def blank(shape: tuple[int, int] = (128, 160)) -> np.ndarray:
    return np.full(shape, 160, np.uint8)


def test_threshold_is_the_larger_of_floor_and_noise() -> None:
    assert threshold_codes(0.0) == 7  # 4 % of 160 = 6.4
    assert threshold_codes(2.8) == 10  # 3.5 x 2.8 = 9.8
    assert threshold_codes(0.0, settings=ThresholdSettings(floor_fraction=0.1)) == 16


def test_both_sides_to_the_code() -> None:
    ratio = np.array([[160 - 8, 160 - 7, 160 - 6, 160, 160 + 6, 160 + 7, 0, 255]], np.uint8)
    assert (threshold_mask(ratio, 7) != 0).tolist() == [[True, True, False, False, False, True, True, True]]


def test_broken_ring_becomes_a_disc() -> None:
    ratio = blank()
    cv2.circle(ratio, (60, 60), 12, 100, 3)
    whole = segment(ratio)
    ratio[59:61, 40:80] = 160  # cut on both sides
    broken = segment(ratio)
    assert len(broken) == 1
    assert broken.area_px[0] == pytest.approx(int(whole.area_px[0]), rel=0.03)
    assert broken.raw_area_px[0] < 0.6 * broken.area_px[0]


def test_translucent_two_sided_object_stays_in_one_piece() -> None:
    # Faint folds, dark and bright side by side, with zero crossings between them.
    y, x = np.mgrid[:128, :160]
    inside = ((x - 80) / 30.0) ** 2 + ((y - 64) / 14.0) ** 2 < 1
    ratio = np.where(inside, 160 + 14 * np.sin(x / 2.2 + 0.4 * y), 160)
    noisy = ratio + np.random.default_rng(0).normal(0, 1.2, ratio.shape)
    image = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    regions = segment(image, noise=1.2)
    large = regions.area_px >= 20
    assert large.sum() == 1
    assert regions.area_px[large][0] == pytest.approx(inside.sum(), rel=0.12)


@pytest.mark.parametrize("gap", [1, 2, 3, 4])
def test_true_neighbours_are_not_joined(gap: int) -> None:
    ratio = blank()
    cv2.circle(ratio, (50, 60), 7, 60, cv2.FILLED)
    cv2.circle(ratio, (50 + 15 + gap, 60), 7, 70, cv2.FILLED)
    regions = segment(ratio)
    assert len(regions) == 2
    single = blank()
    cv2.circle(single, (50, 60), 7, 60, cv2.FILLED)
    assert regions.area_px == pytest.approx([int(segment(single).area_px[0])] * 2, abs=2)


def test_a_faint_crumb_beside_a_strong_particle_is_part_of_it() -> None:
    ratio = blank()
    cv2.circle(ratio, (50, 60), 7, 60, cv2.FILLED)
    cv2.circle(ratio, (50 + 13, 60), 3, 172, cv2.FILLED)  # bright, beyond a gap of 2 px
    assert len(segment(ratio)) == 1


def test_dashes_of_one_fibre_are_joined() -> None:
    ratio = blank()
    for x in range(30, 120, 12):
        ratio[60:64, x : x + 10] = 90
    assert len(segment(ratio)) == 1


def test_closing_takes_nothing_away_and_builds_no_bridge_to_the_border() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[2:8, 2:8] = 255
    closed = close_mask(mask, radius_px=2)
    assert (closed[mask != 0] != 0).all()
    assert not closed[0].any()
    assert not closed[:, 0].any()


def test_instrument_rule_is_more_than_the_threshold() -> None:
    background = np.full((3, 3), 180, np.uint8)
    image = background.copy()
    image[0] = (160, 159, 200)
    image[1] = (201, 180, 180)
    mask = instrument_mask(image, background, dark=20, light=20) != 0
    assert mask.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_pieces_within_the_distance_share_a_region() -> None:
    mask = np.zeros((60, 100), np.uint8)
    mask[20:25, 20:25] = mask[20:25, 32:37] = mask[20:25, 60:65] = 255
    filled = label_mask(mask).filled
    regions = find_regions(mask, joined=join_neighbours(filled, distance_px=9))
    assert regions.pieces.tolist() == [2, 1]
    assert regions.area_px.tolist() == [50, 25]
    assert regions.width_px.tolist() == [17, 5]
    settings = instrument_settings(SegmentationSettings(), neighbour_distance_px=9).threshold
    assert segment(blank((60, 100)), settings=settings, raw=mask).pieces.tolist() == [2, 1]


def test_more_particles_than_allowed_is_an_overflow() -> None:
    ratio = blank()
    for x in range(10, 150, 10):
        ratio[50:54, x : x + 4] = 80
    with pytest.raises(LabelOverflow, match="14 particles"):
        segment(ratio, settings=ThresholdSettings(max_particles=13))
