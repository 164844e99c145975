"""The sprites that a run may use, ready to be chosen and placed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import RATIO_ONE
from edge_app.capture.simulation.sprite_library import SpriteLibrary

__all__ = ["OUTLINE_POINTS", "SpritePool", "build_pool"]

F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]
I8 = npt.NDArray[np.int64]

OUTLINE_POINTS: Final = 48
"""Outermost points kept of each true mask, one every 7.5 degrees: the box of the turned mask is met within 0.3 %."""

_SILENT: Final = 1
"""Codes off ``RATIO_ONE`` that count as no picture at a patch's border (0.6 % of the light, below the noise)."""

SIZE_STEP_LN: Final = 0.07
Z_STEP_UM: Final = 6.0
RADIUS_STEP: Final = 0.12
"""What counts as equally near when a sprite is chosen: 7 % in size, 6 um in depth, 0.12 half diagonals in the field."""


@dataclass(frozen=True, kw_only=True)
class SpritePool:
    """Sprites as arrays, a row per sprite.

    ``patches`` are in the sprites' own pixels, as is ``origin``, the middle of the particle's true box in its patch.
    ``scale`` makes frame pixels of sprite pixels. In frame pixels and from ``origin`` are: ``outline``, the outermost
    corners of the true mask, shape (S, OUTLINE_POINTS, 2) as (x, y); ``corners`` of the patch, (S, 4, 2); and
    ``reach_px``, the distance to the farthest of those. ``radius`` is the distance from the middle of the field at
    which a sprite was rendered, on the +x axis, in half diagonals.
    """

    families: tuple[str, ...]
    family_index: npt.NDArray[np.intp]
    ecd_um: F8
    z_um: F8
    radius: F8
    outline: F4
    corners: F8
    origin: F8
    scale: F8
    reach_px: F8
    patches: tuple[npt.NDArray[np.uint8], ...] = field(repr=False)
    um_per_px: float
    _steps: F4 = field(repr=False)

    def size_range(self, family: str, *, low_um: float = 0.0) -> tuple[float, float] | None:
        """Smallest and largest size on hand of a family from a limit on; None if there is none."""
        sizes = self.ecd_um[self.family_index == self.families.index(family)]
        sizes = sizes[sizes >= low_um]
        return (float(sizes.min()), float(sizes.max())) if sizes.size else None

    def choose(
        self,
        rng: np.random.Generator,
        *,
        family_index: npt.NDArray[np.intp],
        ecd_um: F8,
        z_um: F8,
        radius: F8,
    ) -> npt.NDArray[np.intp]:
        """Row of a sprite near each wanted particle, shape (n,): same family, near in size, depth and field radius.

        The wish is shaken by half a step in each of the three, so that near sprites take turns. The particle then is
        what the sprite is: its size and depth are the truth.
        """
        wish = _steps(ecd_um, z_um, radius) + rng.uniform(-0.5, 0.5, (len(family_index), 3)).astype(np.float32)
        chosen = np.zeros(len(family_index), np.intp)
        for family in np.unique(family_index).tolist():
            rows = np.flatnonzero(family_index == family)
            own = np.flatnonzero(self.family_index == family)
            off = wish[rows, None, :] - self._steps[None, own, :]
            chosen[rows] = own[np.argmin((off * off).sum(2), axis=1)]
        return chosen


def _steps(ecd_um: F8, z_um: F8, radius: F8) -> F4:
    """Size, depth and field radius in the steps within which sprites count as equally near, shape (n, 3)."""
    return np.stack([np.log(ecd_um) / SIZE_STEP_LN, z_um / Z_STEP_UM, radius / RADIUS_STEP], axis=1).astype(np.float32)


def _outermost(mask: npt.NDArray[np.bool_]) -> F4:
    """Outermost corners of a mask's pixels in ``OUTLINE_POINTS`` directions, px of the patch, (K, 2) as (x, y)."""
    y, x = np.nonzero(mask)
    corners = np.concatenate([np.stack([x + dx, y + dy], axis=1) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5)])
    hull = cv2.convexHull(corners.astype(np.float32)).reshape(-1, 2)
    turn = np.arange(OUTLINE_POINTS) * (2 * np.pi / OUTLINE_POINTS)
    along = hull @ np.stack([np.cos(turn), np.sin(turn)]).astype(np.float32)
    return np.asarray(hull[along.argmax(0)], np.float32)


def _trim(patch: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Box (y0, y1, x0, x1) of everything in a patch that is not background, plus one px for the interpolation."""
    loud = (cv2.absdiff(patch, np.full_like(patch, RATIO_ONE)) > _SILENT) | mask
    rows, columns = np.flatnonzero(loud.any(1)), np.flatnonzero(loud.any(0))
    return (
        max(int(rows[0]) - 1, 0),
        min(int(rows[-1]) + 2, patch.shape[0]),
        max(int(columns[0]) - 1, 0),
        min(int(columns[-1]) + 2, patch.shape[1]),
    )


def build_pool(
    library: SpriteLibrary,
    *,
    families: Sequence[str],
    um_per_px: float,
    size_um: tuple[float, float] = (0.0, np.inf),
) -> SpritePool:
    """Make the sprites of the wanted families and sizes ready for use; those without any true pixel are left out.

    Parameters
    ----------
    library
        Pictures with truth.
    families
        Families to keep; their order is that of ``family_index``.
    um_per_px
        Scale of the frames. Sprites of another scale are resampled when they are drawn, which changes nothing in um.
    size_um
        Least and largest true ECD.
    """
    rows = np.concatenate([library.find(family=f, ecd_um=size_um) for f in families])
    wanted = [i for i in sorted(rows.tolist()) if library.mask(i).any()]
    patches, outlines, corners, origins = [], [], [], []
    scale = library.um_per_px[wanted].astype(np.float64) / um_per_px
    for row, k in zip(wanted, scale.tolist(), strict=True):
        patch, mask = library.patch(row), library.mask(row)
        y0, y1, x0, x1 = _trim(patch, mask)
        outline = _outermost(mask)
        origin = (outline.min(0) + outline.max(0)) / 2
        outlines.append((outline - origin) * k)
        origins.append(origin - (x0, y0))
        ends = [(x, y) for x in (x0 - 0.5, x1 - 0.5) for y in (y0 - 0.5, y1 - 0.5)]
        corners.append((np.array(ends) - origin) * k)
        patches.append(np.ascontiguousarray(patch[y0:y1, x0:x1]))
    index = np.array([families.index(library.family_name(i)) for i in wanted], np.intp)
    ecd = library.ecd_um[wanted].astype(np.float64)
    z = library.z_um[wanted].astype(np.float64)
    radius = library.field_radius[wanted].astype(np.float64)
    patch_corners = np.array(corners, np.float64).reshape(-1, 4, 2)
    return SpritePool(
        families=tuple(families),
        family_index=index,
        ecd_um=ecd,
        z_um=z,
        radius=radius,
        outline=np.array(outlines, np.float32).reshape(-1, OUTLINE_POINTS, 2),
        corners=patch_corners,
        origin=np.array(origins, np.float64).reshape(-1, 2),
        scale=scale,
        reach_px=np.hypot(patch_corners[:, :, 0], patch_corners[:, :, 1]).max(1, initial=0.0),
        patches=tuple(patches),
        um_per_px=um_per_px,
        _steps=_steps(ecd, z, radius),
    )
