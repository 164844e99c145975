"""What quantisation-aware fine-tuning gives back of what int8 takes, on a network taught on simulated particles.

usage: python benchmarks/quantisation_aware.py [--work work/simulate] [--network mobilenet_v2_real_scale] [--alpha 0.5]
       [--share 0.4] [--epochs 8] [--samples 4000] [--steps 300] [--seed 1]

Teaches the network shortly, converts it, fine-tunes it and converts it again; both are measured on particles of another
library (calibration) against labels and against the float network as it was before fine-tuning.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from converters.tflite import convert_to_int8, run_int8
from edge_app.classification.crops import CropGeometry
from training.datasets.exposure import simulated_crops
from training.datasets.labelled import LabelledCrops
from training.evaluation.scores import macro_f1
from training.learning import CODE_SCALE, Schedule, predict, teach
from training.networks import build_network
from training.optics import KNOWN
from training.quantisation_aware import fine_tune
from training.simulated import PRIOR, render_library


def crops_of(name: str, work: Path, share: float) -> LabelledCrops:
    store = render_library(name, work, share=share)
    return simulated_crops(store, classes=KNOWN, geometry=CropGeometry(), seed=11)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("work/simulate"))
    parser.add_argument("--network", default="mobilenet_v2_real_scale")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    learn, test = crops_of("train0", given.work, given.share), crops_of("calibration", given.work, 1.0)
    geometry = CropGeometry()
    model = build_network(given.network, classes=len(KNOWN), window_px=geometry.window_px, alpha=given.alpha)
    schedule = Schedule(
        epochs=given.epochs, samples_per_epoch=given.samples, batch=32, warm_up_steps=50, ema_momentum=0
    )
    teach(model, lambda epoch: learn, prior=np.array([PRIOR[c] for c in KNOWN]), schedule=schedule, seed=given.seed)
    some = learn.take(np.random.default_rng(0).permutation(len(learn))[:400])
    wanted = predict(model, test)["logits"].argmax(axis=1)

    def figures() -> dict[str, float]:
        real = predict(model, test)["logits"].argmax(axis=1)
        logits, _ = run_int8(convert_to_int8(model, some.crops, code_scale=CODE_SCALE), test.crops)
        called = logits.argmax(axis=1)
        return {
            "float_macro_f1": round(macro_f1(test.label, real, len(KNOWN)), 4),
            "int8_macro_f1": round(macro_f1(test.label, called, len(KNOWN)), 4),
            "int8_same_class_as_first_float": round(float((called == wanted).mean()), 4),
        }

    before = figures()
    done = fine_tune(model, learn, representative=some.crops, steps=given.steps, seed=given.seed)
    after = figures()
    first = before["float_macro_f1"]
    print(
        json.dumps(
            {
                "network": given.network,
                "particles": len(test),
                "before": before,
                "after": after,
                "int8_loss_before": round(first - before["int8_macro_f1"], 4),
                "int8_loss_after": round(first - after["int8_macro_f1"], 4),
                "distance_before": round(done.before, 4),
                "distance_after": round(done.after, 4),
                "kept": done.kept,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
