import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.crops import CropGeometry, Crops, cut_crops

GEOMETRY = CropGeometry(window_px=40, margin_px=1, um_per_px=1.33)


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width)).astype(np.uint8)


def by_hand(ratio: np.ndarray, x: int, y: int, w: int, h: int, geometry: CropGeometry) -> np.ndarray:
    """The slow, obvious version: copy pixel by pixel."""
    m, size = geometry.margin_px, geometry.window_px
    out = np.full((size, size), RATIO_ONE, np.uint8)
    ox, oy = (size - (w + 2 * m)) // 2, (size - (h + 2 * m)) // 2
    for row in range(h + 2 * m):
        for column in range(w + 2 * m):
            yy, xx = y - m + row, x - m + column
            if 0 <= yy < ratio.shape[0] and 0 <= xx < ratio.shape[1]:
                out[oy + row, ox + column] = ratio[yy, xx]
    return out


@settings(max_examples=60, deadline=None)
@given(
    x=st.integers(0, 59),
    y=st.integers(0, 49),
    w=st.integers(1, 38),
    h=st.integers(1, 38),
    margin=st.integers(0, 1),
    seed=st.integers(0, 9),
)
def test_equals_the_obvious_version_anywhere_in_the_frame(
    x: int, y: int, w: int, h: int, margin: int, seed: int
) -> None:
    ratio = textured(50, 60, seed)
    w, h = min(w, 60 - x), min(h, 50 - y)
    geometry = GEOMETRY.model_copy(update={"margin_px": margin})
    crops = cut_crops(
        ratio, np.array([x]), np.array([y]), np.array([w]), np.array([h]), geometry=geometry, um_per_px=1.33
    )
    assert np.array_equal(crops.pixels[0, :, :, 0], by_hand(ratio, x, y, w, h, geometry))
    assert crops.context[0, 0] == 0


def test_many_boxes_at_once_are_the_boxes_one_by_one() -> None:
    ratio = textured(200, 300)
    rng = np.random.default_rng(1)
    w, h = rng.integers(3, 90, 50), rng.integers(3, 90, 50)
    x, y = rng.integers(0, 300 - 90, 50), rng.integers(0, 200 - 90, 50)
    together = cut_crops(ratio, x, y, w, h, geometry=GEOMETRY, um_per_px=1.33)
    for i in range(50):
        one = cut_crops(
            ratio, x[i : i + 1], y[i : i + 1], w[i : i + 1], h[i : i + 1], geometry=GEOMETRY, um_per_px=1.33
        )
        assert np.array_equal(one.pixels[0], together.pixels[i])
        assert (one.context[0] == together.context[i]).all()


def test_a_particle_larger_than_the_window_is_reduced_and_says_by_how_much() -> None:
    ratio = np.full((300, 300), RATIO_ONE, np.uint8)
    ratio[100:180, 50:208] = 40
    crops = cut_crops(
        ratio, np.array([50]), np.array([100]), np.array([158]), np.array([80]), geometry=GEOMETRY, um_per_px=1.33
    )
    assert crops.context[0, 0] == pytest.approx(np.log2(160 / 40))
    dark = crops.pixels[0, :, :, 0] < 110
    assert dark.any(axis=0).sum() == pytest.approx(158 / 4, abs=1)
    assert dark.any(axis=1).sum() == pytest.approx(80 / 4, abs=1)


def test_a_neighbour_in_the_window_is_not_shown() -> None:
    ratio = np.full((100, 100), RATIO_ONE, np.uint8)
    ratio[50:56, 50:56] = 80
    ratio[50:56, 60:66] = 10
    crops = cut_crops(
        ratio, np.array([50]), np.array([50]), np.array([6]), np.array([6]), geometry=GEOMETRY, um_per_px=1.33
    )
    assert (crops.pixels == 80).sum() == 36
    assert crops.pixels.min() == 80


@pytest.mark.parametrize(("um_per_px", "width"), [(1.33, 20), (1.25, 20), (1.42, 20), (0.665, 10), (2.66, 40)])
def test_real_scale_is_kept_and_resampled_only_beyond_ten_percent(um_per_px: float, width: int) -> None:
    ratio = np.full((200, 200), RATIO_ONE, np.uint8)
    ratio[60:80, 60:80] = 60
    no_margin = GEOMETRY.model_copy(update={"margin_px": 0})
    crops = cut_crops(
        ratio, np.array([60]), np.array([60]), np.array([20]), np.array([20]), geometry=no_margin, um_per_px=um_per_px
    )
    seen = (crops.pixels[0, :, :, 0] < 110).any(axis=0).sum()
    assert seen == pytest.approx(width, abs=1)


def test_no_particle_gives_an_empty_batch_of_the_right_shape() -> None:
    none = np.empty(0, np.int64)
    crops = cut_crops(textured(10, 10), none, none, none, none, geometry=GEOMETRY, um_per_px=1.33)
    assert crops.pixels.shape == (0, 40, 40, 1)
    assert len(Crops.concatenate([crops, crops])) == 0
