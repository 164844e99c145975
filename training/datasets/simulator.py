"""The simulator as labelled pictures: runs of their own optics, camera and cut, each of which holds every class.

What tells the run (background, noise, focus, lenses, margin, threshold) is drawn once per run and is the same for all
its particles, so it cannot tell the class; what differs between the particles of a run (size, depth, place in the
field) is drawn from the same distributions for every class.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.crops import MIN_SIDE_PX
from edge_app.capture.frame import RATIO_ONE
from edge_app.errors import UserError
from training.datasets.exposure import ExposureRanges, detect, expose_view
from training.datasets.pictures import LabelledPictures
from training.optics import FAMILIES, KNOWN, OpticsScene, SizePrior, View, draw_scene, make_particle, render_views
from training.optics.scene import RANGES

__all__ = ["SimulatedOptions", "read_simulated"]

#: Keeps these particles apart from those of the libraries, whatever the seed (`training.optics.generate`).
_STREAM: Final = 0x51
_TRIES: Final = 40


class SimulatedOptions(BaseModel):
    """Options of ``sim:training?...``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    particles: int = Field(default=200, ge=4, le=1_000_000, description="particles in all, shared out over the classes")
    runs: int = Field(default=8, ge=1, le=10_000, description="runs; each has its own optics, camera and cut")
    views: int = Field(default=1, ge=1, le=100, description="pictures of each particle, at other places of its run")
    seed: int = Field(default=1, ge=0, description="same seed, same pictures")
    group: Literal["run", "particle"] = Field(default="run", description="what a group is")
    classes: str | None = Field(default=None, description="families, separated by commas; default: the known ones")
    workers: int = Field(default=1, ge=1, le=256, description="processes; the pictures do not depend on it")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One instrument on one day."""

    scene: OpticsScene
    exposure: ExposureRanges
    half_depth_um: float
    threshold: float
    dark_only: bool
    closing: int
    margin_px: int


@dataclass(frozen=True)
class _Picture:
    ratio: npt.NDArray[np.uint8]
    view: View
    true_um_per_px: float
    missed: int


def _draw_run(number: int, *, seed: int, ranges: str) -> _Run:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_STREAM, list(RANGES).index(ranges), number)))
    given = ExposureRanges()

    def fixed(pair: tuple[float, float]) -> tuple[float, float]:
        value = float(rng.uniform(*pair))
        return value, value

    error = float(rng.choice(given.background_error_sd))
    exposure = replace(
        given,
        noise=fixed(given.noise),
        blur_px=fixed(given.blur_px),
        gain=fixed(given.gain),
        background_level=fixed(given.background_level),
        scale=fixed(given.scale),
        background_error_sd=(error, error),
        tilt_of_background=fixed(given.tilt_of_background),
    )
    return _Run(
        scene=draw_scene(rng, ranges=RANGES[ranges]),
        exposure=exposure,
        half_depth_um=RANGES[ranges].cell_half_depth_um,
        threshold=max(float(rng.uniform(*given.threshold)), 2.7 * exposure.noise[0]),
        dark_only=bool(rng.random() < given.dark_only_share),
        closing=int(rng.integers(1, 3)) if rng.random() < given.closing_share else 0,
        margin_px=int(rng.choice(len(given.margin_shares), p=given.margin_shares)),
    )


def _photograph(view: View, run: _Run, rng: np.random.Generator) -> tuple[npt.NDArray[np.uint8], float] | None:
    ratio, near, _, enlarged = expose_view(view.intensity, view.true_mask, rng, run.exposure)
    found = detect(
        ratio,
        near,
        threshold=run.threshold,
        dark_only=run.dark_only,
        closing=run.closing,
        smallest_area_px=run.exposure.smallest_area_px,
    )
    if found is None or min(found.width, found.height) < MIN_SIDE_PX:
        return None
    m = run.margin_px
    cut = ratio[max(found.y - m, 0) : found.y + found.height + m, max(found.x - m, 0) : found.x + found.width + m]
    return np.ascontiguousarray(cut), view.scene.um_per_px / enlarged


def _one_particle(
    index: int, *, families: tuple[str, ...], runs: tuple[_Run, ...], views: int, seed: int, ranges: str
) -> list[_Picture]:
    """Pictures of one particle; one that its run's threshold does not find is drawn anew."""
    run_number, within = index % len(runs), index // len(runs)
    run, family = runs[run_number], families[within % len(families)]
    key = (_STREAM, list(RANGES).index(ranges), run_number, within)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    missed = 0
    for _ in range(_TRIES):
        particle = make_particle(family, rng, ecd_um=SizePrior().draw(rng), medium_n=run.scene.medium_n)
        try:
            seen = render_views(particle, [run.scene] * views, rng, n_views=views, cell_half_depth_um=run.half_depth_um)
        except ValueError:  # a corner of the frame that this instrument leaves dark
            continue
        taken = [(view, _photograph(view, run, rng)) for view in seen]
        if all(photograph is None for _, photograph in taken):
            missed += 1
            continue
        return [
            _Picture(photograph[0], view, photograph[1], missed) for view, photograph in taken if photograph is not None
        ]
    raise RuntimeError(f"{family}: run {run_number} shows nothing of it in {_TRIES} draws")


