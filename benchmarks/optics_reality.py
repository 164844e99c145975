"""How real the simulated pictures are: descriptors against real MFI medians, size offsets, speed, contact sheet.

Run ``python -m benchmarks.optics_reality`` for the tables, ``--sheet docs/optics_contact_sheet.png`` to draw it too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training.optics import (
    FAMILIES,
    KNOWN,
    NOMINAL,
    TRAINING,
    OpticsScene,
    SceneRanges,
    SizePrior,
    Sphere,
    View,
    draw_scene,
    expose,
    generate_views,
    make_particle,
    render_views,
)

Image = NDArray[np.float32]

#: Real MFI medians (oil, not oil): `domain.md` section 5.1.
REAL = {
    "circularity": (0.90, 0.81),
    "aspect": (0.94, 0.78),
    "int_min": (0.28, 0.55),
    "int_std (10 bit)": (192.0, 99.0),
}
#: Background of a real MFI in its 10-bit export.
BACKGROUND_10_BIT = 827.0


def two_sided_mask(ratio: Image, threshold: float) -> NDArray[np.uint8]:
    """Raw two-sided mask: closed over one pixel, holes filled, the largest part kept."""
    raw = (np.abs(ratio - 1) > threshold).astype(np.uint8)
    closed = cv2.morphologyEx(raw, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    out = np.zeros_like(raw)
    if contours:
        cv2.drawContours(out, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return out


def describe(ratio: Image, mask: NDArray[np.uint8]) -> dict[str, float]:
    """Descriptors of the kind an MFI exports."""
    (contour,), _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    area = float(mask.sum())
    # Boundary pixels, so that the outline goes around pixel centres: a bright one-pixel rim is part of the particle.
    perimeter = cv2.arcLength(contour, True) + 2.0
    eigen = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T) + np.eye(2) / 12)
    inside = ratio[mask > 0]
    return {
        "circularity": min(1.0, 2 * float(np.sqrt(np.pi * area)) / perimeter),
        "aspect": float(np.sqrt(eigen[0] / eigen[1])),
        "int_min": float(inside.min()),
        "int_std (10 bit)": float(inside.std() * BACKGROUND_10_BIT),
    }


def population(*, volumes: int, seed: int, workers: int, ranges: SceneRanges) -> dict[str, dict[str, float]]:
    """Median descriptors of simulated oil and not-oil, raw masks of at least 58 pixels (an MFI's 5.1 um)."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, float]]] = {"oil": [], "not oil": [], "of which protein": []}
    mix = ("silicone_oil", "protein_aggregate") * 5 + ("silicone_oil", "protein_mimic", "glass", "cellulose")
    sizes = SizePrior(low_um=3.0, middle_um=16.0, high_um=40.0, tail=0.05)
    for view in generate_views(mix, n_volumes=volumes, seed=seed, ranges=ranges, sizes=sizes, workers=workers):
        picture = expose(view.intensity.astype(np.float32), rng, blur_px=rng.uniform(0.2, 0.9), noise=0.008)
        mask = two_sided_mask(picture, 0.042)
        if mask.sum() >= 58:  # an MFI's "5.1 um": 58 pixels
            row = describe(picture, mask)
            rows["oil" if view.family == "silicone_oil" else "not oil"].append(row)
            if view.family == "protein_aggregate":
                rows["of which protein"].append(row)
    return {
        group: {"n": len(table), **{key: float(np.median([r[key] for r in table])) for key in REAL}}
        for group, table in rows.items()
    }


def raw_diameter(
    *, diameter_um: float, index: float, scene: OpticsScene, z_um: list[float], threshold: float
) -> list[float]:
    """Diameter of the raw mask of a sphere, um, at each defocus: mean over nine places within a pixel."""
    rows = []
    for x in (0.0, 0.25, 0.5):
        for y in (0.0, 0.25, 0.5):
            sphere = Sphere(
                family="bead",
                diameter_um=diameter_um,
                index=index,
                medium_n=scene.medium_n,
                dx=scene.um_per_px / 3,
                offset_um=(x * scene.um_per_px, y * scene.um_per_px),
            )
            views = render_views(sphere, scene, z_um=z_um, fields=[(0.0, 0.0)])
            areas = [two_sided_mask(v.intensity.astype(np.float32), threshold).sum() for v in views]
            rows.append(2 * np.sqrt(np.array(areas) / np.pi) * scene.um_per_px)
    return [float(v) for v in np.mean(rows, axis=0)]


def size_offset() -> dict[str, dict[str, float]]:
    """Raw two-sided 4.2 % diameters of spheres over z +-45 um, against an MFI's own curve (diameter + 6.4 um)."""
    z = [float(v) for v in np.linspace(-45, 45, 13)]
    table: dict[str, dict[str, float]] = {}
    for name, index in (("bead", 1.59), ("oil", 1.403)):
        for na in (0.10, 0.12):
            scene = OpticsScene(na=na, condenser_na=na / 2)
            key = f"{name}, NA {na:.2f}"
            table[key] = {
                f"{d:g} um": float(
                    np.mean(raw_diameter(diameter_um=d, index=index, scene=scene, z_um=z, threshold=0.042))
                )
                for d in (5.0, 10.0, 20.0)
            }
    table["MFI curve"] = {"5 um": 11.4, "10 um": 16.4, "20 um": 26.4}
    return table


def bead_defocus() -> dict[str, float]:
    """A 4 um bead on a FlowCam (0.759 um/px, NA 0.25, 20 % dark threshold) through focus."""
    scene = OpticsScene(na=0.25, condenser_na=0.12, um_per_px=0.759, wavelength_um=0.47, medium_n=1.333)
    z = [0.0, 10.0, 20.0, 30.0, -10.0, -20.0, -30.0]
    sizes = raw_diameter(diameter_um=4.0, index=1.59, scene=scene, z_um=z, threshold=0.20)
    return {f"{v:+g} um": s for v, s in zip(z, sizes, strict=True)}


def speed(*, seed: int = 5) -> dict[str, dict[str, float]]:
    """Processor milliseconds per view, two optics and eight views a particle."""
    out: dict[str, dict[str, float]] = {}
    for family in KNOWN:
        out[family] = {}
        for ecd in (5.0, 20.0, 80.0):
            rng = np.random.default_rng(seed)
            count = 5 if ecd < 50 else 2
            start = time.process_time()
            for _ in range(count):
                particle = make_particle(family, rng, ecd_um=ecd, medium_n=1.337)
                render_views(particle, [draw_scene(rng) for _ in range(2)], rng, n_views=8)
            out[family][f"{ecd:g} um"] = (time.process_time() - start) / (8 * count) * 1e3
    return out


def _tile(view: View, side: int, rng: np.random.Generator) -> Image:
    picture = view.intensity.astype(np.float32)
    pad = max(0, -(-(side - min(picture.shape)) // 2))
    picture = np.pad(picture, pad, constant_values=1.0)
    y, x = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return expose(picture[y : y + side, x : x + side], rng, blur_px=0.4, noise=0.004)


def contact_sheet(path: Path, *, seed: int = 12) -> None:
    """Every family (rows) by size and focus (columns); the last picture of each size is off axis."""
    scene = draw_scene(np.random.default_rng(0), ranges=NOMINAL)
    columns = ((4.0, 24), (8.0, 30), (16.0, 44), (32.0, 70))
    focus = (-40.0, 0.0, 40.0)
    repeats = {"protein_aggregate": 5, "silicone_oil": 2, "glass": 2, "cellulose": 2, "protein_mimic": 2}
    rng = np.random.default_rng(seed)
    rows, names = [], []
    for family in FAMILIES:
        for _ in range(repeats.get(family, 1)):
            strips = []
            for ecd, side in columns:
                particle = make_particle(family, rng, ecd_um=ecd, medium_n=scene.medium_n)
                views = render_views(particle, scene, z_um=focus, fields=[(0.0, 0.0)])
                views += render_views(particle, scene, z_um=[15.0], fields=[(0.8, 0.3)])
                strips.append(np.hstack([_tile(v, side, rng) for v in views]))
            height = max(s.shape[0] for s in strips)
            padded = []
            for strip in strips:
                gap = height - strip.shape[0]
                padded.append(np.pad(strip, ((gap // 2, gap - gap // 2), (0, 8)), constant_values=1.0))
            rows.append(np.hstack(padded))
            names.append(family)
    label = 118
    picture = np.vstack([np.pad(r, ((0, 0), (label, 0)), constant_values=1.0) for r in rows])
    sheet = np.clip(np.rint(picture * 160), 0, 255).astype(np.uint8)
    sheet = np.pad(sheet, ((22, 0), (0, 0)), constant_values=160)
    for i, name in enumerate(names):
        y = 22 + sum(r.shape[0] for r in rows[:i]) + rows[i].shape[0] // 2
        cv2.putText(sheet, name.replace("_", " "), (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.38, 0, 1, cv2.LINE_AA)
    x = label
    for ecd, side in columns:
        text = f"{ecd:g} um (z -40, 0, 40 um; off axis)" if side > 60 else f"{ecd:g} um"
        cv2.putText(sheet, text, (x, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, 0, 1, cv2.LINE_AA)
        x += 4 * side + 8
    path.parent.mkdir(parents=True, exist_ok=True)
    large = cv2.resize(sheet, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_LINEAR)
    cv2.imwrite(str(path), large // 4 * 4, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=700, help="particles for the descriptor table")
    parser.add_argument("--seed", type=int, default=8_500_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="also draw the contact sheet to this PNG")
    parser.add_argument("--sheet-only", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.sheet:
        contact_sheet(args.sheet)
        if args.sheet_only:
            return
    result: dict[str, dict[str, Any]] = {
        **{
            f"descriptors, {r.name} optics": population(
                volumes=args.volumes, seed=args.seed, workers=args.workers, ranges=r
            )
            for r in (TRAINING, NOMINAL)
        },
        "real": {"oil": {k: v[0] for k, v in REAL.items()}, "not oil": {k: v[1] for k, v in REAL.items()}},
        "raw_diameter_um": size_offset(),
        "flowcam_4um_bead_um": bead_defocus(),
        "processor_ms_per_view": speed(),
    }
    if args.json:
        print(json.dumps(result, indent=1))
        return
    for title, table in result.items():
        print(f"\n{title}")
        for name, row in table.items():
            if isinstance(row, dict):
                print(f"  {name:22s}" + "  ".join(f"{k} {v:.2f}" for k, v in row.items()))
            else:
                print(f"  {name:22s}{row:.2f}")


if __name__ == "__main__":
    main()
