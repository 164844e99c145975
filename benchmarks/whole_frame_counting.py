"""Counts of whole runs against the truth: simulated frames through segmentation, sizing, classes and windows.

Each run is a short one of full frames at 10 per second with everything that spoils a count: 20 particles stick to the
window in mid-run, particles up to 70 um hang over the border, 5 % of the frames are lost, and bursts of air bubbles
come at random (one per run on average). The frames go through the device's own loop with the shipped network. The mix
has no air bubbles, so that every moving one in the truth is of a burst.

Two questions are asked, at 2,000 to 600,000 particles per mL (of 2 um and more, as the simulation counts them):

- *bias*: the border-weighted count over the number of true particles whose centres were in the analysed frames. Chance
  is the same on both sides, so that some hundred particles tell a few per cent. What makes the difference is taken
  apart, each part as a share of the true number:

  ``faint``
      true particles without any detection, nothing near them;
  ``merged``
      the same beside or behind another particle (coincidence), stuck ones included;
  ``border``
      what border weights make of the detected ones beyond their number: chance only, if the weights are right;
  ``sizing``
      detected ones that were read across the size of counting, inwards less outwards;
  ``pieces``
      detections that are nobody's: a particle in pieces, or noise;
  ``stuck``
      images of stuck particles that were counted;
  ``burst``
      bubbles of bursts that were counted: nothing to do with the sample.

- *coverage*: how often a run's own 95 % interval holds the truth, which is the concentration times the share of the
  true particles of a size (pooled over all runs); ``as read``: what all runs of that concentration give on average,
  which leaves the interval alone to be judged; ``with budget``: with the size scale in the interval (k = 2).

Coincidence is a loss that the run states (``Coincidence.lost_share``) and does not correct: it is printed beside.

Usage::

    python -m benchmarks.whole_frame_counting [--runs 200] [--frames 80] [--seed 1] [--per-ml 175000 ...]
        [--size-rule half_max|learned] [--calibration FILE] [--json]

Sizes come from the curve of the simulated optics (half maximum) or, by ``--size-rule learned``, from the network by
a straight line of the stated scale, without any calibration; ``--calibration`` names a certificate instead.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.detection_accuracy import HALO_PX, match
from edge_app.capture.frame import Frame, FrameTruth
from edge_app.capture.simulation.flow_cell import SimulatedFlowCell, open_simulation
from edge_app.capture.simulation.scene import DEFAULT_MIX
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.config import FlowCellSettings, Settings
from edge_app.loop import Loop
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.coincidence import coincidence_of
from edge_app.measurement.concentration import CountSeries, Interval, interval_per_ml
from edge_app.measurement.uncertainty import local_exponent, uncertainty_budget, with_systematic
from edge_app.pipeline import choose_calibration, frame_volume_ml
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.segmenter import Segmenter
from edge_app.segmentation.settings import DEFAULT_SETTINGS
from edge_app.windowing import ClosedWindow, CountedFrame, WindowBuilder

Parts = dict[float, Counter[str]]
BOOL = npt.NDArray[np.bool_]

CONCENTRATIONS: Final = {2_000.0: 1.0, 20_000.0: 1.0, 175_000.0: 1.0, 600_000.0: 0.25}
"""Per mL of 2 um and more, and the share of the runs that are done there (frames full of particles take long)."""

SIZES_UM: Final = (5.0, 10.0, 25.0)
PARTS: Final = ("faint", "merged", "border", "sizing", "pieces", "stuck", "burst")
BURST: Final = "air_bubble"
SAMPLE_MIX: Final = ",".join(f"{name}:{share}" for name, share in DEFAULT_MIX.items() if name != BURST)
WINDOW_S: Final = 0.5
SCENE: Final = {
    "mix": SAMPLE_MIX,
    "size_max_um": "70",
    "stuck_count": "20",
    "lose": "0.05",
    "bubble_burst_s": "0.5",
}


@dataclass
class _Remembering:
    """A simulated source that keeps the truth of what it delivered."""

    source: SimulatedFlowCell
    truth: dict[int, FrameTruth] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.info, self.problems, self.messages = self.source.info, self.source.problems, self.source.messages

    def frames(self) -> Iterator[Frame]:
        for frame in self.source.frames():
            assert frame.truth is not None
            self.truth[frame.sequence] = frame.truth
            yield frame

    def close(self) -> None:
        self.source.close()


class _Noting(WindowBuilder):
    """Cuts windows, and notes which frames it was given to count."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.analysed: list[int] = []

    def _put(self, frame: CountedFrame) -> Iterator[ClosedWindow]:
        if frame.reason is None:
            self.analysed.append(frame.sequence)
        yield from super()._put(frame)


