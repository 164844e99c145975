"""Fit the size curve of the simulated optics: area of a mask in px -> true equivalent diameter in um.

Every sprite of the trained families (all sizes, depths and field positions) is put alone on a noisy background and
goes through the segmentation as it runs on the device. Both size rules are judged by how far the reading of one
particle strays from its class and depth (spread of reported over true size); the one that strays less from 5 to 25 um
is taken. The curve goes through the median reading at each true size, families weighted as in the simulated flow
cell's default mix, so that the median particle of a size in that sample reads that size. Spreads count families alike.

Usage::

    python -m benchmarks.fit_simulated_size_curve [--sprites FILE] [--write FILE] [--json]
"""

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.scene import DEFAULT_MIX
from edge_app.capture.simulation.sprite_library import SpriteLibrary
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.half_maximum import half_maximum_area
from edge_app.segmentation.ratio import noise_codes
from edge_app.segmentation.threshold import segment

F8 = npt.NDArray[np.float64]

NOISE_FRACTION = 0.01
FRAME_PX = 1024
KNOTS_UM = (2.2, 3.0, 4.0, 5.0, 6.3, 8.0, 10.0, 12.5, 16.0, 20.0, 25.0, 31.5, 40.0, 55.0, 75.0)
JUDGED_UM = (5.0, 25.0)


