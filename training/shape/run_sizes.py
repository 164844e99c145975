"""Size distributions of runs that were never made: what a device would say of the sample a view came from."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.classification.context import size_shares

__all__ = ["VIEWS_PER_RUN", "drawn_size_shares"]

#: Views that follow each other in a library are of one simulated run; families take turns within it.
VIEWS_PER_RUN: Final = 64
#: Marks the stream of random numbers, so that pictures drawn from the same seed do not depend on it.
_STREAM: Final = 7_919
_SMALLEST_UM: Final = 2.5
_LARGEST_UM: Final = 70.0


@lru_cache(maxsize=4096)
def drawn_size_shares(*, seed: int, run: int) -> npt.NDArray[np.float32]:
    """Draw the size distribution of a run as a device would have it by then.

    A power law (cumulative slope 1.5 to 4, domain knowledge: 2.5 to 3.5), in half of the runs with a log-normal hump on
    it of median 4 to 25 um as one dominating kind of particle makes it, from as few as 30 particles at the beginning
    of a run to 3,000. Drawn for all classes alike: it tells of the run, never of the particle.

    Parameters
    ----------
    seed, run : int

    Returns
    -------
    ndarray of float32 (6,)
        `edge_app.classification.context.size_shares`.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, run)))
    count = int(np.exp(rng.uniform(np.log(30), np.log(3000))))
    slope = rng.uniform(1.5, 4.0)
    # Inverse of the cumulative power law, cut at both ends.
    low, high = _SMALLEST_UM**-slope, _LARGEST_UM**-slope
    sizes = (low - rng.random(count) * (low - high)) ** (-1 / slope)
    in_hump = rng.random(count) < (rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0)
    hump = np.exp(rng.normal(np.log(rng.uniform(4, 25)), rng.uniform(0.15, 0.5), count))
    shares = size_shares(np.where(in_hump, np.clip(hump, _SMALLEST_UM, _LARGEST_UM), sizes))
    shares.setflags(write=False)
    return shares
