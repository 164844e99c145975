"""Build a sprite library, one instrument seen at every depth and field radius.

``python -m training.optics.build_sprites --out F --seed S --optics nominal``.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing as mp
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.sprite_library import SpriteLibrary, pack
from training.optics.generate import HELD_OUT_SEEDS, LIBRARY_SEEDS
from training.optics.particles import FAMILIES, make_particle
from training.optics.render import View, render_views
from training.optics.scene import HELD_OUT, NOMINAL, OpticsScene, SceneRanges, draw_scene

#: Departure from background below which the halo is cut off.
HALO_FLOOR = 0.003

#: Depths of field per particle: every particle is seen at this many focus distances.
VIEWS_PER_PARTICLE = 3


def encode(view: View, *, margin: int = 2) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut a view where its halo ends, fade it to exact background at its edge, and code it.

    Parameters
    ----------
    view : View
    margin : int
        Pixels kept, and faded, around the visible part.

    Returns
    -------
    patch : ndarray of uint8
        Ratio codes; the outermost pixels are `RATIO_ONE`.
    mask : ndarray of bool
        True mask on the same pixels.
    """
    ratio = view.intensity.astype(np.float32)
    visible = ndimage.uniform_filter(np.abs(ratio - 1), 3, mode="nearest") > HALO_FLOOR
    visible |= view.true_mask
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    y0, y1 = max(rows[0] - margin, 0), min(rows[-1] + 1 + margin, ratio.shape[0])
    x0, x1 = max(columns[0] - margin, 0), min(columns[-1] + 1 + margin, ratio.shape[1])
    cut, mask = ratio[y0:y1, x0:x1], view.true_mask[y0:y1, x0:x1]
    h, w = cut.shape
    # The fade spares the particle itself (its mask grown by two pixels).
    from_edge = np.minimum.outer(
        np.minimum(np.arange(h), np.arange(h)[::-1]), np.minimum(np.arange(w), np.arange(w)[::-1])
    )
    fade = np.clip(from_edge / 3.0, 0, 1)
    fade[ndimage.binary_dilation(mask, iterations=2) & (from_edge > 0)] = 1
    codes = np.clip(np.rint(RATIO_ONE * (1 + fade * (cut - 1))), 0, 255).astype(np.uint8)
    for edge in (codes[0], codes[-1], codes[:, 0], codes[:, -1]):
        edge[...] = RATIO_ONE
    return codes, mask


def _draw_size(rng: np.random.Generator) -> float:
    """Dense from 2 to 25 um, thin up to 100 um: a library has a budget in bytes."""
    if rng.random() < 0.06:
        return float(np.exp(rng.uniform(np.log(25.0), np.log(100.0))))
    return float(np.exp(rng.uniform(np.log(2.0), np.log(25.0))))


def _scene(seed: int, ranges: SceneRanges) -> OpticsScene:
    """The one instrument of a library."""
    return draw_scene(np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))), ranges=ranges)


def _one(
    index: int, *, seed: int, ranges: SceneRanges, families: tuple[str, ...]
) -> list[tuple[int, NDArray[np.uint8], NDArray[np.bool_], View]]:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index)))
    family = index % len(families)
    radius = float(np.sqrt(rng.uniform(0.0, 1.0)))
    ecd = _draw_size(rng)
    scene = _scene(seed, ranges)
    for _ in range(20):
        particle = make_particle(families[family], rng, ecd_um=ecd, medium_n=scene.medium_n)
        depth = rng.uniform(-ranges.cell_half_depth_um, ranges.cell_half_depth_um, VIEWS_PER_PARTICLE)
        try:
            views = render_views(particle, scene, z_um=(scene.focus_offset_um + depth).tolist(), fields=[(radius, 0.0)])
        except ValueError:  # so far out the drawn instrument is dark
            radius *= 0.9
            continue
        return [(family, *encode(view), view) for view in views]
    raise RuntimeError(f"no usable field position in the ranges {ranges.name!r}")


def build_library(
    *,
    seed: int,
    ranges: SceneRanges = NOMINAL,
    per_family: int = 300,
    workers: int = 1,
    families: tuple[str, ...] = tuple(FAMILIES),
    progress: Callable[[int, int], None] | None = None,
) -> SpriteLibrary:
    """Render a sprite library.

    Parameters
    ----------
    seed : int
        Libraries use seeds from 7,000,000, held-out ones from 8,000,000; training stays below 1,000,000.
    ranges : SceneRanges
        `NOMINAL`, or `HELD_OUT` for an unseen instrument. One instrument, drawn by the seed, per library.
    per_family : int
        Sprites per family (rounded up to `VIEWS_PER_PARTICLE`).
    workers : int
        Processes; the library does not depend on it.
    families : tuple of str
    progress : callable, optional
        Called with particles done and particles in all.

    Returns
    -------
    SpriteLibrary
    """
    if seed not in LIBRARY_SEEDS and seed not in HELD_OUT_SEEDS:
        raise ValueError(f"seed {seed} is not kept apart from training: use 7,000,000 to 8,999,999")
    total = -(-per_family // VIEWS_PER_PARTICLE) * len(families)
    job = partial(_one, seed=seed, ranges=ranges, families=families)
    family: list[int] = []
    patches: list[NDArray[np.uint8]] = []
    masks: list[NDArray[np.bool_]] = []
    columns: dict[str, list[float]] = {
        name: [] for name in ("ecd_um", "max_feret_um", "z_um", "field_radius", "um_per_px")
    }
    pool = mp.get_context("spawn").Pool(workers) if workers > 1 else None
    try:
        results = pool.imap(job, range(total), chunksize=4) if pool else map(job, range(total))
        for done, sprites in enumerate(results, 1):
            for index, patch, mask, view in sprites:
                family.append(index)
                patches.append(patch)
                masks.append(mask)
                columns["ecd_um"].append(view.ecd_um)
                columns["max_feret_um"].append(view.max_feret_um)
                columns["z_um"].append(view.z_um)
                columns["field_radius"].append(view.field_x)
                columns["um_per_px"].append(view.scene.um_per_px)
            if progress is not None:
                progress(done, total)
    finally:
        if pool is not None:
            pool.terminate()
    metadata: dict[str, Any] = {
        "seed": seed,
        "optics": ranges.name,
        "scene": dataclasses.asdict(_scene(seed, ranges)),
        "views_per_particle": VIEWS_PER_PARTICLE,
        "ratio_one": RATIO_ONE,
        "halo_floor": HALO_FLOOR,
        "numpy": np.__version__,
    }
    return pack(families=families, patches=patches, masks=masks, family=family, columns=columns, metadata=metadata)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=LIBRARY_SEEDS.start)
    parser.add_argument("--optics", choices=("nominal", "held-out"), default="nominal")
    parser.add_argument("--per-family", type=int, default=300)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty() or done % 50 == 0 or done == total:
            print(f"\r{done}/{total} particles", end="\n" if done == total else "", file=sys.stderr, flush=True)

    library = build_library(
        seed=args.seed,
        ranges=NOMINAL if args.optics == "nominal" else HELD_OUT,
        per_family=args.per_family,
        workers=args.workers,
        progress=show,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    library.save(args.out)
    print(f"{args.out}: {len(library)} sprites, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
