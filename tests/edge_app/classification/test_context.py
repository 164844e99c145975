import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_app.classification.context import context_table, field_positions, size_shares, turned_outward
from edge_app.classification.crops import CropGeometry, cut_crops
from edge_app.errors import UserError


def test_corner_and_middle_of_the_frame() -> None:
    place = field_positions(
        np.array([0, 640, 1280]), np.array([0, 512, 1024]), np.zeros(3, int), np.zeros(3, int), frame_shape=(1024, 1280)
    )
    assert np.hypot(place[0, 0], place[0, 1]) == pytest.approx(1)
    assert place[1].tolist() == [0, 0]
    assert place[2].tolist() == pytest.approx((-place[0]).tolist())


@given(st.integers(0, 7), st.integers(0, 1000))
def test_however_a_frame_lies_the_crop_comes_out_the_same(turn: int, seed: int) -> None:
    """Turning the whole instrument turns crop and place together; the network must not see it."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (1, 9, 9, 1)).astype(np.uint8)
    place = rng.uniform(-0.7, 0.7, (1, 2)).astype(np.float32)
    turned, moved = pixels, place
    for _ in range(turn % 4):  # a quarter turn against the clock takes (x, y) to (y, -x), y downwards
        turned, moved = np.rot90(turned, 1, axes=(1, 2)), np.stack([moved[:, 1], -moved[:, 0]], axis=1)
    if turn >= 4:
        turned, moved = turned[:, :, ::-1], moved * np.array([-1, 1], np.float32)
    first, second = turned_outward(pixels, place), turned_outward(np.ascontiguousarray(turned), moved)
    assert np.array_equal(first[0], second[0])
    assert np.allclose(first[1], second[1])
    assert 0 <= first[1][0, 1] <= first[1][0, 0]


def test_shares_of_nothing_are_zero_and_of_something_sum_to_one() -> None:
    assert not size_shares(np.empty(0)).any()
    assert size_shares(np.geomspace(2, 90, 57)).sum() == pytest.approx(1)


def test_a_place_that_is_not_known_is_said_to_be_so() -> None:
    ratio = np.full((50, 50), 160, np.uint8)
    box = [np.array([v]) for v in (10, 10, 8, 8)]
    unknown = cut_crops(ratio, *box, geometry=CropGeometry(), um_per_px=1.33)
    known = cut_crops(ratio, *box, geometry=CropGeometry(), um_per_px=1.33, field=np.array([[-0.2, 0.5]], np.float32))
    assert unknown.context.tolist() == [[0, 0, 0, 0]]
    assert known.context[0].tolist() == pytest.approx([0, 0.5, 0.2, 1])


def test_a_column_that_pictures_cannot_give_is_named() -> None:
    with pytest.raises(UserError, match="asks for solidity"):
        context_table(("log2_reduction", "solidity"), {"log2_reduction": np.zeros(2)}, 2)


def test_context_of_a_bundle_is_checked() -> None:
    with pytest.raises(ValueError, match="must begin with log2_reduction"):
        CropGeometry(context=("field_x",))
