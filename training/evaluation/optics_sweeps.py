"""The same particles through other optics and in another liquid: rendered for the robustness curves, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.datasets.views import ViewStore
from training.optics import SizePrior, View, draw_field, draw_scene, make_particle, render_views
from training.optics.scene import RANGES

__all__ = ["DEFOCUS_UM", "MEDIUM_N", "OpticsSweeps", "render_optics_sweeps"]

#: Focal plane minus particle; the training views reach about 78 um.
DEFOCUS_UM: Final = (-90.0, -75.0, -60.0, -45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0)

#: Water is 1.333; 10 mg/mL of protein add 0.0019. Taught: 1.333 to 1.342.
MEDIUM_N: Final = (1.333, 1.337, 1.342, 1.347, 1.352)
_NOMINAL_N: Final = 1.337

#: Kept apart from every library of training and test.
SEED: Final = 8_400_001

OpticsSweeps = list[tuple[str, str, str, float, dict[float, ViewStore]]]


def _particle(family: str, index: int, *, ranges: str, medium_n: float, z_um: tuple[float, ...]) -> list[View]:
    """Views of one particle: same body, place and optics whatever the medium."""
    rng = np.random.default_rng(np.random.SeedSequence(SEED, spawn_key=(index,)))
    ecd = SizePrior(low_um=5.0, middle_um=25.0, tail=0.0).draw(rng)
    scene, field = replace(draw_scene(rng, ranges=RANGES[ranges]), medium_n=medium_n), draw_field(rng)
    particle = make_particle(family, rng, ecd_um=ecd, medium_n=medium_n)
    for shrink in (1.0, 0.6, 0.3, 0.0):
        try:
            return render_views(particle, scene, z_um=z_um, fields=[(shrink * field[0], shrink * field[1])])
        except ValueError:  # so far out the drawn optics is dark
            continue
    raise RuntimeError(f"no usable place in the field for particle {index} in the ranges {ranges!r}")


def _store(views: list[View]) -> ViewStore:
    return ViewStore.from_views(views, list(range(len(views))))


def render_optics_sweeps(
    directory: Path,
    *,
    families: tuple[str, ...],
    ranges: str,
    per_family: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> OpticsSweeps:
    """Render what is missing of the sweeps over defocus and medium index.

    Parameters
    ----------
    directory : Path
        Keeps the result; a second call finds it.
    families : tuple of str
        Taken in turn.
    ranges : str
        Optics, `training.optics.scene.RANGES`.
    per_family : int
        Particles of each family, 5 to 25 um.
    progress : callable, optional
        Called with (particles done, particles).

    Returns
    -------
    list of (name, unit, note, nominal, {value: views})
        Row k of every store of a sweep is particle k.
    """
    path = directory / f"{ranges}_{per_family}x{len(families)}.npz"
    total = per_family * len(families)
    if not path.is_file():
        directory.mkdir(parents=True, exist_ok=True)
        by_depth: dict[float, list[View]] = {z: [] for z in DEFOCUS_UM}
        by_medium: dict[float, list[View]] = {n: [] for n in MEDIUM_N}
        for index in range(total):
            family = families[index % len(families)]
            for n in MEDIUM_N:
                depths = (*DEFOCUS_UM, 20.0) if n == _NOMINAL_N else (20.0,)
                views = _particle(family, index, ranges=ranges, medium_n=n, z_um=depths)
                by_medium[n].append(views[-1])
                if n == _NOMINAL_N:
                    for z, view in zip(DEFOCUS_UM, views[:-1], strict=True):
                        by_depth[z].append(view)
            if progress is not None:
                progress(index + 1, total)
        columns: dict[str, Any] = {}
        for kind, stores in (("z", by_depth), ("n", by_medium)):
            for value, views in stores.items():
                store = _store(views)
                columns |= {f"{kind}/{value}/{f.name}": getattr(store, f.name) for f in fields(store)}
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **columns)
        partial.rename(path)
    with np.load(path) as data:

        def read(kind: str, value: float) -> ViewStore:
            return ViewStore(**{f.name: data[f"{kind}/{value}/{f.name}"] for f in fields(ViewStore)})

        depth = {z: read("z", z) for z in DEFOCUS_UM}
        medium = {n: read("n", n) for n in MEDIUM_N}
    what = f"{total} particles of 5 to 25 \N{MICRO SIGN}m rendered anew"
    return [
        ("defocus", "\N{MICRO SIGN}m, focal plane minus particle", f"{what}; taught: within 78", 0.0, depth),
        (
            "medium index",
            "refractive index of the liquid",
            f"{what}, 20 \N{MICRO SIGN}m off focus; taught: 1.333 to 1.342",
            _NOMINAL_N,
            medium,
        ),
    ]
