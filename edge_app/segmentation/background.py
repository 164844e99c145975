"""A rolling picture of the empty flow cell, pixel by pixel, that particles do not enter."""

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.segmentation.ratio import frame_gain, grey_median, ratio_picture
from edge_app.segmentation.settings import DEFAULT_SETTINGS, BackgroundSettings

__all__ = ["Background", "spatial_background"]

U8 = npt.NDArray[np.uint8]

_FIXED: Final = 64
"""Steps per grey level of the state: finer than a level, so that the running median does not add a level of noise."""


def spatial_background(image: U8, *, window_px: int) -> U8:
    """Guess the background from one frame: a median over a window much larger than a particle.

    Every eighth pixel of every eighth row is looked at, a quadratic surface taken off, a median runs over the rest, and
    the sum is blown up again. Illumination that changes slowly over the field is
    kept; fixed dirt is not in it, so dirt counts as particles until a second frame shows that it stays.

    Parameters
    ----------
    image
        uint8, shape (H, W), any size from 1 x 1.
    window_px
        Size of the window in pixels of the frame.

    Returns
    -------
    uint8, shape (H, W).
    """
    height, width = image.shape
    shrink = 8 if min(height, width) >= 128 else 1
    small = image[shrink // 2 :: shrink, shrink // 2 :: shrink].astype(np.float32)
    size = min(window_px // shrink, max(3, min(small.shape) | 1)) | 1
    # A median is biased where its window is cut by the border of a sloping field: the slope is taken out first.
    trend = _quadratic(small)
    rest = np.clip(np.rint(small - trend) + 128, 0, 255).astype(np.uint8)
    slow = np.asarray(cv2.medianBlur(rest, size), np.float32) - 128 + trend
    if shrink > 1:
        slow = np.asarray(cv2.GaussianBlur(slow, (0, 0), size / 6), np.float32)
        slow = np.asarray(cv2.resize(slow, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    return np.clip(np.rint(slow), 0, 255).astype(np.uint8)


def _quadratic(picture: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Quadratic surface through a picture, fitted twice: the second time without what lies far off the first."""
    height, width = picture.shape
    if height < 8 or width < 8:
        return np.full(picture.shape, np.median(picture), np.float32)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1).reshape(-1, 6)
    values = picture.ravel().astype(np.float64)
    near = np.abs(values - np.median(values)) <= 0.4 * np.median(values)
    surface = np.full(values.shape, np.median(values))
    for _ in range(2):
        if near.sum() < 32:
            break
        surface = terms @ np.linalg.lstsq(terms[near], values[near], rcond=None)[0]
        off = np.abs(values - surface)
        near = off <= 3 * max(float(np.median(off)), 0.5)
    return surface.reshape(height, width).astype(np.float32)


class Background:
    """Rolling per-pixel background.

    Starts from what there is: a picture that the instrument gives, the per-pixel median of the first frames
    (:meth:`prime`), or, with nothing but one frame, a spatial median of it. From then on every pixel follows its own
    running median: it takes a bounded step towards the frame (McFarlane and Schofield 1995, with steps finer than a
    grey level), and pixels under a particle take none. A bounded step makes it a median and not a mean; frozen pixels
    make sure that a particle that stays does not fade into the background unless it is reported as stuck and healed
    in by :meth:`heal`.

    Changes of the lamp are one factor per frame (``gain``) and do not go through the picture.

    Examples
    --------
    >>> b = Background()
    >>> b.ready
    False
    >>> b.start(np.full((32, 32), 200, np.uint8))
    >>> b.ready, b.level
    (True, 200.0)
    """

    def __init__(
        self, settings: BackgroundSettings = DEFAULT_SETTINGS.background, *, initial: U8 | None = None
    ) -> None:
        self.settings = settings
        self.fixed = initial is not None
        self.frames = 0
        self._state: npt.NDArray[np.int16] | None = None
        self._picture: U8 | None = None
        self._slow: U8 | None = None
        self._blind: npt.NDArray[np.bool_] | None = None
        self._blind_pixels = np.zeros(0, np.int64)
        self._stripe = 0
        if initial is not None:
            self.start(initial)

    @property
    def ready(self) -> bool:
        """Whether there is a background to divide by."""
        return self._picture is not None

    @property
    def picture(self) -> U8:
        """The background, uint8, shape (H, W).

        Raises
        ------
        RuntimeError
            If there is none yet.
        """
        if self._picture is None:
            raise RuntimeError("no background yet: start, prime or give one first")
        return self._picture

    @property
    def slow(self) -> U8:
        """The background without anything small on it, uint8, shape (H, W)."""
        if self._slow is None:
            raise RuntimeError("no background yet: start, prime or give one first")
        return self._slow

    @property
    def level(self) -> float:
        """Median grey level of the background."""
        return grey_median(self.picture[::8, ::8])

    def start(self, picture: U8) -> None:
        """Take a picture as the background."""
        self._picture = np.ascontiguousarray(picture, np.uint8).copy()
        self._state = self._picture.astype(np.int16) * _FIXED
        self._slow = spatial_background(self._picture, window_px=self.settings.smooth_window_px)
        self._blind = np.zeros(self._picture.shape, np.bool_)
        self._look_for_blind(0, self._picture.shape[0])

    def prime(self, images: Sequence[U8]) -> None:
        """Start from the first frames: the median of each pixel, each frame brought to the brightness of the first.

        With few frames a median cannot tell a particle from the background: where it differs from the slow
        background and one of the frames does not, that frame's value is taken.

        Parameters
        ----------
        images
            uint8, all of one shape (H, W), at least one.
        """
        first = images[0]
        spatial = spatial_background(first, window_px=self.settings.smooth_window_px)
        if len(images) == 1:
            self.start(spatial)
            return
        level = frame_gain(first, spatial)
        flat = [cv2.convertScaleAbs(i, alpha=level / max(frame_gain(i, spatial), 1e-3)) for i in images]
        rows = 64  # by strips, so that no stack of whole frames is copied
        strips = []
        for y in range(0, first.shape[0], rows):
            stack = np.stack([i[y : y + rows] for i in flat])
            middle = np.partition(stack, (len(flat) - 1) // 2, axis=0)[(len(flat) - 1) // 2]
            # Where particles lay on most of the frames, the frame nearest to the slow background is the empty one.
            # Dirt that is there in every frame has no such frame, and stays in the background.
            slow = spatial[y : y + rows].astype(np.int16)
            odd = np.abs(middle - slow) > 0.04 * slow
            chosen = stack[:, odd].astype(np.int16)
            nearest = np.argmin(np.abs(chosen - slow[odd]), axis=0)
            value = chosen[nearest, np.arange(chosen.shape[1])]
            middle[odd] = np.where(2 * np.abs(value - slow[odd]) <= np.abs(middle[odd] - slow[odd]), value, middle[odd])
            strips.append(middle)
        median = np.concatenate(strips)
        self.start(median)
        self.frames = len(flat)

    def gain(self, image: U8) -> float:
        """Brightness of a frame over the background's."""
        return frame_gain(image, self.picture)

    def ratio(self, image: U8, *, gain: float | None = None) -> U8:
        """Divide a frame by the background (code 160 = background), see :func:`ratio_picture`.

        Pixels behind something dark that sits on the window read 160: so little light is left there that its noise,
        divided by it, would look like particles.
        """
        ratio = ratio_picture(image, self.picture, gain=self.gain(image) if gain is None else gain)
        if len(self._blind_pixels) and not self.fixed:
            ratio.ravel()[self._blind_pixels] = RATIO_ONE
        return ratio

    @property
    def blind_fraction(self) -> float:
        """Share of the field in which nothing can be seen because the window is dark there."""
        return 0.0 if self._blind is None else float(self._blind.mean())

    def _look_for_blind(self, y0: int, y1: int) -> None:
        if self._picture is None or self._slow is None or self._blind is None:
            return
        here = self._blind[y0:y1]
        dark = self._picture[y0:y1] < self.settings.blind_fraction * self._slow[y0:y1]
        now = cv2.dilate(dark.view(np.uint8), np.ones((3, 3), np.uint8)) != 0 if dark.any() else np.zeros_like(here)
        if (now != here).any():
            here[:] = now
            self._blind_pixels = np.flatnonzero(self._blind)

    def update(self, image: U8, *, particles: U8 | None = None, gain: float = 1.0) -> None:
        """Let the background follow a frame outside its particles.

        Parameters
        ----------
        image
            uint8, shape (H, W).
        particles
            Mask of the pixels that do not take part, non-zero where a particle lies, shape (H, W).
        gain
            Brightness of the frame over the background's.
        """
        if self._state is None or self._picture is None:
            raise RuntimeError("no background yet: start, prime or give one first")
        self.frames += 1
        if self.fixed:
            return
        height = image.shape[0]
        fast = self.frames <= self.settings.fast_frames
        if fast:
            y0, y1 = 0, height
            step = max(self.settings.step_levels, min(1.0, 4.0 / self.frames))
        else:
            rows = -(-height // self.settings.stripes)
            y0 = self._stripe * rows
            y1 = min(height, y0 + rows)
            self._stripe = (self._stripe + 1) % self.settings.stripes
            step = self.settings.step_levels
            if y0 >= y1:
                return
        bound = max(1, round(step * _FIXED))
        state = self._state[y0:y1]
        target = cv2.convertScaleAbs(image[y0:y1], alpha=1.0 / max(gain, 1e-3)).astype(np.int16)
        target *= _FIXED
        target -= state
        np.clip(target, -bound, bound, out=target)
        if particles is not None:
            target[particles[y0:y1] != 0] = 0
        state += target
        self._picture[y0:y1] = (state + _FIXED // 2) // _FIXED
        self._look_for_blind(y0, y1)

    def heal(self, image: U8, pixels: npt.NDArray[np.int64], *, gain: float = 1.0) -> None:
        """Take the frame's own values at some pixels into the background.

        Parameters
        ----------
        pixels
            Flat indices into the frame.
        """
        if self._state is None or self._picture is None:
            raise RuntimeError("no background yet: start, prime or give one first")
        value = np.clip(np.rint(image.ravel()[pixels] / max(gain, 1e-3)), 1, 255)
        self._picture.ravel()[pixels] = value.astype(np.uint8)
        self._state.ravel()[pixels] = value.astype(np.int16) * _FIXED
        self._look_for_blind(0, image.shape[0])
