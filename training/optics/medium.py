"""Refractive indices and wavelength of a flow-imaging measurement (``domain.md`` section 5.3)."""

from __future__ import annotations

from typing import Final

import numpy as np

#: Vacuum wavelength of the illumination, um (blue LED).
WAVELENGTH_UM: Final = 0.47

#: Range of the medium's index: water 1.333 and protein formulations up to about 50 mg/mL.
MEDIUM_N: Final = (1.333, 1.342)

AIR_N: Final = 1.0
POLYSTYRENE_N: Final = 1.59
SILICONE_OIL_N: Final = (1.400, 1.405)
ETFE_N: Final = (1.398, 1.404)
GLASS_N: Final = (1.51, 1.52)
CELLULOSE_N: Final = (1.47, 1.54)
STARCH_N: Final = (1.51, 1.54)
CRYSTAL_N: Final = (1.48, 1.66)
RUBBER_N: Final = (1.50, 1.55)
YEAST_N: Final = (1.375, 1.405)


def draw_index(rng: np.random.Generator, value: float | tuple[float, float]) -> float:
    """Draw a refractive index from a constant or a uniform range.

    Parameters
    ----------
    rng : numpy.random.Generator
    value : float or (float, float)
        A constant, or the ends of a uniform range.

    Returns
    -------
    float
    """
    if isinstance(value, tuple):
        return float(rng.uniform(*value))
    return value
