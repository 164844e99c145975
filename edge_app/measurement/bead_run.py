"""What one run of a bead standard (or a blank) gave: its particles and the state of the optics while it ran."""

import itertools
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.source import FrameSource
from edge_app.errors import UserError
from edge_app.measurement.calibration import Calibration, nominal_calibration
from edge_app.measurement.descriptors import measure, with_learned_size
from edge_app.segmentation.particles import Particles
from edge_app.segmentation.regions import Regions
from edge_app.segmentation.segmenter import Segmenter
from edge_app.segmentation.settings import DEFAULT_SETTINGS, SegmentationSettings

__all__ = ["BeadRun", "ReadsSize", "dark_shift", "dark_shift_in_box", "read_bead_run", "shading_of"]

F4 = npt.NDArray[np.float32]


class ReadsSize(Protocol):
    """A network that reads the diameter of a frame's particles, px of the frame, float32 (n,)."""

    @property
    def size_reader_sha256(self) -> str:
        """SHA-256 of the network and its size head."""

    def __call__(self, ratio: npt.NDArray[np.uint8], regions: Regions, particles: Particles, *, um_per_px: float) -> F4:
        """Read the particles of one frame; frames come in order."""


@dataclass(frozen=True, kw_only=True)
class BeadRun:
    """One bead or blank run.

    Attributes
    ----------
    origin
        URI of the source, or id of the run record.
    particles
        All particles found; sizes by ``calibration``.
    dark_shift
        float32 (n, 2): shift of the dark centroid in its box, fractions of box width and height; nan for rows of a
        run record whose picture was not kept.
    frames, frames_rejected
        Frames analysed and left out.
    volume_ml
        Analysed volume.
    width_px, height_px
        Frame size.
    calibration
        The one in force while it was read; geometry of the cell.
    flow_rate_ul_per_min, seconds
        What the source says of the flow, None where it does not; span of the frames' time.
    background_level, noise, uneven, shading
        Grey level, noise and slow texture (fractions of background) and loss of light towards the darkest part of the
        field; medians over frames, None from a record.
    size_reader_sha256
        Network and size head that read ``particles.learned_ecd_px``; empty where none did.
    """

    origin: str
    particles: Particles
    dark_shift: F4 = field(repr=False)
    frames: int
    frames_rejected: int
    volume_ml: float
    width_px: int
    height_px: int
    calibration: Calibration
    flow_rate_ul_per_min: float | None = None
    seconds: float = 0.0
    background_level: float | None = None
    noise: float | None = None
    uneven: float | None = None
    shading: float | None = None
    size_reader_sha256: str = ""

    @property
    def um_per_px(self) -> float:
        """Scale that the field is made of."""
        return self.calibration.um_per_px


