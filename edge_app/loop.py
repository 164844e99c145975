"""Frames in, closed windows out: the path through segmentation, measurement and classification, stages side by side."""

import itertools
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import Frame
from edge_app.capture.source import FrameSource, lost_at_end
from edge_app.classification.classifier import Classifier
from edge_app.classification.context import MeasuredColumns, field_positions
from edge_app.classification.crops import Crops, cut_crops
from edge_app.classification.rejection import Classification
from edge_app.classification.size_reader import check_size_rule, learned_ecd_px
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.descriptors import measure, with_learned_size
from edge_app.recording.frame_hash import FrameHash
from edge_app.run_ahead import RunAhead
from edge_app.segmentation.background import Background
from edge_app.segmentation.frame_strip import FrameStrip
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import Regions
from edge_app.segmentation.segmenter import FrameResult, Segmenter
from edge_app.windowing import ClosedWindow, CountedFrame, WindowBuilder

__all__ = ["Loop", "LoopState"]

DEPTH: Final = 4
"""Frames that may wait between two stages: enough to keep both busy, few enough to keep memory and latency low."""


@dataclass(frozen=True, kw_only=True)
class _SegmentedFrame:
    """A frame between segmentation and measurement."""

    frame: Frame
    arrived: float
    result: FrameResult


@dataclass(frozen=True, kw_only=True)
class _MeasuredFrame:
    """A frame between measurement and classification."""

    segmented: _SegmentedFrame
    particles: Particles
    crops: Crops
    rejected: Counter[str]


@dataclass
class LoopState:
    """What a run looks like from outside while it goes on; read by other threads, written by the loop alone.

    ``waiting_since``: when the wait for the next frame began (``time.monotonic``), None while it is not waited for.
    ``frames_in`` came from the source, ``frames_counted`` went through all stages.
    """

    waiting_since: float | None = None
    frames_in: int = 0
    frames_counted: int = 0
    particles: int = 0
    stuck_objects: int = 0
    stuck_counted_before: int = 0
    background_level: float = 0.0
    noise: float = 0.0
    uneven: float = 0.0
    stage_s: dict[str, float] = field(default_factory=dict)


