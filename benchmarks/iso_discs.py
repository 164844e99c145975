"""Mean area-equivalent diameter of the ISO reference discs (TR 19672) through the default path.

Usage::

    python -m benchmarks.iso_discs [--data DIR] [--json]
"""

import argparse
import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edge_app.capture.registry import open_source
from edge_app.measurement.calibration import nominal_calibration
from edge_app.measurement.descriptors import measure
from edge_app.segmentation import Particles, Segmenter


@dataclass(frozen=True)
class DiscResult:
    """Figures of one stack of pages; diameters in px."""

    file: str
    nominal: float
    frames: int
    counted: int
    on_border: int
    small: int
    mean_diameter: float | None
    error: float | None
    standard_deviation: float | None
    mean_circularity: float | None


def measure_discs(path: Path) -> DiscResult:
    """Run one file; the calibration is 1 um per px, so um are px."""
    match = re.search(r"_([\d.]+)px", path.stem)
    nominal = float(match.group(1)) if match else float("nan")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / path.name).symlink_to(path.resolve())
        frames = list(open_source(f"dir:{folder}").frames())
    segmenter = Segmenter()
    segmenter.prime([f.image for f in frames[: segmenter.prime_frames]])
    parts = []
    for frame in frames:
        result = segmenter.process(frame)
        if result.ratio is None:
            continue
        scale = nominal_calibration(um_per_px=1.0, depth_um=100.0)
        parts.append(
            measure(result.ratio, result.regions, frame=frame.sequence, time_s=frame.time_s, calibration=scale)
        )
    p = Particles.concatenate(parts)
    whole = p.take(p.weight > 0)
    some = len(whole) > 0
    return DiscResult(
        file=path.name,
        nominal=nominal,
        frames=len(parts),
        counted=len(whole),
        on_border=len(p) - len(whole),
        small=segmenter.counters["speckle"],
        mean_diameter=float(whole.ecd_um.mean(dtype=np.float64)) if some else None,
        error=float(whole.ecd_um.mean(dtype=np.float64)) - nominal if some else None,
        standard_deviation=float(whole.ecd_um.std(dtype=np.float64)) if some else None,
        mean_circularity=float(whole.circularity.mean(dtype=np.float64)) if some else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGE_APP_REAL_DATA", "../shared/data")))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    rows = [measure_discs(p) for p in sorted((arguments.data / "iso_discs").glob("*.tif"))]
    rows.sort(key=lambda r: r.nominal)
    if arguments.json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
        return
    print("| nominal, px | counted | on border | too small | mean, px | error, px | SD, px | circularity |")
    print("|---" * 8 + "|")
    for r in rows:
        figures = [r.mean_diameter, r.error, r.standard_deviation, r.mean_circularity]
        shown = " | ".join("-" if v is None else f"{v:.3f}" for v in figures)
        print(f"| {r.nominal:g} | {r.counted} | {r.on_border} | {r.small} | {shown} |")


if __name__ == "__main__":
    main()
