"""Building blocks of bodies: random rotations, smooth noise, ellipsoids, joined spheres, polyhedra and swept tubes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.optics.particles.body import Array, Depth

Float = NDArray[np.float64]


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from a log-uniform distribution."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def rotation(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random rotation matrix, uniform over orientations."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return np.asarray(q, dtype=np.float32)


def direction(rng: np.random.Generator) -> Float:
    """A random unit vector."""
    v = rng.standard_normal(3)
    return np.asarray(v / np.linalg.norm(v))


def rotated(depth: Depth, matrix: NDArray[np.float32]) -> Depth:
    """The same body, turned."""

    def turned(x: Array, y: Array, z: Array) -> Array:
        m = matrix
        return depth(
            m[0, 0] * x + m[0, 1] * y + m[0, 2] * z,
            m[1, 0] * x + m[1, 1] * y + m[1, 2] * z,
            m[2, 0] * x + m[2, 1] * y + m[2, 2] * z,
        )

    return turned


def turned_extent(half: Sequence[float], matrix: NDArray[np.float32]) -> tuple[float, float, float]:
    """Half sides of the axis-parallel box of a turned box."""
    e = np.abs(matrix.T) @ np.asarray(half, dtype=np.float64)
    return float(e[0]), float(e[1]), float(e[2])


def noise(rng: np.random.Generator, *, half: Sequence[float], grain_um: float) -> Depth:
    """Smooth random field of zero mean and unit variance (cubic B-spline on a random lattice).

    Parameters
    ----------
    rng : numpy.random.Generator
    half : (float, float, float)
        Half sides of the box in which it is defined; it repeats its edge outside.
    grain_um : float
        Lattice pitch: the size of a patch.

    Returns
    -------
    callable
    """
    shape = [int(np.clip(2 * h / grain_um + 5, 5, 80)) for h in half]
    lattice = rng.standard_normal(shape[::-1]).astype(np.float32)
    pitch = [2 * h / max(n - 4, 1) for h, n in zip(half, shape, strict=True)]
    gain = np.float32(
        (151 / 315) ** -1.5
    )  # a cubic B-spline leaves (151/315)^3 of the variance of white lattice values

    def field(x: Array, y: Array, z: Array) -> Array:
        at = [
            np.asarray(c / p + (n - 1) / 2, dtype=np.float32)
            for c, p, n in zip((z, y, x), pitch[::-1], shape[::-1], strict=True)
        ]
        out = ndimage.map_coordinates(lattice, at, order=3, prefilter=False, mode="nearest")
        return np.asarray(out * gain, dtype=np.float32)

    return field


def where_near(base: Depth, detail: Depth, *, reach: float) -> Depth:
    """``base + detail``, with the dear ``detail`` computed only where ``base`` lies above ``-reach``."""

    def both(x: Array, y: Array, z: Array) -> Array:
        out = np.array(base(x, y, z), dtype=np.float32)
        near = out > -reach
        out[near] += detail(x[near], y[near], z[near])
        return out

    return both


def ellipsoid(half: Sequence[float]) -> Depth:
    """Ellipsoid with the given half axes; depth is exact along the axes of a sphere, close elsewhere."""
    a, b, c = (np.float32(h) for h in half)
    smallest = min(half)

    def depth(x: Array, y: Array, z: Array) -> Array:
        r = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2)
        return np.asarray((1 - r) * np.float32(smallest if smallest > 0.4 * max(half) else (a * b * c) ** (1 / 3)))

    return depth


def _neighbourhood(
    x: Array, y: Array, z: Array, a: Sequence[float], b: Sequence[float], reach: float
) -> tuple[slice, ...]:
    """Part of a (z, y, x) mesh within ``reach`` (and two pixels) of a box; all of any other array."""
    if x.ndim != 3 or min(x.shape[1:]) < 2:
        return (slice(None),) * x.ndim
    margin = reach + 2 * float(x[0, 0, 1] - x[0, 0, 0])
    parts = []
    for axis, i in ((z[:, 0, 0], 2), (y[0, :, 0], 1), (x[0, 0, :], 0)):
        parts.append(slice(*np.searchsorted(axis, (min(a[i], b[i]) - margin, max(a[i], b[i]) + margin))))
    return tuple(parts)


def joined_spheres(centres: Float, radii: Float) -> Depth:
    """Union of spheres. Of a mesh (z, y, x with ascending axes), only the neighbourhood of each sphere is computed."""
    c32, r32 = centres.astype(np.float32), radii.astype(np.float32)

    def depth(x: Array, y: Array, z: Array) -> Array:
        out = np.full(x.shape, -9.0, np.float32)
        for (cx, cy, cz), r in zip(c32, r32, strict=True):
            box = _neighbourhood(x, y, z, (cx, cy, cz), (cx, cy, cz), r)
            part = r - np.sqrt((x[box] - cx) ** 2 + (y[box] - cy) ** 2 + (z[box] - cz) ** 2)
            out[box] = np.maximum(out[box], part)
        return out

    return depth


def polyhedron(normals: Float, distances: Float) -> Depth:
    """Intersection of half spaces ``n . p <= d``."""
    planes = np.column_stack([normals, distances]).astype(np.float32)

    def depth(x: Array, y: Array, z: Array) -> Array:
        out = np.full(x.shape, np.inf, np.float32)
        for a, b, c, d in planes:
            np.minimum(out, d - (a * x + b * y + c * z), out=out)
        return out

    return depth


def rounded_polyhedron(normals: Float, distances: Float, *, softness: float) -> Depth:
    """Intersection of half spaces with edges rounded over ``softness`` um (a smooth minimum)."""
    planes = np.column_stack([normals, distances]).astype(np.float32)

    def depth(x: Array, y: Array, z: Array) -> Array:
        total = np.zeros(x.shape, np.float32)
        for a, b, c, d in planes:
            total += np.exp(np.clip((a * x + b * y + c * z - d) / np.float32(softness), -30, 30))
        return np.asarray(-np.float32(softness) * np.log(total), dtype=np.float32)

    return depth


def tube(line: Float, half_width: Float, *, flatness: float = 1.0) -> Depth:
    """Tube swept along a centre line.

    Parameters
    ----------
    line : ndarray, (k, 3)
        Points of the centre line (x, y, z), um.
    half_width : ndarray, (k,)
        Half width at each point.
    flatness : float
        Thickness along z over width: below 1 a ribbon.

    Returns
    -------
    callable
    """
    points, widths = line.astype(np.float32), half_width.astype(np.float32)
    stretch = np.float32(1 / flatness)

    def depth(x: Array, y: Array, z: Array) -> Array:
        out = np.full(x.shape, -1e3, np.float32)
        parts = zip(points[:-1], points[1:], widths[:-1], widths[1:], strict=True)
        for (ax, ay, az), (bx, by, bz), wide_a, wide_b in parts:
            dx, dy, dz = bx - ax, by - ay, bz - az
            box = _neighbourhood(x, y, z, (ax, ay, az), (bx, by, bz), max(wide_a, wide_b))
            u, v, h = x[box] - ax, y[box] - ay, z[box] - az
            t = np.clip((u * dx + v * dy + h * dz) / max(dx * dx + dy * dy + dz * dz, np.float32(1e-9)), 0, 1)
            across = (u - t * dx) ** 2 + (v - t * dy) ** 2
            along = (h - t * dz) ** 2
            r = np.sqrt(across + along * stretch**2)
            # Over its own gradient, so that a ribbon's depth is a distance on its flat side as well.
            gradient = np.sqrt(across + along * stretch**4) / np.maximum(r, np.float32(1e-3))
            inside = (wide_a + t * (wide_b - wide_a) - r) / np.maximum(gradient, np.float32(0.3))
            out[box] = np.maximum(out[box], inside)
        return out

    return depth
