"""What may change between two pictures of the same particle, and nothing else: the one place for real pictures.

Allowed, because a change of run, lamp, focus, camera or cut brings it: level of the background, contrast (offset and
stray light are the same thing once the background is divided out), scale, blur, sharpening, noise. Turning by 90
degrees and mirroring is done on the finished crop (`training.augment`), where it costs nothing.

Not done, because no microscope does it: stretching in one direction and elastic deformation (round would become oval,
which is what tells oil from protein), inverting dark and bright (defocus changes both together, the simulator does
that), turning by other angles (interpolation would take the noise away, and a tight crop has no corners to turn in),
mixing two particles, cutting pieces out, large changes of scale (size is information).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.crops import SCALE_TOLERANCE, CropGeometry, Crops, cut_crops
from edge_app.classification.tight_crops import divide_by_level, particle_box
from training.evaluation.corruptions import SEVERITIES

__all__ = ["Variation", "vary"]

U1 = npt.NDArray[np.uint8]
F4 = npt.NDArray[np.float32]
Pair = tuple[float, float]

#: Pictures are laid out on canvases of about this size and cut together; memory stays flat.
_CANVAS_PX = 1024
_SMALLEST_SIDE_PX = 5


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How much; uniform between the two numbers unless said otherwise.

    Attributes
    ----------
    level_error_sd, level_error_limit : float
        Error of the estimated background, normal and cut off, as a fraction of it.
    contrast : (float, float)
        Factor on the departure from the background.
    scale : (float, float)
        Change of um/px.
    blur_share, blur_px
        Share of pictures that are blurred, and standard deviation.
    sharpen_share, sharpen
        Share of pictures that are sharpened (a focus nearer, or a camera that does it), and weight of what is added.
    noise : (float, float)
        Standard deviation as a fraction of the background.
    corruption_share, corruption_severity : float, int
        Share of pictures that get one corruption of the stability study on top, of a severity up to this one on either
        side (`training.evaluation.corruptions`). Off: a network trained on them is not measured by them fairly.
    """

    level_error_sd: float = 0.008
    level_error_limit: float = 0.02
    contrast: Pair = (0.85, 1.15)
    scale: Pair = (0.94, 1.06)
    blur_share: float = 0.3
    blur_px: Pair = (0.2, 0.6)
    sharpen_share: float = 0.15
    sharpen: Pair = (0.1, 0.5)
    noise: Pair = (0.0, 0.008)
    corruption_share: float = 0.0
    corruption_severity: int = 2


def vary(
    pictures: Sequence[U1],
    level: F4,
    *,
    geometry: CropGeometry,
    um_per_px: float,
    rng: np.random.Generator,
    variation: Variation = Variation(),
) -> tuple[Crops, F4]:
    """Vary pictures and cut them as the device does.

    Parameters
    ----------
    pictures : sequence of ndarray of uint8 (h, w)
    level : ndarray of float32 (n,)
        Background of each.
    geometry : CropGeometry
    um_per_px : float
        Scale of the pictures.
    rng : numpy.random.Generator
    variation : Variation

    Returns
    -------
    crops : Crops
        In the order of the pictures.
    enlarged : ndarray of float32 (n,)
        By how much each was enlarged against its true scale.
    """
    n = len(pictures)
    error = np.clip(
        rng.normal(0, variation.level_error_sd, n), -variation.level_error_limit, variation.level_error_limit
    )
    contrast = rng.uniform(*variation.contrast, n)
    scale = rng.uniform(*variation.scale, n)
    noise = rng.uniform(*variation.noise, n) * RATIO_ONE
    which = rng.random(n)
    strength = rng.random(n)
    # cut_crops would resample canvas by canvas; here each picture is resampled once, with its own change of scale.
    ratio_of_scales = um_per_px / geometry.um_per_px
    told = um_per_px
    if not 1 / SCALE_TOLERANCE <= ratio_of_scales <= SCALE_TOLERANCE:
        scale, told = scale * ratio_of_scales, geometry.um_per_px
    varied: list[U1] = []
    enlarged = np.empty(n, np.float32)
    for i, picture in enumerate(pictures):
        ratio = divide_by_level(picture, float(level[i]) * (1 + float(error[i])))
        ratio = _trimmed(ratio, margin_px=geometry.margin_px)
        image = ratio.astype(np.float32)
        image -= RATIO_ONE
        image *= np.float32(contrast[i])
        size = tuple(max(_SMALLEST_SIDE_PX, round(s * float(scale[i]))) for s in ratio.shape)
        if size != ratio.shape:
            method = cv2.INTER_AREA if scale[i] < 0.75 else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, size[::-1], interpolation=method), np.float32)
        enlarged[i] = max(size) / max(ratio.shape) * told / um_per_px
        if which[i] < variation.blur_share:
            low, high = variation.blur_px
            sigma = low + (high - low) * float(strength[i])
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)
        elif which[i] > 1 - variation.sharpen_share:
            low, high = variation.sharpen
            soft = cv2.GaussianBlur(image, (0, 0), 0.7, borderType=cv2.BORDER_REPLICATE)
            image += np.float32(low + (high - low) * float(strength[i])) * (image - soft)
        image += np.float32(noise[i]) * rng.standard_normal(image.shape, dtype=np.float32)
        image += RATIO_ONE
        varied.append(np.clip(np.rint(image), 0, 255).astype(np.uint8))
    crops = _cut_together(varied, geometry=geometry, um_per_px=told)
    return _corrupted(crops, rng, variation), enlarged


