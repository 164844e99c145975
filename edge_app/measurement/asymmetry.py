"""Crescents over the field: the dark centroid of a bead moves in its box with the bead's place in the frame.

Oblique light, coma and a pupil cut off axis draw a round bead into a crescent that depends on its place alone
(``shift / width = slope * u`` with u in +-1 across the frame, no cross terms in a healthy instrument). Measured with
beads it is a fingerprint of the optics: a knock, a shifted condenser or a changed objective shows in it first.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

__all__ = ["AsymmetryMap", "drift_of", "fit_asymmetry"]

F8 = npt.NDArray[np.float64]

ROWS: Final = 3
COLUMNS: Final = 4
ALARM_SHIFT: Final = 0.02
ALARM_SIGMA: Final = 3.0
"""A coefficient that moved by more than this share of a box, and by more than so many standard errors, is an alarm."""

TERMS: Final = ("x_offset", "x_by_u", "x_by_v", "y_offset", "y_by_u", "y_by_v")


class AsymmetryMap(BaseModel):
    """Shift of the dark centroid over the field, in shares of the box.

    Attributes
    ----------
    beads
        Number of single beads in it.
    coefficients
        Shift in x: offset, by u, by v; shift in y: offset, by u, by v; u and v are the place, +-1 across the frame.
    u_coefficients
        Their standard errors.
    grid_x, grid_y, grid_beads
        Mean shift on a 3 x 4 grid of the field (rows, columns), None where no bead was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    beads: int
    coefficients: dict[str, float]
    u_coefficients: dict[str, float]
    grid_x: tuple[tuple[float | None, ...], ...]
    grid_y: tuple[tuple[float | None, ...], ...]
    grid_beads: tuple[tuple[int, ...], ...]


def fit_asymmetry(
    shift: npt.NDArray[np.floating],
    centre_px: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
    *,
    width_px: int,
    height_px: int,
) -> AsymmetryMap | None:
    """Fit the map by weighted least squares with robust standard errors.

    Parameters
    ----------
    shift
        (n, 2): shift in x and y, shares of the box; rows with nan are left out.
    centre_px
        (n, 2): middle of each box in the frame.
    weight
        (n,): probability of a single bead.

    Returns
    -------
    AsymmetryMap, or None with fewer than 30 beads.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> at = rng.uniform(0, 1, (400, 2)) * [1280, 1024]
    >>> moved = 0.1 * (at / [1280, 1024] * 2 - 1) + rng.normal(0, 0.02, (400, 2))
    >>> found = fit_asymmetry(moved, at, np.ones(400), width_px=1280, height_px=1024)
    >>> round(found.coefficients["x_by_u"], 2), round(found.coefficients["x_by_v"], 2)
    (0.1, -0.0)
    """
    shift, centre = np.asarray(shift, np.float64), np.asarray(centre_px, np.float64)
    use = np.isfinite(shift).all(1) & (np.asarray(weight) > 0.5)
    if int(use.sum()) < 30:
        return None
    shift, weights = shift[use], np.asarray(weight, np.float64)[use]
    place = centre[use] / (np.array([width_px, height_px]) / 2) - 1.0
    design = np.column_stack([np.ones(len(place)), place])
    inverse = np.linalg.inv(design.T @ (design * weights[:, None]) + 1e-9 * np.eye(3))
    value: list[float] = []
    error: list[float] = []
    for axis in (0, 1):
        found = inverse @ (design.T @ (weights * shift[:, axis]))
        rest = weights * (shift[:, axis] - design @ found)
        meat = design.T @ (design * (rest**2)[:, None])
        value += found.tolist()
        error += np.sqrt(np.maximum(np.diag(inverse @ meat @ inverse), 0.0)).tolist()
    row = np.clip(((place[:, 1] + 1) / 2 * ROWS).astype(np.int64), 0, ROWS - 1)
    column = np.clip(((place[:, 0] + 1) / 2 * COLUMNS).astype(np.int64), 0, COLUMNS - 1)
    cell = row * COLUMNS + column
    number = np.bincount(cell, minlength=ROWS * COLUMNS)
    grids = [
        np.bincount(cell, weights=shift[:, axis], minlength=ROWS * COLUMNS) / np.maximum(number, 1) for axis in (0, 1)
    ]
    return AsymmetryMap(
        beads=len(shift),
        coefficients={k: round(v, 5) for k, v in zip(TERMS, value, strict=True)},
        u_coefficients={k: round(v, 5) for k, v in zip(TERMS, error, strict=True)},
        grid_x=_table(grids[0], number),
        grid_y=_table(grids[1], number),
        grid_beads=tuple(tuple(int(n) for n in line) for line in number.reshape(ROWS, COLUMNS)),
    )


def _table(values: F8, number: npt.NDArray[np.int64]) -> tuple[tuple[float | None, ...], ...]:
    filled = [round(float(v), 4) if n else None for v, n in zip(values, number, strict=True)]
    return tuple(tuple(filled[r * COLUMNS : (r + 1) * COLUMNS]) for r in range(ROWS))


def drift_of(now: AsymmetryMap, then: AsymmetryMap) -> tuple[float, str | None]:
    """Largest change of a coefficient between two maps of beads of one size, and its name if it is an alarm."""
    change = {k: now.coefficients[k] - then.coefficients[k] for k in TERMS}
    error = {k: float(np.hypot(now.u_coefficients[k], then.u_coefficients[k])) for k in TERMS}
    worst = max(TERMS, key=lambda k: abs(change[k]))
    alarming = [k for k in TERMS if abs(change[k]) > max(ALARM_SHIFT, ALARM_SIGMA * error[k])]
    alarm = max(alarming, key=lambda k: abs(change[k])) if alarming else None
    return abs(change[alarm or worst]), alarm