def readings(library: SpriteLibrary, *, seed: int = 7) -> tuple[npt.NDArray[np.intp], F8, F8]:
    """Diameters in px by both rules of every sprite that is found: rows, by mask, by half maximum.

    Sprites stand on a grid in noisy frames, each in a cell of its own; the largest region of the cell is its reading.
    """
    rng = np.random.default_rng(seed)
    wanted = [i for i in range(len(library)) if library.family_name(i) in DEFAULT_MIX]
    wanted.sort(key=lambda i: (int(max(library.height[i], library.width[i])), i))
    rows: list[int] = []
    mask_px: list[float] = []
    half_px: list[float] = []
    at = 0
    while at < len(wanted):
        largest = int(max(max(library.height[i], library.width[i]) for i in wanted[at : at + 1])) + 24
        per_side = max(1, FRAME_PX // largest)
        batch = wanted[at : at + per_side * per_side]
        largest = int(max(max(library.height[i], library.width[i]) for i in batch)) + 24
        per_side = max(1, FRAME_PX // largest)
        batch = batch[: per_side * per_side]
        at += len(batch)
        side = max(FRAME_PX, largest)
        picture = np.full((side, side), float(RATIO_ONE))
        for k, i in enumerate(batch):
            y, x = (k // per_side) * largest + 12, (k % per_side) * largest + 12
            patch = library.patch(i)
            picture[y : y + patch.shape[0], x : x + patch.shape[1]] = patch
        shot = RATIO_ONE * NOISE_FRACTION * np.sqrt(np.maximum(picture, 1.0) / RATIO_ONE)
        ratio = np.clip(np.rint(picture + rng.standard_normal(picture.shape) * shot), 0, 255).astype(np.uint8)
        regions = segment(ratio, noise=noise_codes(ratio))
        regions = regions.take(regions.area_px >= 9)
        half = half_maximum_area(ratio, regions)
        centre_x, centre_y = regions.x_px + regions.width_px // 2, regions.y_px + regions.height_px // 2
        cell = (centre_y // largest) * per_side + centre_x // largest
        for k, i in enumerate(batch):
            own = np.flatnonzero(cell == k)
            if len(own):
                best = own[np.argmax(regions.area_px[own])]
                rows.append(i)
                mask_px.append(2 * np.sqrt(regions.area_px[best] / np.pi))
                half_px.append(2 * np.sqrt(half[best] / np.pi))
    return np.array(rows), np.array(mask_px), np.array(half_px)


def weighted_quantile(values: F8, weights: F8, share: float) -> float:
    """Quantile of weighted values."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(np.interp(share * total[-1], total - weights[order] / 2, values[order]))


def curve(true_um: F8, read_px: F8, weights: F8) -> tuple[F8, F8]:
    """Knots (px, um): median reading at each true size, from a window of a third of an octave about it."""
    px, um = [], []
    for size in KNOTS_UM:
        near = np.abs(np.log2(true_um / size)) < 1 / 5
        if near.sum() < 40:
            continue
        # Sizes inside the window differ: each reading is taken to the window's middle along the local slope (about 1).
        moved = read_px[near] * (size / true_um[near]) ** 0.8
        px.append(weighted_quantile(moved, weights[near], 0.5))
        um.append(size)
    px_knots = np.maximum.accumulate(np.array(px) + np.arange(len(px)) * 1e-6)
    return px_knots, np.array(um)


def calibration_of(px: F8, um: F8, *, rule: str, um_per_px: float, library_name: str) -> Calibration:
    """Calibration record from the knots; below the smallest one the curve goes straight to zero."""
    return Calibration(
        id="simulated-mfi-1",
        um_per_px=round(um_per_px, 6),
        depth_um=100.0,
        size_rule="half_max" if rule == "half_max" else "mask",
        curve_px=(0.0, *(round(float(v), 3) for v in px)),
        curve_um=(0.0, *(float(v) for v in um)),
        calibrated=True,
        note=f"fitted to {library_name} by benchmarks/fit_simulated_size_curve.py; holds for simulated optics only",
    )


def middle(values: F8) -> float:
    """Median, nan of nothing."""
    return float(np.median(values)) if len(values) else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", type=Path, default=None, help="sprite file; default: the shipped one")
    parser.add_argument("--write", type=Path, default=None, help="write the calibration to this file")
    parser.add_argument("--rule", choices=("best", "mask", "half_max"), default="best")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    library = SpriteLibrary.load(arguments.sprites) if arguments.sprites else SpriteLibrary.shipped()
    rows, mask_px, half_px = readings(library)
    family = np.array([library.family_name(int(i)) for i in rows])
    true_um = library.ecd_um[rows].astype(float)
    z_um = library.z_um[rows].astype(float)
    weights, alike = np.zeros(len(rows)), np.zeros(len(rows))
    for name in np.unique(family):
        weights[family == name] = DEFAULT_MIX[str(name)] / (family == name).sum()
        alike[family == name] = 1.0 / (family == name).sum()
    results: dict[str, dict[str, object]] = {}
    calibrations = {}
    for rule, read in (("mask", mask_px), ("half_max", half_px)):
        px, um = curve(true_um, read, weights)
        calibration = calibration_of(
            px, um, rule=rule, um_per_px=float(np.median(library.um_per_px)),
            library_name="the shipped sprites" if arguments.sprites is None else arguments.sprites.name,
        )  # fmt: skip
        area = np.pi * read**2 / 4
        ratio = calibration.ecd_um(area, area).astype(float) / true_um
        judged = (true_um >= JUDGED_UM[0]) & (true_um < JUDGED_UM[1])
        low, high = (weighted_quantile(ratio[judged], alike[judged], q) for q in (0.16, 0.84))
        by_family = {n: float(np.median(ratio[judged & (family == n)])) for n in np.unique(family).tolist()}
        by_z = {f"{a:g}..{a + 20:g}": middle(ratio[judged & (z_um >= a) & (z_um < a + 20)]) for a in range(-50, 50, 20)}
        by_size = {
            f"{a:g}-{b:g}": middle(ratio[(true_um >= a) & (true_um < b)])
            for a, b in ((2, 5), (5, 8), (8, 15), (15, 25), (25, 50), (50, 100))
        }
        results[rule] = {
            "spread": (high - low) / 2, "by_family": by_family, "by_z_um": by_z, "by_size_um": by_size,
        }  # fmt: skip
        calibrations[rule] = calibration
    best = min(results, key=lambda r: float(str(results[r]["spread"]))) if arguments.rule == "best" else arguments.rule
    if arguments.write:
        arguments.write.write_text(calibrations[best].model_dump_json(indent=1) + "\n", encoding="utf-8")
    if arguments.json:
        print(json.dumps({"chosen": best, "rules": results}, indent=1))
        return
    print(f"found {len(rows)} sprites; rule with the least spread from 5 to 25 um: {best}\n")
    for rule, r in results.items():
        print(f"{rule}: half width of the central 68 % of reported/true = {r['spread']:.3f}")
        for key in ("by_family", "by_z_um", "by_size_um"):
            part = r[key]
            assert isinstance(part, dict)
            print("  " + ", ".join(f"{k} {v:.3f}" for k, v in part.items()))
    print("\n" + calibrations[best].model_dump_json(indent=1))


if __name__ == "__main__":
    main()
