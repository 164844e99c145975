"""Descriptors and outline moments of particles that lie alone in a picture, through the device's measurement."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.context import particle_columns
from edge_app.measurement.calibration import Calibration, load_calibration
from edge_app.measurement.calibrations import SIMULATED_MFI
from edge_app.measurement.descriptors import measure
from edge_app.measurement.shape_moments import shape_moments
from edge_app.segmentation.regions import Regions, find_regions
from edge_app.segmentation.threshold import threshold_mask

__all__ = ["columns_of_crops", "columns_of_detection"]

F4 = npt.NDArray[np.float32]
U1 = npt.NDArray[np.uint8]

#: Largest pixels of a mosaic: its labels must stay below what 16 bits hold, its arrays in memory.
_CROPS_AT_ONCE: Final = 256


@lru_cache(maxsize=1)
def _simulated() -> Calibration:
    return load_calibration(SIMULATED_MFI)


def columns_of_detection(
    ratio: U1, mask: U1, *, names: Sequence[str], run_sizes: F4 | None = None, calibration: Calibration | None = None
) -> dict[str, F4]:
    """What a device tells a network of the particle whose mask was found.

    Parameters
    ----------
    ratio : ndarray of uint8 (h, w)
        Code 160 = background.
    mask : ndarray of uint8 (h, w)
        The particle, not empty.
    names : sequence of str
        Columns wanted, of `edge_app.classification.context.VOCABULARY`.
    run_sizes : ndarray of float32 (6,), optional
        `edge_app.classification.context.size_shares` of its run.
    calibration : Calibration, optional
        The device's; default that of the simulated optics.

    Returns
    -------
    dict of str to float32 (1,)
    """
    regions = find_regions(mask)
    largest = np.array([int(regions.area_px.argmax())])
    return _columns(ratio, regions.take(largest), names=names, run_sizes=run_sizes, calibration=calibration)


def columns_of_crops(
    pixels: U1, *, names: Sequence[str], contrast_codes: int = 8, calibration: Calibration | None = None
) -> dict[str, F4]:
    """Measure particles in their finished crops, where the frame that they came from is not at hand.

    The crops are laid under each other with a line of background between them and measured as one frame. The largest
    region of a crop counts; a crop that shows none has zeros.

    Parameters
    ----------
    pixels : ndarray of uint8 (n, W, W, 1)
        Code 160 = background, real scale. Particles that were reduced to fit come out as small as they are shown.
    names : sequence of str
        Columns wanted; the run's sizes are not to be had from crops.
    contrast_codes : int
        Departure from the background, either way, that makes a particle's pixel; 8 is 5 %.
    calibration : Calibration, optional

    Returns
    -------
    dict of str to float32 (n,)

    Examples
    --------
    >>> crop = np.full((1, 40, 40, 1), 160, np.uint8)
    >>> crop[0, 10:20, 5:35] = 100
    >>> round(float(columns_of_crops(crop, names=["aspect_ratio"])["aspect_ratio"][0]), 2)
    0.32
    """
    parts = [
        _columns_of_mosaic(
            pixels[at : at + _CROPS_AT_ONCE], names=names, contrast_codes=contrast_codes, calibration=calibration
        )
        for at in range(0, len(pixels), _CROPS_AT_ONCE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _columns_of_mosaic(
    pixels: U1, *, names: Sequence[str], contrast_codes: int, calibration: Calibration | None
) -> dict[str, F4]:
    n, side = len(pixels), pixels.shape[1]
    framed = np.full((n, side + 2, side + 2), RATIO_ONE, np.uint8)
    framed[:, 1:-1, 1:-1] = pixels[..., 0]
    mosaic = framed.reshape(n * (side + 2), side + 2)
    regions = find_regions(threshold_mask(mosaic, contrast_codes))
    tile = regions.y_px // (side + 2)
    # Sorted by tile, the largest of each last.
    order = np.lexsort((regions.area_px, tile))
    last = np.flatnonzero(np.diff(tile[order], append=n))
    chosen = order[last]
    found = _columns(mosaic, regions.take(chosen), names=names, run_sizes=None, calibration=calibration)
    columns = {name: np.zeros(n, np.float32) for name in found}
    for name, values in found.items():
        columns[name][tile[chosen]] = values
    return columns


def _columns(
    ratio: U1, regions: Regions, *, names: Sequence[str], run_sizes: F4 | None, calibration: Calibration | None
) -> dict[str, F4]:
    particles = measure(ratio, regions, frame=0, time_s=0.0, calibration=calibration or _simulated())
    return particle_columns(names, particles, run_sizes=run_sizes, outline=shape_moments(regions))
