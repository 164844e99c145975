"""A frame divided by its background: uint8, one pass, no float picture."""

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE

__all__ = ["frame_gain", "grey_median", "noise_codes", "ratio_picture"]

U8 = npt.NDArray[np.uint8]


def grey_median(values: U8) -> float:
    """Lower median of grey levels, by counting (several times faster than sorting).

    Examples
    --------
    >>> grey_median(np.array([3, 1, 2], np.uint8))
    2.0
    """
    counts = np.cumsum(np.bincount(values.ravel(), minlength=256))
    return float(np.searchsorted(counts, (int(counts[-1]) + 1) // 2))


def frame_gain(image: U8, background: U8, *, grid_px: int = 8) -> float:
    """How much brighter the frame is than the background, as one factor.

    ``image / background`` over a grid of pixels: the median of what lies within 6 % of its most frequent value. A plain
    median would follow the particles where they cover half of a frame.

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
    ratio = (sample / np.maximum(below, 1.0)).ravel()
    counts = np.bincount(np.minimum(ratio * 50, 299).astype(np.int64), minlength=300)
    peak = int(np.argmax(np.convolve(counts, [1, 2, 1], mode="same")))
    near = ratio[np.abs(ratio - (peak + 0.5) / 50) <= 0.06]
    return round(float(np.median(near if len(near) else ratio)), 6)


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

    From the median of ``|code - 160|`` over a grid of pixels (normal noise: 0.6745 standard deviations), with linear
    interpolation inside a code, so that the answer is not itself a whole number.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> picture = np.clip(np.rint(rng.normal(160, 2.0, (512, 512))), 0, 255).astype(np.uint8)
    >>> abs(noise_codes(picture) - 2.0) < 0.1
    True
    """
    counts = np.bincount(ratio[::grid_px, ::grid_px].ravel(), minlength=256).astype(np.float64)
    away = counts[RATIO_ONE:].copy()
    away[1:] += counts[RATIO_ONE - 1 : RATIO_ONE - len(away) : -1]
    away = np.append(away, counts[: RATIO_ONE - len(away) + 1].sum())
    share = np.concatenate([[0.0], np.cumsum(away)]) / max(counts.sum(), 1.0)
    # Distance k stands for k - 0.5 .. k + 0.5, distance 0 for 0 .. 0.5.
    middle = float(np.interp(0.5, share, np.concatenate([[0.0], np.arange(len(away)) + 0.5])))
    spread = middle / 0.6745
    # A picture without noise still spreads over the one code it sits in (0.37 codes): that is no noise. Above that
    # the rounding to whole codes adds 1/12 to the variance (Sheppard).
    return float(np.sqrt(spread**2 - 1.0 / 12.0)) if spread > 0.4 else 0.0
