"""Particles and frames in order -> closed windows, each with everything that happened in it."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_app.bubble_bursts import BUBBLE_CLASS, FRAMES_BEFORE, LEAST_BUBBLE_UM, LEAST_HISTORY, BubbleBursts
from edge_app.classification.rejection import Classification
from edge_app.measurement.histogram import Histogram
from edge_app.measurement.window import Window
from edge_app.recording.pictures import Picture, PicturePicker
from edge_app.segmentation.particles import Particles

__all__ = ["ClosedWindow", "CountedFrame", "WindowBuilder"]


@dataclass(frozen=True, kw_only=True)
class CountedFrame:
    """A frame after classification.

    Attributes
    ----------
    reason
        Why the frame was left out (a ``frame_*`` reason), None for an analysed one.
    lost_before
        Frames known to be lost before it.
    particles, classification
        Counted particles of the frame, in the same order; stuck and small ones are already out.
    rejected
        Reason -> particles of this frame that are not counted.
    found_stuck
        Centroid x, y (px) and area (px) of the objects found stuck in this very frame, (k, 3).
    ratio
        Ratio picture, for pictures of particles; None for a rejected frame.
    latency_ms
        From the frame's arrival to its particles being counted.
    """

    sequence: int
    time_s: float
    reason: str | None
    lost_before: int
    particles: Particles
    classification: Classification
    rejected: Counter[str]
    found_stuck: npt.NDArray[np.float32]
    ratio: npt.NDArray[np.uint8] | None = field(repr=False)
    latency_ms: float
    page: int = 0


@dataclass(frozen=True, kw_only=True)
class ClosedWindow:
    """A window with its particles and the pictures kept of them."""

    window: Window
    particles: Particles
    classification: Classification
    pictures: list[Picture] = field(repr=False)
    latency_ms: npt.NDArray[np.float32] = field(repr=False)


class WindowBuilder:
    """Cuts a run into windows by the frames' own time.

    A window begins at a multiple of its length; spans without a frame make no window, so ``seq`` has no gaps.

    Parameters
    ----------
    run_id
        Key of the run.
    classes
        All classes, ``unknown`` included.
    frame_volume_ml
        (height, width) of the run's frames in px -> volume in mL that one analysed frame stands for. A function,
        because a folder that is still empty cannot say how large its frames will be.
    length_s
        Length of a window.
    picker
        Chooses the particles whose pictures are kept; None: no pictures.
    leave_out_bubble_bursts
        Leave out frames in a burst of air bubbles (``frame_bubbles``), where the classes hold those. A frame is then
        held back until the one that follows it is known, the first ones of a run until there are enough to judge.
    """

    def __init__(
        self,
        *,
        run_id: str,
        classes: tuple[str, ...],
        frame_volume_ml: Callable[[int, int], float],
        length_s: float,
        picker: PicturePicker | None = None,
        leave_out_bubble_bursts: bool = True,
    ) -> None:
        self._run_id = run_id
        self._classes = classes
        self._volume_of = frame_volume_ml
        self._frame_volume_ml = 0.0
        self._length_s = length_s
        self._picker = picker
        self._bubble = classes.index(BUBBLE_CLASS) if leave_out_bubble_bursts and BUBBLE_CLASS in classes else None
        self._bursts: BubbleBursts | None = None
        self._held: deque[CountedFrame] = deque()
        self._last_page = 0
        self._frames: list[CountedFrame] = []
        self._span: int | None = None
        self._seq = 0
        self.lost_at_end = 0
        """Frames lost after the last one that came; set before :meth:`flush`."""

    def add(self, frame: CountedFrame) -> Iterator[ClosedWindow]:
        """Take a frame; yields the window that it ends, or the one before it, if any."""
        if self._bubble is None:
            yield from self._put(frame)
            return
        if frame.page < self._last_page:
            # A stack of pictures has ended: what was usual in it says nothing of what comes next.
            while self._held:
                yield from self._put(self._held.popleft())
            self._bursts = None
        self._last_page = frame.page
        self._held.append(frame)
        if self._bursts is not None or len(self._held) >= LEAST_HISTORY:
            self._judge()
            while len(self._held) > FRAMES_BEFORE:
                yield from self._put(self._held.popleft())

    def _bubbles(self, frame: CountedFrame) -> int:
        called = frame.classification.class_index == self._bubble
        return int((called & (frame.particles.ecd_um >= LEAST_BUBBLE_UM)).sum())

    def _judge(self) -> None:
        """Leave out the frame that came last if it belongs to a burst, and the one before; at first all of them."""
        fresh = 0 if self._bursts is None else len(self._held) - 1
        if self._bursts is None:
            self._bursts = BubbleBursts(self._bubbles(f) for f in self._held if f.reason is None)
        for i in range(fresh, len(self._held)):
            frame = self._held[i]
            if frame.reason is None and self._bursts.update(self._bubbles(frame)):
                for k in range(max(0, i - FRAMES_BEFORE), i + 1):
                    self._held[k] = _left_out(self._held[k])

    def flush(self) -> Iterator[ClosedWindow]:
        """Close the window that is open, if it holds a frame: the end of the run."""
        while self._held:
            yield from self._put(self._held.popleft())
        if self._frames:
            last = self._frames[-1]
            self._frames[-1] = replace(last, lost_before=last.lost_before + self.lost_at_end)
        yield from self._close()

    def _put(self, frame: CountedFrame) -> Iterator[ClosedWindow]:
        # A clock that steps back a little must not open a window that is closed: such a frame counts in the present
        # one. One that steps back by more was wrong before, or is set anew: a window of its own, not one without end.
        span = int(np.floor(frame.time_s / self._length_s + 1e-9))
        if self._span is not None and not self._span - 1 <= span <= self._span:
            yield from self._close()
            self._span = span
        self._span = span if self._span is None else max(span, self._span)
        if frame.ratio is not None:
            self._frame_volume_ml = self._volume_of(*frame.ratio.shape)
        if self._picker is not None and frame.ratio is not None:
            self._picker.add(
                frame.ratio, frame.particles, frame.classification.class_index, frame.classification.confidence
            )
        # The picture is not needed any more, and a window of them would be most of the memory in use.
        self._frames.append(replace(frame, ratio=None))

    def _close(self) -> Iterator[ClosedWindow]:
        frames, self._frames = self._frames, []
        if not frames:
            return
        analysed = [f for f in frames if f.reason is None]
        left_out = Counter(f.reason for f in frames if f.reason is not None)
        rejected = sum((f.rejected for f in frames), Counter[str]()) + left_out
        particles = Particles.concatenate([f.particles for f in frames])
        classification = Classification.concatenate([f.classification for f in frames])
        rejected["border"] += int((particles.weight == 0).sum())
        window = Window(
            run_id=self._run_id,
            seq=self._seq,
            first_frame=frames[0].sequence,
            last_frame=frames[-1].sequence,
            t0_s=frames[0].time_s,
            t1_s=frames[-1].time_s,
            frames=len(analysed),
            frames_lost=sum(f.lost_before for f in frames),
            frames_rejected=len(frames) - len(analysed),
            rejected={k: v for k, v in sorted(rejected.items()) if v},
            volume_ml=len(analysed) * self._frame_volume_ml,
            histogram=Histogram.of(
                classification.class_index, particles.ecd_um, particles.weight, classes=self._classes
            ),
        )
        self._seq += 1
        yield ClosedWindow(
            window=window,
            particles=particles,
            classification=classification,
            pictures=[] if self._picker is None else self._picker.close_window(),
            latency_ms=np.array([f.latency_ms for f in frames], np.float32),
        )


def _left_out(frame: CountedFrame) -> CountedFrame:
    """The frame without what is in it, unless it was left out before."""
    if frame.reason is not None:
        return frame
    none = np.zeros(len(frame.particles), np.bool_)
    return replace(
        frame,
        reason="frame_bubbles",
        particles=frame.particles.take(none),
        classification=frame.classification.take(none),
        rejected=Counter(),
        ratio=None,
    )
