"""Which particle pictures of a run are kept: the same ones for the same frames, within a budget."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.segmentation.particles import Particles

__all__ = ["Picture", "PictureOptions", "PicturePicker"]

UNKNOWN: Final = "unknown"
_PNG_LEVEL: Final = 3


class PictureOptions(BaseModel):
    """Which pictures are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gallery: int = Field(
        20,
        ge=0,
        le=500,
        description="pictures per class kept for certain over the whole run: largest, least certain, sample",
    )
    per_window: int = Field(
        12, ge=0, le=1000, description="further pictures of each window: largest, least certain, sample"
    )
    per_run: int = Field(20_000, ge=0, description="most pictures of a run")
    margin_px: int = Field(6, ge=0, le=100, description="background kept around the particle's box, px")
    longest_px: int = Field(512, ge=16, le=4096, description="longest side stored, px; a larger picture is reduced")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The picture of one particle: background-divided, uint8, 160 = background, as PNG.

    Attributes
    ----------
    row
        Row of the particle in its window.
    kinds
        Why it was kept: ``largest``, ``least_certain``, ``sample``.
    class_name, confidence, ecd_um
        As in the particle's row.
    sample_key
        Place in the fixed random order of the run's particles; lowest first is a uniform sample.
    frame, x_px, y_px, width_px, height_px
        Where the picture was cut, in the full frame.
    png
        The file. Its size is that of the cut, or smaller where that was above ``longest_px``.
    """

    row: int
    kinds: tuple[str, ...]
    class_name: str
    confidence: float
    ecd_um: float
    sample_key: int
    frame: int
    x_px: int
    y_px: int
    width_px: int
    height_px: int
    png: bytes


def sample_keys(
    frame: npt.NDArray[np.integer], x_px: npt.NDArray[np.integer], y_px: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """A fixed, even shuffle: 53-bit key per particle from its place alone (splitmix64), shape (n,).

    It depends neither on the run's name nor on how frames are cut into windows.

    References
    ----------
    Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    mask = np.uint64(0xFFFF)
    z = (
        (frame.astype(np.uint64) << np.uint64(32))
        | ((x_px.astype(np.uint64) & mask) << np.uint64(16))
        | (y_px.astype(np.uint64) & mask)
    )
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.int64)


class _Best:
    """The ``size`` highest scores of each of several lists; the earlier of two equal ones wins."""

    def __init__(self, lists: int, size: int) -> None:
        self.size = size
        # Score that has to be beaten; almost every particle is turned away by this one comparison.
        self.bar = np.full(lists, -np.inf if size else np.inf)
        self.heaps: list[list[tuple[float, int]]] = [[] for _ in range(lists)]

    def offer(self, where: int, score: float, order: int) -> None:
        heap = self.heaps[where]
        if len(heap) < self.size:
            heapq.heappush(heap, (score, -order))
        else:
            heapq.heappushpop(heap, (score, -order))
        if len(heap) == self.size:
            self.bar[where] = heap[0][0]

    def since(self, order: int) -> list[int]:
        """What stands in a list now and came at ``order`` or later, best first, list by list."""
        return [-o for heap in self.heaps for _, o in sorted(heap, reverse=True) if -o >= order]


@dataclass(frozen=True)
class _Cut:
    row: int
    class_index: int
    confidence: float
    ecd_um: float
    sample_key: int
    frame: int
    x_px: int
    y_px: int
    pixels: npt.NDArray[np.uint8]


