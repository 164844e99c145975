"""Optics simulator: pictures of particles in a flow imager, with their truth.

`make_particle` draws an index volume (or an exact sphere), `render_views` images it, `generate_views` does both in
bulk.
"""

from training.optics.camera import expose
from training.optics.generate import SizePrior, generate_views
from training.optics.particles import FAMILIES, KNOWN, STRANGERS, UNKNOWN_ONLY, Particle, Sphere, Volume, make_particle
from training.optics.render import View, render_views
from training.optics.scene import HELD_OUT, NOMINAL, TRAINING, OpticsScene, SceneRanges, draw_field, draw_scene

__all__ = [
    "FAMILIES",
    "HELD_OUT",
    "KNOWN",
    "NOMINAL",
    "STRANGERS",
    "TRAINING",
    "UNKNOWN_ONLY",
    "OpticsScene",
    "Particle",
    "SceneRanges",
    "SizePrior",
    "Sphere",
    "View",
    "Volume",
    "draw_field",
    "draw_scene",
    "expose",
    "generate_views",
    "make_particle",
    "render_views",
]
