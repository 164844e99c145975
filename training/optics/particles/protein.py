"""Protein aggregates, in the variety real samples show.

Effective index falls with size, because large aggregates are mostly water. Four forms: patchy thresholded random
fields, chains and branched clusters of small units, thin folded sheets, and faint broken rings or schlieren-like wisps.
"""

from __future__ import annotations

import numpy as np

from training.optics.particles.body import Array, Body, Particle, voxelise
from training.optics.particles.droplets import sub_pixel
from training.optics.particles.shapes import (
    direction,
    ellipsoid,
    joined_spheres,
    log_uniform,
    noise,
    rotated,
    rotation,
    turned_extent,
    where_near,
)

#: Forms and how often each is drawn.
FORMS = {"patchy": 0.42, "chain": 0.26, "sheet": 0.18, "wisp": 0.14}


def _contrast(rng: np.random.Generator, ecd_um: float, low: float, high: float) -> float:
    """Index contrast; the upper end falls with size (porosity)."""
    top = high * min(1.0, (12.0 / ecd_um) ** 0.5)
    return log_uniform(rng, low, max(top, 1.5 * low))


def patchy(rng: np.random.Generator, ecd_um: float) -> Body:
    """Thresholded random field inside an ellipsoid, with patchy density."""
    axes = np.array([1.0, rng.uniform(0.45, 1), rng.uniform(0.35, 0.9)])
    axes *= 0.5 * ecd_um * 1.1 / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    grain = float(np.clip(log_uniform(rng, 0.05, 0.3) * ecd_um, 0.7, 9.0))
    ruggedness = rng.uniform(0.25, 1.2) * grain
    turn = rotation(rng)
    box = turned_extent([1.35 * h for h in half], turn)
    rough = noise(rng, half=box, grain_um=grain)
    density = noise(rng, half=box, grain_um=max(grain * rng.uniform(0.5, 1.5), 0.7))
    patchiness = rng.uniform(0.1, 0.6)
    base = rotated(ellipsoid(half), turn)

    def detail(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(np.float32(ruggedness) * rough(x, y, z))

    def texture(x: Array, y: Array, z: Array) -> Array:
        return np.clip(1 + np.float32(patchiness) * density(x, y, z), 0.05, 3)

    depth = where_near(base, detail, reach=3 * ruggedness)
    return Body(depth=depth, half_extent=box, contrast=_contrast(rng, ecd_um, 0.004, 0.06), texture=texture)


def chain(rng: np.random.Generator, ecd_um: float) -> Body:
    """Branched chain of small units, from string to clump."""
    unit = log_uniform(rng, max(0.3, 0.04 * ecd_um), max(0.4, min(3.0, 0.2 * ecd_um), 0.06 * ecd_um))
    count = int(np.clip((0.5 * ecd_um / unit) ** 2 / 0.6, 3, 150))
    unit = 0.5 * ecd_um / np.sqrt(0.6 * count)
    persistence, branching = rng.uniform(0, 0.9), rng.uniform(0.0, 0.6)
    places, u = [np.zeros(3)], direction(rng)
    for _ in range(count - 1):
        u = persistence * u + (1 - persistence) * direction(rng)
        u /= np.linalg.norm(u)
        start = places[int(rng.integers(len(places)))] if rng.random() < branching else places[-1]
        places.append(start + u * unit * 1.7)
    centres = np.array(places)
    centres[:, 2] *= rng.uniform(0.4, 1.0)
    radii = unit * rng.uniform(0.6, 1.4, count)
    centres -= ((centres - radii[:, None]).min(0) + (centres + radii[:, None]).max(0)) / 2
    half = (np.abs(centres) + radii[:, None]).max(0) * 1.03
    units = joined_spheres(centres, radii)
    box = (float(half[0]), float(half[1]), float(half[2]))
    rough = noise(rng, half=box, grain_um=max(unit, 0.6))
    amount = np.float32(unit * rng.uniform(0.05, 0.35))

    def depth(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(units(x, y, z) + amount * rough(x, y, z), dtype=np.float32)

    return Body(
        depth=depth,
        half_extent=box,
        contrast=_contrast(rng, ecd_um, 0.008, 0.06),
        outline_filled=False,
    )


def sheet(rng: np.random.Generator, ecd_um: float) -> Body:
    """Thin folded film: nearly nothing face on, dark where it folds."""
    thickness = float(np.clip(log_uniform(rng, 0.03, 0.12) * ecd_um, 0.5, 4.0))
    width, height = ecd_um * rng.uniform(0.5, 0.75), ecd_um * rng.uniform(0.4, 0.6)
    amplitude = ecd_um * rng.uniform(0.08, 0.3)
    fold = 2 * np.pi / ecd_um * rng.uniform(0.6, 2.2)
    phase, skew = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
    turn = rotation(rng)
    plane_half = (1.3 * width, 1.3 * height, amplitude + thickness)
    box = turned_extent(plane_half, turn)
    ripple = noise(rng, half=plane_half, grain_um=ecd_um * 0.3)
    edge = noise(rng, half=plane_half, grain_um=ecd_um * rng.uniform(0.12, 0.3))

    def flat(x: Array, y: Array, z: Array) -> Array:
        a = np.float32(fold) * (x + np.float32(skew) * y) + np.float32(phase)
        bend = ripple(x, y, np.zeros_like(x))
        surface = np.float32(amplitude) * (0.8 * np.sin(a) + 0.2 * bend)
        slope = np.float32(amplitude * fold * 0.8) * np.cos(a)
        across = np.float32(thickness / 2) - np.abs(z - surface) / np.sqrt(1 + slope**2)
        outline = 1 - np.sqrt((x / np.float32(width)) ** 2 + (y / np.float32(height)) ** 2)
        outline = outline + np.float32(0.2) * edge(x, y, np.zeros_like(x))
        return np.minimum(across, outline * np.float32(height))

    return Body(depth=rotated(flat, turn), half_extent=box, contrast=_contrast(rng, ecd_um, 0.012, 0.07))


def wisp(rng: np.random.Generator, ecd_um: float) -> Body:
    """Faint broken ring or loose cloud: a shell of which noise leaves parts."""
    axes = np.array([1.0, rng.uniform(0.6, 1), rng.uniform(0.3, 0.9)])
    axes *= 0.5 * ecd_um / np.sqrt(axes[0] * axes[1])
    half = (float(axes[0]), float(axes[1]), float(axes[2]))
    turn = rotation(rng)
    box = turned_extent([1.25 * h for h in half], turn)
    hollow = rng.uniform(0.0, 0.75)
    gaps = noise(rng, half=box, grain_um=max(0.25 * ecd_um, 0.8))
    cut, depth_of_gap = rng.uniform(-0.8, 0.3), rng.uniform(0.5, 1.0)
    base = rotated(ellipsoid(half), turn)
    scale = float(min(half))

    def texture(x: Array, y: Array, z: Array) -> Array:
        inner = np.clip((base(x, y, z) / np.float32(scale) - np.float32(1 - hollow)) * 4, 0, 1) if hollow > 0.2 else 0
        holes = np.clip((gaps(x, y, z) - np.float32(cut)) * 2, 0, 1)
        return np.asarray((1 - 0.9 * inner) * (1 - np.float32(depth_of_gap) * (1 - holes)), dtype=np.float32)

    return Body(depth=base, half_extent=box, contrast=_contrast(rng, ecd_um, 0.004, 0.025), texture=texture)


_MAKERS = {"patchy": patchy, "chain": chain, "sheet": sheet, "wisp": wisp}


def protein_aggregate(rng: np.random.Generator, ecd_um: float, medium_n: float) -> Particle:
    """Protein aggregate of a random form."""
    form = str(rng.choice(list(FORMS), p=list(FORMS.values())))
    body = _MAKERS[form](rng, ecd_um)
    return voxelise(body, family="protein_aggregate", ecd_um=ecd_um, medium_n=medium_n, offset_um=sub_pixel(rng))
