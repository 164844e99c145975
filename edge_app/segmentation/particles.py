"""The particles of one frame: a struct of arrays, never an object per particle."""

from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["COLUMN_DOCS", "Particles"]

F4 = npt.NDArray[np.float32]
I4 = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Particles:
    """One row per particle found in a frame; all arrays have the same length n (0 is allowed).

    Pixel columns are measured, ``*_um`` columns come out of the calibration. ``COLUMN_DOCS`` has the formula of
    every column; the export writes it into its header. ``learned_ecd_px`` left out is nan in every row.
    """

    frame: I4
    time_s: F4
    x_px: I4
    y_px: I4
    width_px: I4
    height_px: I4
    centroid_x_px: F4
    centroid_y_px: F4
    area_px: I4
    half_max_area_px: F4
    ecd_um: F4
    max_feret_um: F4
    min_feret_um: F4
    perimeter_um: F4
    aspect_ratio: F4
    circularity: F4
    solidity: F4
    intensity_mean: F4
    intensity_min: F4
    intensity_max: F4
    intensity_std: F4
    edge_gradient: F4
    border: npt.NDArray[np.bool_]
    weight: F4
    learned_ecd_px: F4 = field(default_factory=lambda: np.empty(0, np.float32))

    def __post_init__(self) -> None:
        if len(self.learned_ecd_px) == 0 < len(self.frame):
            object.__setattr__(self, "learned_ecd_px", np.full(len(self.frame), np.nan, np.float32))

    def __len__(self) -> int:
        return len(self.frame)

    @staticmethod
    def concatenate(parts: "list[Particles]") -> "Particles":
        """Join the rows of several frames in the given order."""
        return Particles(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Particles)})

    def with_columns(self, **columns: npt.NDArray[Any]) -> "Particles":
        """The same rows with other columns by name; a tenth of the time of ``dataclasses.replace``."""
        other = object.__new__(Particles)
        other.__dict__.update(self.__dict__, **columns)
        return other

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> "Particles":
        """Keep the rows that a mask or an index array names."""
        return Particles(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


COLUMN_DOCS: dict[str, str] = {
    "frame": "sequence number of the frame (the instrument's own where it has one)",
    "time_s": "s since the start of the run, from the source",
    "x_px": "left edge of the bounding box in the full frame, px",
    "y_px": "upper edge of the bounding box in the full frame, px",
    "width_px": "width of the bounding box, px",
    "height_px": "height of the bounding box, px",
    "centroid_x_px": "centroid of the filled mask, px (pixel centres are integers)",
    "centroid_y_px": "centroid of the filled mask, px (pixel centres are integers)",
    "area_px": "pixels of the mask after hole filling",
    "half_max_area_px": "pixels of the particle above half of its own contrast, holes filled (sub-pixel)",
    "ecd_um": "equivalent circular diameter of the calibration's size rule (2*sqrt(A/pi) of the mask's or the "
    "half-maximum's area, or learned_ecd_px), through its curve, um",
    "max_feret_um": "largest caliper distance of the mask (36 directions), um",
    "min_feret_um": "smallest caliper distance of the mask (36 directions), um",
    "perimeter_um": "perimeter of the outer contour (Crofton-corrected chain), um",
    "aspect_ratio": "min_feret / max_feret, in (0, 1] (ISO 9276-6)",
    "circularity": "2*sqrt(pi*A)/P = sqrt(4*pi*A/P^2), in (0, 1] (ISO 9276-6; the MFI export's own formula)",
    "solidity": "A / A_convex, in (0, 1] (ISO 9276-6)",
    "intensity_mean": "mean over the mask, fraction of background",
    "intensity_min": "minimum over the mask, fraction of background",
    "intensity_max": "maximum over the mask, fraction of background",
    "intensity_std": "standard deviation over the mask, fraction of background",
    "edge_gradient": "mean Sobel gradient over the mask's outline, fraction of background per px (focus measure)",
    "border": "1 if the mask touches the border of the frame (counted by weight 0)",
    "weight": "Miles-Lantuejoul weight W*H/((W-w)*(H-h)) for a w x h box in a W x H frame; 0 on the border",
    "learned_ecd_px": "equivalent circular diameter as the network reads it off the picture, px of the frame: exp(its "
    "output) * 2^log2_reduction * (um per px of the crop / um per px of the frame); nan where it reads no size",
    "class": "class name, or unknown where the classifier rejects",
    "confidence": "calibrated probability of the class (of the best class where rejected)",
}
"""Meaning and formula of each exported column, in order."""
