"""The only door from pixels to um."""

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_app.errors import UserError

__all__ = ["Calibration", "load_calibration", "nominal_calibration"]


class Calibration(BaseModel):
    """A monotone size curve and the geometry of the cell.

    The curve maps the equivalent diameter of the size rule in px, ``d_px = 2*sqrt(A/pi)``, to um through
    ``(curve_px, curve_um)``, linear between the knots and beyond the last two. A real MFI's curve has an offset of
    several um, because its masks hold the diffraction halo; a single um/px factor does not describe it.

    Parameters
    ----------
    id
        ``nominal-...`` for one made from a stated scale without beads, else the certificate's id.
    um_per_px
        Geometric scale: lengths (Feret, perimeter) and the field are made of it.
    depth_um
        Inner depth of the flow cell.
    size_rule
        ``mask``: area of the filled mask; ``half_max``: area above half of the particle's own contrast.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    um_per_px: float = Field(gt=0)
    depth_um: float = Field(gt=0)
    size_rule: Literal["mask", "half_max"] = "mask"
    curve_px: tuple[float, ...] = (0.0, 1.0)
    curve_um: tuple[float, ...] = ()
    calibrated: bool = False
    note: str = ""

    @model_validator(mode="after")
    def _monotone(self) -> "Calibration":
        x, y = self.curve_px, self.curve_um
        if len(x) < 2 or len(x) != len(y):
            raise ValueError(
                f"curve_px and curve_um need the same number of knots, at least 2; found {len(x)}, {len(y)}"
            )
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise ValueError("curve_px must rise and curve_um must not fall")
        return self

    def ecd_um(
        self, area_px: npt.NDArray[np.generic], half_max_area_px: npt.NDArray[np.generic]
    ) -> npt.NDArray[np.float32]:
        """Equivalent circular diameter in um, shape (n,), from the mask's and the half-maximum's area in px."""
        area = half_max_area_px if self.size_rule == "half_max" else area_px
        d = 2.0 * np.sqrt(np.asarray(area, np.float64) / np.pi)
        x, y = np.asarray(self.curve_px), np.asarray(self.curve_um)
        size = np.interp(d, x, y)
        slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.maximum(np.where(d > x[-1], y[-1] + slope * (d - x[-1]), size), 0.0).astype(np.float32)

    def frame_volume_ml(self, width_px: int, height_px: int) -> float:
        """Volume seen by one frame: field times depth (1 mL = 1e12 um^3)."""
        return width_px * height_px * self.um_per_px**2 * self.depth_um * 1e-12

    @property
    def sha256(self) -> str:
        """Hash of everything that decides a size or a volume."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True).encode()).hexdigest()


def nominal_calibration(*, um_per_px: float, depth_um: float) -> Calibration:
    """A straight line through zero from a stated scale: pixels times um per px, flagged as not calibrated.

    Examples
    --------
    >>> nominal_calibration(um_per_px=1.33, depth_um=100.0).ecd_um(np.array([100]), np.array([0.0])).round(2)
    array([15.01], dtype=float32)
    """
    return Calibration(
        id=f"nominal-{um_per_px:g}um-{depth_um:g}um", um_per_px=um_per_px, depth_um=depth_um, curve_um=(0.0, um_per_px)
    )


def load_calibration(path: Path) -> Calibration:
    """Read a calibration from a JSON file.

    Raises
    ------
    UserError
        If the file is missing or does not hold a calibration.
    """
    try:
        return Calibration.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: calibration cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"]) or "file"
        raise UserError(f"{path}: {key}: {first['msg']}") from error
