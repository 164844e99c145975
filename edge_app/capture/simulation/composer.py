"""Puts the pictures of particles where the particles are."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE, FrameTruth
from edge_app.capture.simulation.camera import Camera, Patch
from edge_app.capture.simulation.pool import SpritePool
from edge_app.capture.simulation.population import Drifters
from edge_app.capture.simulation.scene import FlowCellScene

__all__ = ["Composer"]

F8 = npt.NDArray[np.float64]

SMEAR_MIN_PX: Final = 0.2
"""Shorter smears are left out: they widen nothing by more than 0.06 px (standard deviation)."""


class Composer:
    """Draws the particles of one moment into a frame and writes down what is there.

    A sprite was rendered at some distance from the middle of the field, on the +x axis. It is turned by the polar angle
    of the particle's place, so that what lens and lamp do off the axis (crescents) points the right way, and mirrored
    about the radial axis for one half of the particles. Light over background multiplies where pictures overlap.
    """

    def __init__(self, scene: FlowCellScene, pool: SpritePool, camera: Camera) -> None:
        self._scene = scene
        self._pool = pool
        self._camera = camera
        self._ratio = np.ones((scene.height_px, scene.width_px), np.float32)
        self._names = np.array(pool.families)

    def turns(self, drifters: Drifters) -> F8:
        """Matrices (n, 2, 2) that turn the sprites' (x, y) into the frame's."""
        cx, cy = (self._scene.width_px - 1) / 2, (self._scene.height_px - 1) / 2
        angle = np.arctan2(drifters.y_px - cy, drifters.x_px - cx)
        # Mirror about +x, the sprite's radial axis, then turn that axis onto the particle's: in one matrix.
        sign = np.where(drifters.mirrored, -1.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        return np.stack([np.stack([cos, -sin * sign], axis=1), np.stack([sin, cos * sign], axis=1)], axis=1)

    def truth(self, drifters: Drifters, turns: F8) -> FrameTruth:
        """True boxes of the particles whose true mask reaches into the frame, in the order of their ids."""
        outline = np.einsum("nij,nkj->nki", turns, self._pool.outline[drifters.sprite].astype(np.float64))
        centre = np.stack([drifters.x_px, drifters.y_px], axis=1)
        low = outline.min(1, initial=np.inf) + centre
        high = outline.max(1, initial=-np.inf) + centre
        # Pixel i covers i - 0.5 .. i + 0.5, a box from pixel i on has x_px = i: hence the half.
        seen = ((high > -0.5) & (low < (self._scene.width_px - 0.5, self._scene.height_px - 0.5))).all(1)
        rows = drifters.sprite[seen]
        box = (low + 0.5)[seen].astype(np.float32)
        size = (high - low)[seen].astype(np.float32)
        return FrameTruth(
            particle_id=drifters.particle_id[seen],
            family=self._names[self._pool.family_index[rows]],
            x_px=box[:, 0],
            y_px=box[:, 1],
            width_px=size[:, 0],
            height_px=size[:, 1],
            ecd_um=self._pool.ecd_um[rows].astype(np.float32),
            z_um=self._pool.z_um[rows].astype(np.float32),
            stuck=drifters.stuck[seen],
        )

    def compose(self, frame: int, drifters: Drifters) -> tuple[npt.NDArray[np.uint8], FrameTruth]:
        """The frame (uint8, H x W) of particles at their present places, and its truth."""
        turns = self.turns(drifters)
        patches = self._draw(drifters, turns)
        image = self._camera.expose(frame, self._ratio, patches)
        for where in patches:
            self._ratio[where] = 1.0
        return image, self.truth(drifters, turns)

    def _draw(self, drifters: Drifters, turns: F8) -> list[Patch]:
        scene, pool = self._scene, self._pool
        centre = np.stack([drifters.x_px, drifters.y_px], axis=1)
        smear = drifters.speed_px_per_s * (scene.strobe_us * 1e-6)
        smear = np.where(smear >= SMEAR_MIN_PX, smear, 0.0)
        corner = np.einsum("nij,nkj->nki", turns, pool.corners[drifters.sprite])
        low = np.floor(corner.min(1, initial=np.inf) + centre)
        high = np.ceil(corner.max(1, initial=-np.inf) + centre) + 1
        low[:, 1] -= np.ceil(smear / 2)
        high[:, 1] += np.ceil(smear / 2)
        # Only what lies in the frame is drawn: patches are cut, not shifted.
        size = np.array([scene.width_px, scene.height_px], np.float64)
        low, high = np.maximum(low, 0), np.minimum(high, size)
        seen = np.flatnonzero((high > low).all(1))
        # Back from a pixel of the cut patch to the sprite: s = origin + turn^T (low + pixel - centre) / scale.
        back = turns.transpose(0, 2, 1) / pool.scale[drifters.sprite][:, None, None]
        offset = pool.origin[drifters.sprite] + np.einsum("nij,nj->ni", back, low - centre)
        maps = np.concatenate([back, offset[:, :, None]], axis=2)
        patches: list[Patch] = []
        for i in seen.tolist():
            (x0, y0), (x1, y1) = low[i].astype(int).tolist(), high[i].astype(int).tolist()
            picture = cv2.warpAffine(
                pool.patches[drifters.sprite[i]],
                maps[i],
                (x1 - x0, y1 - y0),
                flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(RATIO_ONE,),
            )
            if smear[i]:
                picture = _smear(picture, float(smear[i]))
            where = (slice(y0, y1), slice(x0, x1))
            here = self._ratio[where]
            cv2.multiply(here, picture, dst=here, scale=1.0 / RATIO_ONE, dtype=cv2.CV_32F)
            patches.append(where)
        return patches


def _smear(picture: npt.NDArray[np.uint8], length_px: float) -> npt.NDArray[np.uint8]:
    """Average along y over a (fractional) length."""
    half = int(np.ceil((length_px - 1) / 2)) if length_px > 1 else 1
    edges = np.arange(-half, half + 2) - 0.5
    covered = np.diff(np.clip(edges, -length_px / 2, length_px / 2))
    if length_px <= 1:
        # Shorter than a pixel: the three-tap kernel of the same variance, length^2 / 12.
        side = length_px**2 / 24
        covered = np.array([side, 1 - 2 * side, side])
    kernel = (covered / covered.sum()).reshape(-1, 1)
    return np.asarray(cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.uint8)
