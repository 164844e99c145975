"""The particles that drift through the imaged box: how many, which, how large, how deep."""

from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from edge_app.capture.simulation.flow import ImagedBox, parabolic_speed
from edge_app.capture.simulation.pool import SpritePool
from edge_app.capture.simulation.scene import FlowCellScene

__all__ = ["Drifters", "Population", "SizeLaw"]

F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

BURST_FAMILY: Final = "air_bubble"
BURST_MIN_UM: Final = 10.0
"""Bursts are of bubbles that one sees: smaller ones dissolve."""

HALF_DIAGONAL_PX: Final = float(np.hypot(1280, 1024)) / 2
"""Unit of field positions in the sprites: half the diagonal of the instrument's full frame."""

_ENTRY, _BURST, _STUCK = 1, 2, 3  # streams of random numbers; each frame has its own in the first


@dataclass(frozen=True, kw_only=True)
class SizeLaw:
    """Truncated size distribution by number.

    ``powerlaw``: N(>= d) goes with d^-slope. ``lognormal``: median and standard deviation of ln d before truncation.
    """

    law: str
    slope: float
    median_um: float
    sigma_ln: float

    def draw(self, rng: np.random.Generator, *, low_um: F8, high_um: F8) -> F8:
        """One size per pair of limits, um, by inversion of the distribution; arrays of shape (n,)."""
        u = rng.random(len(low_um))
        if self.law == "powerlaw":
            a, b = low_um**-self.slope, high_um**-self.slope
            return np.asarray((a - u * (a - b)) ** (-1.0 / self.slope))
        low, high = (_normal_share((np.log(d) - np.log(self.median_um)) / self.sigma_ln) for d in (low_um, high_um))
        size = self.median_um * np.exp(self.sigma_ln * _normal_quantile(low + u * (high - low)))
        return np.asarray(np.clip(size, low_um, high_um))


_NORMAL_X: Final[F8] = np.linspace(-8.0, 8.0, 16001)
_NORMAL_SHARE: Final[F8] = np.cumsum(np.exp(-0.5 * _NORMAL_X**2)) / np.exp(-0.5 * _NORMAL_X**2).sum()


def _normal_share(x: F8) -> F8:
    return np.asarray(np.interp(x, _NORMAL_X, _NORMAL_SHARE))


def _normal_quantile(share: F8) -> F8:
    return np.asarray(np.interp(share, _NORMAL_SHARE, _NORMAL_X))


@dataclass(frozen=True, kw_only=True)
class Drifters:
    """Particles in the box at one moment, a row each.

    Attributes
    ----------
    particle_id
        Unique in the run.
    sprite
        Row in the pool; it stays the particle's own while that is in view.
    x_px, y_px
        Centre in the frame; pixel centres are integers.
    depth_position_um
        Distance from the middle of the cell along the light.
    speed_px_per_s
        Along +y.
    mirrored
        Whether its picture is reflected about the radial axis of the field.
    stuck
        Sits on a wall.
    """

    particle_id: I8
    sprite: npt.NDArray[np.intp]
    x_px: F8
    y_px: F8
    depth_position_um: F8
    speed_px_per_s: F8
    mirrored: npt.NDArray[np.bool_]
    stuck: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.particle_id)

    def take(self, rows: npt.NDArray[np.bool_]) -> "Drifters":
        """Keep the rows of a mask."""
        return Drifters(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @staticmethod
    def join(parts: "list[Drifters]") -> "Drifters":
        """Rows of several, in order."""
        return Drifters(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Drifters)})


