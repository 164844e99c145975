"""Pictures of one particle: one propagation, many cheap views of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training.optics.camera import resample
from training.optics.mie import scattering_amplitude
from training.optics.particles.body import Array, Particle, Sphere, disc_coverage
from training.optics.propagation import Complex, Grid, Sources, choose_grid, multislice, sample_source
from training.optics.pupil import intensity, pupil
from training.optics.scene import OpticsScene, draw_field


@dataclass(frozen=True, kw_only=True)
class View:
    """One picture of one particle, with its truth.

    Attributes
    ----------
    intensity : ndarray of float16, (h, w)
        Intensity over background on camera pixels; no blur, gain or noise (see `training.optics.camera.expose`).
    true_mask : ndarray of bool, (h, w)
        Pixels at least half covered by the particle's projection (its darkest pixel at least).
    ecd_um, max_feret_um : float
        Truth from the projection on the fine grid.
    z_um : float
        Focal plane minus particle centre, along the light.
    field_x, field_y : float
        Place in the frame, in half diagonals (-1 .. 1).
    family : str
    scene : OpticsScene
    """

    intensity: NDArray[np.float16] = field(repr=False)
    true_mask: NDArray[np.bool_] = field(repr=False)
    ecd_um: float
    max_feret_um: float
    z_um: float
    field_x: float
    field_y: float
    family: str
    scene: OpticsScene


def projected_size(coverage: Array, dx: float) -> tuple[float, float]:
    """ECD and maximum Feret diameter (um) of a projection sampled at ``dx``."""
    ecd = 2 * float(np.sqrt(coverage.sum(dtype=np.float64) * dx * dx / np.pi))
    y, x = np.nonzero(coverage > 0.5)
    if len(x) < 2:
        return ecd, max(ecd, dx)
    angles = np.deg2rad(np.arange(0, 180, 3.0))
    reach = np.outer(np.cos(angles), x) + np.outer(np.sin(angles), y)
    # The extent between pixel centres falls short by about one pixel's width across.
    feret = (reach.max(1) - reach.min(1) + 1.0).max() * dx
    return ecd, max(float(feret), ecd)


def _sphere_spectrum(sphere: Sphere, grid: Grid, sources: Sources, wavelength: float, band_na: float) -> Complex:
    """Exact field behind a sphere, referred to its centre plane, within ``band_na``."""
    k = sphere.medium_n / wavelength
    fx, fy = (f.astype(np.float64) for f in grid.frequencies())
    kz = np.sqrt(np.maximum(k * k - fx * fx - fy * fy, 1e-12))
    inside = fx * fx + fy * fy <= (band_na / wavelength) ** 2
    rows, columns = np.nonzero(inside)
    ux, uy, uz = fx[0, columns] / k, fy[rows, 0] / k, kz[rows, columns] / k
    centre = np.exp(-2j * np.pi * (fx[0, columns] * sphere.offset_um[0] + fy[rows, 0] * sphere.offset_um[1]))
    sx, sy = sources.order_x / (grid.length * k), sources.order_y / (grid.length * k)
    sz = np.sqrt(1 - sx * sx - sy * sy)
    cosine = np.clip(ux * sx[:, None] + uy * sy[:, None] + uz * sz[:, None], -1, 1)
    angle = np.arccos(cosine)
    # Rings of the amplitude are about pi / x apart: 16 samples each, then linear interpolation.
    size_parameter = np.pi * sphere.diameter_um * k
    table = np.linspace(0, float(angle.max()) + 1e-6, 64 + int(16 * float(angle.max()) * size_parameter / np.pi))
    amplitude = scattering_amplitude(
        relative_index=sphere.index / sphere.medium_n, size_parameter=size_parameter, angles=table
    )
    s = np.interp(angle, table, amplitude.real) + 1j * np.interp(angle, table, amplitude.imag)
    # A spherical wave S exp(ikr) / (-ikr) as plane waves on the grid: c = -2 pi S / (L^2 k kz), angular k and kz.
    scale = -2 * np.pi / (grid.length**2 * (2 * np.pi * k) * (2 * np.pi * kz[rows, columns]))
    illumination = np.exp(
        2j * np.pi / grid.length * (sources.order_x * sphere.offset_um[0] + sources.order_y * sphere.offset_um[1])
    )
    spectrum = np.zeros((len(sx), grid.n, grid.n), np.complex64)
    spectrum[:, rows, columns] = s * (scale * centre) * illumination[:, None]
    i = np.arange(len(sx))
    spectrum[i, sources.order_y % grid.n, sources.order_x % grid.n] += 1
    # scipy's unnormalised forward transform of a unit plane wave centred on the middle of the grid.
    shift = np.exp(2j * np.pi * np.fft.fftfreq(grid.n) * (-grid.n / 2 + 0.5)).astype(np.complex64)
    return spectrum * (shift[None, None, :] * shift[None, :, None] * np.float32(grid.n**2))


def exit_spectrum(particle: Particle, *, grid: Grid, sources: Sources, wavelength: float, band_na: float) -> Complex:
    """Spectrum of every source wave behind a particle, referred to the particle's centre plane.

    Parameters
    ----------
    particle : Particle
    grid : Grid
    sources : Sources
    wavelength : float
    band_na : float
        Aperture that will be looked at; only the exact sphere uses it.

    Returns
    -------
    ndarray of complex64, (sources, n, n)
    """
    if isinstance(particle, Sphere):
        return _sphere_spectrum(particle, grid, sources, wavelength, band_na)
    return multislice(
        contrast=particle.contrast,
        dz=particle.dz,
        grid=grid,
        sources=sources,
        medium_n=particle.medium_n,
        wavelength=wavelength,
    )


def _place(coverage: Array, n: int) -> Array:
    """Centre a projection on a larger (or smaller) square grid."""
    out = np.zeros((n, n), np.float32)
    h, w = coverage.shape
    y, x = (n - h) // 2, (n - w) // 2
    cy, cx = max(0, -y), max(0, -x)
    part = coverage[cy : h - cy, cx : w - cx]
    out[max(y, 0) : max(y, 0) + part.shape[0], max(x, 0) : max(x, 0) + part.shape[1]] = part
    return out


def _group(particle: Particle, scene: OpticsScene, position: tuple[float, float], z: Sequence[float]) -> list[View]:
    """Views that share one propagation: same scene and field position, several focus distances."""
    n = particle.medium_n
    scene = replace(scene, medium_n=n)
    z_far = max(abs(v) for v in z) + particle.thickness_um / 2
    tilt, coma = scene.tilt(position), scene.coma(position)
    steepest = scene.na + 0.5 * float(np.hypot(*tilt))
    # Defocus, then the rings of diffraction, then the flare of coma.
    reach = z_far * steepest / n + (7.0 + 10.0 * float(np.hypot(*coma))) * (0.10 / min(scene.na, 0.13))
    grid = choose_grid(extent_um=particle.extent_um, reach_um=reach, dx=particle.dx)
    sources = sample_source(
        grid=grid,
        condenser_na=scene.condenser_na,
        tilt=tilt,
        wavelength=scene.wavelength_um,
        z_max_um=z_far,
        medium_n=n,
    )
    spectrum = exit_spectrum(
        particle, grid=grid, sources=sources, wavelength=scene.wavelength_um, band_na=1.15 * scene.na + 0.02
    )
    coverage = disc_coverage(particle) if isinstance(particle, Sphere) else particle.coverage
    ecd, feret = projected_size(coverage, particle.dx)
    if isinstance(particle, Sphere):
        ecd = feret = particle.diameter_um
    covered = resample(_place(coverage, grid.n), dx=grid.dx, um_per_px=scene.um_per_px)
    mask = covered >= min(0.5, float(covered.max()))
    views = []
    for distance in z:
        aperture = pupil(
            grid=grid,
            na=scene.na,
            wavelength=scene.wavelength_um,
            medium_n=n,
            defocus_um=distance,
            coma=coma,
            vignetting=(scene.vignetting * position[0], scene.vignetting * position[1]),
        )
        fine = intensity(spectrum=spectrum, pupil=aperture, sources=sources)
        picture = resample(fine, dx=grid.dx, um_per_px=scene.um_per_px)
        views.append(
            View(
                intensity=picture.astype(np.float16),
                true_mask=mask,
                ecd_um=ecd,
                max_feret_um=feret,
                z_um=float(distance),
                field_x=position[0],
                field_y=position[1],
                family=particle.family,
                scene=scene,
            )
        )
    return views


def render_views(
    particle: Particle,
    scenes: OpticsScene | Sequence[OpticsScene],
    rng: np.random.Generator | None = None,
    *,
    n_views: int = 1,
    z_um: Sequence[float] | None = None,
    fields: Sequence[tuple[float, float]] | None = None,
    cell_half_depth_um: float = 50.0,
) -> list[View]:
    """Picture a particle in one or more scenes.

    The views are shared out evenly over the scenes. Each scene takes one field position and one propagation through the
    particle; its views differ in depth and so in focus.

    Parameters
    ----------
    particle : Particle
        From `training.optics.make_particle`.
    scenes : OpticsScene or sequence of them
        Their ``medium_n`` is replaced by the particle's, which was cut out of its own medium.
    rng : numpy.random.Generator, optional
        Draws what is not given; needed unless ``z_um`` and ``fields`` are.
    n_views : int
        Total number of views (ignored when ``z_um`` is given: then one per scene and z).
    z_um : sequence of float, optional
        Distances focal plane minus particle. Drawn as focus offset plus a depth uniform over the cell when omitted.
    fields : sequence of (float, float), optional
        Field position per scene; drawn uniformly over the frame when omitted.
    cell_half_depth_um : float
        Half the depth of the flow cell.

    Returns
    -------
    list of View
    """
    scenes = [scenes] if isinstance(scenes, OpticsScene) else list(scenes)
    if rng is None and (z_um is None or fields is None):
        raise ValueError("give rng, or both z_um and fields")
    views: list[View] = []
    for i, scene in enumerate(scenes):
        if fields is not None:
            position = (float(fields[i % len(fields)][0]), float(fields[i % len(fields)][1]))
        else:
            assert rng is not None
            position = draw_field(rng)
        if z_um is not None:
            distances = [float(v) for v in z_um]
        else:
            assert rng is not None
            count = n_views // len(scenes) + (i < n_views % len(scenes))
            depth = rng.uniform(-cell_half_depth_um, cell_half_depth_um, count)
            distances = [float(scene.focus_offset_um + d) for d in depth]
        if distances:
            views.extend(_group(particle, scene, position, distances))
    return views
