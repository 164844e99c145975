"""Shards and fibres: the ETFE protein mimic, glass and cellulose."""

from __future__ import annotations

import numpy as np

from training.optics import medium
from training.optics.particles.body import Array, Body, Particle, slice_thickness, voxelise
from training.optics.particles.droplets import sub_pixel
from training.optics.particles.shapes import (
    direction,
    log_uniform,
    noise,
    polyhedron,
    rotation,
    rounded_polyhedron,
    tube,
)


def facets(
    rng: np.random.Generator, ecd_um: float, *, count: int, flatness: tuple[float, float], spread: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Random facets around a stretched core: normals, distances and the half side of a box that holds them."""
    axes = 0.5 * ecd_um * np.array([1.0, rng.uniform(0.5, 1.0), rng.uniform(*flatness)])
    axes /= np.sqrt(axes[0] * axes[1]) / (0.5 * ecd_um)
    axes[2] = max(axes[2], 0.35)
    turn = rotation(rng)
    normals, distances = [], []
    box = np.vstack([np.eye(3), -np.eye(3)])
    for u in [*box, *(direction(rng) for _ in range(count))]:
        reach = rng.uniform(*spread)
        v = u / axes
        size = float(np.linalg.norm(v))
        normals.append((v / size) @ turn)
        distances.append(reach / size)
    return np.array(normals), np.array(distances), float(np.linalg.norm(axes) * spread[1])


def protein_mimic(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Abraded ETFE: smooth, bent or lens-like shard of index 1.40."""
    normals, distances, half = facets(
        rng, ecd_um, count=int(rng.integers(3, 9)), flatness=(0.25, 0.8), spread=(0.65, 1.0)
    )
    depth = rounded_polyhedron(normals, distances, softness=ecd_um * rng.uniform(0.03, 0.10))
    index = medium.draw_index(rng, medium.ETFE_N)
    bend = rng.normal() * 0.35 / ecd_um
    box = (half * 1.25, half * 1.25, half * 1.1)
    rough = noise(rng, half=box, grain_um=max(0.25 * ecd_um, 0.8))
    amount = ecd_um * rng.uniform(0.0, 0.07)

    def bent(x: Array, y: Array, z: Array) -> Array:
        return depth(x, y + np.float32(bend) * x * x, z) + np.float32(amount) * rough(x, y, z)

    body = Body(depth=bent, half_extent=box, contrast=index - medium_n)
    return voxelise(body, family="protein_mimic", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def glass(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Glass shard: angular, index 1.51 to 1.52; from splinter and flake to lump."""
    flake = rng.random() < 0.3
    normals, distances, half = facets(
        rng,
        ecd_um,
        count=int(rng.integers(1, 8)),
        flatness=(0.12, 0.3) if flake else (0.35, 1.0),
        spread=(0.55, 1.0),
    )
    index = medium.draw_index(rng, medium.GLASS_N)
    box = (half, half, half)
    body = Body(depth=polyhedron(normals, distances), half_extent=box, contrast=index - medium_n)
    return voxelise(body, family="glass", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))


def cellulose(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Cellulose fibre: long, curved, tube or ribbon with a paler lumen; index 1.47 to 1.54.

    Length over width is 5 to 20; less for the largest, so that none is longer than about 250 um, and for the smallest,
    so that none is thinner than 0.9 um.
    """
    longest = min(20.0, (250.0 / ecd_um) ** 2 * np.pi / 4, (ecd_um / 0.9) ** 2 * np.pi / 4)
    ratio = log_uniform(rng, min(4.5, longest), longest)
    length = ecd_um * np.sqrt(np.pi / 4 * ratio)
    width = length / ratio
    t = np.linspace(-0.5, 0.5, 22)
    curl, twist, kink = rng.normal() * 0.9, rng.normal() * 0.5, rng.normal() * 0.25
    angle = curl * t + kink * np.sin(2 * np.pi * t * rng.uniform(0.7, 1.6) + rng.uniform(0, 6.28))
    step = length / len(t)
    line = np.zeros((len(t), 3))
    line[:, 0], line[:, 1] = np.cumsum(np.cos(angle)) * step, np.cumsum(np.sin(angle)) * step
    rise = min(0.25 * length, 14.0)
    line[:, 2] = rise * (t * twist + 0.3 * rng.normal() * t**2)
    line[:, 2] = np.clip(line[:, 2], -12, 12)
    turn = rng.uniform(0, 2 * np.pi)
    c, s = np.cos(turn), np.sin(turn)
    line[:, :2] = line[:, :2] @ np.array([[c, s], [-s, c]])
    line -= (line.min(0) + line.max(0)) / 2
    taper = 1 - rng.uniform(0, 0.4) * np.abs(2 * t) ** 3
    wobble = 1 + 0.12 * np.convolve(rng.standard_normal(len(t) + 4), np.ones(5) / 5, "valid")
    half_width = 0.5 * width * taper * wobble
    flatness = max(rng.uniform(0.3, 1.0), min(1.0, 0.9 / width))
    half = np.abs(line).max(0) + half_width.max() * np.array([1.05, 1.05, 1.05 * max(flatness, 0.3)])
    index = medium.draw_index(rng, medium.CELLULOSE_N)
    depth = tube(line, half_width, flatness=flatness)
    hollow, lumen = rng.uniform(0.0, 0.5), rng.uniform(0.2, 0.5)
    core = tube(line, half_width * lumen, flatness=flatness)
    edge = np.float32(max(0.5, 0.2 * width))

    def texture(x: Array, y: Array, z: Array) -> Array:
        return 1 - np.float32(hollow) * np.clip(core(x, y, z) / edge + 0.5, 0, 1)

    body = Body(
        depth=depth,
        half_extent=(half[0], half[1], half[2]),
        contrast=index - medium_n,
        texture=texture if width > 4 and hollow > 0.1 else None,
        outline_filled=False,
    )
    return voxelise(
        body,
        family="cellulose",
        ecd_um=ecd_um,
        medium_n=medium_n,
        offset_um=sub_pixel(rng),
        dz=min(slice_thickness(ecd_um, body.contrast), max(0.4, 0.7 * flatness * width)),
    )
