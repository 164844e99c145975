"""From a ratio picture and its boxes to what the network sees; the same code in training and on the device."""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge_app.capture.frame import RATIO_ONE
from edge_app.classification.context import DEFAULT_CONTEXT, VOCABULARY, context_table, turned_outward

__all__ = ["CropGeometry", "Crops", "cut_crops"]

U1 = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.integer]

#: A scale within this factor of the bundle's is left alone: resampling costs more sharpness than it gives in truth.
SCALE_TOLERANCE = 1.10


class CropGeometry(BaseModel):
    """What part of a picture the network sees, and at what scale; part of the bundle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    window_px: int = Field(default=40, ge=16, le=256, description="side of the square window")
    margin_px: int = Field(default=1, ge=0, le=8, description="pixels kept around the box on each side")
    um_per_px: float = Field(default=1.33, gt=0, description="scale the network was trained at")
    context: tuple[str, ...] = Field(default=DEFAULT_CONTEXT, description="what the network is told beside the picture")

    @field_validator("context")
    @classmethod
    def _known(cls, context: tuple[str, ...]) -> tuple[str, ...]:
        strange = [name for name in context if name not in VOCABULARY]
        if strange or context[:1] != ("log2_reduction",):
            raise ValueError(f"must begin with log2_reduction and hold only {', '.join(VOCABULARY)}, found {context}")
        return context


@dataclass(frozen=True, kw_only=True)
class Crops:
    """Windows of n particles: ``pixels`` uint8 (n, W, W, 1), code 160 = background; ``context`` float32 (n, K).

    ``context`` has the columns of `CropGeometry.context`. The first is log2 of the factor by which a particle larger
    than the window was reduced (0: real scale). ``um_per_px`` float32 (n,) is the scale before that reduction.
    """

    pixels: U1
    context: npt.NDArray[np.float32]
    um_per_px: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pixels)

    @staticmethod
    def empty(geometry: CropGeometry) -> "Crops":
        """No particle."""
        return Crops(
            pixels=np.empty((0, geometry.window_px, geometry.window_px, 1), np.uint8),
            context=np.empty((0, len(geometry.context)), np.float32),
            um_per_px=np.empty(0, np.float32),
        )

    @staticmethod
    def concatenate(parts: "list[Crops]") -> "Crops":
        """Join in the given order."""
        return Crops(
            pixels=np.concatenate([p.pixels for p in parts]),
            context=np.concatenate([p.context for p in parts]),
            um_per_px=np.concatenate([p.um_per_px for p in parts]),
        )

    def take(self, rows: npt.NDArray[np.generic] | slice) -> "Crops":
        """Keep some rows."""
        return Crops(pixels=self.pixels[rows], context=self.context[rows], um_per_px=self.um_per_px[rows])


def cut_crops(
    ratio: U1,
    x: Ints,
    y: Ints,
    width: Ints,
    height: Ints,
    *,
    geometry: CropGeometry,
    um_per_px: float,
    field: npt.NDArray[np.float32] | None = None,
    columns: Mapping[str, npt.NDArray[np.floating]] | None = None,
) -> Crops:
    """Cut the box of each particle, with a margin, into the middle of a window of background.

    The scale is the real one: small particles look small. A particle whose box and margin do not fit is reduced
    (area average) until it fits, and ``Crops.context`` says by how much. Only the box and its margin are kept: a
    neighbour that the window would also cover is not shown. Beyond the frame there is background.

    Parameters
    ----------
    ratio
        uint8 (H, W): picture over background, code 160 = background.
    x, y, width, height
        Integer boxes (n,), px.
    geometry
        Window, margin and scale of the network.
    um_per_px
        Scale of ``ratio``. If it differs from the network's by more than 10 % the picture is resampled to that.
    field
        Place of each particle in the frame, float32 (n, 2), `edge_app.classification.context.field_positions`, for
        networks that take it: their crops are turned outward. None: not known.
    columns
        Other columns of the context by name (n,), `edge_app.classification.context.particle_columns`.

    Returns
    -------
    Crops

    Examples
    --------
    >>> ratio = np.full((64, 64), 160, np.uint8)
    >>> ratio[20:24, 30:38] = 80
    >>> one = np.array([1])
    >>> crops = cut_crops(ratio, 30 * one, 20 * one, 8 * one, 4 * one, geometry=CropGeometry(), um_per_px=1.33)
    >>> crops.pixels.shape, int((crops.pixels == 80).sum()), float(crops.context[0, 0])
    ((1, 40, 40, 1), 32, 0.0)
    """
    window = geometry.window_px
    n = len(x)
    if n == 0:
        return Crops.empty(geometry)
    left, top = np.asarray(x, np.int64), np.asarray(y, np.int64)
    right, bottom = left + np.asarray(width, np.int64), top + np.asarray(height, np.int64)
    scale = um_per_px / geometry.um_per_px
    if not 1 / SCALE_TOLERANCE <= scale <= SCALE_TOLERANCE:
        ratio, (left, top, right, bottom) = _resample(ratio, scale, left, top, right, bottom)
        um_per_px = geometry.um_per_px
    margin = geometry.margin_px
    left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
    wide, high = right - left, bottom - top
    reduction = np.maximum(np.maximum(wide, high) / window, 1.0)
    # One padded copy of the picture lets every window be a plain slice of it, whatever edge it hangs over.
    pad = window + margin
    padded: U1 = np.asarray(
        cv2.copyMakeBorder(ratio, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=RATIO_ONE), np.uint8
    )
    before_x, before_y = (window - wide) // 2, (window - high) // 2
    fits = reduction <= 1.0
    first_x = np.clip(left - before_x + pad, 0, padded.shape[1] - window)
    first_y = np.clip(top - before_y + pad, 0, padded.shape[0] - window)
    pixels = np.lib.stride_tricks.sliding_window_view(padded, (window, window))[first_y, first_x]
    steps = np.arange(window)
    inside_x = (steps >= before_x[:, None]) & (steps < (before_x + wide)[:, None])
    inside_y = (steps >= before_y[:, None]) & (steps < (before_y + high)[:, None])
    np.copyto(pixels, np.uint8(RATIO_ONE), where=~(inside_y[:, :, None] & inside_x[:, None, :]))
    for i in np.flatnonzero(~fits):  # few: larger than the window
        pixels[i] = _reduced(padded, int(left[i]) + pad, int(top[i]) + pad, int(wide[i]), int(high[i]), window)
    pixels = pixels[..., None]
    known: dict[str, npt.NDArray[np.floating]] = {"log2_reduction": np.log2(reduction), **(columns or {})}
    if "field_known" in geometry.context:
        place = np.zeros((n, 2), np.float32)
        if field is not None:
            pixels, place = turned_outward(pixels, field)
        known |= {"field_x": place[:, 0], "field_y": place[:, 1]}
        known["field_known"] = np.full(n, field is not None, np.float32)
    return Crops(
        pixels=pixels, context=context_table(geometry.context, known, n), um_per_px=np.full(n, um_per_px, np.float32)
    )


def _resample(ratio: U1, scale: float, *edges: Ints) -> tuple[U1, list[npt.NDArray[np.int64]]]:
    high, wide = ratio.shape
    new_wide, new_high = max(1, round(wide * scale)), max(1, round(high * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    left, top, right, bottom = edges
    return np.asarray(cv2.resize(ratio, (new_wide, new_high), interpolation=method), np.uint8), [
        np.floor(left * (new_wide / wide)).astype(np.int64),
        np.floor(top * (new_high / high)).astype(np.int64),
        np.ceil(right * (new_wide / wide)).astype(np.int64),
        np.ceil(bottom * (new_high / high)).astype(np.int64),
    ]


def _reduced(padded: U1, x: int, y: int, wide: int, high: int, window: int) -> U1:
    """A particle larger than the window, averaged down until its longer side fills it."""
    part = padded[max(y, 0) : y + high, max(x, 0) : x + wide]
    factor = window / max(wide, high)
    size = max(1, min(window, round(wide * factor))), max(1, min(window, round(high * factor)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    out = np.full((window, window), RATIO_ONE, np.uint8)
    ox, oy = (window - size[0]) // 2, (window - size[1]) // 2
    out[oy : oy + size[1], ox : ox + size[0]] = small
    return out