class Population:
    """Steps the particles of a run from frame to frame.

    The number of centres per volume is a stationary Poisson field: the box is filled at frame 0, and liquid that
    enters later brings its own. At each depth the entering slab is as long as the way that the liquid there makes
    between two frames, so that the mean number in view stays ``concentration * volume`` at every depth and moment.

    Parameters
    ----------
    scene, pool
        ``pool`` holds the families of the mix in its order, and the bubbles of the bursts.
    size_limits
        Smallest and largest size of each family of the pool, shape (families, 2), um.
    """

    def __init__(self, scene: FlowCellScene, pool: SpritePool, *, size_limits: F8) -> None:
        self._scene = scene
        self._pool = pool
        self._limits = size_limits
        self._law = SizeLaw(
            law=scene.size_law, slope=scene.size_slope, median_um=scene.size_median_um, sigma_ln=scene.size_sigma_ln
        )
        self._shares = np.array([scene.mix.get(f, 0.0) for f in pool.families])
        self.box = ImagedBox(
            width_px=scene.width_px,
            height_px=scene.height_px,
            margin_px=float(np.ceil(pool.reach_px.max())) if len(pool.reach_px) else 0.0,
            um_per_px=pool.um_per_px,
            depth_um=scene.depth_um,
        )
        self._frame = -1
        self._next_id = scene.stuck_count
        self._bursts = _Bursts(scene)
        self.stuck = self._draw_stuck()
        self._drifting = self.stuck.take(np.zeros(len(self.stuck), bool))

    @property
    def ids_given(self) -> int:
        """Particles so far, those on the walls included: the next id."""
        return self._next_id

    def step(self) -> Drifters:
        """Go on to the next frame (the first call: frame 0) and return what is in the box: stuck ones first."""
        self._frame += 1
        scene, box = self._scene, self.box
        rng = np.random.default_rng([scene.seed, _ENTRY, self._frame])
        moved = self._drifting
        if self._frame == 0:
            length = box.length_px
        else:
            way = 1.5 * scene.mean_speed_um_per_s / scene.rate_hz / box.um_per_px
            length = min(way, box.length_px)
            y = moved.y_px + moved.speed_px_per_s / scene.rate_hz
            moved = replace(moved, y_px=y)
            moved = moved.take(y < box.entry_y_px + box.length_px)
        count = int(rng.poisson(box.expected(per_ml=scene.concentration_per_ml, length_px=length)))
        family = rng.choice(len(self._shares), size=count, p=self._shares)
        limits = self._limits[family]
        if self._bursts.at(self._frame / scene.rate_hz):
            extra = int(rng.poisson(box.expected(per_ml=scene.bubble_burst_per_ml, length_px=length)))
            bubble = self._pool.families.index(BURST_FAMILY)
            family = np.concatenate([family, np.full(extra, bubble)])
            low, high = self._pool.size_range(BURST_FAMILY, low_um=BURST_MIN_UM) or self._limits[bubble]
            limits = np.concatenate([limits, np.tile([[low, high]], (extra, 1))])
        entered = self._draw(rng, family, limits, length_px=length, first=self._frame == 0)
        self._drifting = Drifters.join([moved, entered]) if len(entered) else moved
        if scene.stuck_count and self._frame >= scene.stuck_from_frame:
            return Drifters.join([self.stuck, self._drifting])
        return self._drifting

    def _radius(self, x: F8, y: F8) -> F8:
        cx, cy = (self.box.width_px - 1) / 2, (self.box.height_px - 1) / 2
        return np.asarray(np.hypot(x - cx, y - cy) / HALF_DIAGONAL_PX)

    def _draw(
        self,
        rng: np.random.Generator,
        family: npt.NDArray[np.intp],
        limits: F8,
        *,
        length_px: float,
        first: bool,
    ) -> Drifters:
        scene, box = self._scene, self.box
        n = len(family)
        x, into = box.place(rng, n, length_px=length_px)
        size = self._law.draw(rng, low_um=limits[:, 0], high_um=limits[:, 1])
        # A particle's middle stays its own radius away from the walls.
        depth = rng.uniform(-1.0, 1.0, n) * np.maximum(scene.depth_um - size, 0.0) / 2
        mirrored = rng.random(n) < 0.5
        speed = parabolic_speed(depth, depth_um=scene.depth_um, mean_um_per_s=scene.mean_speed_um_per_s) / box.um_per_px
        # Slow liquid near the walls has made less way since the last frame: only its share of the slab has entered.
        entered = np.flatnonzero(np.full(n, first) | (into < speed / scene.rate_hz))
        x, y, size, depth = x[entered], box.entry_y_px + into[entered], size[entered], depth[entered]
        sprite = self._pool.choose(
            rng,
            family_index=family[entered],
            ecd_um=size,
            z_um=scene.focus_offset_um - depth,
            radius=self._radius(x, y),
        )
        first_id, self._next_id = self._next_id, self._next_id + len(entered)
        return Drifters(
            particle_id=np.arange(first_id, self._next_id, dtype=np.int64),
            sprite=sprite,
            x_px=x,
            y_px=y,
            depth_position_um=depth,
            speed_px_per_s=speed[entered],
            mirrored=mirrored[entered],
            stuck=np.zeros(len(entered), bool),
        )

    def _draw_stuck(self) -> Drifters:
        scene, box = self._scene, self.box
        n = scene.stuck_count
        rng = np.random.default_rng([scene.seed, _STUCK])
        family = rng.choice(len(self._shares), size=n, p=self._shares)
        limits = self._limits[family]
        # Whole inside the frame, and of a size that one notices where the sprites have it.
        size = np.clip(self._law.draw(rng, low_um=limits[:, 0], high_um=limits[:, 1]) * 3.0, limits[:, 0], limits[:, 1])
        wall = np.where(rng.random(n) < 0.5, -1.0, 1.0) * np.maximum(scene.depth_um - size, 0.0) / 2
        x = rng.uniform(0.05, 0.95, n) * (box.width_px - 1)
        y = rng.uniform(0.05, 0.95, n) * (box.height_px - 1)
        sprite = self._pool.choose(
            rng, family_index=family, ecd_um=size, z_um=scene.focus_offset_um - wall, radius=self._radius(x, y)
        )
        return Drifters(
            particle_id=np.arange(n, dtype=np.int64),
            sprite=sprite,
            x_px=x,
            y_px=y,
            depth_position_um=wall,
            speed_px_per_s=np.zeros(n),
            mirrored=rng.random(n) < 0.5,
            stuck=np.ones(n, bool),
        )


class _Bursts:
    """Poisson moments at which a burst of bubbles begins."""

    def __init__(self, scene: FlowCellScene) -> None:
        self._mean_gap_s = 60.0 / scene.bubble_bursts_per_min if scene.bubble_bursts_per_min else np.inf
        self._length_s = scene.bubble_burst_s
        self._rng = np.random.default_rng([scene.seed, _BURST])
        self._begin_s = self._rng.exponential(self._mean_gap_s) if np.isfinite(self._mean_gap_s) else np.inf

    def at(self, time_s: float) -> bool:
        """Whether a burst is under way; times must not fall."""
        while time_s >= self._begin_s + self._length_s:
            self._begin_s += self._rng.exponential(self._mean_gap_s)
        return bool(time_s >= self._begin_s)
