"""Labelled pictures in memory, from whatever source: what `fit`, `evaluate` and `data` work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_app.classification.context import turned_outward
from edge_app.classification.crops import CropGeometry, Crops
from edge_app.classification.tight_crops import crops_of_pictures, divide_by_level, particle_box
from training.datasets.labelled import LabelledCrops
from training.datasets.variation import Variation, vary

__all__ = ["LabelledPictures"]

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures as they were read, with class, group and background level of each.

    Attributes
    ----------
    pictures : list of ndarray of uint8 (h, w)
    files : list of str
        Name of each, unique: path below the data folder, or what stands for it.
    label : ndarray of int (n,)
        Into ``classes``.
    group : ndarray of str (n,)
        What must not stand on both sides of a split.
    level : ndarray of float32 (n,)
        Grey level of the background.
    classes : tuple of str
    um_per_px : float
        Scale, as the device would be told.
    place : ndarray of float32 (n, 2), optional
        Place in the frame in half diagonals, NaN where it is not known; None: nowhere.
    ecd_um, depth_um : ndarray of float32 (n,), optional
        True size and distance from the focal plane, where a simulator knows them.
    true_um_per_px : ndarray of float32 (n,), optional
        True scale, where it is not what the device would be told.
    notes : mapping of str to int
        What was left out or met on the way, by reason.
    """

    pictures: list[npt.NDArray[np.uint8]]
    files: list[str]
    label: npt.NDArray[np.int64]
    group: npt.NDArray[np.str_]
    level: F4
    classes: tuple[str, ...]
    um_per_px: float
    place: F4 | None = None
    ecd_um: F4 | None = None
    depth_um: F4 | None = None
    true_um_per_px: F4 | None = None
    notes: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, rows: npt.NDArray[np.int64]) -> LabelledPictures:
        """Keep some."""
        per_picture: dict[str, Any] = {
            f.name: value[rows] for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray)
        }
        return replace(
            self,
            pictures=[self.pictures[i] for i in rows.tolist()],
            files=[self.files[i] for i in rows.tolist()],
            **per_picture,
        )

    def crops(self, geometry: CropGeometry) -> LabelledCrops:
        """As the device would see them."""
        cut = crops_of_pictures(self.pictures, geometry=geometry, um_per_px=self.um_per_px, levels=self.level)
        return self._labelled(cut, geometry, enlarged=np.ones(len(self), np.float32))

    def varied_crops(
        self, geometry: CropGeometry, rng: np.random.Generator, *, variation: Variation | None = None
    ) -> LabelledCrops:
        """With what a change of run, lamp, focus or camera brings, see `training.datasets.variation`."""
        cut, enlarged = vary(
            self.pictures,
            self.level,
            geometry=geometry,
            um_per_px=self.um_per_px,
            rng=rng,
            variation=variation or Variation(),
        )
        return self._labelled(cut, geometry, enlarged=enlarged)

    def longest_px(self) -> F4:
        """Longer side of each particle's box: of the picture, or of what is in it where the margin is wide."""
        boxes = (
            particle_box(divide_by_level(picture, level), margin_px=0)
            for picture, level in zip(self.pictures, self.level.tolist(), strict=True)
        )
        return np.array([max(width, height) for _, _, width, height in boxes], np.float32)

    def _labelled(self, crops: Crops, geometry: CropGeometry, *, enlarged: F4) -> LabelledCrops:
        unknown = np.full(len(self), np.nan, np.float32)
        place = np.full((len(self), 2), np.nan, np.float32) if self.place is None else self.place
        scale = crops.um_per_px if self.true_um_per_px is None else self.true_um_per_px
        pixels, context = _placed(crops, geometry, place)
        return LabelledCrops(
            pixels=pixels,
            context=context,
            label=self.label,
            group=self.group,
            box_px=self.longest_px() * np.float32(self.um_per_px / geometry.um_per_px),
            ecd_um=unknown if self.ecd_um is None else self.ecd_um,
            field_radius=np.hypot(place[:, 0], place[:, 1]).astype(np.float32),
            depth_um=unknown if self.depth_um is None else self.depth_um,
            um_per_px=(scale / enlarged).astype(np.float32),
        )


def _placed(crops: Crops, geometry: CropGeometry, place: F4) -> tuple[npt.NDArray[np.uint8], F4]:
    """Crops turned outward and told their place, as on the device, where the place is known."""
    known = np.isfinite(place).all(axis=1)
    if "field_known" not in geometry.context or not known.any():
        return crops.pixels, crops.context
    pixels, context = crops.pixels.copy(), crops.context.copy()
    pixels[known], outward = turned_outward(pixels[known], place[known])
    for name, values in (("field_x", outward[:, 0]), ("field_y", outward[:, 1]), ("field_known", 1.0)):
        context[known, geometry.context.index(name)] = values
    return pixels, context
