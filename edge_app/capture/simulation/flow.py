"""Poiseuille flow between two plates, and the box of liquid in front of the camera."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ImagedBox", "parabolic_speed"]

F8 = npt.NDArray[np.float64]


def parabolic_speed(depth_position_um: F8, *, depth_um: float, mean_um_per_s: float) -> F8:
    """Speed of the liquid in a cell much wider than deep: ``1.5 * mean * (1 - (2 p / depth)^2)``.

    Parameters
    ----------
    depth_position_um
        Distance from the middle of the cell along the light, shape (n,).
    depth_um
        Distance of the walls.
    mean_um_per_s
        Flow rate over cross-section.

    Examples
    --------
    >>> parabolic_speed(np.array([0.0, 50.0]), depth_um=100.0, mean_um_per_s=10.0)
    array([15.,  0.])
    """
    return np.asarray(1.5 * mean_um_per_s * np.clip(1.0 - (2.0 * depth_position_um / depth_um) ** 2, 0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class ImagedBox:
    """The frame with a margin on every side, times the depth of the cell.

    Centres of particles are spread over the margin too, so that particles reach into the frame from outside as often as
    they reach out of it: that is what makes a count with border weights unbiased. Liquid runs along +y.

    Attributes
    ----------
    width_px, height_px
        The frame.
    margin_px
        At least the largest distance from a particle's centre to the end of its picture.
    um_per_px, depth_um
        Scale and inner depth of the cell.
    """

    width_px: int
    height_px: int
    margin_px: float
    um_per_px: float
    depth_um: float

    @property
    def length_px(self) -> float:
        """Height with both margins: the way through the box."""
        return self.height_px + 2.0 * self.margin_px

    def expected(self, *, per_ml: float, length_px: float) -> float:
        """Mean number of centres in a slab of that length along the flow, over the full (margin to margin) width."""
        area_px = (self.width_px + 2.0 * self.margin_px) * length_px
        return per_ml * area_px * self.um_per_px**2 * self.depth_um * 1e-12

    def place(self, rng: np.random.Generator, count: int, *, length_px: float) -> tuple[F8, F8]:
        """Uniform centres (x, distance into the box along the flow), px; pixel centres are integers."""
        x = rng.uniform(-self.margin_px - 0.5, self.width_px + self.margin_px - 0.5, count)
        return x, rng.uniform(0.0, length_px, count)

    @property
    def entry_y_px(self) -> float:
        """Where liquid enters the box."""
        return -self.margin_px - 0.5
