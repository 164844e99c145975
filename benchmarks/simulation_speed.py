"""How fast the simulated flow cell composes frames, beside what the loop makes of them.

``python -m benchmarks.simulation_speed``
"""

import argparse
import statistics
import time
from typing import Final

from edge_app.capture.simulation.flow_cell import open_simulation

SCENES: Final = {
    "default scene (60,000/mL)": "",
    "175,000/mL": "concentration=175000",
    "900,000/mL": "concentration=900000",
    "175,000/mL, large particles": "concentration=175000&size_law=lognormal&size_median_um=15",
    "175,000/mL, schlieren": "concentration=175000&schlieren=0.01",
    "175,000/mL, 70 us flash": "concentration=175000&strobe_us=70",
    "prerendered": "concentration=175000&prerender=32",
}


def frames_per_s(query: str, *, frames: int, seed: int) -> tuple[float, float]:
    """Frames per second of wall clock, and true particles per frame."""
    source = open_simulation(f"sim:?frames={frames + 1}&seed={seed}&{query}")
    stream = source.frames()
    next(stream)
    began = time.perf_counter()
    particles = sum(0 if frame.truth is None else len(frame.truth.ecd_um) for frame in stream)
    return frames / (time.perf_counter() - began), particles / frames


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"{'scene (1280 x 1024)':32s} {'particles/frame':>16s} {'frames/s':>9s} {'slowest':>9s} {'fastest':>9s}")
    for name, query in SCENES.items():
        runs = [frames_per_s(query, frames=args.frames, seed=seed) for seed in range(args.repeats)]
        rates = [rate for rate, _ in runs]
        per_frame = statistics.mean(n for _, n in runs)
        print(f"{name:32s} {per_frame:16.1f} {statistics.median(rates):9.0f} {min(rates):9.0f} {max(rates):9.0f}")


if __name__ == "__main__":
    main()