@dataclass(frozen=True, kw_only=True)
class RunTruth:
    """A run's windows beside the truth of its analysed frames."""

    windows: list[ClosedWindow]
    truth: Mapping[int, FrameTruth]
    analysed: list[int]
    shape: tuple[int, int]
    calibration: Calibration


def shipped_classifier() -> Classifier:
    """The network that the device comes with."""
    bundle = Bundle.load(None)
    return Classifier(bundle, open_backend(bundle, threads=1).backend)


def run_once(
    classifier: Classifier,
    *,
    concentration: float,
    frames: int,
    seed: int,
    scene: Mapping[str, str] | None = None,
    flow_cell: FlowCellSettings | None = None,
) -> RunTruth:
    """One run through the loop."""
    query = {
        **SCENE,
        "stuck_from_frame": str(3 * frames // 8),
        "bubble_bursts_per_min": f"{600 / frames:.3f}",
        **(scene or {}),
        "concentration": f"{concentration:g}",
        "frames": str(frames),
        "seed": str(seed),
    }
    source = _Remembering(open_simulation("sim:?" + "&".join(f"{k}={v}" for k, v in query.items())))
    info, settings = source.info, Settings()
    calibration = choose_calibration(flow_cell or settings.flow_cell, info)
    builder = _Noting(
        run_id="r",
        classes=classifier.classes,
        frame_volume_ml=partial(frame_volume_ml, calibration=calibration, info=info),
        length_s=WINDOW_S,
    )
    loop = Loop(
        source=source,
        segmenter=Segmenter.for_source(info),
        classifier=classifier,
        calibration=calibration,
        builder=builder,
        min_ecd_um=settings.window.min_ecd_um,
        hash_frames=False,
    )
    windows = list(loop.windows())
    assert info.width_px is not None
    assert info.height_px is not None
    return RunTruth(
        windows=windows,
        truth=source.truth,
        analysed=builder.analysed,
        shape=(info.height_px, info.width_px),
        calibration=calibration,
    )


def _crowded(truth: FrameTruth) -> BOOL:
    """Whether the box of a true particle, halo included, touches that of another one."""
    left, upper = truth.x_px - HALO_PX, truth.y_px - HALO_PX
    right, lower = truth.x_px + truth.width_px + HALO_PX, truth.y_px + truth.height_px + HALO_PX
    apart = (left[:, None] > right) | (right[:, None] < left) | (upper[:, None] > lower) | (lower[:, None] < upper)
    np.fill_diagonal(apart, True)
    return np.asarray(~apart.all(1))


def account(run: RunTruth) -> Parts:
    """True number, count and what lies between them, for each size; only frames that were analysed."""
    particles = Particles.concatenate([w.particles for w in run.windows])
    height, width = run.shape
    table: Parts = {size: Counter() for size in SIZES_UM}
    for sequence in run.analysed:
        truth = run.truth[sequence]
        found = particles.take(particles.frame == sequence)
        owner, pieces = match(truth, found)
        # The row after the last is nobody's.
        stuck, burst = np.append(truth.stuck, False), np.append(truth.family == BURST, False)
        sample = ~np.append(truth.stuck | (truth.family == BURST), True)
        size = np.append(truth.ecd_um, 0.0)
        x, y = truth.x_px + truth.width_px / 2, truth.y_px + truth.height_px / 2
        centred = sample[:-1] & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        crowded = _crowded(truth)
        weight = found.weight.astype(np.float64)
        for size_um, row in table.items():
            true = centred & (truth.ecd_um >= size_um)
            missed = true & (pieces == 0)
            ours, read, is_true = sample[owner], found.ecd_um >= size_um, size[owner] >= size_um
            row["true"] += int(true.sum())
            row["counted"] += weight[read].sum()
            row["faint"] -= int((missed & ~crowded).sum())
            row["merged"] -= int((missed & crowded).sum())
            row["border"] += weight[ours & is_true].sum() - int((true & ~missed).sum())
            row["sizing"] += weight[ours & read].sum() - weight[ours & is_true].sum()
            row["pieces"] += weight[read & (owner < 0)].sum()
            row["stuck"] += weight[read & stuck[owner]].sum()
            row["burst"] += weight[read & burst[owner]].sum()
    return table


@dataclass(frozen=True, kw_only=True)
class Study:
    """All runs at one concentration.

    Attributes
    ----------
    parts
        What `account` says of each run.
    series
        Counts of each run over its windows.
    loss
        Share of the particles that coincidence is expected to hide, as a run would state it.
    left_out
        Particles and frames by reason.
    """

    concentration: float
    parts: list[Parts]
    series: list[CountSeries]
    frame_ml: float
    loss: float
    left_out: Counter[str]


def study(
    classifier: Classifier,
    *,
    concentration: float,
    runs: int,
    frames: int,
    seed: int,
    scene: Mapping[str, str] | None = None,
    flow_cell: FlowCellSettings | None = None,
) -> Study:
    """Many runs at one concentration."""
    parts, series, windows, halos = [], [], [], []
    for k in range(runs):
        run = run_once(
            classifier, concentration=concentration, frames=frames, seed=1_000_000 * seed + k, scene=scene,
            flow_cell=flow_cell,
        )  # fmt: skip
        parts.append(account(run))
        windows += [w.window for w in run.windows]
        series.append(CountSeries.of([w.window for w in run.windows]))
        p = Particles.concatenate([w.particles for w in run.windows])
        if len(p):
            mask_um = 2 * np.sqrt(p.area_px / np.pi) * run.calibration.um_per_px
            halos.append(float(np.median(mask_um - p.ecd_um)))
    total = sum(windows[1:], windows[0])
    closing_um = 2 * DEFAULT_SETTINGS.threshold.closing_radius_px * run.calibration.um_per_px
    crowd = coincidence_of(
        total.histogram,
        frames=total.frames,
        field_um2=run.shape[0] * run.shape[1] * run.calibration.um_per_px**2,
        halo_um=float(np.median(halos)) + closing_um,
    )
    left_out = Counter({k: v for k, v in total.rejected.items() if k.startswith("frame_")})
    left_out["lost"] = total.frames_lost
    left_out["analysed"] = total.frames
    return Study(
        concentration=concentration, parts=parts, series=series, frame_ml=total.volume_ml / total.frames,
        loss=crowd.lost_share, left_out=left_out
    )  # fmt: skip


def bias(found: Study, size_um: float) -> dict[str, float]:
    """Count over truth less 1, its standard error, and the parts of it, as shares of the true number."""
    names = ("true", "counted", *PARTS)
    table = np.array([[float(run[size_um][name]) for name in names] for run in found.parts])
    total = table.sum(0)
    true = max(total[0], 1.0)
    ratio = total[1] / true
    # Of a ratio over runs; a run's particles are imaged repeatedly, so frames are no units.
    error = float(np.sqrt(((table[:, 1] - ratio * table[:, 0]) ** 2).sum()) / true)
    return {
        "true": float(total[0]),
        "bias": float(ratio - 1),
        "standard_error": error,
        **{name: float(total[2 + i] / true) for i, name in enumerate(PARTS)},
    }


def coverage(found: Study, size_um: float, *, share: float) -> dict[str, float]:
    """How often a run's interval holds the truth."""
    truth = found.concentration * share
    ours = [interval_per_ml(s, size_um) for s in found.series]
    plain = [interval_per_ml(s, size_um, dispersion="poisson") for s in found.series]
    wide = []
    for series, interval in zip(found.series, ours, strict=True):
        budget = uncertainty_budget(interval, exponent=local_exponent(series, size_um), lost_share=found.loss)
        wide.append(with_systematic(interval, budget))
    as_read = float(np.mean([i.value for i in ours]))

    def holds(intervals: list[Interval], value: float) -> float:
        return float(np.mean([i.low <= value <= i.high for i in intervals]))

    return {
        "true_per_ml": truth,
        "mean_per_ml": as_read,
        "coverage": holds(ours, truth),
        "coverage_as_read": holds(ours, as_read),
        "coverage_poisson_as_read": holds(plain, as_read),
        "coverage_with_budget": holds(wide, truth),
    }


def true_shares(studies: list[Study], *, frame_ml: float) -> dict[float, float]:
    """Share of the particles at and above each size: true number over concentration times volume, over all runs."""
    expected = sum(s.concentration * s.left_out["analysed"] * frame_ml for s in studies)
    return {d: sum(run[d]["true"] for s in studies for run in s.parts) / expected for d in SIZES_UM}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--frames", type=int, default=70)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scene", default="", help="more keys of the simulation, key=value&key=value")
    parser.add_argument("--per-ml", type=float, nargs="+", choices=CONCENTRATIONS, default=[*CONCENTRATIONS])
    parser.add_argument("--size-rule", choices=("half_max", "learned"), help="default: half_max")
    parser.add_argument("--calibration", type=Path, help="certificate; it holds its own size rule")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    flow_cell = FlowCellSettings(size_rule=options.size_rule, calibration_file=options.calibration)
    scene = dict(part.split("=", 1) for part in options.scene.split("&") if part)
    classifier = shipped_classifier()
    studies = []
    for concentration in options.per_ml:
        runs = max(1, round(options.runs * CONCENTRATIONS[concentration]))
        studies.append(
            study(
                classifier,
                concentration=concentration,
                runs=runs,
                frames=options.frames,
                seed=options.seed,
                scene=scene,
                flow_cell=flow_cell,
            )
        )
        print(f"{concentration:,.0f} per mL: {runs} runs of {options.frames} frames done", file=sys.stderr)
    shares = true_shares(studies, frame_ml=studies[0].frame_ml)
    report = {
        f"{s.concentration:,.0f}": {
            f"{d:g}": {**bias(s, d), **coverage(s, d, share=shares[d]), "stated_loss": s.loss} for d in SIZES_UM
        }
        for s in studies
    }
    if options.json:
        print(json.dumps({"shares": shares, "counts": report, "left_out": [dict(s.left_out) for s in studies]}))
        return
    print(
        "| per mL | >= um | true particles | bias, % | " + " | ".join(PARTS) + " |\n" + "|---" * (4 + len(PARTS)) + "|"
    )
    for name, by_size in report.items():
        for size, row in by_size.items():
            parts = " | ".join(f"{100 * row[p]:+.1f}" for p in PARTS)
            print(
                f"| {name} | {size} | {row['true']:,.0f} | {100 * row['bias']:+.1f} +- "
                f"{100 * row['standard_error']:.1f} | {parts} |"
            )
    print(
        "\n| per mL | >= um | true per mL | mean read | holds the truth | as read | plain Poisson, as read "
        "| with budget | stated coincidence loss, % |\n" + "|---" * 9 + "|"
    )
    for name, by_size in report.items():
        for size, row in by_size.items():
            print(
                f"| {name} | {size} | {row['true_per_ml']:,.0f} | {row['mean_per_ml']:,.0f} | {row['coverage']:.3f} "
                f"| {row['coverage_as_read']:.3f} | {row['coverage_poisson_as_read']:.3f} "
                f"| {row['coverage_with_budget']:.3f} | {100 * row['stated_loss']:.1f} |"
            )
    for s in studies:
        print(f"\n{s.concentration:,.0f} per mL, frames: {dict(s.left_out)}")


if __name__ == "__main__":
    main()
