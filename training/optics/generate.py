"""Views in bulk: many particles, many optics, deterministic by seed."""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from training.optics.particles import make_particle
from training.optics.render import View, render_views
from training.optics.scene import TRAINING, SceneRanges, draw_scene

#: Seeds are shared out so that no picture of a test was ever trained on.
TRAINING_SEEDS: Final = range(1_000_000)
LIBRARY_SEEDS: Final = range(7_000_000, 8_000_000)
HELD_OUT_SEEDS: Final = range(8_000_000, 9_000_000)


@dataclass(frozen=True, kw_only=True)
class SizePrior:
    """True ECD: log-uniform, the same for every family, with large particles oversampled apart.

    Attributes
    ----------
    low_um, middle_um, high_um : float
        The body of the prior is log-uniform from low to middle; the tail from middle / 1.5 to high.
    tail : float
        Share of the tail.
    """

    low_um: float = 2.5
    middle_um: float = 30.0
    high_um: float = 100.0
    tail: float = 0.10

    def draw(self, rng: np.random.Generator) -> float:
        """Draw one size, um."""
        if rng.random() < self.tail:
            return float(np.exp(rng.uniform(np.log(self.middle_um / 1.5), np.log(self.high_um))))
        return float(np.exp(rng.uniform(np.log(self.low_um), np.log(self.middle_um))))


def one_volume(
    index: int,
    *,
    families: Sequence[str],
    seed: int,
    ranges: SceneRanges = TRAINING,
    views_per_volume: int = 8,
    scenes_per_volume: int = 2,
    sizes: SizePrior = SizePrior(),
) -> list[View]:
    """All views of the particle with a given number; depends on nothing but its arguments.

    Parameters
    ----------
    index : int
        Number of the particle; its family is ``families[index % len(families)]``.
    families, seed, ranges, views_per_volume, scenes_per_volume, sizes
        As in `generate_views`.

    Returns
    -------
    list of View
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    family = families[index % len(families)]
    ecd = sizes.draw(rng)
    for _ in range(20):
        scenes = [draw_scene(rng, ranges=ranges) for _ in range(max(1, min(scenes_per_volume, views_per_volume)))]
        particle = make_particle(family, rng, ecd_um=ecd, medium_n=scenes[0].medium_n)
        try:
            return render_views(
                particle, scenes, rng, n_views=views_per_volume, cell_half_depth_um=ranges.cell_half_depth_um
            )
        except ValueError:  # a corner of the frame that the drawn optics leaves dark: draw other optics
            continue
    raise RuntimeError(f"no usable optics in 20 draws from the ranges {ranges.name!r}")


def generate_views(
    families: Sequence[str],
    *,
    n_volumes: int,
    seed: int,
    ranges: SceneRanges = TRAINING,
    views_per_volume: int = 8,
    scenes_per_volume: int = 2,
    sizes: SizePrior = SizePrior(),
    workers: int = 1,
) -> Iterator[View]:
    """Draw particles and picture them.

    Parameters
    ----------
    families : sequence of str
        Taken in turn.
    n_volumes : int
        Number of particles; each gives ``views_per_volume`` views, in order.
    seed : int
        Training data use seeds below 1,000,000; see `LIBRARY_SEEDS` and `HELD_OUT_SEEDS`.
    ranges : SceneRanges
        Optics to draw from.
    views_per_volume, scenes_per_volume : int
        The views of a particle are shared out over that many optics and field positions.
    sizes : SizePrior
    workers : int
        Processes. The result does not depend on it.

    Yields
    ------
    View
    """
    job = partial(
        one_volume,
        families=tuple(families),
        seed=seed,
        ranges=ranges,
        views_per_volume=views_per_volume,
        scenes_per_volume=scenes_per_volume,
        sizes=sizes,
    )
    if workers <= 1:
        for i in range(n_volumes):
            yield from job(i)
        return
    with mp.get_context("spawn").Pool(workers) as pool:
        for views in pool.imap(job, range(n_volumes), chunksize=2):
            yield from views
