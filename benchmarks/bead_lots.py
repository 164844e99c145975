"""Simulated bead standards: sprites of one lot on one instrument, with doublets and dirt, as a file for ``sim:``.

Single beads are exact spheres (Mie theory). A doublet is two touching beads: the product of their two pictures, turned
at random in the plane and tilted out of it. Dirt is rough dark particles of many sizes, on the same instrument.

As a command it calibrates an instrument with lots of 5, 10, 15, 25 and 50 um by two size rules from the same frames,
says how single beads spread by each, and writes the calibrations (``half_max.json``, ``learned.json``) for a cell of
100 um::

    python -m benchmarks.bead_lots [--instrument nominal|SEED] [--write FOLDER]
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.capture.simulation.sprite_library import pack
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.size_reader import SizeReader
from edge_app.measurement.bead_run import BeadRun, read_bead_run
from edge_app.measurement.calibration import SizeRule
from edge_app.measurement.certificate import BeadStandard, CalibrationSettings, calibrate
from training.optics.medium import POLYSTYRENE_N
from training.optics.particles import make_particle
from training.optics.particles.body import Sphere, fine_pixel
from training.optics.render import View, render_views
from training.optics.scene import HELD_OUT, NOMINAL, OpticsScene, draw_scene

__all__ = ["BeadLot", "nominal_instrument", "render_dirt", "render_lot", "unseen_instrument"]

FAMILIES = ("bead", "bead_doublet", "dirt")
DEPTH_UM = 90.0
SMALLEST_DIRT_UM, LARGEST_DIRT_UM = 2.5, 40.0


@dataclass(frozen=True, kw_only=True)
class BeadLot:
    """True diameter of a lot and the standard deviation of its beads, um."""

    diameter_um: float
    sd_um: float


def unseen_instrument(seed: int) -> OpticsScene:
    """An instrument outside of everything the network is trained on: aperture, scale, focus (28 to 38 um off), coma."""
    return draw_scene(np.random.default_rng(seed), ranges=HELD_OUT)


def nominal_instrument() -> OpticsScene:
    """The instrument of the shipped sprites."""
    return draw_scene(np.random.default_rng(0), ranges=NOMINAL)


def _sphere(diameter_um: float, medium_n: float, offset_um: tuple[float, float]) -> Sphere:
    return Sphere(
        family="bead",
        diameter_um=diameter_um,
        index=POLYSTYRENE_N,
        medium_n=medium_n,
        offset_um=offset_um,
        dx=fine_pixel(diameter_um),
    )


def _depths(rng: np.random.Generator, scene: OpticsScene, views: int) -> list[float]:
    """Depths from wall to wall, evenly but for a shake, as distances from focus."""
    depth = np.clip(np.linspace(-0.5, 0.5, views) + rng.uniform(-0.4, 0.4, views) / views, -0.5, 0.5)
    return [float(scene.focus_offset_um + d) for d in depth * DEPTH_UM]


def _doublet(rng: np.random.Generator, scene: OpticsScene, lot: BeadLot, views: int, radius: float) -> list[View]:
    first, second = (float(v) for v in rng.normal(lot.diameter_um, lot.sd_um, 2))
    turn, tilt = rng.uniform(0, 2 * np.pi), np.arcsin(rng.uniform(0, 0.6))
    half = (first + second) / 4 * np.cos(tilt)
    away = (float(half * np.cos(turn)), float(half * np.sin(turn)))
    z = _depths(rng, scene, views)
    pictures = [
        render_views(_sphere(d, scene.medium_n, (s * away[0], s * away[1])), scene, z_um=z, fields=[(radius, 0.0)])
        for d, s in ((first, 1), (second, -1))
    ]
    joined = []
    for one, other in zip(*pictures, strict=True):
        h, w = (min(a, b) for a, b in zip(one.intensity.shape, other.intensity.shape, strict=True))
        cut = [_centre(v, h, w) for v in (one, other)]
        mask = cut[0].true_mask | cut[1].true_mask
        joined.append(
            replace(
                one,
                family="bead_doublet",
                intensity=cut[0].intensity * cut[1].intensity,
                true_mask=mask,
                ecd_um=float(2 * np.sqrt(mask.sum() * scene.um_per_px**2 / np.pi)),
                max_feret_um=first / 2 + second / 2 + 2 * float(half),
            )
        )
    return joined


def _centre(view: View, h: int, w: int) -> View:
    y, x = (view.intensity.shape[0] - h) // 2, (view.intensity.shape[1] - w) // 2
    part = np.s_[y : y + h, x : x + w]
    return replace(view, intensity=view.intensity[part], true_mask=view.true_mask[part])


def _coded(view: View) -> npt.NDArray[np.uint8]:
    """The picture in ratio codes, faded over its outermost three pixels so that it ends in background."""
    ratio = view.intensity.astype(np.float32)
    y, x = (np.minimum(np.arange(n), np.arange(n)[::-1]) for n in ratio.shape)
    fade = np.clip(np.minimum.outer(y, x) / 3.0, 0, 1)
    return np.clip(np.rint(RATIO_ONE * (1 + fade * (ratio - 1))), 0, 255).astype(np.uint8)


def _field_radii(rng: np.random.Generator, n: int) -> list[float]:
    """Places in the field, one in each of ``n`` rings of equal area, in random order."""
    return [float(v) for v in np.sqrt(0.9 * (rng.permutation(n) + rng.random(n)) / n)]


def render_dirt(scene: OpticsScene, *, seed: int, particles: int = 16, views: int = 4) -> list[View]:
    """Rough particles of all sizes."""
    rng = np.random.default_rng([seed, 2])
    seen: list[View] = []
    for i, radius in enumerate(_field_radii(rng, particles)):
        size = SMALLEST_DIRT_UM * (LARGEST_DIRT_UM / SMALLEST_DIRT_UM) ** ((i + rng.random()) / particles)
        particle = make_particle("rubber", rng, ecd_um=float(size), medium_n=scene.medium_n)
        seen += render_views(particle, scene, z_um=_depths(rng, scene, views), fields=[(radius, 0.0)])
    return [replace(v, family="dirt") for v in seen]


def render_lot(
    path: Path,
    lot: BeadLot,
    scene: OpticsScene,
    *,
    seed: int,
    dirt: Sequence[View] = (),
    beads: int = 24,
    doublets: int = 8,
    views: int = 6,
) -> Path:
    """Write the sprites of one lot on one instrument; families ``bead``, ``bead_doublet`` and, if given, ``dirt``.

    Parameters
    ----------
    beads, doublets, views
        Particles of each kind, and how many depths each is seen at.
    """
    rng = np.random.default_rng([seed, 1])
    seen: list[View] = []
    for radius in _field_radii(rng, beads):
        offset = (float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6)))
        sphere = _sphere(float(rng.normal(lot.diameter_um, lot.sd_um)), scene.medium_n, offset)
        seen += render_views(sphere, scene, z_um=_depths(rng, scene, views), fields=[(radius, 0.0)])
    for radius in _field_radii(rng, doublets):
        seen += _doublet(rng, scene, lot, views, radius)
    seen += dirt
    pack(
        families=FAMILIES,
        patches=[_coded(v) for v in seen],
        masks=[v.true_mask for v in seen],
        family=[FAMILIES.index(v.family) for v in seen],
        columns={
            "ecd_um": [v.ecd_um for v in seen],
            "max_feret_um": [v.max_feret_um for v in seen],
            "z_um": [v.z_um for v in seen],
            "field_radius": [v.field_x for v in seen],
            "um_per_px": [v.scene.um_per_px for v in seen],
        },
        metadata={"diameter_um": lot.diameter_um, "sd_um": lot.sd_um, "focus_offset_um": scene.focus_offset_um},
    ).save(path)
    return path


def calibration_lots(scene: OpticsScene, *, seed: int, folder: Path) -> list[tuple[BeadStandard, BeadRun]]:
    """Five lots on one instrument, 40 frames each with 10 % doublets and 5 % dirt, read by the shipped network too."""
    bundle = Bundle.load()
    classifier = Classifier(bundle, open_backend(bundle).backend)
    dirt = render_dirt(scene, seed=seed, particles=6)
    lots = []
    for size in (5.0, 10.0, 15.0, 25.0, 50.0):
        few = {"beads": 24, "doublets": 4} if size < 20 else {"beads": 12, "doublets": 2}
        sprites = render_lot(
            folder / f"{size:g}.npz", BeadLot(diameter_um=size, sd_um=0.004 * size), scene, seed=seed + int(size),
            dirt=dirt, views=12, **few,
        )  # fmt: skip
        source = open_simulation(
            f"sim:?sprites={sprites}&mix=bead:0.85,bead_doublet:0.1,dirt:0.05&size_min_um=1&size_max_um=100"
            f"&depth_um={DEPTH_UM:g}&focus_offset_um={scene.focus_offset_um:.2f}&frames=40&seed=1"
            f"&concentration={90000 if size < 40 else 40000}&level={205 if size < 40 else 200}"
        )
        standard = BeadStandard(nominal_um=size, certified_um=size, uncertainty_um=0.006 * size, source="sim")
        lots.append((standard, read_bead_run(source, size_reader=SizeReader(classifier))))
    return lots


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instrument", default="nominal", help="nominal, or the seed of an unseen one")
    parser.add_argument("--write", type=Path, help="folder for the calibrations")
    options = parser.parse_args()
    nominal = options.instrument == "nominal"
    seed = 0 if nominal else int(options.instrument)
    scene = nominal_instrument() if nominal else unseen_instrument(seed)
    with tempfile.TemporaryDirectory() as folder:
        lots = calibration_lots(scene, seed=seed, folder=Path(folder))
    rules: tuple[SizeRule, ...] = ("half_max", "learned")
    print(f"focus {scene.focus_offset_um:.1f} um off, {scene.um_per_px:.3f} um/px, aperture {scene.na:.3f}")
    print("| rule | um | reads at the stated scale, um | RSD, % | U (k = 2), um |\n|---|---|---|---|---|")
    for rule in rules:
        certificate = calibrate(lots, settings=CalibrationSettings(size_rule=rule))
        for lot in certificate.lots:
            reads = lot.reading_px * scene.um_per_px
            print(
                f"| {rule} | {lot.nominal_um:g} | {reads:.2f} | {100 * lot.rsd:.1f} | {lot.uncertainty_curve_um:.3f} |"
            )
        if options.write is not None:
            options.write.mkdir(parents=True, exist_ok=True)
            calibration = certificate.calibration.model_copy(update={"depth_um": 100.0})
            (options.write / f"{rule}.json").write_text(calibration.model_dump_json(indent=1) + "\n")


if __name__ == "__main__":
    main()
