"""Background, threshold, quality and stuck particles joined: a frame in, its regions out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE, Frame
from edge_app.capture.source import SourceInfo
from edge_app.errors import UserError
from edge_app.segmentation.background import Background
from edge_app.segmentation.frame_quality import judge_light, judge_particles, look_at, unevenness
from edge_app.segmentation.ratio import noise_codes, ratio_picture
from edge_app.segmentation.regions import LabelOverflow, Regions, centroids
from edge_app.segmentation.settings import DEFAULT_SETTINGS, SegmentationSettings
from edge_app.segmentation.stuck import StuckFilter
from edge_app.segmentation.threshold import instrument_mask, instrument_settings, segment

__all__ = ["FrameResult", "Segmenter"]

U8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """What became of one frame.

    Attributes
    ----------
    reason
        Why the frame was left out (``REJECTION_REASONS``), None if it was analysed.
    ratio
        uint8 (H, W), code 160 = background; None if the frame was left out.
    regions
        Particles to measure. Those on the border are among them (weight 0); stuck and too small ones are not.
    centroid_px
        Centroids x, y of the regions, float32 (n, 2), where the stuck filter needed them.
    rejected
        Reason -> number, for this frame. A frame left out counts 1 under its reason and its particles nowhere;
        ``border`` counts particles that are in ``regions`` with weight 0.
    gain, noise
        Brightness over the background's, and noise of the ratio picture as a fraction of the background.
    uneven
        Slow texture, fraction of the background.
    background_level
        Median grey level of the background.
    stuck_objects
        Objects known to sit on the window now.
    stuck_counted_before
        Images of objects found stuck in this frame that were handed on in earlier frames.
    found_stuck
        Centroid x, y (px) and area (px) of the objects found stuck in this very frame, float32 (k, 3).
    """

    reason: str | None
    ratio: U8 | None = field(default=None, repr=False)
    regions: Regions = field(default_factory=lambda: Regions.empty((0, 0)), repr=False)
    centroid_px: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    rejected: Mapping[str, int] = field(default_factory=dict)
    gain: float = 1.0
    noise: float = 0.0
    uneven: float = 0.0
    background_level: float = 0.0
    stuck_objects: int = 0
    stuck_counted_before: int = 0
    found_stuck: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 3), np.float32), repr=False)


class Segmenter:
    """Finds the particles of every frame of a run. One per run: it keeps the background and the stuck objects.

    Parameters
    ----------
    settings
        All settings of the room.
    initial_background
        Picture of the empty cell that the instrument gives, uint8 (H, W).
    instrument_thresholds
        (dark, light) in grey levels: the instrument's own rule against ``initial_background``, in place of ours, with
        the background as given (it does not roll) and no stuck filter, for comparison with the instrument.
    neighbour_distance_px
        The instrument's joining distance in px, with ``instrument_thresholds``.

    Attributes
    ----------
    counters
        Reason -> particles or frames left out so far.
    window_objects
        Dirt and particles on the window that were there in all of the first frames: they are part of the background
        and never counted.

    Raises
    ------
    ValueError
        If instrument thresholds come without a background.

    Examples
    --------
    >>> image = np.full((256, 256), 200, np.uint8)
    >>> image[100:110, 50:60] = 90
    >>> result = Segmenter().process(Frame(image=image, sequence=0, time_s=0.0))
    >>> result.reason, len(result.regions), int(result.regions.area_px[0])
    (None, 1, 100)
    """

    def __init__(
        self,
        settings: SegmentationSettings = DEFAULT_SETTINGS,
        *,
        initial_background: U8 | None = None,
        instrument_thresholds: tuple[int, int] | None = None,
        neighbour_distance_px: int = 0,
    ) -> None:
        if instrument_thresholds is not None and initial_background is None:
            raise ValueError("instrument thresholds need the instrument's background")
        if instrument_thresholds is not None:
            settings = instrument_settings(settings, neighbour_distance_px=neighbour_distance_px)
        self.settings = settings
        self.instrument_thresholds = instrument_thresholds
        self.background = Background(settings.background)
        if initial_background is not None:
            self.background.start(initial_background)
            self.background.fixed = instrument_thresholds is not None
        self.shape: tuple[int, int] | None = (
            None if initial_background is None else (initial_background.shape[0], initial_background.shape[1])
        )
        self.counters: Counter[str] = Counter()
        self.window_objects = 0
        self._stuck: StuckFilter | None = None

    @classmethod
    def for_source(
        cls,
        info: SourceInfo,
        settings: SegmentationSettings = DEFAULT_SETTINGS,
        *,
        use_instrument_thresholds: bool = False,
    ) -> "Segmenter":
        """A segmenter that starts from what the source knows: its background and, if asked, its thresholds.

        Raises
        ------
        UserError
            If the instrument's thresholds are asked for and the source has none.
        """
        if not use_instrument_thresholds:
            return cls(settings, initial_background=info.background)
        if info.thresholds is None or info.background is None:
            raise UserError(f"{info.uri}: has no thresholds and background of its own, use the default segmentation")
        distance_um = float(str(info.details.get("distance_to_neighbour_um", 0.0)))
        return cls(
            settings,
            initial_background=info.background,
            instrument_thresholds=info.thresholds,
            neighbour_distance_px=round(distance_um / info.um_per_px) if info.um_per_px else 0,
        )

    @property
    def prime_frames(self) -> int:
        """Frames worth handing to :meth:`prime` before the first :meth:`process`; 0 where a background is given."""
        return 0 if self.background.ready else self.settings.background.prime_frames

    def prime(self, images: Sequence[U8]) -> None:
        """Learn the background from the first frames, which are processed afterwards like any other.

        Frames without light or of another size than most good ones are passed over; without any good one
        nothing happens, and the first good frame that is processed starts the background.
        """
        if self.background.ready:
            return
        quality = self.settings.quality
        good = [i for i in images if judge_light(look_at(i), background_level=None, settings=quality) is None]
        if good:
            usual, _ = Counter(i.shape for i in good).most_common(1)[0]
            good = [i for i in good if i.shape == usual]
            self.background.prime(good)
            self.shape = (good[0].shape[0], good[0].shape[1])
            self.window_objects = self._count_window_objects()

    def process(self, frame: Frame) -> FrameResult:
        """Find the particles of the next frame."""
        image = frame.image
        if self.shape is not None and image.shape != self.shape:
            return self._leave_out("frame_size")
        level = self.background.level if self.background.ready else None
        reason = judge_light(look_at(image), background_level=level, settings=self.settings.quality)
        if reason is not None:
            return self._leave_out(reason)
        if not self.background.ready:
            self.prime([image])
            level = self.background.level
        exact = self.instrument_thresholds is not None
        gain = 1.0 if exact else self.background.gain(image)
        ratio = self.background.ratio(image, gain=gain)
        noise = noise_codes(ratio)
        raw = None
        if self.instrument_thresholds is not None:
            dark, light = self.instrument_thresholds
            raw = instrument_mask(image, self.background.picture, dark=dark, light=light)
        uneven = 0.0 if exact else unevenness(ratio)
        try:
            regions = segment(ratio, noise=noise, settings=self.settings.threshold, raw=raw)
        except LabelOverflow:
            return self._leave_out("frame_overload")
        reason = judge_particles(regions, uneven=uneven, settings=self.settings.quality)
        if reason is not None:
            return self._leave_out(reason)
        return self._finish(image, ratio, regions, gain=gain, noise=noise, uneven=uneven, level=level or 0.0)

    def _count_window_objects(self) -> int:
        """Objects in the background itself: dirt and particles that sat on the window before the first frame."""
        still = ratio_picture(self.background.picture, self.background.slow)
        try:
            regions = segment(still, noise=noise_codes(still), settings=self.settings.threshold)
        except LabelOverflow:
            return self.settings.threshold.max_particles
        return int((regions.area_px >= self.settings.threshold.min_area_px).sum())

    def _leave_out(self, reason: str) -> FrameResult:
        self.counters[reason] += 1
        return FrameResult(reason=reason, rejected={reason: 1})

    def _finish(
        self, image: U8, ratio: U8, regions: Regions, *, gain: float, noise: float, uneven: float, level: float
    ) -> FrameResult:
        rejected: Counter[str] = Counter()
        large = regions.area_px >= self.settings.threshold.min_area_px
        rejected["speckle"] = int((~large).sum())
        particles = regions.take(large)
        blocked = self._frozen_pixels(particles)
        before, found_stuck, centroid_px = 0, np.zeros((0, 3), np.float32), None
        if self.settings.stuck.enabled and self.instrument_thresholds is None:
            if self._stuck is None:
                self._stuck = StuckFilter((image.shape[0], image.shape[1]), self.settings.stuck)
            centroid_px = centroids(particles)
            x, y = centroid_px.T
            verdict = self._stuck.update(x, y, particles.area_px)
            rejected["stuck"] = int(verdict.stuck.sum())
            before = verdict.counted_before
            found_stuck = np.stack([x, y, particles.area_px.astype(np.float32)], axis=1)[verdict.confirmed]
            if self.settings.stuck.heal_background and verdict.confirmed.any():
                self._heal(image, particles.take(verdict.confirmed), gain=gain)
            particles, centroid_px = particles.take(~verdict.stuck), centroid_px[~verdict.stuck]
        self.background.update(image, particles=blocked, gain=gain)
        rejected["border"] = int(particles.border.sum())
        found = {k: v for k, v in rejected.items() if v}
        self.counters.update(found)
        return FrameResult(
            reason=None,
            ratio=ratio,
            regions=particles,
            centroid_px=centroid_px,
            rejected=found,
            gain=gain,
            noise=noise / RATIO_ONE,
            uneven=uneven,
            background_level=level,
            stuck_objects=0 if self._stuck is None else self._stuck.objects,
            stuck_counted_before=before,
            found_stuck=found_stuck,
        )

    def _frozen_pixels(self, particles: Regions) -> U8:
        """Particles with a margin, whose pixels the background does not follow: their faint halo is no background."""
        return cv2.dilate(particles.mask, np.ones((7, 7), np.uint8)).astype(np.uint8, copy=False)

    def _heal(self, image: U8, stuck: Regions, *, gain: float) -> None:
        grown = cv2.dilate(stuck.mask, np.ones((5, 5), np.uint8)).astype(np.uint8, copy=False)
        self.background.heal(image, np.flatnonzero(grown), gain=gain)
