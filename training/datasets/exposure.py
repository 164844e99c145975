"""From a simulated view to the crop a device would cut of it: camera, background division, detection, cut."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.context import DEFAULT_CONTEXT
from edge_app.classification.crops import CropGeometry, cut_crops
from training.datasets.labelled import LabelledCrops
from training.datasets.views import ViewStore
from training.shape.detected import columns_of_detection
from training.shape.run_sizes import VIEWS_PER_RUN, drawn_size_shares

__all__ = ["Detection", "ExposureRanges", "detect", "expose_view", "simulated_crops"]

Pair = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class ExposureRanges:
    """What varies between cameras, runs and cutting rules; uniform between the two numbers unless said otherwise.

    The ranges are those that let a network trained on simulated pictures read real ones: neither clean nor very
    noisy pictures do, and a fixed margin, threshold or background level teaches the network that very one.
    """

    noise: Pair = (0.004, 0.014)
    blur_px: Pair = (0.2, 0.9)
    gain: Pair = (0.75, 1.15)
    background_level: Pair = (150.0, 235.0)
    scale: Pair = (0.95, 1.05)
    threshold: Pair = (0.025, 0.06)
    dark_only_share: float = 0.25
    closing_share: float = 0.6
    background_error_sd: Pair = (0.002, 0.012)
    tilt_of_background: Pair = (0.0, 0.012)
    margin_shares: tuple[float, ...] = (0.5, 0.35, 0.15)
    other_fragment_share: float = 0.1
    field_known_share: float = 0.6
    field_error: float = 0.03
    smallest_area_px: int = 16


@dataclass(frozen=True)
class Detection:
    """Box of the detected particle, px, the area of its mask, and where that is in the picture's components."""

    x: int
    y: int
    width: int
    height: int
    area: int
    components: npt.NDArray[np.int32]
    number: int

    @property
    def mask(self) -> npt.NDArray[np.uint8]:
        """The particle's own pixels, uint8 0/1, as large as the picture."""
        return (self.components == self.number).astype(np.uint8)


_DISC3 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_DISC5 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
_DISC7 = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (7, 7))


def expose_view(
    picture: npt.NDArray[np.float16],
    mask: npt.NDArray[np.bool_],
    rng: np.random.Generator,
    ranges: ExposureRanges,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], float, float]:
    """Photograph a view and divide by an estimated background.

    Parameters
    ----------
    picture, mask : ndarray (h, w)
        Intensity over background and true mask.
    rng : numpy.random.Generator
    ranges : ExposureRanges

    Returns
    -------
    ratio : ndarray of uint8 (h', w')
        Code 160 = background.
    near : ndarray of uint8 (h', w')
        True mask widened by 3 px, where detections of this particle lie.
    noise : float
        Standard deviation at background level, as a fraction of it.
    factor : float
        By which the picture was enlarged.
    """
    image: npt.NDArray[Any] = picture.astype(np.float32)
    near: npt.NDArray[Any] = cv2.dilate(mask.astype(np.uint8), _DISC7)
    factor = float(rng.uniform(*ranges.scale))
    if abs(factor - 1) <= 0.01:
        factor = 1.0
    else:
        size = max(8, round(image.shape[1] * factor)), max(8, round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
        near = cv2.resize(near, size, interpolation=cv2.INTER_NEAREST)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(*ranges.blur_px), borderType=cv2.BORDER_REPLICATE)
    image = np.maximum(1 + np.float32(rng.uniform(*ranges.gain)) * (image - 1), 0)
    noise = rng.uniform(*ranges.noise)
    image += np.float32(noise) * np.sqrt(image) * rng.standard_normal(image.shape, dtype=np.float32)
    low, high = ranges.background_level
    level = float(np.clip(rng.normal(211, 8), low, high)) if rng.random() < 0.5 else rng.uniform(low, high)
    camera = np.clip(np.rint(image * np.float32(level)), 0, 255)  # the camera's white: bright cores are cut off
    error = 1 + float(np.clip(rng.normal(0, rng.choice(ranges.background_error_sd)), -0.025, 0.025))
    slope, angle = rng.uniform(*ranges.tilt_of_background), rng.uniform(0, 2 * np.pi)
    h, w = camera.shape
    ramp_x = np.linspace(-0.5, 0.5, w, dtype=np.float32) * np.float32(slope * np.cos(angle))
    ramp_y = np.linspace(-0.5, 0.5, h, dtype=np.float32)[:, None] * np.float32(slope * np.sin(angle))
    ratio = camera * np.float32(RATIO_ONE / (level * error)) * (1 + ramp_x + ramp_y)
    return np.clip(np.rint(ratio), 0, 255).astype(np.uint8), near, noise, factor


def detect(
    ratio: npt.NDArray[np.uint8],
    near: npt.NDArray[np.uint8],
    *,
    threshold: float,
    dark_only: bool,
    closing: int,
    smallest_area_px: int,
    pick: float = 1.0,
) -> Detection | None:
    """Box of the particle as a threshold sees it: raw cut on both sides of the background, closing, components.

    Parameters
    ----------
    ratio, near : ndarray of uint8
        From `expose_view`.
    threshold : float
        Fraction of background.
    dark_only : bool
    closing : int
        0 none, 1 or 2 px radius.
    smallest_area_px : int
    pick : float
        Below 1: take another fragment than the largest if there is one.

    Returns
    -------
    Detection or None
        None: not detected.
    """
    low, high = round(RATIO_ONE * (1 - threshold)), round(RATIO_ONE * (1 + threshold))
    cut = ratio < low if dark_only else (ratio < low) | (ratio > high)
    binary = cut.astype(np.uint8)
    if closing:
        padded = cv2.copyMakeBorder(binary, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=0)
        binary = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, _DISC3 if closing == 1 else _DISC5)[3:-3, 3:-3].copy()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
    if count < 2:
        return None
    overlap = np.bincount(labels.ravel(), weights=near.ravel(), minlength=count)
    large_enough = (overlap > 0) & (stats[:, cv2.CC_STAT_AREA] >= smallest_area_px)
    large_enough[0] = False
    rows = np.flatnonzero(large_enough)
    if len(rows) == 0:
        return None
    rows = rows[np.argsort(-stats[rows, cv2.CC_STAT_AREA], kind="stable")]
    chosen = rows[0] if pick >= 1.0 or len(rows) == 1 else rows[1 + int(pick * (len(rows) - 1))]
    x, y, w, h, area = (int(v) for v in stats[chosen])
    return Detection(x, y, w, h, area, np.asarray(labels, np.int32), int(chosen))


