"""A frame divided by its background: uint8, one pass, no float picture."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE

__all__ = ["frame_gain", "noise_codes", "ratio_picture"]

U8 = npt.NDArray[np.uint8]


def frame_gain(image: U8, background: U8, *, grid_px: int = 8) -> float:
    """How much brighter the frame is than the background, as one factor.

    The median over a grid of pixels of ``image / background``: particles cover a few percent of a frame and do not
    move a median.

    Parameters
    ----------
    image, background
        uint8, shape (H, W).
    grid_px
        Distance of the pixels that are looked at.

    Examples
    --------
    >>> frame_gain(np.full((64, 64), 190, np.uint8), np.full((64, 64), 200, np.uint8))
    0.95
    """
    sample = image[grid_px // 2 :: grid_px, grid_px // 2 :: grid_px].astype(np.float32)
    below = background[grid_px // 2 :: grid_px, grid_px // 2 :: grid_px].astype(np.float32)
    if not sample.size:
        sample, below = image.astype(np.float32), background.astype(np.float32)
    return round(float(np.median(sample / np.maximum(below, 1.0))), 6)


def ratio_picture(image: U8, background: U8, *, gain: float = 1.0) -> U8:
    """Divide a frame by its background.

    ``code = round(160 * image / (gain * background))``, clipped to 0..255: 160 is "as bright as the background"
    (``RATIO_ONE``). Pixels whose background is 0 (dead) read 160.

    Parameters
    ----------
    image, background
        uint8, shape (H, W).
    gain
        Brightness of this frame over the background's, from :func:`frame_gain`.

    Returns
    -------
    uint8, shape (H, W).

    Examples
    --------
    >>> ratio_picture(np.full((1, 2), 100, np.uint8), np.full((1, 2), 200, np.uint8))
    array([[80, 80]], dtype=uint8)
    """
    ratio = cv2.divide(image, background, scale=RATIO_ONE / gain)
    if not background.all():
        ratio[background == 0] = RATIO_ONE
    return ratio.astype(np.uint8, copy=False)


def noise_codes(ratio: U8, *, grid_px: int = 4) -> float:
    """Noise of a ratio picture in codes (1 code = 1/160 of the background), blind to particles.

    Half the distance between the 16 % and the 84 % point of the histogram over a grid of pixels, with linear
    interpolation inside a code, so that the answer is not itself a whole number.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> picture = np.clip(np.rint(rng.normal(160, 2.0, (512, 512))), 0, 255).astype(np.uint8)
    >>> abs(noise_codes(picture) - 2.0) < 0.1
    True
    """
    sample = ratio[::grid_px, ::grid_px]
    counts = np.cumsum(np.bincount(sample.ravel(), minlength=256))
    edges = np.arange(257) - 0.5
    share = np.concatenate([[0.0], counts / max(int(counts[-1]), 1)])
    low, high = np.interp([0.158655, 0.841345], share, edges)
    spread = float(high - low) / 2.0
    # A picture without noise still spreads over the one code it sits in (0.34 codes): that is no noise.
    return max(0.0, spread) if spread > 0.36 else 0.0
