"""Size over depth and contrast: the network's reading and the half-maximum rule against the true diameter.

Particles of known projected area, from protein to glass, are pictured at depths from -45 to +45 um from the focal plane
in the nominal optics (``--optics training`` or ``held-out`` draws others), stand alone on a noisy background and go
through segmentation, measurement with the shipped size curve, and the shipped network, as they would on the device.

Usage::

    python -m benchmarks.size_bias [--particles 12] [--optics nominal|training|held-out] [--bundle DIR] [--json]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification import Bundle, Classifier, cut_crops, open_backend
from edge_app.measurement.calibration import Calibration, load_calibration
from edge_app.measurement.descriptors import measure
from edge_app.segmentation.threshold import segment
from training.optics import View, draw_scene, make_particle, render_views
from training.optics.scene import RANGES

F8 = npt.NDArray[np.float64]

SIZES_UM = (5.0, 10.0, 20.0, 50.0)
DEPTHS_UM = (-45.0, -30.0, -15.0, 0.0, 15.0, 30.0, 45.0)
#: From the faintest to the strongest contrast.
FAMILIES = ("protein_aggregate", "protein_mimic", "silicone_oil", "cellulose", "bead", "glass")
NOISE = 0.01
EDGE_PX = 14


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One view as the device read it; NaN where it was not found."""

    family: str
    size_um: float
    depth_um: float
    half_maximum: float
    learned: float
    depth_learned_um: float


def views_of(family: str, size_um: float, *, optics: str, particles: int, seed: int) -> Iterator[View]:
    """Views of ``particles`` particles at all depths, each in optics and at a place in the field of its own."""
    for k in range(particles):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(FAMILIES.index(family), int(size_um), k)))
        for _ in range(20):
            scene = draw_scene(rng, ranges=RANGES[optics])
            particle = make_particle(family, rng, ecd_um=size_um, medium_n=scene.medium_n)
            place = (float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.6, 0.6)))
            try:
                found = render_views(particle, scene, z_um=DEPTHS_UM, fields=[place])
            except ValueError:  # optics that leave this corner of the frame dark
                continue
            yield from found
            break


def read(
    view: View, classifier: Classifier, calibration: Calibration, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Half-maximum ECD, learned ECD and learned depth of the largest region that the threshold finds, um."""
    patch = np.pad(view.intensity.astype(np.float64), EDGE_PX, constant_values=1.0)
    noisy = RATIO_ONE * (patch + NOISE * np.sqrt(np.maximum(patch, 0)) * rng.standard_normal(patch.shape))
    ratio = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
    regions = segment(ratio, noise=RATIO_ONE * NOISE)
    regions = regions.take(regions.area_px >= 9)
    if not len(regions):
        return (float("nan"),) * 3
    particles = measure(ratio, regions, frame=0, time_s=0.0, calibration=calibration)
    best = particles.take(np.array([int(np.argmax(particles.area_px))]))
    crops = cut_crops(
        ratio,
        best.x_px,
        best.y_px,
        best.width_px,
        best.height_px,
        geometry=classifier.bundle.geometry,
        um_per_px=view.scene.um_per_px,
        field=np.array([[view.field_x, view.field_y]], np.float32),
    )
    said = classifier.classify(crops)
    scale = view.scene.um_per_px / calibration.um_per_px
    learned = float(said.ecd_um[0]) if said.ecd_um is not None else float("nan")
    depth = float(said.depth_um[0]) if said.depth_um is not None else float("nan")
    return float(best.ecd_um[0]) * scale, learned, depth


def readings(bundle: Bundle, *, optics: str, particles: int, seed: int) -> list[Reading]:
    """Every view of the study."""
    classifier = Classifier(bundle, open_backend(bundle).backend)
    calibration = load_calibration(Path(str(files("edge_app.measurement.calibrations") / "simulated_mfi.json")))
    rng = np.random.default_rng(seed)
    rows = []
    for family in FAMILIES:
        for size_um in SIZES_UM:
            for view in views_of(family, size_um, optics=optics, particles=particles, seed=seed):
                half, learned, depth = read(view, classifier, calibration, rng)
                true = view.ecd_um / size_um
                rows.append(
                    Reading(
                        family=family,
                        size_um=size_um,
                        depth_um=view.z_um,
                        half_maximum=half / true,
                        learned=learned / true,
                        depth_learned_um=depth,
                    )
                )
    return rows


def summary(rows: list[Reading]) -> dict[str, Any]:
    """Median reading over size, robust spread (half of the central 68 %), by size, depth and family."""
    table = {
        name: np.array([getattr(r, name) for r in rows]) for name in ("size_um", "depth_um", "half_maximum", "learned")
    }
    family = np.array([r.family for r in rows])

    def figures(chosen: npt.NDArray[np.bool_]) -> dict[str, Any]:
        out: dict[str, Any] = {"views": int(chosen.sum())}
        for rule in ("half_maximum", "learned"):
            ratio: F8 = (table[rule] / table["size_um"])[chosen]
            ratio = ratio[np.isfinite(ratio)]
            low, middle, high = np.quantile(ratio, (0.16, 0.5, 0.84)) if len(ratio) else (np.nan,) * 3
            out[rule] = {"bias": round(float(middle - 1), 4), "spread": round(float(high - low) / 2, 4)}
        out["found"] = round(float(np.isfinite(table["half_maximum"][chosen]).mean()), 4)
        return out

    return {
        f"{size:g}": {
            "all": figures(table["size_um"] == size),
            "by_depth_um": {
                f"{z:g}": figures((table["size_um"] == size) & (np.abs(table["depth_um"]) == z))
                for z in sorted({abs(z) for z in DEPTHS_UM})
            },
            "by_family": {name: figures((table["size_um"] == size) & (family == name)) for name in FAMILIES},
        }
        for size in SIZES_UM
    }


def markdown(figures: dict[str, Any]) -> str:
    """One table: rows size and what is averaged over, columns the two rules."""
    lines = [
        "| true ECD, um | over | views | found | half maximum: bias, spread | network: bias, spread |",
        "|---|---|---|---|---|---|",
    ]

    def row(size: str, over: str, f: dict[str, Any]) -> str:
        half, learned = (
            f"{100 * f[r]['bias']:+.1f} %, {100 * f[r]['spread']:.1f} %" for r in ("half_maximum", "learned")
        )
        return f"| {size} | {over} | {f['views']} | {f['found']:.2f} | {half} | {learned} |"

    for size, parts in figures.items():
        lines.append(row(size, "all", parts["all"]))
        lines += [row("", f"depth {z} um", f) for z, f in parts["by_depth_um"].items()]
        lines += [row("", name, f) for name, f in parts["by_family"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--particles", type=int, default=12, help="per family and size")
    parser.add_argument("--optics", choices=sorted(RANGES), default="nominal")
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=8_300_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = readings(
        Bundle.load(arguments.bundle), optics=arguments.optics, particles=arguments.particles, seed=arguments.seed
    )
    figures = summary(rows)
    print(json.dumps(figures, indent=1) if arguments.json else markdown(figures))


if __name__ == "__main__":
    main()
