"""Frames per second of segmentation and descriptors on one thread, on simulated frames.

Times are CPU seconds of this process, so that other work on the machine does not count; wall-clock time stands beside.

Usage::

    python -m benchmarks.segmentation_speed [--concentration 175000] [--frames 60] [--json]
"""

import argparse
import json
import time

import cv2

from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.measurement.calibration import load_calibration
from edge_app.measurement.calibrations import SIMULATED_MFI
from edge_app.measurement.descriptors import measure
from edge_app.segmentation import Segmenter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concentration", type=float, default=175_000.0, help="particles per mL")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5, help="the frames are run this many times, the first not timed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    calibration = load_calibration(SIMULATED_MFI)
    source = open_simulation(
        f"sim:?concentration={arguments.concentration:g}&frames={arguments.frames}&seed={arguments.seed}"
    )
    frames = list(source.frames())
    segmenter = Segmenter()
    segmenter.prime([f.image for f in frames[: segmenter.prime_frames]])
    particles = analysed = 0
    cpu = {"segment": 0.0, "measure": 0.0}
    wall = 0.0
    for turn in range(arguments.rounds):
        begin = time.perf_counter()
        for frame in frames:
            t0 = time.process_time()
            result = segmenter.process(frame)
            t1 = time.process_time()
            if result.ratio is None:
                continue
            found = measure(
                result.ratio, result.regions, frame=frame.sequence, time_s=frame.time_s, calibration=calibration
            )
            t2 = time.process_time()
            if turn:
                cpu["segment"] += t1 - t0
                cpu["measure"] += t2 - t1
                particles += len(found)
                analysed += 1
        wall += (time.perf_counter() - begin) if turn else 0.0
    total = cpu["segment"] + cpu["measure"]
    figures = {
        "frames_per_s": analysed / total,
        "segment_ms": 1e3 * cpu["segment"] / analysed,
        "measure_ms": 1e3 * cpu["measure"] / analysed,
        "particles_per_frame": particles / analysed,
        "particles_per_min": 60.0 * particles / total,
        "wall_frames_per_s": analysed / wall,
    }
    if arguments.json:
        print(json.dumps(figures, indent=1))
        return
    print("| " + " | ".join(figures) + " |")
    print("|---" * len(figures) + "|")
    print("| " + " | ".join(f"{v:,.1f}" for v in figures.values()) + " |")


if __name__ == "__main__":
    main()
