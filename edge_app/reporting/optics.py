"""Health of the optics: what a run keeps of its light, and what a report makes of that and of the particles."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.measurement.window import Window
from edge_app.segmentation.frame_strip import StripMoment
from edge_app.segmentation.particles import Particles

__all__ = ["Optics", "ShownMoment", "optics_summary", "read_optics"]

FOCUS_SIZES_UM: Final = (5.0, 25.0)
"""Particles whose edges tell the focus: large enough to have one, small enough to be frequent."""
LEAST_FOR_FOCUS: Final = 10
_WIDEST_PX: Final = 640
_JPEG_QUALITY: Final = 85
_LIGHT: Final = (
    ("background_level", "background level", "median grey level of the empty cell, of 255", 1.0, "", 1),
    ("noise", "noise", "of the frames, share of the background", 100.0, " %", 2),
    (
        "uneven",
        "slow texture",
        "rms of schlieren and shading left after division, share of the background",
        100.0,
        " %",
        2,
    ),
)


@dataclass(frozen=True, kw_only=True)
class ShownMoment:
    """A frame of the run and the background behind it; the pictures are data URIs, empty where there is none."""

    sequence: int
    time_s: float
    reason: str
    frame_uri: str
    background_uri: str


@dataclass(frozen=True, kw_only=True)
class Optics:
    """What the record tells of light and focus over the run.

    Attributes
    ----------
    focus
        Median edge gradient of particles of 5 to 25 um in the first, second and last third of the run (per px, fraction
        of background); None where there are fewer than 10.
    light
        Rows of name, value and meaning: what the loop kept of the background.
    background_uri
        Picture of the background as a data URI, empty where none was kept.
    strip
        A few frames, spread over the run, and the background behind each.
    """

    focus: tuple[float | None, float | None, float | None]
    light: tuple[tuple[str, str, str], ...]
    background_uri: str
    strip: tuple[ShownMoment, ...]


def optics_summary(
    *,
    background: npt.NDArray[np.uint8] | None,
    background_level: float,
    noise: float,
    uneven: float,
    strip: Sequence[StripMoment] = (),
) -> dict[str, Any]:
    """What a run keeps of its light, as JSON for the record's summary (key ``optics``).

    Parameters
    ----------
    background
        Picture of the empty cell at the end of the run, uint8 (H, W); kept as a JPEG of at most 640 px.
    background_level, noise, uneven
        As in ``FrameResult``.
    strip
        Frames spread over the run; kept as JPEGs.

    Examples
    --------
    >>> kept = optics_summary(background=np.full((8, 8), 200, np.uint8), background_level=200.0, noise=0.01, uneven=0.0)
    >>> sorted(kept)
    ['background_jpeg', 'background_level', 'noise', 'uneven']
    """
    found: dict[str, Any] = {
        "background_level": round(background_level, 2),
        "noise": round(noise, 6),
        "uneven": round(uneven, 6),
    }
    if background is not None and background.size:
        height, width = background.shape
        scale = min(1.0, _WIDEST_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = np.asarray(cv2.resize(background, size, interpolation=cv2.INTER_AREA), np.uint8)
        found["background_jpeg"] = _jpeg(small)
    if strip:
        found["strip"] = [
            {
                "sequence": moment.sequence,
                "time_s": round(moment.time_s, 3),
                "reason": moment.reason,
                "frame_jpeg": _jpeg(moment.frame),
                "background_jpeg": None if moment.background is None else _jpeg(moment.background),
            }
            for moment in strip
        ]
    return found


def _jpeg(picture: npt.NDArray[np.uint8]) -> str:
    _, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return base64.b64encode(jpeg.tobytes()).decode()


def _uri(jpeg: object) -> str:
    return f"data:image/jpeg;base64,{jpeg}" if isinstance(jpeg, str) and jpeg else ""


def read_optics(particles: Particles, total: Window, summary: Mapping[str, Any], *, pictures: bool = True) -> Optics:
    """Put together what a record tells.

    Parameters
    ----------
    particles, total
        All particles and the sum of the windows.
    summary
        The record's summary; without ``optics`` in it the light is not known.
    pictures
        False: leave the pictures of background and frames out.
    """
    p = particles
    chosen = (p.ecd_um >= FOCUS_SIZES_UM[0]) & (p.ecd_um < FOCUS_SIZES_UM[1]) & (p.weight > 0)
    time, gradient = p.time_s[chosen], p.edge_gradient[chosen]
    ends = np.linspace(total.t0_s, total.t1_s, 4)
    third = np.clip(np.searchsorted(ends[1:3], time, side="right"), 0, 2)
    focus = [
        float(np.median(gradient[third == k])) if int((third == k).sum()) >= LEAST_FOR_FOCUS else None for k in range(3)
    ]
    kept = summary.get("optics") or {}
    light = tuple(
        (name, f"{kept[key] * scale:.{decimals}f}{unit}", meaning)
        for key, name, meaning, scale, unit, decimals in _LIGHT
        if isinstance(kept.get(key), (int, float))
    )
    strip = tuple(
        ShownMoment(
            sequence=int(m["sequence"]),
            time_s=float(m["time_s"]),
            reason=str(m.get("reason") or ""),
            frame_uri=_uri(m.get("frame_jpeg")),
            background_uri=_uri(m.get("background_jpeg")),
        )
        for m in (kept.get("strip") or ())
    )
    return Optics(
        focus=(focus[0], focus[1], focus[2]),
        light=light,
        background_uri=_uri(kept.get("background_jpeg")) if pictures else "",
        strip=strip if pictures else (),
    )
