"""What a particle is to the simulator: an implicit body, the index volume made of it, and the exact sphere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.optics.medium import WAVELENGTH_UM

Array = NDArray[np.float32]
Depth = Callable[[Array, Array, Array], Array]

#: Width of the transition from medium to matter, um.
EDGE_UM = 0.5


@dataclass(frozen=True, kw_only=True)
class Body:
    """A particle as an implicit function of position (um, particle at the origin).

    Attributes
    ----------
    depth : callable
        ``depth(x, y, z)``: how far inside the surface, um; negative outside, and a distance only near 0.
    half_extent : (float, float, float)
        Half sides (x, y, z) of a box that holds the body.
    contrast : complex
        Index of the matter minus that of the medium; the imaginary part absorbs.
    texture : callable or None
        ``texture(x, y, z)``: factor on the contrast, about 1.
    outline_filled : bool
        Whether holes of the projection belong to the particle (porous aggregates) or not.
    """

    depth: Depth
    half_extent: tuple[float, float, float]
    contrast: complex
    texture: Depth | None = None
    outline_filled: bool = True


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Index contrast on slices, ready for propagation.

    Attributes
    ----------
    family : str
    contrast : ndarray, (nz, ny, nx)
        Index minus medium; complex64 where it absorbs.
    coverage : ndarray of float32, (ny, nx)
        Projected area fraction of each fine pixel: the true projection.
    dx, dz : float
        Fine pixel and slice, um.
    medium_n : float
    """

    family: str
    contrast: NDArray[np.float32] | NDArray[np.complex64] = field(repr=False)
    coverage: Array = field(repr=False)
    dx: float
    dz: float
    medium_n: float

    @property
    def extent_um(self) -> float:
        """Largest lateral side, um."""
        return max(self.contrast.shape[1:]) * self.dx

    @property
    def thickness_um(self) -> float:
        """Extent along the light, um."""
        return self.contrast.shape[0] * self.dz


@dataclass(frozen=True, kw_only=True)
class Sphere:
    """A homogeneous sphere, imaged through its exact (Mie) scattering amplitude.

    Attributes
    ----------
    family : str
    diameter_um : float
    index : complex
        Index of the sphere.
    medium_n : float
    offset_um : (float, float)
        Lateral position relative to the middle of the picture.
    dx : float
        Fine pixel of its picture, um.
    """

    family: str
    diameter_um: float
    index: complex
    medium_n: float
    offset_um: tuple[float, float] = (0.0, 0.0)
    dx: float = 1.33 / 3

    @property
    def extent_um(self) -> float:
        """Largest lateral side including the offset, um."""
        return self.diameter_um + 2 * max(abs(self.offset_um[0]), abs(self.offset_um[1]))

    @property
    def thickness_um(self) -> float:
        """Extent along the light, um."""
        return self.diameter_um


Particle = Volume | Sphere


def fine_pixel(ecd_um: float) -> float:
    """Fine pixel for a particle of a size: a third of the nominal camera pixel, half of it for large ones."""
    return 1.33 / 3 if ecd_um < 35 else 1.33 / 2


def slice_thickness(ecd_um: float, contrast: complex = 0.0) -> float:
    """Slice thickness, um: coarser for large particles, never more than half a wave of phase a slice."""
    thickest = 0.5 if ecd_um < 6 else 1.0 if ecd_um < 20 else 1.5 if ecd_um < 40 else 2.0
    return min(thickest, 0.5 * WAVELENGTH_UM / max(abs(contrast), 1e-3))


def _largest_island(coverage: Array, dx: float) -> NDArray[np.bool_]:
    """Columns of the largest connected part, bridging gaps below 1 um."""
    solid = coverage > 0.2
    bridged = ndimage.binary_dilation(solid, iterations=max(1, round(0.5 / dx)))
    labels, count = ndimage.label(bridged, structure=np.ones((3, 3)))
    if count <= 1:
        return np.ones(coverage.shape, bool)
    sizes = ndimage.sum_labels(solid, labels, np.arange(1, count + 1))
    return np.asarray(labels == int(np.argmax(sizes)) + 1)


