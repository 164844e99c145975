"""Families outside the classes that a classifier may be taught to turn away; none of them tests rejection.

They cover ways in which a particle can be none of the classes (opaque, hollow, spongy, needle-like, mottled), so that a
network learns what its classes are not. The families of `training.optics.particles.unknowns` stay unseen.
"""

from __future__ import annotations

import numpy as np

from training.optics.particles.body import Array, Body, Particle, voxelise
from training.optics.particles.droplets import sub_pixel
from training.optics.particles.protein import chain
from training.optics.particles.shapes import (
    direction,
    ellipsoid,
    log_uniform,
    noise,
    polyhedron,
    rotated,
    rotation,
    tube,
    turned_extent,
    where_near,
)
from training.optics.particles.solids import facets


def foil(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Flake of metal or pigment: thin, angular, opaque to half transparent."""
    normals, distances, half = facets(
        rng, ecd_um, count=int(rng.integers(2, 9)), flatness=(0.1, 0.35), spread=(0.55, 1.0)
    )
    contrast = complex(rng.uniform(0.1, 0.6), log_uniform(rng, 0.05, 0.6))
    body = Body(depth=polyhedron(normals, distances), half_extent=(half, half, half), contrast=contrast)
    return voxelise(body, family="foil", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def soot(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Branched cluster of absorbing grains."""
    form = chain(rng, ecd_um)
    contrast = complex(rng.uniform(0.05, 0.4), log_uniform(rng, 0.03, 0.4))
    body = Body(depth=form.depth, half_extent=form.half_extent, contrast=contrast, outline_filled=False)
    return voxelise(body, family="soot", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def capsule(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Hollow shell, round to dented: polymer capsule, ghost of a cell, diatom."""
    axes = np.array([1.0, rng.uniform(0.5, 1), rng.uniform(0.5, 1)])
    axes *= 0.5 * ecd_um / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    turn = rotation(rng)
    core = rotated(ellipsoid(half), turn)
    wall = np.float32(max(0.35, ecd_um * rng.uniform(0.04, 0.12)))
    inside = np.float32(rng.uniform(0.0, 0.3))

    def shell(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(1 - (1 - inside) * np.clip(core(x, y, z) / wall - 1, 0, 1), dtype=np.float32)

    body = Body(
        depth=core,
        half_extent=turned_extent(half, turn),
        contrast=complex(rng.uniform(0.08, 0.2), log_uniform(rng, 0.0005, 0.02)),
        texture=shell,
    )
    return voxelise(body, family="capsule", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def sponge(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Solid full of holes: porous silica, foam, spore clump."""
    axes = np.array([1.0, rng.uniform(0.6, 1), rng.uniform(0.5, 1)])
    axes *= 0.5 * ecd_um * 1.05 / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    turn = rotation(rng)
    box = turned_extent([1.2 * h for h in half], turn)
    holes = noise(rng, half=box, grain_um=max(0.8, ecd_um * rng.uniform(0.1, 0.25)))
    cut = np.float32(rng.uniform(-0.3, 0.8))

    def texture(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(np.clip((cut - holes(x, y, z)) * 3 + 0.5, 0, 1), dtype=np.float32)

    body = Body(
        depth=rotated(ellipsoid(half), turn),
        half_extent=box,
        contrast=complex(rng.uniform(0.06, 0.16), log_uniform(rng, 0.0003, 0.03)),
        texture=texture,
    )
    return voxelise(body, family="sponge", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def needle(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Straight rod, or several from one point: mineral needles, glass wool."""
    ratio = float(min(log_uniform(rng, 3.0, 14.0), max(3.0, (ecd_um / 0.9) ** 2 * np.pi / 4)))
    length = ecd_um * np.sqrt(np.pi / 4 * ratio)
    width = length / ratio
    rods = 1 if rng.random() < 0.6 else int(rng.integers(2, 4))
    parts = []
    reach = np.zeros(3)
    for _ in range(rods):
        angle, size = rng.uniform(0, 2 * np.pi), length * (1.0 if rods == 1 else rng.uniform(0.5, 0.9))
        t = np.linspace(-0.5, 0.5, 12) if rods == 1 else np.linspace(0, 1, 12) - 0.3
        line = np.stack([size * t * np.cos(angle), size * t * np.sin(angle), 4 * t * rng.normal()], axis=1)
        thick = np.full(len(t), 0.5 * width)
        parts.append(tube(line, thick))
        reach = np.maximum(reach, np.abs(line).max(0) + 0.55 * width)

    def depth(x: Array, y: Array, z: Array) -> Array:
        out = parts[0](x, y, z)
        for part in parts[1:]:
            out = np.maximum(out, part(x, y, z))
        return out

    body = Body(
        depth=depth,
        half_extent=(float(reach[0]), float(reach[1]), float(reach[2])),
        contrast=complex(rng.uniform(0.15, 0.3), log_uniform(rng, 0.0003, 0.05)),
        outline_filled=False,
    )
    return voxelise(body, family="needle", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def debris(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Mottled crumb that absorbs here and there: plant matter, skin, corrosion."""
    axes = np.array([1.0, rng.uniform(0.4, 1), rng.uniform(0.3, 0.9)])
    axes *= 0.5 * ecd_um / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    turn = rotation(rng)
    box = turned_extent([1.35 * h for h in half], turn)
    grain = max(0.8, ecd_um * rng.uniform(0.1, 0.3))
    rough, mottle = noise(rng, half=box, grain_um=grain), noise(rng, half=box, grain_um=grain)
    amount = grain * rng.uniform(0.1, 0.5)
    lean = direction(rng).astype(np.float32) * np.float32(rng.uniform(0, 0.6) / ecd_um)

    def detail(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(np.float32(amount) * rough(x, y, z))

    def texture(x: Array, y: Array, z: Array) -> Array:
        slope = lean[0] * x + lean[1] * y + lean[2] * z
        return np.asarray(np.clip(1 + 0.6 * mottle(x, y, z) + slope, 0.05, 2.5), dtype=np.float32)

    body = Body(
        depth=where_near(rotated(ellipsoid(half), turn), detail, reach=3 * amount),
        half_extent=box,
        contrast=complex(rng.uniform(0.02, 0.15), log_uniform(rng, 0.003, 0.08)),
        texture=texture,
    )
    return voxelise(body, family="debris", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))
