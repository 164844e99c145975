"""Accuracy and speed of the shipped classifier on simulated particles it was never trained on.

usage: python benchmarks/classifier_accuracy.py [--work work/simulate] [--bundle DIR] [--share 0.3] [--json]

Renders the test libraries where they are missing (unseen seeds; unseen optics; families that are no class) and prints:
figures per class and size, silicone oil against the rest for tight crops without margin whose background level is
estimated (as from another instrument), what six pictures of a particle would tell instead of one (at a depth and place
of their own, in two or three optics), int8 against float, and microseconds per crop.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_app.classification import Bundle, Classifier, Crops, open_backend
from edge_app.classification.rejection import probabilities_of
from edge_app.classification.tight_crops import background_levels, crops_of_pictures
from training.datasets.exposure import ExposureRanges, detect, expose_view, simulated_crops
from training.datasets.labelled import LabelledCrops
from training.datasets.views import ViewStore
from training.evaluation.crop_figures import evaluate_crops
from training.evaluation.scores import macro_f1
from training.fit import network_from_bundle
from training.learning import predict
from training.optics import KNOWN
from training.simulated import render_library

#: What a biologic in a syringe holds besides silicone oil: mostly protein.
REST_MIX = {"protein_aggregate": 0.6, "air_bubble": 0.08, "protein_mimic": 0.1, "glass": 0.1, "cellulose": 0.12}


def tight_pictures(store: ViewStore, *, level: float, seed: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Camera pictures cut at the box, as an instrument exports them; families and true sizes."""
    ranges = replace(ExposureRanges(), scale=(1.0, 1.0), background_error_sd=(0.0, 0.0), tilt_of_background=(0.0, 0.0))
    pictures, rows = [], []
    for i in range(len(store)):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        ratio, near, _, _ = expose_view(store.picture(i), store.true_mask(i), rng, ranges)
        found = detect(ratio, near, threshold=0.042, dark_only=i % 2 == 0, closing=1, smallest_area_px=50)
        if found is None:
            continue
        box = ratio[found.y : found.y + found.height, found.x : found.x + found.width]
        if 7 <= max(box.shape) <= 80 and min(box.shape) >= 5:
            pictures.append(np.clip(np.rint(box * (level / 160)), 0, 255).astype(np.uint8))
            rows.append(i)
    return pictures, store.family[rows], store.ecd_um[rows]


def oil_in_foreign_crops(classifier: Classifier, store: ViewStore, *, level: float, seed: int) -> dict[str, Any]:
    """Fold the classes into oil and the rest on tight crops, the rest mixed as in `REST_MIX`."""
    pictures, family, _ = tight_pictures(store, level=level, seed=seed)
    rng = np.random.default_rng(seed)
    count = int((family == "silicone_oil").sum())
    keep = [np.flatnonzero(family == "silicone_oil")]
    for name, share in REST_MIX.items():
        rows = np.flatnonzero(family == name)
        keep.append(rng.choice(rows, size=min(len(rows), int(share * 1.5 * count)), replace=False))
    chosen = np.sort(np.concatenate(keep))
    some = [pictures[i] for i in chosen.tolist()]
    levels = background_levels(some)
    crops = crops_of_pictures(some, geometry=classifier.bundle.geometry, um_per_px=1.33, levels=levels)
    called = np.array(classifier.classes)[classifier.classify(crops).class_index] == "silicone_oil"
    truth = family[chosen] == "silicone_oil"
    small = np.array([max(p.shape) < 12 for p in some])
    return {
        "pictures": len(chosen),
        "oil": int(truth.sum()),
        "level_error_percent_median_p95": [
            round(100 * float(np.median(levels / level - 1)), 2),
            round(100 * float(np.quantile(abs(levels / level - 1), 0.95)), 2),
        ],
        "macro_f1": round(macro_f1((~truth).astype(int), (~called).astype(int), 2), 4),
        "balanced_accuracy": round(float((called[truth].mean() + (~called[~truth]).mean()) / 2), 4),
        "recall_oil": round(float(called[truth].mean()), 4),
        "recall_rest": round(float((~called[~truth]).mean()), 4),
        "macro_f1_below_12_px": round(macro_f1((~truth[small]).astype(int), (~called[small]).astype(int), 2), 4),
    }


