import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import regionprops
from skimage.morphology import convex_hull_image

from edge_app.measurement.border_weight import border_weight
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import feret_diameters, hull_points, measure
from edge_app.measurement.half_maximum import half_maximum_area
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import find_regions
from edge_app.segmentation.threshold import segment

U8 = npt.NDArray[np.uint8]
SCALE = nominal_calibration(um_per_px=1.0, depth_um=100.0)


def picture_of(mask: npt.NDArray[np.bool_], code: int = 80) -> U8:
    return np.where(mask, code, 160).astype(np.uint8)


def measured(mask: npt.NDArray[np.bool_], code: int = 80, um_per_px: float = 1.0) -> Particles:
    regions = find_regions(mask.astype(np.uint8))
    scale = nominal_calibration(um_per_px=um_per_px, depth_um=100.0)
    return measure(picture_of(mask, code), regions, frame=3, time_s=0.3, calibration=scale)


def disc(
    diameter: float, *, shape: tuple[int, int] = (160, 160), at: tuple[float, float] = (80.3, 79.6)
) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.asarray((x - at[0]) ** 2 + (y - at[1]) ** 2 <= (diameter / 2) ** 2)


def rectangle(width: int, height: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros((160, 160), bool)
    mask[40 : 40 + height, 30 : 30 + width] = True
    return mask


def blob(seed: int) -> npt.NDArray[np.bool_]:
    """Irregular connected shape away from the border."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((160, 160), np.uint8)
    x, y = 80.0, 80.0
    for _ in range(int(rng.integers(3, 14))):
        cv2.circle(picture, (round(x), round(y)), int(rng.integers(2, 9)), 1, cv2.FILLED)
        x, y = np.clip(np.array([x, y]) + rng.uniform(-7, 7, 2), 30, 130)
    filled = find_regions(picture)
    return np.asarray(filled.labels == 1 + int(np.argmax(filled.area_px)))


@pytest.mark.parametrize("diameter", [5, 8, 10, 15, 30, 60, 100])
def test_disc(diameter: int) -> None:
    p = measured(disc(diameter))
    assert p.ecd_um[0] == pytest.approx(diameter, abs=0.15)
    assert 0.96 <= p.circularity[0] <= 1.0
    assert p.solidity[0] == pytest.approx(1.0, abs=0.002)
    assert p.aspect_ratio[0] > 0.9
    assert p.perimeter_um[0] == pytest.approx(np.pi * diameter, rel=0.03, abs=0.4)
    assert p.max_feret_um[0] == pytest.approx(diameter + 0.5, abs=0.5)  # the longest of 36 is never short
    assert p.centroid_x_px[0] == pytest.approx(80.3, abs=0.25)


@pytest.mark.parametrize(("width", "height"), [(40, 40), (60, 20), (100, 5), (30, 1)])
def test_rectangle_closed_forms_of_iso_9276_6(width: int, height: int) -> None:
    p = measured(rectangle(width, height))
    area, perimeter = width * height, 2 * (width + height)
    assert p.area_px[0] == area
    assert p.solidity[0] == 1.0
    assert p.min_feret_um[0] == pytest.approx(min(width, height), abs=1e-4)
    assert p.max_feret_um[0] == pytest.approx(np.hypot(width, height), abs=1.1)
    assert p.perimeter_um[0] == pytest.approx(perimeter, rel=0.06, abs=1.5)
    assert p.circularity[0] == pytest.approx(min(1.0, 2 * np.sqrt(np.pi * area) / perimeter), abs=0.09)
    assert p.aspect_ratio[0] == pytest.approx(p.min_feret_um[0] / p.max_feret_um[0], rel=1e-6)


@pytest.mark.parametrize(("a", "b", "angle"), [(40, 20, 0), (40, 20, 30), (50, 10, 77), (24, 18, 135)])
def test_ellipse(a: float, b: float, angle: float) -> None:
    y, x = np.mgrid[:160, :160] - 79.7
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    p = measured(((c * x + s * y) / a) ** 2 + ((c * y - s * x) / b) ** 2 <= 1)
    assert p.max_feret_um[0] == pytest.approx(2 * a, abs=1.1)
    # The nearest of 36 directions is up to 2.5 degrees off the short axis.
    assert p.min_feret_um[0] == pytest.approx(2 * b, abs=1.1 + 2 * a * np.sin(np.radians(2.5)) ** 2 * a / b)
    h = ((a - b) / (a + b)) ** 2
    ramanujan = np.pi * (a + b) * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h)))
    assert p.perimeter_um[0] == pytest.approx(ramanujan, rel=0.02)
    assert p.circularity[0] == pytest.approx(2 * np.sqrt(np.pi * np.pi * a * b) / ramanujan, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_against_scikit_image(seed: int) -> None:
    mask = blob(seed)
    p = measured(mask)
    (expected,) = regionprops(find_regions(mask.astype(np.uint8)).labels)
    (exact,) = regionprops(mask.astype(np.uint8))
    assert p.area_px[0] == expected.area_filled
    assert p.centroid_y_px[0] == pytest.approx(expected.centroid[0], abs=1e-3)
    assert p.centroid_x_px[0] == pytest.approx(expected.centroid[1], abs=1e-3)
    # scikit-image takes all pairs of a somewhat larger hull, we take 36 directions: at most cos(2.5 degrees) short.
    assert expected.feret_diameter_max - 1.0 <= p.max_feret_um[0] <= expected.feret_diameter_max + 1e-3
    hull = convex_hull_image(mask, offset_coordinates=False)
    assert p.solidity[0] == pytest.approx(mask.sum() / hull.sum(), abs=1e-6)
    assert p.perimeter_um[0] == pytest.approx(exact.perimeter_crofton, rel=0.12, abs=2)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 100_000),
    dx=st.integers(-25, 25),
    dy=st.integers(-25, 25),
    turn=st.integers(0, 3),
    flip=st.booleans(),
)
def test_moving_turning_and_flipping_change_no_shape(seed: int, dx: int, dy: int, turn: int, flip: bool) -> None:
    mask = blob(seed)
    rng = np.random.default_rng(seed)
    ratio = np.where(mask, rng.integers(60, 140, mask.shape), 160).astype(np.uint8)
    other_mask, other_ratio = (np.roll(a, (dy, dx), (0, 1)) for a in (mask, ratio))
    other_mask, other_ratio = np.rot90(other_mask, turn), np.rot90(other_ratio, turn)
    if flip:
        other_mask, other_ratio = other_mask[:, ::-1], other_ratio[:, ::-1]
    a = measure(ratio, find_regions(mask.astype(np.uint8)), frame=0, time_s=0.0, calibration=SCALE)
    b = measure(
        np.ascontiguousarray(other_ratio),
        find_regions(np.ascontiguousarray(other_mask).astype(np.uint8)),
        frame=0,
        time_s=0.0,
        calibration=SCALE,
    )
    for name in (
        "area_px", "half_max_area_px", "ecd_um", "max_feret_um", "min_feret_um", "perimeter_um", "aspect_ratio",
        "circularity", "solidity", "intensity_mean", "intensity_min", "intensity_max", "intensity_std", "edge_gradient",
    ):  # fmt: skip
        assert getattr(a, name)[0] == pytest.approx(getattr(b, name)[0], rel=1e-4), name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_shape_numbers_stay_in_their_range(seed: int) -> None:
    p = measured(blob(seed))
    for name in ("aspect_ratio", "circularity", "solidity"):
        assert 0.0 < getattr(p, name)[0] <= 1.0, name
    assert p.min_feret_um[0] <= p.max_feret_um[0]


def test_intensities_and_gradient() -> None:
    mask = rectangle(20, 20)
    ratio = picture_of(mask, 80)
    ratio[50, 40] = 40
    ratio[51, 40] = 200
    p = measure(ratio, find_regions(mask.astype(np.uint8)), frame=0, time_s=0.0, calibration=SCALE)
    values = ratio[mask] / 160
    assert p.intensity_mean[0] == pytest.approx(values.mean(), abs=1e-6)
    assert p.intensity_std[0] == pytest.approx(values.std(), abs=1e-5)
    assert p.intensity_min[0] == 0.25
    assert p.intensity_max[0] == 1.25
    # A straight step of 0.5 gives Sobel 4 * 80 on either side of it: 0.25 per px.
    assert p.edge_gradient[0] == pytest.approx(0.25, abs=0.01)
    soft = cv2.GaussianBlur(ratio, (0, 0), 3)
    blurred = measure(soft, find_regions(mask.astype(np.uint8)), frame=0, time_s=0.0, calibration=SCALE)
    assert blurred.edge_gradient[0] < 0.5 * p.edge_gradient[0]


def test_lengths_scale_and_shapes_do_not() -> None:
    mask = blob(5)
    one, two = measured(mask), measured(mask, um_per_px=2.0)
    for name in ("ecd_um", "max_feret_um", "min_feret_um", "perimeter_um"):
        assert getattr(two, name)[0] == pytest.approx(2 * getattr(one, name)[0], rel=1e-6)
    for name in ("aspect_ratio", "circularity", "solidity"):
        assert getattr(two, name)[0] == getattr(one, name)[0]


def test_many_particles_equal_each_alone() -> None:
    shape = (400, 500)
    masks = []
    for k in range(12):
        place = np.zeros(shape, bool)
        y, x = 20 + 95 * (k // 4), 20 + 115 * (k % 4)
        place[y : y + 90, x : x + 90] = blob(k)[35:125, 35:125]
        masks.append(place)
    together = np.any(masks, axis=0)
    ratio = picture_of(together, 90)
    rows = measure(ratio, find_regions(together.astype(np.uint8)), frame=0, time_s=0.0, calibration=SCALE)
    for mask in masks:
        alone = find_regions(mask.astype(np.uint8))
        for i in range(len(alone)):
            one = measure(picture_of(mask, 90), alone.take(np.array([i])), frame=0, time_s=0.0, calibration=SCALE)
            (k,) = np.flatnonzero(
                (rows.centroid_x_px == one.centroid_x_px[0]) & (rows.centroid_y_px == one.centroid_y_px[0])
            )
            for name in (
                "half_max_area_px",
                "max_feret_um",
                "perimeter_um",
                "solidity",
                "intensity_std",
                "edge_gradient",
            ):
                assert getattr(rows, name)[k] == pytest.approx(getattr(one, name)[0], rel=1e-5), name


def test_no_particles() -> None:
    ratio = np.full((50, 60), 160, np.uint8)
    p = measure(ratio, segment(ratio), frame=0, time_s=0.0, calibration=SCALE)
    assert len(p) == 0
    assert len(Particles.concatenate([p, p])) == 0


def test_weights_of_miles_and_lantuejoul() -> None:
    weight = border_weight(
        np.array([53, 4]), np.array([53, 4]), np.array([False, True]), frame_width_px=1280, frame_height_px=1024
    )
    assert weight[0] == pytest.approx(1 / ((1 - 53 / 1280) * (1 - 53 / 1024)), rel=1e-6)
    assert weight[1] == 0.0


def test_weighted_count_is_unbiased() -> None:
    # Boxes thrown over a frame and its surroundings: those wholly inside, weighted, stand for all corners in it.
    rng = np.random.default_rng(0)
    frame, size, n = 400, 120, 60_000
    x, y = rng.uniform(-size, frame, n), rng.uniform(-size, frame, n)
    whole = (x >= 0) & (y >= 0) & (x + size <= frame) & (y + size <= frame)
    w = border_weight(np.full(n, size), np.full(n, size), ~whole, frame_width_px=frame, frame_height_px=frame)
    expected = n * (frame / (frame + size)) ** 2
    assert w.sum() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("diameter", [7.0, 12.0, 24.0])
@pytest.mark.parametrize("blur", [0.8, 1.6])
def test_half_maximum_does_not_depend_on_contrast(diameter: float, blur: float) -> None:
    big = disc(diameter * 8, shape=(640, 640), at=(321.0, 318.0)).astype(np.float32)
    profile = cv2.resize(cv2.GaussianBlur(big, (0, 0), blur * 8), (80, 80), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    half, fixed = [], []
    for contrast in (0.10, 0.30, 0.60):
        readings = []
        for _ in range(8):
            picture = 160 * (1 - contrast * profile) + rng.normal(0, 0.8, profile.shape)
            ratio = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
            regions = segment(ratio, noise=0.8)
            largest = regions.take(np.array([int(np.argmax(regions.area_px))]))
            area = half_maximum_area(ratio, largest, noise=0.8)[0]
            readings.append((2 * np.sqrt(area / np.pi), 2 * np.sqrt(largest.area_px[0] / np.pi)))
        half.append(np.mean(readings, axis=0)[0])
        fixed.append(np.mean(readings, axis=0)[1])
    assert max(half) - min(half) < 0.07 * diameter
    assert max(half) - min(half) < 0.45 * (max(fixed) - min(fixed))
    assert half[2] == pytest.approx(diameter, rel=0.09)


def test_half_maximum_of_a_ring_is_the_whole_disc() -> None:
    picture = np.full((100, 100), 160, np.uint8)
    cv2.circle(picture, (50, 50), 20, 60, 4)
    cv2.circle(picture, (50, 50), 5, 230, cv2.FILLED)  # bright core
    regions = segment(picture)
    assert half_maximum_area(picture, regions)[0] == pytest.approx(regions.area_px[0], rel=0.03)


def test_mean_feret_of_a_disc_is_its_diameter() -> None:
    regions = find_regions(disc(50).astype(np.uint8))
    assert feret_diameters(*hull_points(regions))[2][0] == pytest.approx(50, abs=0.7)
