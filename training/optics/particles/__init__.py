"""Particle families: one function per family, ``make(rng, ecd_um, medium_n) -> Particle``."""

from training.optics.particles.body import Body, Particle, Sphere, Volume, voxelise
from training.optics.particles.registry import FAMILIES, KNOWN, STRANGERS, UNKNOWN_ONLY, make_particle

__all__ = [
    "FAMILIES",
    "KNOWN",
    "STRANGERS",
    "UNKNOWN_ONLY",
    "Body",
    "Particle",
    "Sphere",
    "Volume",
    "make_particle",
    "voxelise",
]
