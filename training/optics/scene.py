"""One instrument as it stood during one run: lenses, lamp, focus, pixel size and how they degrade across the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.optics import medium

Interval = tuple[float, float]

#: Half width and half height of a 1280 x 1024 frame in units of its half diagonal: the unit of field positions.
FRAME_HALF_WIDTH: Final = 1280 / float(np.hypot(1280, 1024))
FRAME_HALF_HEIGHT: Final = 1024 / float(np.hypot(1280, 1024))


@dataclass(frozen=True, kw_only=True)
class OpticsScene:
    """Optics of one run.

    Field positions are in units of the frame's half diagonal (0 centre, radius 1 corner). At field position ``f`` the
    illumination is tilted by ``decentre + tilt_na * f``, the objective carries ``coma_waves * |f|`` waves of coma along
    ``f`` plus ``decentre_coma_waves``, and the exit pupil is cut by a second aperture displaced by ``vignetting * f``
    pupil radii.

    Attributes
    ----------
    na, condenser_na : float
        Numerical apertures of objective and condenser.
    medium_n : float
        Refractive index of the liquid.
    focus_offset_um : float
        Focal plane minus middle of the flow cell; one per run.
    um_per_px : float
        Camera pixel in the object.
    tilt_na, coma_waves, vignetting : float
        Values reached at field radius 1; signs are those of the outward direction.
    decentre_na : (float, float)
        Constant tilt of the illumination.
    decentre_coma_waves : (float, float)
        Constant coma.
    wavelength_um : float
        Vacuum wavelength.
    """

    na: float = 0.10
    condenser_na: float = 0.055
    medium_n: float = 1.337
    focus_offset_um: float = 0.0
    um_per_px: float = 1.33
    tilt_na: float = 0.0
    coma_waves: float = 0.0
    vignetting: float = 0.0
    decentre_na: tuple[float, float] = (0.0, 0.0)
    decentre_coma_waves: tuple[float, float] = (0.0, 0.0)
    wavelength_um: float = medium.WAVELENGTH_UM

    def tilt(self, field: tuple[float, float]) -> tuple[float, float]:
        """Tilt of the illumination (x, y) in NA at a field position, kept where a useful part of the source is seen."""
        x = self.decentre_na[0] + self.tilt_na * field[0]
        y = self.decentre_na[1] + self.tilt_na * field[1]
        size, limit = float(np.hypot(x, y)), self.na
        shrink = 1.0 if size <= limit else limit / size
        return x * shrink, y * shrink

    def coma(self, field: tuple[float, float]) -> tuple[float, float]:
        """Coma vector (x, y) in waves at a field position."""
        return (
            self.decentre_coma_waves[0] + self.coma_waves * field[0],
            self.decentre_coma_waves[1] + self.coma_waves * field[1],
        )


@dataclass(frozen=True, kw_only=True)
class SceneRanges:
    """What `draw_scene` draws from: every entry is a set of intervals, chosen by length."""

    name: str
    na: Sequence[Interval]
    condenser_na: Sequence[Interval]
    medium_n: Sequence[Interval]
    focus_offset_um: Sequence[Interval]
    um_per_px: Sequence[Interval]
    tilt_na: Sequence[Interval]
    coma_waves: Sequence[Interval]
    vignetting: Sequence[Interval]
    decentre_na: Sequence[Interval]
    decentre_coma_waves: Sequence[Interval]
    wavelength_um: Sequence[Interval]
    cell_half_depth_um: float = 50.0


#: What the classifier is trained on.
TRAINING: Final = SceneRanges(
    name="training",
    na=[(0.085, 0.130)],
    condenser_na=[(0.030, 0.090)],
    medium_n=[medium.MEDIUM_N],
    focus_offset_um=[(-28.0, 28.0)],
    um_per_px=[(1.29, 1.37)],
    tilt_na=[(0.0, 0.14)],
    coma_waves=[(-0.6, 0.6)],
    vignetting=[(0.0, 0.6)],
    decentre_na=[(0.0, 0.03)],
    decentre_coma_waves=[(0.0, 0.12)],
    wavelength_um=[(0.465, 0.475)],
)

#: Plausible instruments that lie outside `TRAINING` in aperture, condenser, pixel size, focus and wavelength.
HELD_OUT: Final = SceneRanges(
    name="held-out",
    na=[(0.078, 0.085), (0.130, 0.140)],
    condenser_na=[(0.022, 0.030), (0.090, 0.098)],
    medium_n=[(1.342, 1.345)],
    focus_offset_um=[(-38.0, -28.0), (28.0, 38.0)],
    um_per_px=[(1.224, 1.250), (1.410, 1.436)],
    tilt_na=[(0.0, 0.14)],
    coma_waves=[(-0.7, -0.3), (0.3, 0.7)],
    vignetting=[(0.2, 0.7)],
    decentre_na=[(0.0, 0.04)],
    decentre_coma_waves=[(0.0, 0.2)],
    wavelength_um=[(0.452, 0.462), (0.480, 0.490)],
    cell_half_depth_um=45.0,
)

#: The instrument of the shipped library and of the demo. Its coma moves the dark centroid of a small droplet outward
#: as real pictures show it, whatever the sign of the defocus: by 0.12 of the width at field radius 0.5 and at 1 (5 to
#: 7.5 um; real ones grow in proportion, to about 0.13 at the corner).
NOMINAL: Final = SceneRanges(
    name="nominal",
    na=[(0.10, 0.10)],
    condenser_na=[(0.055, 0.055)],
    medium_n=[(1.337, 1.337)],
    focus_offset_um=[(0.0, 0.0)],
    um_per_px=[(1.33, 1.33)],
    tilt_na=[(0.01, 0.01)],
    coma_waves=[(0.22, 0.22)],
    vignetting=[(0.20, 0.20)],
    decentre_na=[(0.0, 0.0)],
    decentre_coma_waves=[(0.0, 0.0)],
    wavelength_um=[(medium.WAVELENGTH_UM, medium.WAVELENGTH_UM)],
)

RANGES: Final = {r.name: r for r in (TRAINING, HELD_OUT, NOMINAL)}


def _draw(rng: np.random.Generator, intervals: Sequence[Interval]) -> float:
    lengths = np.array([b - a for a, b in intervals])
    weights = lengths / lengths.sum() if lengths.sum() > 0 else np.full(len(intervals), 1 / len(intervals))
    low, high = intervals[int(rng.choice(len(intervals), p=weights))]
    return float(rng.uniform(low, high))


def _draw_vector(rng: np.random.Generator, intervals: Sequence[Interval]) -> tuple[float, float]:
    size, angle = _draw(rng, intervals), rng.uniform(0, 2 * np.pi)
    return float(size * np.cos(angle)), float(size * np.sin(angle))


def draw_scene(rng: np.random.Generator, *, ranges: SceneRanges = TRAINING) -> OpticsScene:
    """Draw the optics of one run.

    Parameters
    ----------
    rng : numpy.random.Generator
    ranges : SceneRanges
        `TRAINING`, `HELD_OUT`, `NOMINAL` or one's own.

    Returns
    -------
    OpticsScene
        The condenser is kept at or below 0.75 of the objective's aperture.
    """
    na = _draw(rng, ranges.na)
    return OpticsScene(
        na=na,
        condenser_na=min(_draw(rng, ranges.condenser_na), 0.75 * na),
        medium_n=_draw(rng, ranges.medium_n),
        focus_offset_um=_draw(rng, ranges.focus_offset_um),
        um_per_px=_draw(rng, ranges.um_per_px),
        tilt_na=_draw(rng, ranges.tilt_na),
        coma_waves=_draw(rng, ranges.coma_waves),
        vignetting=_draw(rng, ranges.vignetting),
        decentre_na=_draw_vector(rng, ranges.decentre_na),
        decentre_coma_waves=_draw_vector(rng, ranges.decentre_coma_waves),
        wavelength_um=_draw(rng, ranges.wavelength_um),
    )


def draw_field(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a field position, uniform over a 1280 x 1024 frame, in units of its half diagonal."""
    return (
        float(rng.uniform(-FRAME_HALF_WIDTH, FRAME_HALF_WIDTH)),
        float(rng.uniform(-FRAME_HALF_HEIGHT, FRAME_HALF_HEIGHT)),
    )
