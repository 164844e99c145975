"""Spheres against independent references: `miepython` and the other of our two solvers."""

import miepython
import numpy as np
import pytest

from training.optics import OpticsScene, Sphere, Volume, render_views
from training.optics.mie import scattering_amplitude
from training.optics.particles import Body, voxelise
from training.optics.particles.shapes import ellipsoid
from training.optics.propagation import Grid, Sources, multislice

MEDIUM, LAM = 1.337, 0.47


def sliced_sphere(*, index: float, diameter_um: float, dx: float = 1.33 / 3, dz: float = 0.5) -> Volume:
    r = diameter_um / 2
    body = Body(depth=ellipsoid((r, r, r)), half_extent=(1.03 * r,) * 3, contrast=index - MEDIUM)
    return voxelise(body, family="bead", ecd_um=diameter_um, medium_n=MEDIUM, dx=dx, dz=dz)


@pytest.mark.parametrize(
    ("relative_index", "size_parameter"),
    [(1.05, 60.0), (1.19, 200.0), (0.7479, 350.0), (1.1 + 0.01j, 50.0)],
    ids=["oil", "polystyrene", "air", "absorbing"],
)
def test_amplitude_is_that_of_miepython(relative_index: complex, size_parameter: float) -> None:
    angles = np.linspace(0, 0.4, 60)
    ours = scattering_amplitude(relative_index=relative_index, size_parameter=size_parameter, angles=angles)
    # miepython counts absorption as a negative imaginary part: its amplitudes are the conjugates of ours.
    s1, s2 = miepython.S1_S2(np.conj(relative_index), size_parameter, np.cos(angles), norm="wiscombe")
    np.testing.assert_allclose(ours, np.conj(s1 + s2) / 2, atol=1e-9 * abs(ours[0]))


def test_forward_amplitude_obeys_the_optical_theorem() -> None:
    x = 90.0
    forward = scattering_amplitude(relative_index=1.05, size_parameter=x, angles=np.zeros(1))[0]
    assert 4 / x**2 * forward.real == pytest.approx(miepython.efficiencies_mx(1.05, x)[0], rel=1e-9)


@pytest.mark.parametrize(("index", "diameter_um"), [(1.345, 6.0), (1.36, 8.0), (1.403, 5.0)])
def test_sliced_sphere_scatters_as_miepython_says(index: float, diameter_um: float) -> None:
    grid = Grid(160, 0.3)
    single = Sources(np.zeros(1, int), np.zeros(1, int), np.ones(1, np.float32))
    volume = sliced_sphere(index=index, diameter_um=diameter_um, dx=0.3, dz=0.25)
    spectrum = multislice(
        contrast=volume.contrast, dz=volume.dz, grid=grid, sources=single, medium_n=MEDIUM, wavelength=LAM
    )[0]
    spectrum /= grid.n**2
    spectrum[0, 0] -= 1  # the incident wave
    k = 2 * np.pi * MEDIUM / LAM
    orders = np.arange(7)  # up to 0.15 rad in the medium: beyond the aperture of any flow imager here
    angles = np.arcsin(orders * 2 * np.pi / (grid.length * k))
    s1, s2 = miepython.S1_S2(index / MEDIUM, k * diameter_um / 2, np.cos(angles), norm="wiscombe")
    expected = 2 * np.pi * np.abs(s1 + s2) / 2 / (grid.length**2 * k * k * np.cos(angles))
    ours = np.abs(spectrum[0, orders])
    assert np.abs(ours - expected).max() < 0.04 * expected[0]


@pytest.mark.parametrize(("index", "limit"), [(1.36, 0.05), (1.403, 0.07)])
def test_both_solvers_draw_the_same_picture(index: float, limit: float) -> None:
    scene, where = OpticsScene(), {"z_um": (-30.0, 0.0, 30.0), "fields": [(0.0, 0.0)]}
    exact = render_views(Sphere(family="bead", diameter_um=8.0, index=index, medium_n=MEDIUM), scene, **where)
    sliced = render_views(sliced_sphere(index=index, diameter_um=8.0), scene, **where)
    for a, b in zip(exact, sliced, strict=True):
        n = min(a.intensity.shape[0], b.intensity.shape[0])
        middle = [
            v[(v.shape[0] - n) // 2 : (v.shape[0] + n) // 2, (v.shape[0] - n) // 2 : (v.shape[0] + n) // 2]
            for v in (a.intensity.astype(float), b.intensity.astype(float))
        ]
        assert np.abs(middle[0] - middle[1]).max() < limit


def test_air_bubble_is_a_black_disc_with_a_small_bright_core() -> None:
    bubble = Sphere(family="air_bubble", diameter_um=60.0, index=1.0, medium_n=MEDIUM)
    (view,) = render_views(bubble, OpticsScene(), z_um=(10.0,), fields=[(0.0, 0.0)])
    picture = view.intensity.astype(float)
    n = picture.shape[0]
    r = np.hypot(*(np.mgrid[:n, :n] - (n - 1) / 2)) * 1.33 / 30.0
    assert picture[(r > 0.3) & (r < 0.9)].max() < 0.1
    core = picture[r < 0.07].mean()
    assert core > 0.4
    assert picture[(r > 0.2) & (r < 0.25)].mean() < core / 4  # geometry: 0.15 R at NA 0.10
    assert picture[r > 1.05].max() > 1.05  # bright rim outside
