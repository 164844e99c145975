"""Which families there are, and which of them a classifier may be trained on."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Final

import numpy as np

from training.optics.particles import droplets, protein, solids, strangers, unknowns
from training.optics.particles.body import Particle

Maker = Callable[[np.random.Generator, float, float], Particle]

FAMILIES: Final = MappingProxyType(
    {
        "silicone_oil": droplets.silicone_oil,
        "air_bubble": droplets.air_bubble,
        "protein_aggregate": protein.protein_aggregate,
        "protein_mimic": solids.protein_mimic,
        "glass": solids.glass,
        "cellulose": solids.cellulose,
        "bead": droplets.bead,
        "rubber": unknowns.rubber,
        "starch": unknowns.starch,
        "crystal": unknowns.crystal,
        "yeast": unknowns.yeast,
        "foil": strangers.foil,
        "soot": strangers.soot,
        "capsule": strangers.capsule,
        "sponge": strangers.sponge,
        "needle": strangers.needle,
        "debris": strangers.debris,
    }
)

#: Classes of the classifier, in its order.
KNOWN: Final = ("silicone_oil", "air_bubble", "protein_aggregate", "protein_mimic", "glass", "cellulose", "bead")

#: Families kept for tests of rejection; never trained on.
UNKNOWN_ONLY: Final = ("rubber", "starch", "crystal", "yeast")

#: Families outside the classes that a classifier is taught to turn away.
STRANGERS: Final = ("foil", "soot", "capsule", "sponge", "needle", "debris")


def make_particle(family: str, rng: np.random.Generator, *, ecd_um: float, medium_n: float) -> Particle:
    """Draw one particle of a family.

    Parameters
    ----------
    family : str
        One of `FAMILIES`.
    rng : numpy.random.Generator
    ecd_um : float
        Wanted diameter of the circle of equal projected area.
    medium_n : float
        Index of the liquid.

    Returns
    -------
    Particle

    Raises
    ------
    KeyError
        If the family is unknown; the message lists the known ones.
    """
    try:
        maker = FAMILIES[family]
    except KeyError:
        raise KeyError(f"no particle family {family!r}; there are {', '.join(FAMILIES)}") from None
    for _ in range(8):
        try:
            return maker(rng, ecd_um, medium_n)
        except ValueError:  # a random body that came out empty
            continue
    return maker(rng, ecd_um, medium_n)
