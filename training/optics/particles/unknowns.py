"""Families that no classifier is trained on: they test rejection."""

from __future__ import annotations

import numpy as np

from training.optics import medium
from training.optics.particles.body import Array, Body, Particle, voxelise
from training.optics.particles.droplets import sub_pixel
from training.optics.particles.shapes import (
    direction,
    ellipsoid,
    joined_spheres,
    log_uniform,
    noise,
    polyhedron,
    rotated,
    rotation,
    turned_extent,
    where_near,
)


def rubber(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Rubber crumb: opaque, rough."""
    axes = np.array([1.0, rng.uniform(0.5, 1), rng.uniform(0.4, 0.9)])
    axes *= 0.5 * ecd_um / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    turn = rotation(rng)
    box = turned_extent([1.4 * h for h in half], turn)
    grain = max(0.7, ecd_um * rng.uniform(0.08, 0.25))
    rough = noise(rng, half=box, grain_um=grain)
    amount = grain * rng.uniform(0.3, 0.7)

    def detail(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(np.float32(amount) * rough(x, y, z))

    depth = where_near(rotated(ellipsoid(half), turn), detail, reach=3 * amount)
    contrast = complex(medium.draw_index(rng, medium.RUBBER_N) - medium_n, log_uniform(rng, 0.04, 0.3))
    body = Body(depth=depth, half_extent=box, contrast=contrast)
    return voxelise(body, family="rubber", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def starch(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Starch grain (smooth, with a paler hilum) or pollen grain (spiked, with an absorbing wall)."""
    contrast: complex = medium.draw_index(rng, medium.STARCH_N) - medium_n
    axes = np.array([1.0, rng.uniform(0.75, 1), rng.uniform(0.6, 0.95)])
    axes *= 0.5 * ecd_um / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    turn = rotation(rng)
    core = rotated(ellipsoid(half), turn)
    small = float(min(half))
    if rng.random() < 0.5:
        hilum = ellipsoid([max(0.22 * h, 0.3) for h in half])
        shift = (direction(rng) * 0.3 * small).astype(np.float32)

        def pale(x: Array, y: Array, z: Array) -> Array:
            inside = hilum(x - shift[0], y - shift[1], z - shift[2])
            return 1 - np.float32(0.5) * np.clip(inside / np.float32(0.1 * small) + 0.5, 0, 1)

        body = Body(depth=core, half_extent=turned_extent(half, turn), contrast=contrast, texture=pale)
    else:
        count = int(rng.integers(16, 50))
        spikes = np.array([direction(rng) for _ in range(count)]).astype(np.float32)
        sharp = rng.uniform(0.90, 0.97)
        height = ecd_um * rng.uniform(0.04, 0.12)
        wall = max(0.12 * ecd_um, 0.5)

        def spiked(x: Array, y: Array, z: Array) -> Array:
            r = np.sqrt(x * x + y * y + z * z) + np.float32(1e-6)
            best = np.full(x.shape, -1.0, np.float32)
            for a, b, c in spikes:
                np.maximum(best, (a * x + b * y + c * z) / r, out=best)
            return np.float32(height) * np.clip((best - np.float32(sharp)) / np.float32(1 - sharp), 0, 1)

        depth = where_near(core, spiked, reach=1.2 * height)

        def shell(x: Array, y: Array, z: Array) -> Array:
            return np.clip(1.2 - core(x, y, z) / np.float32(wall), 0.35, 1.0)

        contrast = complex(contrast.real, log_uniform(rng, 0.002, 0.02))
        box = turned_extent([h + 1.1 * height for h in half], turn)
        body = Body(depth=depth, half_extent=box, contrast=contrast, texture=shell)
    return voxelise(body, family="starch", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def crystal(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Crystal: hexagonal or rectangular prism, from plate to needle, or a small cluster face to face."""
    sides = int(rng.choice([4, 6]))
    stretch = log_uniform(rng, 0.25, 4.0)
    radius = 0.5 * ecd_um / np.sqrt(max(stretch, 0.6))
    turn = rotation(rng)
    angles = 2 * np.pi * np.arange(sides) / sides
    normals = [np.array([np.cos(a), np.sin(a), 0]) for a in angles]
    distances = list(radius * (np.tile(rng.uniform(0.7, 1.0, sides // 2), 2)))
    for sign in (1.0, -1.0):
        normals.append(np.array([0, 0, sign]))
        distances.append(max(radius * stretch, 0.4))
        if rng.random() < 0.5:
            tip = np.array([rng.normal() * 0.5, rng.normal() * 0.5, sign])
            normals.append(tip / np.linalg.norm(tip))
            distances.append(max(radius * stretch * 0.9, 0.4))
    box = turned_extent((1.5 * radius, 1.5 * radius, max(radius * stretch, 0.4)), turn)
    body = Body(
        depth=rotated(polyhedron(np.array(normals), np.array(distances)), turn),
        half_extent=box,
        contrast=medium.draw_index(rng, medium.CRYSTAL_N) - medium_n,
    )
    return voxelise(body, family="crystal", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def yeast(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Yeast: cells of 3 to 8 um, single, budding, or clumped when larger; denser wall and nucleus."""
    cell = rng.uniform(3.0, 8.0)
    count = int(np.clip(round((ecd_um / cell) ** 2 / 0.8), 1, 70))
    unit = 0.5 * ecd_um / np.sqrt(0.8 * count)
    centres, radii = [np.zeros(3)], [unit]
    if count == 1:
        stretch = unit * rng.uniform(0.0, 0.3)
        centres.append(direction(rng) * stretch)
        radii.append(unit * 0.97)
        if rng.random() < 0.5:
            bud = unit * rng.uniform(0.35, 0.75)
            centres.append(direction(rng) * (unit + bud) * 0.92)
            radii.append(bud)
    for _ in range(count - 1):
        start = int(rng.integers(len(centres)))
        r = unit * rng.uniform(0.8, 1.15)
        u = direction(rng) * (1, 1, 0.5)
        centres.append(centres[start] + u / np.linalg.norm(u) * (radii[start] + r) * 0.97)
        radii.append(r)
    c, r_all = np.array(centres), np.array(radii)
    c -= ((c - r_all[:, None]).min(0) + (c + r_all[:, None]).max(0)) / 2
    half = (np.abs(c) + r_all[:, None]).max(0) * 1.03
    depth = joined_spheres(c, r_all)
    nuclei = joined_spheres(c + 0.3 * r_all[:, None] * np.array([direction(rng) for _ in r_all]), 0.4 * r_all)
    wall = np.float32(max(0.3, 0.15 * unit))

    def texture(x: Array, y: Array, z: Array) -> Array:
        shell = np.clip(1 - depth(x, y, z) / wall, 0, 1)
        nucleus = np.clip(nuclei(x, y, z) / wall + 0.5, 0, 1)
        return np.asarray(0.85 + 0.4 * shell + 0.35 * nucleus, dtype=np.float32)

    body = Body(
        depth=depth,
        half_extent=(half[0], half[1], half[2]),
        contrast=medium.draw_index(rng, medium.YEAST_N) - medium_n,
        texture=texture,
        outline_filled=False,
    )
    return voxelise(body, family="yeast", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))
