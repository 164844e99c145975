"""Spheres: silicone oil, air bubbles and polystyrene beads.

A single sphere is imaged through its exact scattering amplitude (`training.optics.mie`), not through slices. The air
bubble needs that: total reflection beyond 0.75 R, a diverging core of about 0.15 R at NA 0.10, and light grazing the
wall, which brightens the rim outside, are more than thin phase slices can carry. Touching droplets go through slices.
"""

from __future__ import annotations

import numpy as np

from training.optics import medium
from training.optics.particles.body import Body, Particle, Sphere, fine_pixel, voxelise
from training.optics.particles.shapes import direction, joined_spheres

#: Share of silicone oil droplets that touch one or two others.
OIL_CLUSTER_SHARE = 0.09


def sub_pixel(rng: np.random.Generator) -> tuple[float, float]:
    """A place within a camera pixel, um."""
    x, y = rng.uniform(-0.67, 0.67, 2)
    return float(x), float(y)


def _sphere(rng: np.random.Generator, family: str, ecd_um: float, index: float, medium_n: float) -> Sphere:
    return Sphere(
        family=family,
        diameter_um=ecd_um,
        index=index,
        medium_n=medium_n,
        offset_um=sub_pixel(rng),
        dx=fine_pixel(ecd_um),
    )


def _touching(rng: np.random.Generator, ecd_um: float, count: int, *, contrast: float) -> Body:
    """Two or three touching spheres, flat enough to stay one particle in the picture."""
    radii = [0.5 * ecd_um / np.sqrt(count) * rng.uniform(0.75, 1.25) for _ in range(count)]
    centres = [np.zeros(3)]
    for i in range(1, count):
        u = direction(rng) * (1, 1, 0.4)
        u /= np.linalg.norm(u)
        centres.append(centres[i - 1] + u * (radii[i - 1] + radii[i]) * rng.uniform(0.9, 1.0))
    c, r = np.array(centres), np.array(radii)
    c -= ((c - r[:, None]).min(0) + (c + r[:, None]).max(0)) / 2
    half = (np.abs(c) + r[:, None]).max(0) * 1.05
    return Body(
        depth=joined_spheres(c, r), half_extent=(half[0], half[1], half[2]), contrast=contrast, outline_filled=False
    )


def silicone_oil(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Silicone oil droplet, index 1.400 to 1.405; about one in eleven is a doublet or triplet."""
    index = medium.draw_index(rng, medium.SILICONE_OIL_N)
    if rng.random() < OIL_CLUSTER_SHARE:
        body = _touching(rng, ecd_um, 2 if rng.random() < 0.8 else 3, contrast=index - medium_n)
        return voxelise(body, family="silicone_oil", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))
    return _sphere(rng, "silicone_oil", ecd_um, index, medium_n)


def air_bubble(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Air bubble: black disc, dark rim, small bright core, bright halo."""
    return _sphere(rng, "air_bubble", ecd_um, medium.AIR_N, medium_n)


def bead(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Polystyrene standard bead."""
    return _sphere(rng, "bead", ecd_um, medium.POLYSTYRENE_N, medium_n)
