"""Agreement of our segmentation with a FlowCam's own particles, on frames rebuilt from its exports.

Two rounds per run: with the instrument's own thresholds against its own background (do we find what it found), and with
our default settings (do we miss anything it found). Agreement with an instrument is not agreement with truth.

Usage::

    python benchmarks/flowcam_agreement.py [--data DIR] [--json]
"""

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.flowcam.source import FlowCamSource, open_flowcam
from edge_app.capture.frame import Frame
from edge_app.measurement.descriptors import feret_diameters, hull_points
from edge_app.segmentation import Regions, Segmenter

LEAST_AREA_PX = 60


@dataclass(frozen=True)
class Agreement:
    """Figures of one run in one mode."""

    run: str
    mode: str
    instrument_particles: int
    overlapped: float
    found_iou_03: float
    found_iou_05: float
    median_area_ratio: float
    false_finds: int
    splits: int
    merges: int
    our_particles: int
    per_ml: float
    instrument_per_ml: float


def instrument_masks(source: FlowCamSource, frame: Frame) -> Iterator[tuple[float, int, int, npt.NDArray[np.uint8]]]:
    """Raw area, place and hole-filled mask of each of the instrument's particles in a frame."""
    assert frame.companion is not None
    for row in frame.companion.columns["row"].tolist():
        mask = source.mask(row)
        if mask is None or not mask.any():
            continue
        x, y = int(source.table.columns["src_x"][row]), int(source.table.columns["src_y"][row])
        outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = np.zeros(mask.shape, np.uint8)
        cv2.drawContours(filled, outline, -1, 1, cv2.FILLED)
        yield float(source.table.columns["raw_area"][row]), x, y, filled


def in_size_window(regions: Regions, *, um_per_px: float, low_um: float, high_um: float) -> npt.NDArray[np.bool_]:
    """Regions whose mean of 36 Feret diameters (the instrument's ESD) lies in the instrument's size window."""
    esd = feret_diameters(*hull_points(regions))[2] * um_per_px
    return (esd >= low_um) & (esd <= high_um)


def compare(directory: Path, *, mode: str) -> Agreement:
    """Run one export through the segmentation and compare."""
    source = open_flowcam(f"flowcam:{directory}")
    info = source.info
    assert info.um_per_px is not None
    segmenter = Segmenter.for_source(info, use_instrument_thresholds=mode == "instrument")
    low = float(str(info.details.get("min_esd_um", 0.0)))
    high = float(str(info.details.get("max_esd_um", np.inf)))
    ious, ratios, overlapped = [], [], []
    false_finds = splits = merges = ours = counted = 0
    for frame in source.frames():
        result = segmenter.process(frame)
        if result.reason is not None:
            print(f"{directory.name}: frame {frame.sequence} left out: {result.reason}")
            continue
        regions, labels = result.regions, result.regions.labels
        ours += len(regions)
        if len(regions):
            counted += int(in_size_window(regions, um_per_px=info.um_per_px, low_um=low, high_um=high).sum())
        touched = np.zeros(len(regions) + 1, np.int64)
        seen = np.zeros(len(regions) + 1, np.bool_)
        for raw_area, x, y, mask in instrument_masks(source, frame):
            window = labels[y : y + mask.shape[0], x : x + mask.shape[1]]
            mask = mask[: window.shape[0], : window.shape[1]]
            shared = np.bincount(window[mask != 0], minlength=len(regions) + 1)
            shared[0] = 0
            seen |= shared > 0
            if raw_area < LEAST_AREA_PX:
                continue
            area = int(mask.sum())
            union = area + np.concatenate([[1], regions.area_px]) - shared
            best = int(np.argmax(shared / union))
            ious.append(float(shared[best] / union[best]))
            overlapped.append(bool(shared.any()))
            if shared.any():
                ratios.append(float(regions.area_px[best - 1] / area))
            own = np.flatnonzero(shared[1:] >= 0.1 * regions.area_px) + 1
            large = own[regions.area_px[own - 1] >= 0.1 * area]
            splits += len(large) > 1
            touched[np.flatnonzero(shared >= 0.1 * area)] += 1
        merges += int((touched > 1).sum())
        false_finds += int((~seen[1:] & (regions.area_px >= LEAST_AREA_PX)).sum())
    volume = info.volume_imaged_ml or float("nan")
    found = np.array(ious)
    return Agreement(
        run=directory.name,
        mode=mode,
        instrument_particles=len(ious),
        overlapped=float(np.mean(overlapped)),
        found_iou_03=float((found >= 0.3).mean()),
        found_iou_05=float((found >= 0.5).mean()),
        median_area_ratio=float(np.median(ratios)),
        false_finds=false_finds,
        splits=splits,
        merges=merges,
        our_particles=ours,
        per_ml=counted / volume,
        instrument_per_ml=float(str(info.details.get("particles_per_ml", "nan"))),
    )


def table(rows: list[Agreement]) -> str:
    """Markdown table of the figures."""
    head = ["run", "settings", "particles >= 60 px", "overlapped", "IoU >= 0.3", "IoU >= 0.5", "area ratio"]
    head += ["false finds >= 60 px", "splits", "merges", "per mL", "instrument", "difference"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [
        f"| {r.run} | {r.mode} | {r.instrument_particles} | {r.overlapped:.3f} | {r.found_iou_03:.3f} |"
        f" {r.found_iou_05:.3f} | {r.median_area_ratio:.2f} | {r.false_finds} | {r.splits} | {r.merges} |"
        f" {r.per_ml:.0f} | {r.instrument_per_ml:.0f} | {100 * (r.per_ml / r.instrument_per_ml - 1):+.1f} % |"
        for r in rows
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("EDGE_APP_REAL_DATA", "../shared/data")))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    runs = sorted(p for p in (arguments.data / "flowcam").glob("run*") if p.is_dir())
    rows = [compare(run, mode=mode) for mode in ("instrument", "default") for run in runs]
    print(json.dumps([asdict(r) for r in rows], indent=1) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
