"""Detection and sizing against the truth of simulated frames, at two concentrations.

Every detection is matched to at most one true particle by the overlap of their boxes (the true one grown by the usual
diffraction halo) and the distance of their centres, so that the sum of both over the frame is best.

* recall: true particles of at least ``--least-um`` (wholly in the frame, not stuck) that have a detection of any size;
* precision: detections reported at that size or more (not on the border) that have a true particle of any size;
* pieces: detections whose centre lies in a true particle's box and that belong to no other one, per detected particle;
* count ratio: weighted count of detections reported at a size or more over the true number (centre in the frame);
* size bias: reported over true ECD.

Translucent protein in focus has next to no contrast; it is listed apart (``|z| <= 15 um``).

Usage::

    python -m benchmarks.detection_accuracy [--frames 60] [--seed 101] [--sprites FILE]
        [--size-rule half_max|learned] [--calibration FILE] [--json]

By ``--size-rule learned`` the shipped network reads the sizes, through a straight line of the sprites' own scale unless
a calibration is named.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from edge_app.capture.frame import FrameTruth
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.capture.simulation.sprite_library import SpriteLibrary
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.size_reader import SizeReader, check_size_rule
from edge_app.measurement.calibration import Calibration, load_calibration, nominal_calibration
from edge_app.measurement.calibrations import SIMULATED_MFI
from edge_app.measurement.descriptors import measure, with_learned_size
from edge_app.segmentation import Particles, SegmentationSettings, Segmenter

HALO_PX = 3.0
IN_FOCUS_UM = 15.0
PROTEIN = "protein_aggregate"
SIZE_BINS_UM = (2.0, 5.0, 8.0, 15.0, 25.0, 50.0, 101.0)

F8 = npt.NDArray[np.float64]


@dataclass
class Tally:
    """Rows gathered over the frames of a run."""

    true_family: list[npt.NDArray[np.str_]] = field(default_factory=list)
    true_um: list[F8] = field(default_factory=list)
    true_z_um: list[F8] = field(default_factory=list)
    true_whole: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    true_centred: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    true_found: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    true_pieces: list[npt.NDArray[np.int64]] = field(default_factory=list)
    true_read_um: list[F8] = field(default_factory=list)
    read_um: list[F8] = field(default_factory=list)
    read_weight: list[F8] = field(default_factory=list)
    read_matched: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    read_family: list[npt.NDArray[np.str_]] = field(default_factory=list)


def match(truth: FrameTruth, found: Particles) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row of the true particle of each detection (-1: none), and how many pieces each true particle has."""
    n, m = len(found), len(truth.ecd_um)
    owner = np.full(n, -1, np.int64)
    if n == 0 or m == 0:
        return owner, np.zeros(m, np.int64)
    left = truth.x_px.astype(float) - HALO_PX
    upper = truth.y_px.astype(float) - HALO_PX
    right, lower = left + truth.width_px + 2 * HALO_PX, upper + truth.height_px + 2 * HALO_PX
    x0, y0 = found.x_px[:, None].astype(float), found.y_px[:, None].astype(float)
    x1, y1 = x0 + found.width_px[:, None], y0 + found.height_px[:, None]
    shared = np.clip(np.minimum(x1, right) - np.maximum(x0, left), 0, None)
    shared = shared * np.clip(np.minimum(y1, lower) - np.maximum(y0, upper), 0, None)
    mine, theirs = (x1 - x0) * (y1 - y0), (right - left) * (lower - upper)
    iou = shared / (mine + theirs - shared)
    centre_x, centre_y = (left + right) / 2, (upper + lower) / 2
    apart = np.hypot((x0 + x1) / 2 - centre_x, (y0 + y1) / 2 - centre_y)
    reach = np.maximum(np.hypot(right - left, lower - upper), np.hypot(x1 - x0, y1 - y0)) / 2
    allowed = (shared > 0) & ((iou >= 0.1) | (apart <= 0.5 * reach))
    gain = np.where(allowed, iou + 0.5 * np.clip(1 - apart / reach, 0, 1), 0.0)
    rows, columns = linear_sum_assignment(-gain)
    good = allowed[rows, columns]
    owner[rows[good]] = columns[good]
    pieces = np.bincount(owner[owner >= 0], minlength=m)
    free = owner < 0
    inside = (
        (found.centroid_x_px[:, None] >= left)
        & (found.centroid_x_px[:, None] <= right)
        & (found.centroid_y_px[:, None] >= upper)
        & (found.centroid_y_px[:, None] <= lower)
    ) & free[:, None]
    # A spare piece goes to the smallest true box that holds it and was found at all.
    cost = np.where(inside & (pieces > 0)[None, :], theirs, np.inf)
    spare = np.flatnonzero(np.isfinite(cost).any(1))
    np.add.at(pieces, np.argmin(cost[spare], axis=1), 1)
    return owner, pieces


