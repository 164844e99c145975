"""Degraded pictures: the severity table of the stability study, and what optics and camera do, on finished crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE

__all__ = ["SEVERITIES", "Corruption", "blur_disc", "brightness", "contrast"]

U1 = npt.NDArray[np.uint8]


F8 = npt.NDArray[np.float64]
#: One strength for all crops, or one for each, shape (n,).
Strength = float | npt.NDArray[np.floating]


def _look_up(pixels: U1, curve: F8) -> U1:
    """Codes by a curve of shape (256,), or by one for each crop, (n, 256)."""
    codes = np.clip(np.rint(curve), 0, 255).astype(np.uint8)
    return codes[pixels] if codes.ndim == 1 else codes[np.arange(len(pixels))[:, None, None, None], pixels]


def _beside_codes(strength: Strength) -> F8 | float:
    return np.asarray(strength, np.float64)[:, None] if np.ndim(strength) else float(strength)


def blur_disc(pixels: U1, radius_px: float) -> U1:
    """Mean over a disc whose edge pixels count by the part that the disc covers: geometric defocus.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    radius_px : float
        0: as it is.
    """
    if radius_px <= 0:
        return pixels
    half = int(np.ceil(radius_px))
    fine = (np.arange(-half * 8 - 4, half * 8 + 4) + 0.5) / 8
    disc = (np.hypot(fine[:, None], fine[None, :]) <= radius_px).astype(np.float32)
    kernel = disc.reshape(2 * half + 1, 8, 2 * half + 1, 8).mean(axis=(1, 3))
    kernel /= kernel.sum()
    blurred = [cv2.filter2D(p[..., 0], -1, kernel, borderType=cv2.BORDER_REPLICATE) for p in pixels]
    return np.stack(blurred)[..., None]


def contrast(pixels: U1, gain: Strength) -> U1:
    """Departure from the background times ``gain``, cut off at black and white.

    A gain of the whole picture would change nothing: the device divides by a background that has it too.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    gain : float or ndarray (n,)
    """
    return _look_up(pixels, RATIO_ONE + _beside_codes(gain) * (np.arange(256.0) - RATIO_ONE))


def brightness(pixels: U1, bias: Strength) -> U1:
    """An offset on picture and background alike, 8-bit camera, then divided: (I + bias) / (B + bias) with B = 160.

    Stray light or a black level takes contrast away (or adds it) and blinds the camera where it reaches 255; division
    by the background does not undo it.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
    bias : float or ndarray (n,)
        Codes.
    """
    offset = _beside_codes(bias)
    background = np.minimum(RATIO_ONE + offset, 255.0)
    return _look_up(pixels, RATIO_ONE * np.clip(np.arange(256.0) + offset, 0, 255) / background)


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """A row of the severity table: ``values`` by severity, 0 leaves the picture as it is."""

    name: str
    unit: str
    values: Mapping[int, float]
    apply: Callable[[U1, float], U1]


def _row(*values: float, first: int = 0) -> dict[int, float]:
    return dict(enumerate(values, start=first))


#: Severities of the stability study (`docs/evaluation.md`).
SEVERITIES: Final = (
    Corruption(name="defocus blur", unit="radius, px", values=_row(0, 0.5, 1, 1.5, 2, 3), apply=blur_disc),
    Corruption(
        name="contrast",
        unit="gain",
        values=_row(3.5, 3, 2.5, 2, 1.5, 1, 0.9, 0.8, 0.7, 0.5, 0.3, first=-5),
        apply=contrast,
    ),
    Corruption(
        name="brightness",
        unit="bias, grey levels",
        values=_row(-150, -135, -120, -90, -50, 0, 50, 90, 120, 135, 150, first=-5),
        apply=brightness,
    ),
)
