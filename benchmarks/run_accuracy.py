"""Classes and counts of whole runs against the truth of simulated frames: the loop as it ships, end to end.

Frames of a simulated flow cell with the seven classes in equal shares go through segmentation, measurement and the
shipped network. Every detection is matched to a true particle (``benchmarks.detection_accuracy``); a matched particle
of at least 5 um true ECD is a row of the confusion matrix, ``unknown`` is a wrong answer. Two sets of optics: the
nominal instrument with sprites never trained on, and the held-out one whose NA, condenser, scale and focus lie outside
of everything trained on (the library's own ``scene`` says where).

Usage::

    python -m benchmarks.run_accuracy [--frames 60] [--seed 301] [--bundle DIR] [--json]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.detection_accuracy import match
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.capture.simulation.sprite_library import SpriteLibrary
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import field_positions
from edge_app.classification.crops import cut_crops
from edge_app.config import Settings
from edge_app.measurement.descriptors import measure
from edge_app.pipeline import choose_calibration
from edge_app.segmentation.segmenter import Segmenter

SPRITES = {"nominal optics": None, "held-out optics": Path(__file__).parent / "data" / "sprites_held_out.npz"}
SIZE_BINS_UM = ((5.0, 8.0), (8.0, 15.0), (15.0, 70.0))

Rows = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def rows_of_a_run(
    classifier: Classifier, *, concentration: float, frames: int, seed: int, sprites: Path | None
) -> Rows:
    """True class, our class and true ECD of every matched particle."""
    shares = ",".join(f"{name}:1" for name in classifier.bundle.classes)
    uri = f"sim:?concentration={concentration:g}&frames={frames}&seed={seed}&mix={shares}&size_min_um=4"
    if sprites is not None:
        focus_um = SpriteLibrary.load(sprites).metadata["scene"]["focus_offset_um"]
        uri += f"&sprites={sprites}&focus_offset_um={focus_um:.1f}&depth_um=88"
    source = open_simulation(uri)
    calibration = choose_calibration(Settings().flow_cell, source.info)
    segmenter = Segmenter()
    shots = list(source.frames())
    segmenter.prime([f.image for f in shots[: segmenter.prime_frames]])
    index = {name: i for i, name in enumerate(classifier.classes)}
    true, ours, size = [], [], []
    for frame in shots:
        result = segmenter.process(frame)
        if result.ratio is None or frame.truth is None:
            continue
        found = measure(
            result.ratio, result.regions, frame=frame.sequence, time_s=frame.time_s, calibration=calibration
        )
        crops = cut_crops(
            result.ratio, found.x_px, found.y_px, found.width_px, found.height_px,
            geometry=classifier.bundle.geometry, um_per_px=calibration.um_per_px,
            field=field_positions(
                found.x_px, found.y_px, found.width_px, found.height_px, frame_shape=result.ratio.shape
            ),
        )  # fmt: skip
        called = classifier.classify(crops).class_index
        owner, _ = match(frame.truth, found)
        rows = (owner >= 0) & ~found.border
        rows[rows] = ~frame.truth.stuck[owner[rows]]
        names = frame.truth.family[owner[rows]]
        true.append(np.array([index[n] for n in names.tolist()], np.int64))
        ours.append(called[rows].astype(np.int64))
        size.append(frame.truth.ecd_um[owner[rows]].astype(np.float64))
    return np.concatenate(true), np.concatenate(ours), np.concatenate(size)


def scores(true: npt.NDArray[np.int64], ours: npt.NDArray[np.int64], classes: tuple[str, ...]) -> dict[str, Any]:
    """Recall, precision and F1 of each class, and their macro mean."""
    table = {}
    for i, name in enumerate(classes):
        hit, is_true, is_ours = int(((true == i) & (ours == i)).sum()), int((true == i).sum()), int((ours == i).sum())
        table[name] = {
            "particles": is_true,
            "recall": hit / is_true if is_true else float("nan"),
            "precision": hit / is_ours if is_ours else float("nan"),
            "f1": 2 * hit / (is_true + is_ours) if is_true + is_ours else float("nan"),
        }
    f1 = [row["f1"] for row in table.values()]
    return {"macro_f1": float(np.nanmean(f1)), "unknown": float((ours == len(classes)).mean()), "by_class": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="frames of each run at 175,000/mL; ten times at 20,000")
    parser.add_argument("--seed", type=int, default=301)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bundle = Bundle.load(options.bundle)
    classifier = Classifier(bundle, open_backend(bundle).backend)
    report: dict[str, Any] = {"model_sha256": bundle.model_sha256}
    for optics, sprites in SPRITES.items():
        for concentration, frames in ((20_000.0, 8 * options.frames), (175_000.0, options.frames)):
            true, ours, size = rows_of_a_run(
                classifier, concentration=concentration, frames=frames, seed=options.seed, sprites=sprites
            )
            result = scores(true[size >= 5], ours[size >= 5], bundle.classes)
            result["macro_f1_by_size"] = {
                f"{low:g}-{high:g}": scores(true[rows], ours[rows], bundle.classes)["macro_f1"]
                for low, high in SIZE_BINS_UM
                if (rows := (size >= low) & (size < high)).any()
            }
            report[f"{optics}, {concentration:,.0f}/mL"] = result
    if options.json:
        print(json.dumps(report))
        return
    for name, result in report.items():
        if name == "model_sha256":
            continue
        sizes = ", ".join(f"{k} um {v:.3f}" for k, v in result["macro_f1_by_size"].items())
        print(f"\n### {name}: macro-F1 {result['macro_f1']:.3f} at 5 um and more ({sizes}); ", end="")
        print(f"unknown {result['unknown']:.1%}\n")
        print("| class | particles | recall | precision | F1 |\n|---|---|---|---|---|")
        for cls, row in result["by_class"].items():
            print(f"| {cls} | {row['particles']} | {row['recall']:.3f} | {row['precision']:.3f} | {row['f1']:.3f} |")


if __name__ == "__main__":
    main()
