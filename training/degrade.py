"""Pictures as bad as a neglected instrument takes them, to learn from: defocus, lost or raised contrast, stray light.

The kinds are those of the stability study (`training.evaluation.corruptions`), their strengths continuous and up to
severity 2 on either side, so that no level of its table is learned by heart. A network that has learned from these is
no longer a stranger to the study; that is what they are for ("corruptions as augmentation repair the predictions"),
and documents that give its figures say so.

The class of a degraded particle is taught, its size is not: contrast raised twofold moves the edge outward, and a
network that is told the same size for it learns to read every size too small (by 4 % at 30 to 70 um).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import cv2
import numpy as np

from training.datasets.labelled import LabelledCrops
from training.evaluation.corruptions import brightness, contrast

__all__ = ["degrade_batch"]

#: Standard deviation of a Gaussian blur as wide as a disc of radius 0.4 to 1.1 px (half of the radius).
BLUR_PX: Final = (0.2, 0.55)
#: Factor on the departure from the background, log-uniform.
CONTRAST: Final = (0.75, 2.2)
#: Offset on picture and background alike, in codes of a background of 160.
BIAS: Final = (-92.0, 92.0)


def degrade_batch(crops: LabelledCrops, rng: np.random.Generator, *, share: float) -> LabelledCrops:
    """Degrade a share of the crops, each in one way.

    Parameters
    ----------
    crops : LabelledCrops
    rng : numpy.random.Generator
    share : float
        0 to 1; 0 takes nothing from ``rng``.

    Returns
    -------
    LabelledCrops
        The others are as they were; those that were degraded have no known size and depth.
    """
    if share <= 0:
        return crops
    chosen = np.flatnonzero(rng.random(len(crops)) < share)
    kind = rng.integers(0, 3, len(chosen))
    strength = rng.random(len(chosen)).astype(np.float32)
    pixels = crops.pixels.copy()
    for row, place in zip(chosen[kind == 0].tolist(), strength[kind == 0].tolist(), strict=True):
        sigma = BLUR_PX[0] + (BLUR_PX[1] - BLUR_PX[0]) * place
        pixels[row, ..., 0] = cv2.GaussianBlur(pixels[row, ..., 0], (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    low, high = np.log(CONTRAST)
    rows = chosen[kind == 1]
    pixels[rows] = contrast(pixels[rows], np.exp(low + (high - low) * strength[kind == 1]))
    rows = chosen[kind == 2]
    pixels[rows] = brightness(pixels[rows], BIAS[0] + (BIAS[1] - BIAS[0]) * strength[kind == 2])
    ecd_um, depth_um = crops.ecd_um.copy(), crops.depth_um.copy()
    ecd_um[chosen] = depth_um[chosen] = np.nan
    return replace(crops, pixels=pixels, ecd_um=ecd_um, depth_um=depth_um)
