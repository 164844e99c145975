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

from converters.check_particles import check_particles
from converters.tflite import convert_to_int8, run_int8
from edge_app.classification import Bundle
from training.fitting.start import network_from_bundle
from training.integers import REPRESENTATIVE
from training.learning import CODE_SCALE, network_inputs


def run_at_line_rate(frames: int, seed: int) -> str:
    """A simulated run, as `converters.check_particles` takes it."""
    return f"sim:?concentration=175000&size_min_um=4&frames={frames}&seed={seed}"


def main() -> None:
    """Print a row per conversion."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="default: the shipped one")
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    bundle = Bundle.load(given.bundle)
    model = network_from_bundle(bundle, bundle.classes)
    crops = check_particles(bundle, run_at_line_rate(given.frames, given.seed))
    # Other frames set the ranges.
    like = check_particles(bundle, run_at_line_rate(20, given.seed + 1))
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
