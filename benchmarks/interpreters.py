"""What rounding changes: int8 against float, XNNPACK against TFLite's built-in kernels, with and without pooling.

``tflite_runtime`` 2.14 and TFLite's built-in kernels give the same integers, so this needs LiteRT alone: once with its
default delegate, XNNPACK, and once without. The network is converted twice from the bundle's float weights, as it is
shipped and with the pooled features rounded (`converters.joined_pooling`), and asked for particles that a run at line
rate finds in simulated frames.

Usage::

    python -m benchmarks.interpreters [--bundle DIR] [--frames 80] [--seed 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from converters.tflite import convert_to_int8, run_int8
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.classification import Bundle, Crops, cut_crops
from edge_app.classification.context import field_positions
from edge_app.classification.crops import CropGeometry
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import measure
from edge_app.segmentation.segmenter import Segmenter
from training.fitting.start import network_from_bundle
from training.integers import REPRESENTATIVE
from training.learning import CODE_SCALE, network_inputs

UM_PER_PX = 1.33


def found_crops(frames: int, seed: int, *, geometry: CropGeometry) -> Crops:
    """Particles that a run finds at line rate, as the network gets them."""
    source = open_simulation(f"sim:?concentration=175000&size_min_um=4&frames={frames}&seed={seed}")
    calibration = nominal_calibration(um_per_px=UM_PER_PX, depth_um=100.0)
    segmenter, shots, parts = Segmenter(), list(source.frames()), []
    segmenter.prime([shot.image for shot in shots[: segmenter.prime_frames]])
    for shot in shots:
        result = segmenter.process(shot)
        if result.ratio is None:
            continue
        p = measure(result.ratio, result.regions, frame=0, time_s=0.0, calibration=calibration)
        box = (p.x_px, p.y_px, p.width_px, p.height_px)
        place = field_positions(*box, frame_shape=result.ratio.shape)
        parts.append(cut_crops(result.ratio, *box, geometry=geometry, um_per_px=UM_PER_PX, field=place))
    return Crops.concatenate(parts)


def main() -> None:
    """Print a row per conversion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    model = network_from_bundle(bundle, bundle.classes)
    crops = found_crops(given.frames, given.seed, geometry=bundle.geometry)
    # Other frames set the ranges.
    like = found_crops(20, given.seed + 1, geometry=bundle.geometry)
    like = like.take(np.random.default_rng(0).permutation(len(like))[:REPRESENTATIVE])
    said = model.predict(network_inputs(crops), batch_size=256, verbose=0)
    exact = said["logits"].argmax(axis=1)
    print(f"{bundle.description.name} {bundle.description.version}: {len(crops)} particles\n")
    print(
        "| | another class than float | embedding from float, steps RMS | another class by other kernels | steps RMS |"
    )
    print("|---|---:|---:|---:|---:|")
    for name, join in (("pooled features rounded", False), ("joined before pooling, as shipped", True)):
        integer = convert_to_int8(model, like, code_scale=CODE_SCALE, join=join)
        step = integer.quantisation["embedding"].scale
        logits, embedding = run_int8(integer, crops)
        other_logits, other = run_int8(integer, crops, built_in=True)
        called = logits.argmax(axis=1)
        print(
            f"| {name} | {(called != exact).mean():.2%} | {_rms(embedding - said['embedding']) / step:.2f} | "
            f"{(called != other_logits.argmax(axis=1)).mean():.2%} | {_rms(embedding - other) / step:.2f} |"
        )


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


if __name__ == "__main__":
    main()
