"""Laws that the propagation keeps."""

import numpy as np
import pytest

from training.optics.propagation import Grid, choose_grid, multislice, sample_source, transfer
from training.optics.pupil import intensity, pupil

GRID = Grid(96, 1.33 / 3)
LIGHT = {"medium_n": 1.337, "wavelength": 0.47}


def sources(tilt: tuple[float, float] = (0.0, 0.0)):
    return sample_source(grid=GRID, condenser_na=0.055, tilt=tilt, z_max_um=60.0, **LIGHT)


def blob(dn: complex, *, width_um: float = 3.0) -> np.ndarray:
    z, y, x = np.meshgrid(np.arange(-4, 5), np.arange(-16, 16) * GRID.dx, np.arange(-16, 16) * GRID.dx, indexing="ij")
    return (dn * np.exp(-(x**2 + y**2 + z**2) / (2 * (width_um / 2) ** 2))).astype(np.complex64)


def total(spectrum: np.ndarray) -> float:
    return float(np.mean(np.abs(spectrum.astype(complex)) ** 2 * GRID.n**2) / GRID.n**4)


@pytest.mark.parametrize("dn", [0.01, 0.05, -0.05])
def test_a_clear_particle_conserves_energy(dn: float) -> None:
    s = sources()
    out = multislice(contrast=blob(dn).real, dz=1.0, grid=GRID, sources=s, **LIGHT)
    assert total(out) == pytest.approx(1.0, abs=2e-5)


def test_an_absorbing_particle_loses_energy() -> None:
    out = multislice(contrast=blob(0.02 + 0.05j), dz=1.0, grid=GRID, sources=sources(), **LIGHT)
    assert total(out) < 0.995


def test_empty_medium_changes_nothing() -> None:
    s = sources((0.04, -0.02))
    out = multislice(contrast=blob(0.0).real, dz=1.0, grid=GRID, sources=s, **LIGHT)
    picture = intensity(spectrum=out, pupil=pupil(grid=GRID, na=0.1, defocus_um=40.0, **LIGHT), sources=s)
    np.testing.assert_allclose(picture, 1.0, atol=1e-4)


def test_propagation_is_unitary_and_reversible_within_its_band() -> None:
    there = transfer(grid=GRID, distance_um=37.0, band=0.8, **LIGHT)
    back = transfer(grid=GRID, distance_um=-37.0, band=0.8, **LIGHT)
    inside = there != 0
    np.testing.assert_allclose(np.abs(there[inside]), 1.0, atol=1e-6)
    np.testing.assert_allclose((there * back)[inside], 1.0, atol=1e-5)


@pytest.mark.parametrize("z_max_um", [20.0, 75.0, 130.0])
@pytest.mark.parametrize("condenser_na", [0.03, 0.09])
def test_source_points_lie_dense_enough_for_the_defocus(z_max_um: float, condenser_na: float) -> None:
    grid = Grid(384, 1.33 / 3)
    s = sample_source(grid=grid, condenser_na=condenser_na, tilt=(0.0, 0.0), z_max_um=z_max_um, **LIGHT)
    assert s.weight.sum() == pytest.approx(1.0)
    na = np.stack([s.order_x, s.order_y], 1) * 0.47 / grid.length
    assert np.hypot(*na.T).max() <= condenser_na + 0.47 / grid.length
    apart = np.hypot(*(na[:, None] - na[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    walk = apart.min(1) * z_max_um / 1.337
    assert walk.max() < 2.5 + 0.47 / grid.length * z_max_um / 1.337  # plus half an order of snapping at either end


def test_grid_holds_particle_and_halo() -> None:
    grid = choose_grid(extent_um=100.0, reach_um=12.0, dx=0.665)
    assert grid.length >= 124.0
    assert grid.n % 2 == 0


def test_dark_field_is_refused() -> None:
    s = sources((0.2, 0.0))
    waves = multislice(contrast=blob(0.01).real, dz=1.0, grid=GRID, sources=s, **LIGHT)
    with pytest.raises(ValueError, match=r"at least 0\.05"):
        intensity(spectrum=waves, pupil=pupil(grid=GRID, na=0.09, **LIGHT), sources=s)