def from_several_pictures(probabilities: np.ndarray, crops: LabelledCrops) -> dict[str, dict[str, float]]:
    """Macro-F1 by size from one picture, and from all pictures of a particle: the mean of their log probabilities."""
    particle, of = np.unique(crops.group, return_inverse=True)
    log_sum = np.zeros((len(particle), probabilities.shape[1]))
    np.add.at(log_sum, of, np.log(np.maximum(probabilities, 1e-6)))
    called_together, called_alone = log_sum.argmax(axis=1), probabilities.argmax(axis=1)
    first = np.unique(of, return_index=True)[1]
    several = np.bincount(of) >= 4
    found = {}
    for low, high in ((5, 8), (8, 15), (15, 70)):
        chosen = several & (crops.ecd_um[first] >= low) & (crops.ecd_um[first] < high)
        rows = chosen[of]
        n = probabilities.shape[1]
        found[f"{low}-{high}"] = {
            "particles": int(chosen.sum()),
            "one": round(macro_f1(crops.label[rows], called_alone[rows], n), 3),
            "all": round(macro_f1(crops.label[first][chosen], called_together[chosen], n), 3),
        }
    return found


def microseconds_per_crop(classifier: Classifier, batch: int) -> float:
    """Best of 40 calls of the whole classifier, from uint8 crops to classes."""
    window = classifier.bundle.geometry.window_px
    rng = np.random.default_rng(0)
    crops = Crops(
        pixels=rng.integers(0, 256, (batch, window, window, 1)).astype(np.uint8),
        context=np.ones((batch, len(classifier.bundle.geometry.context)), np.float32),
        um_per_px=np.ones(batch, np.float32),
    )
    times = []
    for _ in range(40):
        start = time.perf_counter()
        classifier.classify(crops)
        times.append(time.perf_counter() - start)
    return 1e6 * min(times) / batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/simulate"))
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--share", type=float, default=0.3, help="share of the test libraries to render")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    bundle = Bundle.load(args.bundle)
    classifier = Classifier(bundle, open_backend(bundle).backend)
    float_model = network_from_bundle(bundle, bundle.classes)
    figures: dict[str, Any] = {"bundle": bundle.description.name, "model_sha256": bundle.model_sha256}
    for name, seed in (("test", 21), ("heldout", 22)):
        store = render_library(name, args.work, share=args.share, workers=args.workers)
        crops = simulated_crops(
            store,
            classes=KNOWN,
            geometry=bundle.geometry,
            seed=seed,
            margin_px=bundle.geometry.margin_px,
            field_known=True,
        )
        result = classifier.classify(crops.crops)
        figures[name] = evaluate_crops(result, crops, bundle.classes)
        shift = np.asarray(bundle.description.log_prior, np.float32)
        as_float = probabilities_of(
            predict(float_model, crops)["logits"], temperature=bundle.description.temperature, log_prior=shift
        ).argmax(axis=1)
        as_int8 = result.probabilities.argmax(axis=1)
        n = len(bundle.classes)
        figures[name]["int8_loss_points"] = round(
            100 * (macro_f1(crops.label, as_float, n) - macro_f1(crops.label, as_int8, n)), 3
        )
        figures[name]["from_several_pictures"] = from_several_pictures(result.probabilities, crops)
        figures[name]["oil_in_tight_foreign_crops"] = {
            f"level {level}": oil_in_foreign_crops(classifier, store, level=level, seed=seed) for level in (185, 211)
        }
    figures["microseconds_per_crop"] = {str(b): round(microseconds_per_crop(classifier, b), 1) for b in (1, 32, 43, 64)}
    figures["backend"] = f"{classifier.backend.name} {classifier.backend.version}, {classifier.backend.threads} thread"
    if args.json:
        print(json.dumps(figures, indent=1))
        return
    for name in ("test", "heldout"):
        f = figures[name]
        print(
            f"{name}: macro-F1 {f['macro_f1']:.3f}, from 5 um {f['macro_f1_from_5_um']['macro_f1']:.3f}; by size",
            end="",
        )
        print("".join(f"  {size} um {v['macro_f1']:.3f}" for size, v in f["by_size_um"].items()))
        for label, v in f["per_class"].items():
            print(f"  {label:18s} recall {v['recall']:.3f}  precision {v['precision']:.3f}")
        print(f"  oil against the rest, from 5 um: {f['oil_against_rest_from_5_um']}")
        for level, v in f["oil_in_tight_foreign_crops"].items():
            print(f"  oil in tight foreign crops, {level}: {v}")
        print(f"  macro-F1 from one picture of a particle, and from all of its six: {f['from_several_pictures']}")
        print(
            f"  int8 loses {f['int8_loss_points']:+.2f} points; calibration error {f['expected_calibration_error']:.3f}"
        )
    print(f"microseconds per crop by batch: {figures['microseconds_per_crop']} ({figures['backend']})")


if __name__ == "__main__":
    main()