def _chunk(
    rows: npt.NDArray[np.int64],
    *,
    store: ViewStore,
    classes: tuple[str, ...],
    geometry: CropGeometry,
    ranges: ExposureRanges,
    seed: int,
    margin_px: int | None,
    field_known: bool | None,
) -> LabelledCrops:
    cv2.setNumThreads(1)
    window = geometry.window_px
    pixels = np.empty((len(rows), window, window, 1), np.uint8)
    context = np.empty((len(rows), len(geometry.context)), np.float32)
    um_per_px = np.empty(len(rows), np.float32)
    box = np.zeros(len(rows), np.float32)
    kept = np.zeros(len(rows), bool)
    asked = [name for name in geometry.context if name not in DEFAULT_CONTEXT]
    geometries = [geometry.model_copy(update={"margin_px": m}) for m in range(len(ranges.margin_shares))]
    for k, i in enumerate(rows.tolist()):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        ratio, near, noise, factor = expose_view(store.picture(i), store.true_mask(i), rng, ranges)
        found = detect(
            ratio,
            near,
            threshold=max(rng.uniform(*ranges.threshold), 2.7 * noise),
            dark_only=bool(rng.random() < ranges.dark_only_share),
            closing=int(rng.integers(1, 3)) if rng.random() < ranges.closing_share else 0,
            smallest_area_px=ranges.smallest_area_px,
            pick=float(rng.random()) if rng.random() < ranges.other_fragment_share else 1.0,
        )
        margin = int(rng.choice(len(ranges.margin_shares), p=ranges.margin_shares))
        # Drawn before anything is left out, so that the pictures do not depend on it.
        placed = bool(rng.random() < ranges.field_known_share) if field_known is None else field_known
        off_by = rng.normal(0, ranges.field_error, 2)
        if found is None:
            continue
        place = np.array([[store.field_x[i] + off_by[0], store.field_y[i] + off_by[1]]], np.float32)
        one = cut_crops(
            ratio,
            np.array([found.x]),
            np.array([found.y]),
            np.array([found.width]),
            np.array([found.height]),
            geometry=geometries[margin] if margin_px is None else geometry.model_copy(update={"margin_px": margin_px}),
            um_per_px=geometry.um_per_px,
            field=place if placed else None,
            columns=columns_of_detection(
                ratio, found.mask, names=asked, run_sizes=drawn_size_shares(seed=seed, run=i // VIEWS_PER_RUN)
            )
            if asked
            else None,
        )
        pixels[k], context[k] = one.pixels[0], one.context[0]
        # The device would take this picture for one of the view's own scale, were it not for the change of scale.
        um_per_px[k] = store.um_per_px[i] / factor
        box[k] = max(found.width, found.height)
        kept[k] = True
    index = {name: c for c, name in enumerate(classes)}
    label = np.array([index.get(str(f), -1) for f in store.family[rows]], np.int64)
    return LabelledCrops(
        pixels=pixels[kept],
        context=context[kept],
        label=label[kept],
        group=store.group[rows][kept],
        box_px=box[kept],
        ecd_um=store.ecd_um[rows][kept],
        field_radius=np.hypot(store.field_x[rows], store.field_y[rows])[kept].astype(np.float32),
        depth_um=np.abs(store.z_um[rows][kept]),
        um_per_px=um_per_px[kept],
    )


def simulated_crops(
    store: ViewStore,
    *,
    classes: Sequence[str],
    geometry: CropGeometry,
    seed: int,
    rows: npt.NDArray[np.int64] | None = None,
    ranges: ExposureRanges = ExposureRanges(),
    margin_px: int | None = None,
    field_known: bool | None = None,
    workers: int = 1,
) -> LabelledCrops:
    """Photograph views and cut what is detected of them; views that no threshold finds are left out.

    Parameters
    ----------
    store : ViewStore
    classes : sequence of str
        Families in the order of the labels; any other family gets label -1 (unknown).
    geometry : CropGeometry
    seed : int
        Each view draws from the seed and its own number, so neither order nor ``workers`` matters.
    rows : ndarray of int, optional
        Views to use; default all.
    ranges : ExposureRanges
    margin_px : int, optional
        Fixed margin (for evaluation); drawn when omitted.
    field_known : bool, optional
        Whether the network is told the place in the field; drawn for each view when omitted.
    workers : int

    Returns
    -------
    LabelledCrops
    """
    rows = np.arange(len(store)) if rows is None else rows
    job = partial(
        _chunk,
        store=store,
        classes=tuple(classes),
        geometry=geometry,
        ranges=ranges,
        seed=seed,
        margin_px=margin_px,
        field_known=field_known,
    )
    if workers <= 1:
        return job(rows)
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        return LabelledCrops.concatenate(list(pool.map(job, np.array_split(rows, workers))))