def dark_shift(ratio: npt.NDArray[np.uint8], regions: Regions) -> F4:
    """Shift of the dark centroid of each region from the middle of its box, float32 (n, 2).

    Centroid of what is darker than background, minus the middle of the box, over the box's width (x) and height (y).
    Oblique light and coma move it; the particle's own shape does not, on average.

    Examples
    --------
    >>> from edge_app.segmentation.threshold import segment
    >>> ratio = np.full((64, 64), 160, np.uint8)
    >>> ratio[20:30, 30:40] = 140
    >>> ratio[20:30, 35:40] = 60
    >>> print(dark_shift(ratio, segment(ratio)).round(2))
    [[0.17 0.  ]]
    """
    n = len(regions)
    if n == 0:
        return np.zeros((0, 2), np.float32)
    row, pixels, width = regions.pixel_row, regions.pixels, max(1, regions.width_frame_px)
    dark = np.maximum(RATIO_ONE - ratio.ravel()[pixels].astype(np.float64), 0.0)
    total = np.maximum(np.bincount(row, weights=dark, minlength=n), 1e-9)
    x = np.bincount(row, weights=dark * (pixels % width), minlength=n) / total
    y = np.bincount(row, weights=dark * (pixels // width), minlength=n) / total
    shift_x = (x - (regions.x_px + (regions.width_px - 1) / 2)) / regions.width_px
    shift_y = (y - (regions.y_px + (regions.height_px - 1) / 2)) / regions.height_px
    return np.stack([shift_x, shift_y], axis=1).astype(np.float32)


def dark_shift_in_box(box: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """The same for one kept picture, cut to the particle's box: no mask is kept, so darkness counts from 4 % on.

    Examples
    --------
    >>> box = np.full((10, 10), 140, np.uint8)
    >>> box[:, 5:] = 60
    >>> [round(v, 2) for v in dark_shift_in_box(box)]
    [0.17, 0.0]
    """
    dark = np.maximum(RATIO_ONE - box.astype(np.float64), 0.0)
    dark[dark < 0.04 * RATIO_ONE] = 0.0
    total = max(float(dark.sum()), 1e-9)
    h, w = box.shape
    x = float(dark.sum(0) @ np.arange(w)) / total
    y = float(dark.sum(1) @ np.arange(h)) / total
    return (x - (w - 1) / 2) / w, (y - (h - 1) / 2) / h


def shading_of(background: npt.NDArray[np.uint8]) -> float:
    """Share of the brightest part's light that the darkest part of the field lacks (medians of an 8 x 8 grid).

    Examples
    --------
    >>> field = np.full((80, 80), 200, np.uint8)
    >>> field[:10, :10] = 190
    >>> round(shading_of(field), 3)
    0.05
    """
    h, w = background.shape[0] // 8, background.shape[1] // 8
    blocks = background[: 8 * h, : 8 * w].reshape(8, h, 8, w).transpose(0, 2, 1, 3).reshape(64, -1)
    level = np.median(blocks, axis=1)
    return float(1.0 - level.min() / max(float(level.max()), 1.0))


def read_bead_run(
    source: FrameSource,
    *,
    calibration: Calibration | None = None,
    segmentation: SegmentationSettings = DEFAULT_SETTINGS,
    size_reader: ReadsSize | None = None,
) -> BeadRun:
    """Read a source to its end, segment and measure it. Only the size rule ``learned`` needs a network.

    Parameters
    ----------
    source
        Frames; closed afterwards.
    calibration
        Geometry, and sizes of ``particles``; default: the source's own scale and depth, else 1.33 um/px and 100 um.
    size_reader
        Reads the learned size of each particle; None: not read.

    Raises
    ------
    UserError
        If the source has no frame that can be analysed.
    """
    info = source.info
    scale = calibration or nominal_calibration(um_per_px=info.um_per_px or 1.33, depth_um=info.depth_um or 100.0)
    segmenter = Segmenter.for_source(info, segmentation)
    found: list[Particles] = []
    shifts: list[F4] = []
    state: list[tuple[float, float, float]] = []
    times: list[float] = []
    rejected = 0
    shape = (info.height_px, info.width_px)
    try:
        frames = source.frames()
        first = list(itertools.islice(frames, segmenter.prime_frames))
        if first:
            segmenter.prime([f.image for f in first])
        for frame in itertools.chain(first, frames):
            result = segmenter.process(frame)
            times.append(frame.time_s)
            if result.reason is not None or result.ratio is None:
                rejected += 1
                continue
            shape = (result.ratio.shape[0], result.ratio.shape[1])
            particles = measure(
                result.ratio, result.regions, frame=frame.sequence, time_s=frame.time_s, calibration=scale
            )
            if size_reader is not None:
                read = size_reader(result.ratio, result.regions, particles, um_per_px=scale.um_per_px)
                particles = with_learned_size(particles, read, calibration=scale)
            found.append(particles)
            shifts.append(dark_shift(result.ratio, result.regions))
            state.append((result.background_level, result.noise, result.uneven))
    finally:
        source.close()
    if not found:
        raise UserError(f"{info.uri}: no frame could be analysed ({rejected} rejected)")
    frame_ml = scale.frame_volume_ml(shape[1], shape[0])
    if info.volume_imaged_ml is not None and info.frames_total:
        # The export left out frames with nothing in them: its own volume is shared out over those that are there.
        frame_ml = info.volume_imaged_ml / info.frames_total
    level, noise, uneven = (float(v) for v in np.median(np.array(state), axis=0))
    return BeadRun(
        origin=info.uri,
        particles=Particles.concatenate(found),
        dark_shift=np.concatenate(shifts),
        frames=len(found),
        frames_rejected=rejected,
        volume_ml=len(found) * frame_ml,
        width_px=shape[1],
        height_px=shape[0],
        calibration=scale,
        flow_rate_ul_per_min=info.flow_rate_ul_per_min,
        seconds=max(times) - min(times),
        background_level=level,
        noise=noise,
        uneven=uneven,
        shading=shading_of(segmenter.background.picture),
        size_reader_sha256="" if size_reader is None else size_reader.size_reader_sha256,
    )
