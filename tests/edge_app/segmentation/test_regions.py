import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from edge_app.segmentation.regions import LabelOverflow, Regions, find_regions, label_mask

EIGHT = np.ones((3, 3), int)


def random_mask(seed: int, *, density: float = 0.42, shape: tuple[int, int] = (90, 110)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (cv2.GaussianBlur(rng.random(shape), (0, 0), 1.2) > 0.5 + (0.42 - density)).astype(np.uint8) * 255


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), density=st.floats(0.3, 0.5))
def test_holes_and_labels_as_scipy(seed: int, density: float) -> None:
    mask = random_mask(seed, density=density)
    filled = label_mask(mask).filled
    expected = ndimage.binary_fill_holes(mask != 0)
    assert np.array_equal(filled != 0, expected)
    regions = find_regions(mask)
    labels, n = ndimage.label(expected, EIGHT)
    assert len(regions) == n
    # Same partition: our rows in the order of the first pixel are scipy's raster order of labels.
    assert np.array_equal(regions.labels != 0, labels != 0)
    pairs = np.unique(np.stack([regions.labels[expected], labels[expected]]), axis=1)
    assert pairs.shape[1] == n
    first = [int(p) for p in regions.pixels[regions.pixel_start[:-1]]]
    assert first == sorted(first)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_boxes_areas_and_contours(seed: int) -> None:
    mask = random_mask(seed)
    regions = find_regions(mask)
    boxes = ndimage.find_objects(regions.labels)
    for i, (rows, columns) in enumerate(boxes):
        assert (regions.x_px[i], regions.y_px[i]) == (columns.start, rows.start)
        assert (regions.width_px[i], regions.height_px[i]) == (
            columns.stop - columns.start,
            rows.stop - rows.start,
        )
        own = regions.labels == i + 1
        assert regions.area_px[i] == own.sum()
        assert regions.raw_area_px[i] == (own & (mask != 0)).sum()
        points = regions.contour[regions.contour_start[i] : regions.contour_start[i + 1]]
        edge = own & ~ndimage.binary_erosion(own, ndimage.generate_binary_structure(2, 1), border_value=0)
        assert {(int(y), int(x)) for x, y in points} == set(zip(*map(list, np.nonzero(edge)), strict=True))


def test_take_keeps_rows_whole() -> None:
    regions = find_regions(random_mask(3))
    rows = np.arange(len(regions)) % 3 == 1
    some = regions.take(rows)
    assert len(some) == rows.sum()
    for k, i in enumerate(np.flatnonzero(rows)):
        assert some.area_px[k] == regions.area_px[i]
        assert np.array_equal(
            some.pixels[some.pixel_start[k] : some.pixel_start[k + 1]],
            regions.pixels[regions.pixel_start[i] : regions.pixel_start[i + 1]],
        )
    assert some.mask.sum() == some.area_px.sum()
    assert len(regions.take(np.zeros(len(regions), bool))) == 0
    assert len(some.take(np.array([0, 0]))) == 2


def test_empty_and_single_pixel() -> None:
    assert len(find_regions(np.zeros((5, 7), np.uint8))) == 0
    assert len(Regions.empty((5, 7)).take(np.zeros(0, bool))) == 0
    dot = np.zeros((5, 7), np.uint8)
    dot[2, 3] = 1
    region = find_regions(dot)
    assert (region.x_px[0], region.y_px[0], region.width_px[0], region.height_px[0]) == (3, 2, 1, 1)
    assert not region.border[0]


@pytest.mark.parametrize("place", [(0, 3), (4, 3), (2, 0), (2, 6)])
def test_border_is_the_outermost_pixel(place: tuple[int, int]) -> None:
    mask = np.zeros((5, 7), np.uint8)
    mask[place] = 1
    assert find_regions(mask).border[0]


def test_more_regions_than_labels_are_refused() -> None:
    mask = np.zeros((600, 600), np.uint8)
    mask[::2, ::2] = 1
    assert len(find_regions(mask[:300])) == 45_000
    with pytest.raises(LabelOverflow, match="90000 regions"):
        find_regions(mask)
