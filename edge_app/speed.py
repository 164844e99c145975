"""How fast this machine is: the loop as a run uses it, and its parts alone, on simulated frames held in memory."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from edge_app.capture.frame import Frame
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.capture.source import SourceInfo
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import MeasuredColumns, field_positions
from edge_app.classification.crops import Crops, cut_crops
from edge_app.config import Settings
from edge_app.loop import DEPTH, Loop
from edge_app.measurement.descriptors import measure
from edge_app.pipeline import Pipeline, RunRequest, choose_calibration, frame_volume_ml
from edge_app.recording.pictures import PicturePicker
from edge_app.segmentation.segmenter import Segmenter
from edge_app.windowing import WindowBuilder

__all__ = ["LINE_RATE_PER_MIN", "HeldFrames", "SpeedRequest", "measure_speed"]

LINE_RATE_PER_MIN: Final = 35_000
"""Particles that 200 uL/min at 175,000/mL carry past the camera in a minute."""


@dataclass(frozen=True, kw_only=True)
class SpeedRequest:
    """What is measured.

    Attributes
    ----------
    concentration_per_ml, size_min_um
        Of the simulated sample: that many particles per mL of at least that size. All of them are to be found,
        measured and classified; smaller ones, half of which optics hide, would make the loop look fast.
    distinct_frames
        Frames composed before anything is timed, then shown again and again.
    frames
        Frames of one timed repeat.
    repeats
        Timed repeats of each measurement; medians are reported.
    line_rate_s
        Length of the run at line rate that gives the latencies.
    seed
        Of the simulation.
    """

    concentration_per_ml: float = 175_000.0
    size_min_um: float = 4.0
    distinct_frames: int = 48
    frames: int = 300
    repeats: int = 3
    line_rate_s: float = 8.0
    seed: int = 1

    @property
    def uri(self) -> str:
        """The simulated flow cell of the measurement."""
        return (
            f"sim:?concentration={self.concentration_per_ml:g}&size_min_um={self.size_min_um:g}&seed={self.seed}"
            f"&frames={self.distinct_frames}"
        )


class HeldFrames:
    """A source that shows frames from memory again and again, as fast as they are read or at a rate.

    Parameters
    ----------
    info, held
        Of the source that they came from.
    count
        Frames to deliver.
    rate_hz
        By the wall clock; None: as fast as they are read.
    """

    def __init__(self, info: SourceInfo, held: list[Frame], *, count: int, rate_hz: float | None = None) -> None:
        self.info = replace(info, frames_total=count)
        self.problems: Counter[str] = Counter()
        self.messages: list[str] = []
        self._held = held
        self._count = count
        self._rate_hz = rate_hz

    def frames(self) -> Iterator[Frame]:
        """Yield the frames, numbered and timed as those of one long run."""
        camera_hz = self.info.frame_rate_hz or 1.0
        began = time.perf_counter()
        for i in range(self._count):
            if self._rate_hz is not None:
                time.sleep(max(0.0, began + i / self._rate_hz - time.perf_counter()))
            yield replace(self._held[i % len(self._held)], sequence=i, time_s=i / camera_hz)

    def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True)
class _Parts:
    """The opened parts of a run on held frames."""

    settings: Settings
    classifier: Classifier
    info: SourceInfo
    held: list[Frame]

    def loop(self, source: HeldFrames) -> Loop:
        """The loop as a run builds it."""
        calibration = choose_calibration(self.settings.flow_cell, self.info)
        return Loop(
            source=source,
            segmenter=Segmenter(self.settings.segmentation),
            classifier=self.classifier,
            calibration=calibration,
            builder=WindowBuilder(
                run_id="speed",
                classes=self.classifier.classes,
                frame_volume_ml=partial(frame_volume_ml, calibration=calibration, info=self.info),
                length_s=self.settings.window.length_s,
                picker=PicturePicker(classes=self.classifier.classes, options=self.settings.recording.pictures),
            ),
            min_ecd_um=self.settings.window.min_ecd_um,
            hash_frames=self.settings.recording.hash_frames,
        )


def _rate(work: Callable[[], int]) -> float:
    """Items per second of one piece of work that returns how many it did."""
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def _loop_rates(parts: _Parts, count: int) -> tuple[float, float, dict[str, float]]:
    """Frames/s and particles/s of the loop from the first frame in to the last window out, and ms/frame by stage."""
    loop = parts.loop(HeldFrames(parts.info, parts.held, count=count))
    began = time.perf_counter()
    for _ in loop.windows():
        pass
    seconds = time.perf_counter() - began
    stages = {name: spent / count * 1e3 for name, spent in loop.state.stage_s.items()}
    return count / seconds, loop.state.particles / seconds, stages


def _segmentation(parts: _Parts, count: int) -> tuple[float, list[Crops]]:
    """Frames/s of background to measured crops, one thread of ours, and the crops."""
    calibration = choose_calibration(parts.settings.flow_cell, parts.info)
    segmenter = Segmenter(parts.settings.segmentation)
    source = HeldFrames(parts.info, parts.held, count=count)
    frames = list(source.frames())
    crops: list[Crops] = []
    measured = MeasuredColumns(parts.classifier.bundle.geometry.context)

    def work() -> int:
        segmenter.prime([f.image for f in frames[: segmenter.prime_frames]])
        for frame in frames:
            found = segmenter.process(frame)
            if found.ratio is None:
                continue
            p = measure(found.ratio, found.regions, frame=frame.sequence, time_s=frame.time_s, calibration=calibration)
            if calibration.size_rule == "learned":
                large = np.ones(len(p), bool)
            else:
                large = p.ecd_um >= parts.settings.window.min_ecd_um
            columns = measured.of_frame(p, found.regions, keep=large)
            p = p.take(large)
            crops.append(
                cut_crops(
                    found.ratio, p.x_px, p.y_px, p.width_px, p.height_px,
                    geometry=parts.classifier.bundle.geometry, um_per_px=calibration.um_per_px,
                    field=field_positions(p.x_px, p.y_px, p.width_px, p.height_px, frame_shape=found.ratio.shape),
                    columns=columns,
                )
            )  # fmt: skip
        return len(frames)

    return _rate(work), crops


def _classification(classifier: Classifier, crops: list[Crops]) -> float:
    """Particles/s of the classifier alone, in the batches of a loop that is behind."""

    def work() -> int:
        done = 0
        for first in range(0, len(crops), DEPTH):
            batch = Crops.concatenate(crops[first : first + DEPTH])
            classifier.classify(batch)
            done += len(batch)
        return done

    return _rate(work)


def _latencies_ms(parts: _Parts, request: SpeedRequest, *, particles_per_frame: float) -> tuple[float, float, float]:
    """p50 and p99 from frame in to particles counted, with frames coming at line rate; and that rate, frames/s."""
    rate_hz = LINE_RATE_PER_MIN / 60.0 / max(particles_per_frame, 1.0)
    warm = Segmenter(parts.settings.segmentation).prime_frames + 2 * DEPTH
    count = warm + max(20, int(request.line_rate_s * rate_hz))
    loop = parts.loop(HeldFrames(parts.info, parts.held, count=count, rate_hz=rate_hz))
    latency = np.concatenate([closed.latency_ms for closed in loop.windows()])[warm:]
    return float(np.percentile(latency, 50)), float(np.percentile(latency, 99)), rate_hz


def _whole_run(settings: Settings, request: SpeedRequest, count: int) -> float:
    """Particles/s of a whole run, from its start to its last window on disk: loop, record, messages to a broker."""
    repeated = request.uri.replace(f"frames={request.distinct_frames}", f"frames={count}")
    with tempfile.TemporaryDirectory(prefix="edge-app-speed-") as folder:
        uri = f"{repeated}&prerender={request.distinct_frames}"
        pipeline = Pipeline(RunRequest(source=uri, out=Path(folder)), settings)
        return float(pipeline.run()["particles_per_min"]) / 60.0


def measure_speed(
    request: SpeedRequest, settings: Settings, *, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure this machine.

    Parameters
    ----------
    request
        What to measure.
    settings
        As a run would use them.
    tell
        Called with a line before each step.

    Returns
    -------
    dict
        ``loop_particles_per_min``: frames in memory to closed windows; ``line_rate_multiple`` of 35,000/min;
        ``segmentation_frames_per_s`` (background to measured crops) and ``classifier_particles_per_min`` alone;
        ``loop_share_of_parts``: loop rate over that of ideally overlapped parts, i.e. of the longest part or of all
        parts spread over the cores, whichever is slower; ``run_particles_per_min``: with record, messages and
        everything else; ``p50_ms, p99_ms``: frame in to particles counted at line rate; ``rss_mb``: peak resident
        memory of this process up to then, less the frames held for the measurement; medians over the repeats, and
        ``spread``: (largest - smallest) / median of the loop.

    Raises
    ------
    UserError
        If the bundle, the back end or a setting cannot be used.
    """
    tell("composing frames")
    bundle = Bundle.load(settings.classification.bundle, trusted_keys=settings.classification.trusted_keys)
    opened = open_backend(bundle, preference=settings.classification.backend, threads=settings.classification.threads)
    source = open_simulation(request.uri)
    held = list(source.frames())
    true_per_frame = float(np.mean([len(f.truth.ecd_um) for f in held if f.truth is not None]))
    held = [replace(frame, truth=None) for frame in held]
    parts = _Parts(settings, Classifier(bundle, opened.backend), source.info, held)
    del source
    tell("warming up")
    _loop_rates(parts, min(request.frames, 2 * len(held)))

    loops, segmentation, classification = [], [], []
    for repeat in range(request.repeats):
        # One after the other within a repeat, so that a slow spell of the machine meets all of them.
        tell(f"loop, segmentation, classifier: repeat {repeat + 1} of {request.repeats}")
        loops.append(_loop_rates(parts, request.frames))
        rate, crops = _segmentation(parts, request.frames)
        segmentation.append(rate)
        classification.append(_classification(parts.classifier, crops))
    frames_per_s = float(np.median([r[0] for r in loops]))
    particles_per_s = float(np.median([r[1] for r in loops]))
    per_frame = particles_per_s / frames_per_s
    tell("latency at line rate")
    p50, p99, line_hz = _latencies_ms(parts, request, particles_per_frame=per_frame)
    held_mb = sum(f.image.nbytes for f in held) / 1e6
    rss_mb = _peak_rss_mb() - held_mb
    tell("a whole run with record and messages")
    runs = [_whole_run(settings, request, request.frames) for _ in range(request.repeats)]

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    segment_s = 1.0 / float(np.median(segmentation))
    classify_s = per_frame / float(np.median(classification)) if per_frame else 0.0
    # What an ideal overlap of the two takes per frame: no less than the longer one, no less than both over all cores.
    ideal_s = max(segment_s, classify_s, (segment_s + classify_s) / max(cores, 1))
    return {
        "loop_particles_per_min": round(particles_per_s * 60),
        "loop_frames_per_s": round(frames_per_s, 1),
        "segmentation_frames_per_s": round(1.0 / segment_s, 1),
        "classifier_particles_per_min": round(float(np.median(classification)) * 60),
        "loop_share_of_parts": round(ideal_s * frames_per_s, 3),
        "run_particles_per_min": round(float(np.median(runs)) * 60),
        "line_rate_multiple": round(particles_per_s * 60 / LINE_RATE_PER_MIN, 2),
        "particles_per_frame": round(per_frame, 1),
        "true_particles_per_frame": round(true_per_frame, 1),
        "stage_ms": {k: round(float(np.median([r[2][k] for r in loops])), 3) for k in loops[0][2]},
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "line_rate_frames_per_s": round(line_hz, 2),
        "rss_mb": round(rss_mb, 1),
        "held_frames_mb": round(held_mb, 1),
        "backend": f"{opened.backend.name} {opened.backend.version}",
        "threads": opened.backend.threads,
        "cores": cores,
        "frames": request.frames,
        "repeats": request.repeats,
        "spread": round(float(np.ptp([r[1] for r in loops])) / particles_per_s, 3) if particles_per_s else 0.0,
        "source": request.uri,
        "model_sha256": bundle.model_sha256,
    }


def _peak_rss_mb() -> float:
    """Largest resident memory of this process so far; the present one where the system does not keep it."""
    try:
        import resource
    except ImportError:
        return float(psutil.Process().memory_info().rss) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