def voxelise(
    body: Body,
    *,
    family: str,
    ecd_um: float,
    medium_n: float,
    offset_um: tuple[float, float] = (0.0, 0.0),
    dx: float | None = None,
    dz: float | None = None,
) -> Volume:
    """Scale a body to a projected size and sample it.

    Parameters
    ----------
    body : Body
        Drawn at about the wanted size; it is scaled to it.
    family : str
    ecd_um : float
        Wanted diameter of the circle of equal projected area, met within a few per cent; the true value is measured
        from `Volume.coverage`.
    medium_n : float
    offset_um : (float, float)
        Sub-pixel position.
    dx, dz : float, optional
        Sampling; chosen from the size when omitted.

    Returns
    -------
    Volume
    """
    dx = fine_pixel(ecd_um) if dx is None else dx
    dz = slice_thickness(ecd_um, body.contrast) if dz is None else dz
    half = np.array(body.half_extent, dtype=np.float32)
    axes = [((np.arange(40) + 0.5) / 40 * 2 - 1).astype(np.float32) * h for h in half]
    z, y, x = np.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    inside = body.depth(x, y, z) > 0
    projection = inside.any(0)
    if body.outline_filled:
        projection = ndimage.binary_fill_holes(projection)
    area = projection.sum() * (2 * half[0] / 40) * (2 * half[1] / 40)
    if area == 0:
        raise ValueError("the body is empty inside its box; draw it again")
    scale = float(np.clip(ecd_um / (2 * np.sqrt(area / np.pi)), 0.2, 5.0))
    bounds = []
    for axis, coordinate in zip((2, 1, 0), axes, strict=True):
        used = np.flatnonzero(inside.any(tuple(i for i in range(3) if i != axis)))
        step = coordinate[1] - coordinate[0]
        bounds.append((coordinate[used[0]] - step) * scale)
        bounds.append((coordinate[used[-1]] + step) * scale)
    centre = [(bounds[i] + bounds[i + 1]) / 2 for i in (0, 2, 4)]
    size = [bounds[i + 1] - bounds[i] for i in (0, 2, 4)]
    nx = 2 * int(np.ceil((size[0] / 2 + abs(offset_um[0]) + EDGE_UM) / dx))
    ny = 2 * int(np.ceil((size[1] / 2 + abs(offset_um[1]) + EDGE_UM) / dx))
    nz = max(1, int(np.ceil((size[2] + EDGE_UM) / dz)))
    xs = ((np.arange(nx) - nx / 2 + 0.5) * dx - offset_um[0] + centre[0]).astype(np.float32) / scale
    ys = ((np.arange(ny) - ny / 2 + 0.5) * dx - offset_um[1] + centre[1]).astype(np.float32) / scale
    zs = ((np.arange(nz) - nz / 2 + 0.5) * dz + centre[2]).astype(np.float32) / scale

    absorbs = abs(complex(body.contrast).imag) > 0
    contrast = np.zeros((nz, ny, nx), np.complex64 if absorbs else np.float32)
    coverage = np.zeros((ny, nx), np.float32)
    value = body.contrast if absorbs else complex(body.contrast).real
    slab = max(1, int(4e5 // (ny * nx)))
    edge = max(EDGE_UM, dx)
    below_above = np.concatenate([zs[:1] - dz / scale, zs, zs[-1:] + dz / scale]).astype(np.float32)
    for i in range(0, nz, slab):
        z, y, x = np.meshgrid(below_above[i : i + slab + 2], ys, xs, indexing="ij")
        depth = body.depth(x, y, z) * np.float32(scale)
        inner = depth[1:-1]
        coverage = np.maximum(coverage, np.clip(inner / edge + 0.5, 0, 1).max(0))
        # A flat-lying surface fills a slice in part: widen its edge to the slice, or facets become staircases.
        widened = np.clip(np.abs(depth[2:] - depth[:-2]) / 2, edge, max(edge, dz)).astype(np.float32)
        occupied = np.clip(inner / widened + 0.5, 0, 1)
        if body.texture is not None:
            occupied = occupied * body.texture(x[1:-1], y[1:-1], z[1:-1])
        contrast[i : i + slab] = occupied * value
    keep = _largest_island(coverage, dx)
    if not keep.all():
        coverage = coverage * keep
        contrast *= keep
    if body.outline_filled:
        holes = ndimage.binary_fill_holes(coverage > 0.5) & (coverage <= 0.5)
        coverage = np.where(holes, np.float32(1), coverage)
    return Volume(family=family, contrast=contrast, coverage=coverage, dx=dx, dz=dz, medium_n=medium_n)


def disc_coverage(sphere: Sphere) -> Array:
    """True projection of a sphere on its fine grid."""
    n = 2 * int(np.ceil((sphere.extent_um / 2 + 1) / sphere.dx))
    c = ((np.arange(n) - n / 2 + 0.5) * sphere.dx).astype(np.float32)
    r = np.hypot(c[None, :] - sphere.offset_um[0], c[:, None] - sphere.offset_um[1])
    return np.clip((sphere.diameter_um / 2 - r) / sphere.dx + 0.5, 0, 1).astype(np.float32)