class Loop:
    """Joins source, segmenter and classifier; iterate :meth:`windows` once.

    Reading, segmentation and the rest (measurement, classification) run in a thread each, in order, so that the
    result is that of a plain loop while two cores work.

    Parameters
    ----------
    source, segmenter, classifier, calibration
        The rooms.
    builder
        Cuts the run into windows.
    min_ecd_um
        Smaller particles are rejected as ``small``. By the size rule ``learned`` all are classified first, since the
        size is the network's.
    hash_frames
        Keep a SHA-256 over all frames.

    Raises
    ------
    UserError
        If the size rule is ``learned`` and the network cannot give it.
    """

    def __init__(
        self,
        *,
        source: FrameSource,
        segmenter: Segmenter,
        classifier: Classifier,
        calibration: Calibration,
        builder: WindowBuilder,
        min_ecd_um: float,
        hash_frames: bool = True,
    ) -> None:
        check_size_rule(calibration, classifier.bundle)
        self._learned = calibration.size_rule == "learned"
        self._source = source
        self._segmenter = segmenter
        self._classifier = classifier
        self._calibration = calibration
        self._builder = builder
        self._min_ecd_um = min_ecd_um
        self._columns = MeasuredColumns(classifier.bundle.geometry.context)
        self._stopping = False
        self.frame_hash = FrameHash() if hash_frames else None
        self.state = LoopState()
        self.strip = FrameStrip()

    def windows(self) -> Iterator[ClosedWindow]:
        """Yield each window as it closes; the last one when the source ends or :meth:`stop` was called."""
        read = RunAhead(self._read(), depth=DEPTH, name="read")
        segmented = RunAhead(self._segment(iter(read)), depth=DEPTH, name="segment")
        counted = RunAhead(self._count(segmented), depth=DEPTH, name="count")
        try:
            for frame in self._without_stuck(counted):
                yield from self._builder.add(frame)
            self._builder.lost_at_end = lost_at_end(self._source)
        except GeneratorExit:
            raise
        except BaseException:
            # What was counted before the error is as good as ever.
            yield from self._builder.flush()
            raise
        yield from self._builder.flush()

    def _without_stuck(self, frames: Iterable[CountedFrame]) -> Iterator[CountedFrame]:
        """Hold frames back as long as it takes to know a stuck object, and take its first images out of them."""
        settings = self._segmenter.settings.stuck
        depth = settings.frames - 1 + settings.missed_frames if settings.enabled else 0
        held: deque[CountedFrame] = deque()
        try:
            for frame in frames:
                if len(frame.found_stuck):
                    for i, earlier in enumerate(held):
                        held[i] = self._take_out(earlier, frame.found_stuck)
                held.append(frame)
                if len(held) > depth:
                    yield held.popleft()
        except GeneratorExit:
            raise
        except BaseException:
            yield from held
            raise
        yield from held

    def _take_out(self, frame: CountedFrame, found_stuck: npt.NDArray[np.float32]) -> CountedFrame:
        settings, p = self._segmenter.settings.stuck, frame.particles
        x, y, area = (found_stuck[:, k, None] for k in range(3))
        near = np.hypot(p.centroid_x_px - x, p.centroid_y_px - y) <= settings.distance_px
        small, large = np.minimum(p.area_px, area), np.maximum(p.area_px, area)
        # The same rule by which the object was followed (StuckFilter).
        stuck = (near & (large <= settings.area_ratio * small + 8)).any(axis=0)
        if not stuck.any():
            return frame
        n = int(stuck.sum())
        self.state.stuck_counted_before -= n
        keep = ~stuck
        return replace(
            frame,
            particles=p.take(keep),
            classification=frame.classification.take(keep),
            rejected=frame.rejected + Counter(stuck=n),
        )

    @property
    def background(self) -> Background:
        """The picture of the empty cell as it is now."""
        return self._segmenter.background

    def stop(self) -> None:
        """End after the frames that are in hand; what they hold is still counted."""
        self._stopping = True
        # A source that waits for its next frame would look at nothing else.
        self._source.close()

    def _spend(self, stage: str, started: float) -> None:
        self.state.stage_s[stage] = self.state.stage_s.get(stage, 0.0) + time.perf_counter() - started

    def _read(self) -> Iterator[tuple[Frame, float]]:
        frames = self._source.frames()
        while True:
            self.state.waiting_since = time.monotonic()
            frame = next(frames, None)
            self.state.waiting_since = None
            if frame is None:
                return
            arrived = time.perf_counter()
            self.state.frames_in += 1
            if self.frame_hash is not None:
                self.frame_hash.update(frame.image, sequence=frame.sequence)
                self._spend("hash", arrived)
            yield frame, arrived
            if self._stopping:
                return

    def _primed(self, frames: Iterator[tuple[Frame, float]]) -> Iterator[tuple[Frame, float]]:
        """Let the first frames teach the background before they are counted like any other."""
        first = list(itertools.islice(frames, self._segmenter.prime_frames))
        if first:
            self._segmenter.prime([frame.image for frame, _ in first])
        yield from first
        yield from frames

    def _segment(self, frames: Iterator[tuple[Frame, float]]) -> Iterator[_SegmentedFrame]:
        for frame, arrived in self._primed(frames):
            started = time.perf_counter()
            result = self._segmenter.process(frame)
            if result.reason is None:
                state = self.state
                # Over the whole run: one found is then part of the background and seen no more.
                state.stuck_objects += len(result.found_stuck)
                state.stuck_counted_before += result.stuck_counted_before
                state.background_level, state.noise, state.uneven = (
                    result.background_level,
                    result.noise,
                    result.uneven,
                )
            self.strip.look(frame, reason=result.reason, background=self._segmenter.background)
            self._spend("segment", started)
            yield _SegmentedFrame(frame=frame, arrived=arrived, result=result)

    def _measure(self, segmented: _SegmentedFrame) -> _MeasuredFrame:
        started = time.perf_counter()
        frame, result = segmented.frame, segmented.result
        # Frames and border particles are counted where the window closes.
        counted_later = ("border", result.reason)
        rejected = Counter({k: v for k, v in result.rejected.items() if k not in counted_later})
        ratio, regions = result.ratio, result.regions
        if result.reason is not None or ratio is None:
            ratio, regions = np.zeros((0, 0), np.uint8), Regions.empty((0, 0))
        particles = measure(
            ratio,
            regions,
            frame=frame.sequence,
            time_s=frame.time_s,
            calibration=self._calibration,
            centroid_px=result.centroid_px,
        )
        large = np.ones(len(particles), bool) if self._learned else particles.ecd_um >= self._min_ecd_um
        columns = self._columns.of_frame(particles, regions, keep=large)
        if not large.all():
            rejected["small"] += int((~large).sum())
            particles = particles.take(large)
        crops = cut_crops(
            ratio,
            particles.x_px,
            particles.y_px,
            particles.width_px,
            particles.height_px,
            geometry=self._classifier.bundle.geometry,
            um_per_px=self._calibration.um_per_px,
            field=field_positions(
                particles.x_px, particles.y_px, particles.width_px, particles.height_px, frame_shape=ratio.shape
            ),
            columns=columns,
        )
        self._spend("measure", started)
        return _MeasuredFrame(segmented=segmented, particles=particles, crops=crops, rejected=rejected)

    def _sized(
        self, frame: _MeasuredFrame, classification: Classification
    ) -> tuple[Particles, Classification, Counter[str]]:
        """A frame's particles with the network's reading of their size; by the rule ``learned`` the small ones out."""
        particles, rejected = frame.particles, frame.rejected
        read = learned_ecd_px(classification, um_per_px=self._calibration.um_per_px)
        if read is None:
            return particles, classification, rejected
        particles = with_learned_size(particles, read, calibration=self._calibration)
        if self._learned:
            large = particles.ecd_um >= self._min_ecd_um
            if not large.all():
                particles, classification = particles.take(large), classification.take(large)
                rejected = rejected + Counter(small=int((~large).sum()))
        return particles, classification, rejected

    def _count(self, frames: RunAhead[_SegmentedFrame]) -> Iterator[CountedFrame]:
        """Measure and classify: together about as long as segmentation, which balances two cores."""
        for ready in frames.batches(most=DEPTH):
            batch = [self._measure(segmented) for segmented in ready]
            started = time.perf_counter()
            together = self._classifier.classify(Crops.concatenate([f.crops for f in batch]))
            self._spend("classify", started)
            first = 0
            for f in batch:
                last = first + len(f.particles)
                frame, result = f.segmented.frame, f.segmented.result
                particles, classification, rejected = self._sized(f, together.rows(first, last))
                self.state.frames_counted += 1
                self.state.particles += len(particles)
                yield CountedFrame(
                    sequence=frame.sequence,
                    time_s=frame.time_s,
                    reason=result.reason,
                    lost_before=frame.lost_before or 0,
                    particles=particles,
                    classification=classification,
                    rejected=rejected,
                    found_stuck=result.found_stuck,
                    page=frame.page,
                    ratio=result.ratio,
                    latency_ms=(time.perf_counter() - f.segmented.arrived) * 1e3,
                )
                first = last