class PicturePicker:
    """Looks at every particle once, frame by frame, and hands out the pictures to keep when a window closes.

    Kept for certain (as long as ``per_run`` allows) are those that at the end of the run are among its ``gallery``
    largest and least certain of each class, and a uniform sample of each (``unknown`` is a class, never uncertain): a
    picture is kept if it is among them so far, which makes their number grow with the logarithm of the count.
    Beside them each window keeps its own largest per class, two least certain and a sample, up to ``per_window``
    and half of ``per_run``. Particles cut by the border (weight 0) are not taken.

    Parameters
    ----------
    classes
        Names, ``unknown`` last.
    options
        See :class:`PictureOptions`.

    Examples
    --------
    >>> picker = PicturePicker(classes=("glass", "unknown"))
    >>> picker.close_window()
    []
    """

    def __init__(self, *, classes: Sequence[str], options: PictureOptions | None = None) -> None:
        self.classes = tuple(classes)
        self.options = options or PictureOptions()
        self.dropped = 0
        """Pictures that should have been kept for certain and did not fit into ``per_run``."""
        self._unknown = self.classes.index(UNKNOWN) if UNKNOWN in self.classes else -1
        n, k = len(self.classes), self.options.gallery
        self._run = {"largest": _Best(n, k), "least_certain": _Best(n, k), "sample": _Best(n, k)}
        self._kept = self._kept_per_window = self._order = 0
        self._open_window()

    def _open_window(self) -> None:
        n = len(self.classes)
        some = int(self.options.per_window > 0)
        self._window = {"least_certain": _Best(1, 2 * some), "largest": _Best(n, some), "sample": _Best(n, some)}
        self._start = self._order
        self._cuts: dict[int, _Cut] = {}

    def add(
        self,
        ratio: npt.NDArray[np.uint8],
        particles: Particles,
        class_index: npt.NDArray[np.integer],
        confidence: npt.NDArray[np.floating],
    ) -> None:
        """Look at the particles of one frame; every row of the window has to pass here, in the record's order.

        Parameters
        ----------
        ratio
            uint8 (H, W), background-divided frame, 160 = background.
        particles
            The frame's particles.
        class_index, confidence
            Shape (n,).
        """
        n = len(particles)
        first, self._order = self._order, self._order + n
        if n == 0:
            return
        kind = np.asarray(class_index, np.intp)
        size = particles.ecd_um.astype(np.float64)
        doubt = -np.asarray(confidence, np.float64)
        doubt[kind == self._unknown] = -np.inf
        keys = sample_keys(particles.frame, particles.x_px, particles.y_px)
        zero = np.zeros(n, np.intp)
        scores = {"largest": size, "least_certain": doubt, "sample": -keys.astype(np.float64)}
        counted = particles.weight > 0
        wanted = np.zeros(n, np.bool_)
        for bank in (self._run, self._window):
            for name, best in bank.items():
                # One list for all classes, or one of each.
                where, score = (zero if len(best.heaps) == 1 else kind), scores[name]
                passing = counted & (score > best.bar[where])
                for i in np.flatnonzero(passing).tolist():
                    best.offer(int(where[i]), float(score[i]), first + i)
                wanted |= passing
        for i in np.flatnonzero(wanted).tolist():
            x, y, cut = self._cut(ratio, particles, i)
            self._cuts[first + i] = _Cut(
                row=first + i - self._start,
                class_index=int(kind[i]),
                confidence=float(confidence[i]),
                ecd_um=float(particles.ecd_um[i]),
                sample_key=int(keys[i]),
                frame=int(particles.frame[i]),
                x_px=x,
                y_px=y,
                pixels=cut,
            )

    def _cut(
        self, ratio: npt.NDArray[np.uint8], particles: Particles, i: int
    ) -> tuple[int, int, npt.NDArray[np.uint8]]:
        m = self.options.margin_px
        x0, y0 = max(int(particles.x_px[i]) - m, 0), max(int(particles.y_px[i]) - m, 0)
        x1 = int(particles.x_px[i]) + int(particles.width_px[i]) + m
        y1 = int(particles.y_px[i]) + int(particles.height_px[i]) + m
        # Copied, because the frame's buffer is used again long before the window closes.
        return x0, y0, ratio[y0:y1, x0:x1].copy()

    def close_window(self) -> list[Picture]:
        """End the window: its pictures by row, as PNG."""
        kinds: dict[int, list[str]] = {}
        for name, best in self._run.items():
            for order in best.since(self._start):
                kinds.setdefault(order, []).append(name)
        room = self.options.per_run - self._kept
        certain = list(kinds)[: max(room, 0)]
        self.dropped += len(kinds) - len(certain)
        for name, best in self._window.items():
            for order in best.since(self._start):
                if name not in kinds.setdefault(order, []):
                    kinds[order].append(name)
        spare = min(self.options.per_window, self.options.per_run // 2 - self._kept_per_window, room - len(certain))
        known = set(certain)
        more = [order for order in kinds if order not in known][: max(spare, 0)]
        self._kept += len(certain) + len(more)
        self._kept_per_window += len(more)
        pictures = [self._picture(self._cuts[order], kinds[order]) for order in sorted([*certain, *more])]
        self._open_window()
        return pictures

    def _picture(self, cut: _Cut, kinds: list[str]) -> Picture:
        height, width = cut.pixels.shape
        pixels = cut.pixels
        scale = self.options.longest_px / max(height, width)
        if scale < 1:
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        _, png = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
        return Picture(
            row=cut.row,
            kinds=tuple(kinds),
            class_name=self.classes[cut.class_index],
            confidence=cut.confidence,
            ecd_um=cut.ecd_um,
            sample_key=cut.sample_key,
            frame=cut.frame,
            x_px=cut.x_px,
            y_px=cut.y_px,
            width_px=width,
            height_px=height,
            png=png.tobytes(),
        )