def read_simulated(ranges: str, options: SimulatedOptions, *, um_per_px: float = 1.33) -> LabelledPictures:
    """Render labelled pictures.

    Parameters
    ----------
    ranges : {'training', 'held-out', 'nominal'}
        Optics to draw the runs from, `training.optics.scene.RANGES`.
    options : SimulatedOptions
    um_per_px : float
        Scale that the device believes; the true one varies around it from run to run.

    Returns
    -------
    LabelledPictures
        Crops of background-divided frames (level 160) as the run's threshold and margin cut them, with their truth.
        No particle is one of the libraries that the shipped bundle was trained on.

    Raises
    ------
    UserError
        Unknown ranges or class, or fewer particles than classes in every run.
    """
    if ranges not in RANGES:
        raise UserError(f"sim:{ranges}: optics are not known, allowed: {', '.join(RANGES)}")
    families = _families(ranges, options)
    per_run = len(families) * options.runs
    if options.particles < per_run:
        raise UserError(
            f"sim:{ranges}: {options.particles} particles for {options.runs} runs of {len(families)} classes, at least "
            f"{per_run} are needed: every run holds every class"
        )
    runs = tuple(_draw_run(k, seed=options.seed, ranges=ranges) for k in range(options.runs))
    job = partial(_one_particle, families=families, runs=runs, views=options.views, seed=options.seed, ranges=ranges)
    if options.workers == 1:
        particles = [job(i) for i in range(options.particles)]
    else:
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            particles = list(pool.map(job, range(options.particles), chunksize=4))
    shown = [(i, k, picture) for i, pictures in enumerate(particles) for k, picture in enumerate(pictures)]
    views = [picture.view for _, _, picture in shown]
    names = [f"run{i % options.runs:03d}" for i, _, _ in shown]
    numbers = [i // options.runs for i, _, _ in shown]
    groups = names
    if options.group == "particle":
        groups = [f"{run}-particle{number:05d}" for run, number in zip(names, numbers, strict=True)]
    missed = sum(pictures[0].missed for pictures in particles)
    lost = options.particles * options.views - len(shown)
    notes = {"particles drawn anew, not detected": missed, "views not detected": lost}
    return LabelledPictures(
        pictures=[picture.ratio for _, _, picture in shown],
        files=[
            f"{view.family}/{run}-particle{number:05d}-view{k}.png"
            for view, run, number, (_, k, _) in zip(views, names, numbers, shown, strict=True)
        ],
        label=np.array([families.index(view.family) for view in views], np.int64),
        group=np.array(groups),
        level=np.full(len(shown), RATIO_ONE, np.float32),
        classes=families,
        um_per_px=um_per_px,
        place=np.array([[view.field_x, view.field_y] for view in views], np.float32),
        ecd_um=np.array([view.ecd_um for view in views], np.float32),
        depth_um=np.array([abs(view.z_um) for view in views], np.float32),
        true_um_per_px=np.array([picture.true_um_per_px for _, _, picture in shown], np.float32),
        notes={reason: count for reason, count in notes.items() if count},
    )


def _families(ranges: str, options: SimulatedOptions) -> tuple[str, ...]:
    if options.classes is None:
        return tuple(KNOWN)
    families: Sequence[str] = [name.strip() for name in options.classes.split(",") if name.strip()]
    strange = [name for name in families if name not in FAMILIES]
    if strange:
        raise UserError(f"sim:{ranges}: class {strange[0]} is not known, allowed: {', '.join(FAMILIES)}")
    if len(set(families)) < 2:
        raise UserError(f"sim:{ranges}: {len(set(families))} class, at least 2 are needed")
    return tuple(dict.fromkeys(families))