def gather(
    *,
    concentration: float,
    frames: int,
    seed: int,
    calibration: Calibration,
    sprites: Path | None = None,
    scene: Mapping[str, str] | None = None,
    settings: SegmentationSettings | None = None,
    classifier: Classifier | None = None,
) -> Tally:
    """Run the segmentation over simulated frames and match every one; ``classifier`` reads the learned sizes."""
    query = {"concentration": f"{concentration:g}", "frames": str(frames), "seed": str(seed), **(scene or {})}
    if sprites is not None:
        # Sprites reach as far off focus as their own optics were set; a cell of 88 um stays inside.
        focus_um = float(str(SpriteLibrary.load(sprites).metadata["scene"]["focus_offset_um"]))
        query |= {"sprites": str(sprites), "focus_offset_um": f"{focus_um:.1f}", "depth_um": "88"}
    source = open_simulation("sim:?" + "&".join(f"{k}={v}" for k, v in query.items()))
    segmenter = Segmenter(settings or SegmentationSettings())
    shots = list(source.frames())
    segmenter.prime([f.image for f in shots[: segmenter.prime_frames]])
    reader = None if classifier is None else SizeReader(classifier)
    tally = Tally()
    for frame in shots:
        result = segmenter.process(frame)
        truth = frame.truth
        if result.ratio is None or truth is None:
            continue
        found = measure(
            result.ratio, result.regions, frame=frame.sequence, time_s=frame.time_s, calibration=calibration
        )
        if reader is not None:
            read_px = reader(result.ratio, result.regions, found, um_per_px=calibration.um_per_px)
            found = with_learned_size(found, read_px, calibration=calibration)
        owner, pieces = match(truth, found)
        height, width = frame.image.shape
        centre_x, centre_y = truth.x_px + truth.width_px / 2, truth.y_px + truth.height_px / 2
        free = ~truth.stuck
        read = np.full(len(free), np.nan)
        read[owner[owner >= 0]] = found.ecd_um[owner >= 0]
        tally.true_family.append(truth.family[free])
        tally.true_um.append(truth.ecd_um[free].astype(float))
        tally.true_z_um.append(truth.z_um[free].astype(float))
        whole = (truth.x_px > 0) & (truth.y_px > 0) & (truth.x_px + truth.width_px < width)
        tally.true_whole.append((whole & (truth.y_px + truth.height_px < height))[free])
        centred = (centre_x >= 0) & (centre_x < width) & (centre_y >= 0) & (centre_y < height)
        tally.true_centred.append(centred[free])
        tally.true_found.append((pieces > 0)[free])
        tally.true_pieces.append(pieces[free])
        tally.true_read_um.append(read[free])
        counted = found.weight > 0
        tally.read_um.append(found.ecd_um[counted].astype(float))
        tally.read_weight.append(found.weight[counted].astype(float))
        tally.read_matched.append(owner[counted] >= 0)
        families = np.append(truth.family.astype("U32"), "none")
        tally.read_family.append(families[owner[counted]])
    return tally