def _corrupted(crops: Crops, rng: np.random.Generator, variation: Variation) -> Crops:
    """Put one corruption on a share of the crops."""
    if variation.corruption_share <= 0:
        return crops
    kinds = [
        (corruption, value)
        for corruption in SEVERITIES
        for severity, value in corruption.values.items()
        if 0 < abs(severity) <= variation.corruption_severity
    ]
    chosen = np.where(rng.random(len(crops)) < variation.corruption_share, rng.integers(0, len(kinds), len(crops)), -1)
    pixels = crops.pixels.copy()
    for k in np.unique(chosen[chosen >= 0]).tolist():
        corruption, value = kinds[k]
        rows = chosen == k
        pixels[rows] = corruption.apply(pixels[rows], value)
    return replace(crops, pixels=pixels)


def _trimmed(ratio: U1, *, margin_px: int) -> U1:
    """What the device would cut of a picture: all of it, or the particle's box where there is a wide margin."""
    x, y, width, height = particle_box(ratio, margin_px=margin_px)
    return ratio[max(y, 0) : y + height, max(x, 0) : x + width]


def _cut_together(pictures: Sequence[U1], *, geometry: CropGeometry, um_per_px: float) -> Crops:
    """Whole pictures through the device's own cut, laid out in rows on canvases."""
    own_box = geometry.model_copy(update={"margin_px": 0})
    order = sorted(range(len(pictures)), key=lambda i: pictures[i].shape[0])
    parts: list[Crops] = []
    at = 0
    while at < len(order):
        boxes: list[tuple[int, int, int, int]] = []
        x = y = row = 0
        for i in order[at:]:
            height, width = pictures[i].shape
            if boxes and x + width > _CANVAS_PX:
                x, y, row = 0, y + row, 0
            if boxes and y + height > _CANVAS_PX:
                break
            boxes.append((x, y, width, height))
            x, row = x + width, max(row, height)
        canvas = np.full((max(b[1] + b[3] for b in boxes), max(b[0] + b[2] for b in boxes)), RATIO_ONE, np.uint8)
        for i, (left, top, width, height) in zip(order[at : at + len(boxes)], boxes, strict=True):
            canvas[top : top + height, left : left + width] = pictures[i]
        columns = [np.array(c, np.int64) for c in zip(*boxes, strict=True)]
        parts.append(cut_crops(canvas, *columns, geometry=own_box, um_per_px=um_per_px))
        at += len(boxes)
    if not parts:
        return Crops.empty(geometry)
    return Crops.concatenate(parts).take(np.argsort(order, kind="stable"))
