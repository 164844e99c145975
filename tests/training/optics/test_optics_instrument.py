"""What real instruments and real pictures show (`domain.md` sections 0, 3 and 5)."""

import numpy as np
import pytest
from scipy import ndimage

from training.optics import OpticsScene, Sphere, render_views
from training.optics.camera import expose, resample

AXIS = [(0.0, 0.0)]


def picture(*, index: float, diameter_um: float, scene: OpticsScene, z: tuple[float, ...], field=(0.0, 0.0)):
    sphere = Sphere(
        family="bead", diameter_um=diameter_um, index=index, medium_n=scene.medium_n, dx=scene.um_per_px / 3
    )
    return [v.intensity.astype(float) for v in render_views(sphere, scene, z_um=z, fields=[field])]


def raw_diameter(ratio: np.ndarray, *, threshold: float, um_per_px: float) -> float:
    mask = ndimage.binary_fill_holes(np.abs(ratio - 1) > threshold)
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    area = ndimage.sum_labels(mask, labels, np.arange(1, count + 1)).max() if count else 0
    return 2 * float(np.sqrt(area / np.pi)) * um_per_px


def raw_diameters(
    *, index: float, diameter_um: float, scene: OpticsScene, z: tuple[float, ...], threshold: float
) -> np.ndarray:
    """Raw mask diameter per defocus, mean over nine places within a pixel."""
    places = [(a * scene.um_per_px, b * scene.um_per_px) for a in (0, 0.25, 0.5) for b in (0, 0.25, 0.5)]
    rows = []
    for place in places:
        sphere = Sphere(
            family="bead",
            diameter_um=diameter_um,
            index=index,
            medium_n=scene.medium_n,
            dx=scene.um_per_px / 3,
            offset_um=place,
        )
        views = render_views(sphere, scene, z_um=z, fields=AXIS)
        rows.append(
            [raw_diameter(v.intensity.astype(float), threshold=threshold, um_per_px=scene.um_per_px) for v in views]
        )
    return np.mean(rows, axis=0)


def test_flowcam_bead_grows_through_defocus_as_nist_saw() -> None:
    """A 4 um bead at 0.759 um/px, NA 0.25, 20 %: 4.8 um in focus, about 5.7 to 6.3 um at 10 to 30 um defocus."""
    scene = OpticsScene(na=0.25, condenser_na=0.12, um_per_px=0.759, medium_n=1.333)
    sizes = raw_diameters(
        index=1.59, diameter_um=4.0, scene=scene, z=(0.0, 10.0, 20.0, 30.0, -10.0, -20.0, -30.0), threshold=0.20
    )
    assert sizes[0] == pytest.approx(4.8, abs=0.3)
    assert sizes[1:].min() > 5.3
    assert sizes[1:].max() < 6.4
    assert sizes[1:].mean() == pytest.approx(6.0, abs=0.3)


@pytest.mark.parametrize("index", [1.403, 1.59], ids=["oil", "bead"])
@pytest.mark.parametrize("diameter_um", [5.0, 10.0, 20.0])
def test_mfi_raw_mask_is_six_um_too_large(diameter_um: float, index: float) -> None:
    """Spheres over z +-45 um at 4.2 %: an MFI's own curve says the diameter plus 6.4 um. Within 1 um."""
    z = tuple(np.linspace(-45, 45, 10).tolist())
    sizes = raw_diameters(index=index, diameter_um=diameter_um, scene=OpticsScene(), z=z, threshold=0.042)
    assert sizes.mean() == pytest.approx(diameter_um + 6.4, abs=1.0)


@pytest.mark.parametrize(("index", "threshold"), [(1.35, 0.10), (1.343, 0.05)])
def test_protein_vanishes_in_focus_and_shows_out_of_it(index: float, threshold: float) -> None:
    focused, near, far = picture(index=index, diameter_um=5.0, scene=OpticsScene(), z=(0.0, 30.0, -30.0))
    assert np.abs(focused - 1).max() < threshold
    assert np.abs(near - 1).max() > threshold
    assert np.abs(far - 1).max() > threshold


def test_weak_particle_changes_sign_through_focus() -> None:
    above, below = picture(index=1.345, diameter_um=6.0, scene=OpticsScene(), z=(25.0, -25.0))
    middle = tuple(s // 2 for s in above.shape)
    assert above[middle] > 1.05
    assert below[middle] < 0.95


def outward_shift(ratio: np.ndarray) -> float:
    dark = np.clip(0.97 - ratio, 0, None)
    return float((dark.sum(0) * (np.arange(ratio.shape[1]) - (ratio.shape[1] - 1) / 2)).sum() / dark.sum())


def test_crescent_of_coma_keeps_its_side_through_focus() -> None:
    scene = OpticsScene(coma_waves=0.3)
    shifts = [
        outward_shift(p)
        for p in picture(index=1.403, diameter_um=7.0, scene=scene, z=(-35.0, 0.0, 35.0), field=(0.6, 0.0))
    ]
    assert all(s > 0.2 for s in shifts) or all(s < -0.2 for s in shifts)


def test_crescent_of_tilt_reverses_through_focus() -> None:
    scene = OpticsScene(tilt_na=0.05)
    over, under = (
        outward_shift(p) for p in picture(index=1.403, diameter_um=7.0, scene=scene, z=(-35.0, 35.0), field=(0.6, 0.0))
    )
    assert over * under < 0
    assert abs(over) > 0.2
    assert abs(under) > 0.2


def test_field_angle_turns_the_picture() -> None:
    """What a composer of frames relies on: a place on the y axis is a place on the x axis, turned."""
    scene = OpticsScene(tilt_na=0.03, coma_waves=0.3, vignetting=0.3)
    (along_x,) = picture(index=1.403, diameter_um=7.0, scene=scene, z=(20.0,), field=(0.7, 0.0))
    (along_y,) = picture(index=1.403, diameter_um=7.0, scene=scene, z=(20.0,), field=(0.0, 0.7))
    np.testing.assert_allclose(along_y, along_x.T, atol=0.08)


def test_camera_pixels_keep_the_light() -> None:
    fine = np.random.default_rng(0).uniform(0.5, 1.5, (120, 120)).astype(np.float32)
    np.testing.assert_allclose(
        resample(fine, dx=0.5, um_per_px=2.0), fine.reshape(30, 4, 30, 4).mean((1, 3)), rtol=1e-5
    )
    assert resample(fine, dx=0.5, um_per_px=1.9).mean() == pytest.approx(fine.mean(), abs=0.01)


def test_exposure_adds_the_noise_it_is_told() -> None:
    flat = expose(np.ones((200, 200), np.float32), np.random.default_rng(1), blur_px=0.5, noise=0.01)
    assert flat.std() == pytest.approx(0.01, rel=0.03)
    assert flat.mean() == pytest.approx(1.0, abs=1e-3)