def summarise(tally: Tally, *, least_um: float) -> dict[str, object]:
    """Figures of a run."""
    family, size, z = (
        np.concatenate(tally.true_family), np.concatenate(tally.true_um), np.concatenate(tally.true_z_um)
    )  # fmt: skip
    whole, centred = np.concatenate(tally.true_whole), np.concatenate(tally.true_centred)
    found, pieces = np.concatenate(tally.true_found), np.concatenate(tally.true_pieces)
    seen_as, read = np.concatenate(tally.true_read_um), np.concatenate(tally.read_um)
    weight, matched = np.concatenate(tally.read_weight), np.concatenate(tally.read_matched)
    large = whole & (size >= least_um)
    faint = (family == PROTEIN) & (np.abs(z) <= IN_FOCUS_UM)
    reported = read >= least_um

    def share(values: npt.NDArray[np.bool_]) -> float:
        return float(values.mean()) if len(values) else float("nan")

    by_class = {}
    for name in sorted(set(family.tolist())):
        rows = large & (family == name)
        got = rows & found
        by_class[name] = {
            "particles": int(rows.sum()),
            "recall": share(found[rows]),
            "pieces": float(pieces[got].mean()) if got.any() else float("nan"),
            "size_ratio_median": float(np.median(seen_as[got] / size[got])) if got.any() else float("nan"),
        }
    by_size = {}
    for low, high in pairwise(SIZE_BINS_UM):
        rows = whole & (size >= low) & (size < high)
        got = rows & found
        ratio = seen_as[got] / size[got]
        by_size[f"{low:g}-{high:g}"] = {
            "particles": int(rows.sum()),
            "recall": share(found[rows]),
            "size_ratio_median": float(np.median(ratio)) if got.any() else float("nan"),
            "size_ratio_p16_p84": [float(v) for v in np.percentile(ratio, [16, 84])] if got.any() else [],
        }
    true_count = {f"{d:g}": int((centred & (size >= d)).sum()) for d in (5.0, 10.0, 25.0)}
    our_count = {f"{d:g}": float(weight[read >= d].sum()) for d in (5.0, 10.0, 25.0)}
    return {
        "true_particles": int(large.sum()),
        "recall": share(found[large & ~faint]),
        "recall_faint_protein": share(found[large & faint]),
        "precision": share(matched[reported]),
        "precision_any_size": share(matched),
        "protein_pieces": by_class.get(PROTEIN, {}).get("pieces"),
        "count_ratio": {d: our_count[d] / true_count[d] if true_count[d] else float("nan") for d in true_count},
        "true_count": true_count,
        "by_class": by_class,
        "by_size": by_size,
    }


def report(concentration: float, s: dict[str, object]) -> str:
    """Markdown of one run."""
    lines = [
        f"\n### {concentration:,.0f} per mL: {s['true_particles']} true particles of the least size or more\n",
        "| recall | recall, protein in focus | precision | precision, any size | protein pieces | count >= 5 | >= 10 |",
        "|---" * 7 + "|",
    ]
    count = s["count_ratio"]
    assert isinstance(count, dict)
    shown = [s[k] for k in ("recall", "recall_faint_protein", "precision", "precision_any_size", "protein_pieces")]
    lines.append("| " + " | ".join(f"{v:.3f}" for v in (*shown, count["5"], count["10"])) + " |")
    for key, head in (("by_class", "class"), ("by_size", "true size, um")):
        table = s[key]
        assert isinstance(table, dict)
        lines += ["", f"| {head} | particles | recall | size ratio (median) | pieces or 16-84 % |", "|---" * 5 + "|"]
        for name, row in table.items():
            last = (
                f"{row['pieces']:.3f}" if "pieces" in row else "-".join(map("{:.2f}".format, row["size_ratio_p16_p84"]))
            )
            lines.append(
                f"| {name} | {row['particles']} | {row['recall']:.3f} | {row['size_ratio_median']:.3f} | {last} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="frames at 175,000 per mL; five times as many at 20,000")
    parser.add_argument("--seed", type=int, default=101)
    parser.add_argument("--least-um", type=float, default=5.0)
    parser.add_argument("--sprites", type=Path, default=None, help="sprites of other optics than the shipped ones")
    parser.add_argument("--size-rule", choices=("half_max", "learned"), default="half_max")
    parser.add_argument("--calibration", type=Path, help="default: the shipped curve of the simulated optics")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    calibration = load_calibration(arguments.calibration or SIMULATED_MFI)
    classifier = None
    if arguments.size_rule == "learned":
        bundle = Bundle.load()
        classifier = Classifier(bundle, open_backend(bundle).backend)
        if arguments.calibration is None:
            sprites = SpriteLibrary.load(arguments.sprites) if arguments.sprites else SpriteLibrary.shipped()
            scale = float(np.median(sprites.um_per_px))
            calibration = nominal_calibration(um_per_px=scale, depth_um=100, size_rule="learned")
        check_size_rule(calibration, bundle)
    if calibration.size_rule != arguments.size_rule:
        parser.error(f"--calibration: {calibration.id} is of size rule {calibration.size_rule}, not as --size-rule")
    results = {}
    for concentration, times in ((20_000.0, 5), (175_000.0, 1)):
        tally = gather(
            concentration=concentration,
            frames=arguments.frames * times,
            seed=arguments.seed,
            calibration=calibration,
            sprites=arguments.sprites,
            classifier=classifier,
        )
        results[concentration] = summarise(tally, least_um=arguments.least_um)
    if arguments.json:
        print(json.dumps({f"{c:g}": s for c, s in results.items()}, indent=1))
    else:
        print("\n".join(report(c, s) for c, s in results.items()))


if __name__ == "__main__":
    main()
