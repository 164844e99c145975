import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from edge_app.measurement.shape_moments import USR, shape_moments
from edge_app.segmentation.regions import find_regions

CIRCLE_FROM_ITS_OUTLINE = 4 / np.pi, np.sqrt(2 - 16 / np.pi**2)


def ellipse(a: float, b: float, *, turned: float = 0.0, at: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    y, x = np.mgrid[-150:151, -150:151].astype(float)
    x, y = x - at[0], y - at[1]
    u, v = np.cos(turned) * x + np.sin(turned) * y, -np.sin(turned) * x + np.cos(turned) * y
    return ((u / a) ** 2 + (v / b) ** 2 <= 1).astype(np.uint8)


def moments(mask: np.ndarray) -> np.ndarray:
    regions = find_regions(mask)
    assert len(regions) == 1
    return shape_moments(regions)[0]


def test_a_circle_has_the_moments_of_a_circle() -> None:
    found = moments(ellipse(120, 120))
    mean, sd = CIRCLE_FROM_ITS_OUTLINE
    # Third central moment of the chord 2 sin(t/2), t even over the circle: E d^3 = 32 / (3 pi).
    skew = np.cbrt(32 / (3 * np.pi) - 3 * mean * (sd**2 + mean**2) + 2 * mean**3)
    assert found[:3] == pytest.approx([1, 0, 0], abs=0.02)
    for first in (3, 6, 9):
        assert found[first : first + 3] == pytest.approx([mean, sd, skew], abs=0.02)


@pytest.mark.parametrize(("a", "b"), [(120, 60), (140, 30), (100, 80)])
def test_an_ellipse_has_the_moments_of_an_ellipse(a: float, b: float) -> None:
    """Reference points: the centre, an end of the short axis, the two ends of the long one; means over arc length."""

    def outline(power: float, x: float, y: float, shift: float = 0.0) -> float:
        def arc(t: float) -> float:
            return float(np.hypot(a * np.sin(t), b * np.cos(t)))

        def distance(t: float) -> float:
            return float(np.hypot(a * np.cos(t) - x, b * np.sin(t) - y)) - shift

        return quad(lambda t: distance(t) ** power * arc(t), 0, 2 * np.pi)[0] / quad(arc, 0, 2 * np.pi)[0]

    scale = np.sqrt(outline(2, 0, 0))
    wanted = []
    for x, y in ((0, 0), (0, b), (a, 0), (-a, 0)):
        mean = outline(1, x, y)
        wanted += [mean, np.sqrt(outline(2, x, y, mean)), np.cbrt(outline(3, x, y, mean))]
    assert moments(ellipse(a, b)) == pytest.approx(np.array(wanted) / scale, abs=0.04)


@given(st.floats(0, np.pi), st.floats(20, 90), st.floats(0.35, 0.8), st.tuples(st.floats(-40, 40), st.floats(-40, 40)))
@settings(max_examples=25, deadline=None)
def test_neither_turn_nor_place_nor_size_changes_them(
    turned: float, long: float, ratio: float, at: tuple[float, float]
) -> None:
    found = moments(ellipse(long, long * ratio, turned=turned, at=at))
    usual = moments(ellipse(100, 100 * ratio))
    # Cube roots of the small third moments are the least certain: pixels change them most.
    assert found == pytest.approx(usual, abs=0.12)
    assert found[[0, 1, 3, 4, 6, 7, 9, 10]] == pytest.approx(usual[[0, 1, 3, 4, 6, 7, 9, 10]], abs=0.04)


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_a_quarter_turn_is_exact(seed: int, turns: int) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-100, 100, (5, 2))
    y, x = np.mgrid[-110:111, -110:111]
    mask = np.zeros(x.shape, np.uint8)
    for cx, cy in corners / 2:
        mask |= ((x - cx) ** 2 + (y - cy) ** 2 <= 45**2).astype(np.uint8)
    regions = find_regions(mask)
    assume(len(regions) == 1)
    # Equally far points are told apart by their order along the outline, which a turn changes: nearly so there.
    turned = moments(np.rot90(mask, turns))
    assert turned[:3] == pytest.approx(moments(mask)[:3], abs=1e-4)
    assert np.median(abs(turned - moments(mask))) < 1e-4


def test_regions_of_one_frame_do_not_touch_each_other() -> None:
    frame = np.zeros((301, 700), np.uint8)
    frame[:, :301] = ellipse(70, 40)
    frame[:, 350:651] = ellipse(60, 60)
    together = shape_moments(find_regions(frame))
    apart = [moments(ellipse(70, 40)), moments(ellipse(60, 60))]
    order = np.argsort(together[:, 1])[::-1]
    assert together[order] == pytest.approx(np.array(apart), abs=1e-5)


def test_a_single_pixel_and_an_empty_frame_are_no_error() -> None:
    one = np.zeros((9, 9), np.uint8)
    assert shape_moments(find_regions(one)).shape == (0, 12)
    one[4, 4] = 1
    assert not moments(one).any()
    assert len(USR) == 12
