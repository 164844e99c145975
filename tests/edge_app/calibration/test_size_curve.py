"""Curves whose truth is known: the band holds it, near focus and far from it."""

import numpy as np
import numpy.typing as npt
import pytest

from edge_app.measurement.size_curve import CurvePoint, SizeCurve, fit_size_curve

LOTS_UM = np.array([5.0, 10.0, 15.0, 25.0, 50.0])
BETWEEN_UM = np.array([5.0, 6.0, 7.5, 9.0, 10.0, 12.5, 15.0, 20.0, 25.0, 35.0, 50.0])


def _reading(um: npt.NDArray[np.float64], *, offset_um: float, blur_um: float) -> npt.NDArray[np.float64]:
    """Straight with an offset, but for beads smaller than the blur: no picture is smaller than that (8-norm)."""
    return np.asarray(((um + offset_um) ** 8 + (blur_um + offset_um) ** 8) ** (1 / 8) / 1.3)


def _fit(rng: np.random.Generator, **optics: float) -> SizeCurve:
    certified = LOTS_UM * (1 + rng.normal(0, 0.003, 5))
    px = _reading(LOTS_UM, **optics)
    return fit_size_curve(
        [
            CurvePoint(
                diameter_um=float(d), u_um=0.003 * float(d), reading_px=float(p + rng.normal(0, 0.01)), u_px=0.01
            )
            for d, p in zip(certified, px, strict=True)
        ]
    )


@pytest.mark.parametrize("blur_um", [0.0, 4.0, 5.0, 6.0, 6.5])
@pytest.mark.parametrize("offset_um", [0.5, 3.5])
def test_the_band_holds_instruments_whose_small_beads_drown_in_blur(blur_um: float, offset_um: float) -> None:
    optics = {"offset_um": offset_um, "blur_um": blur_um}
    held = []
    for seed in range(10):
        curve = _fit(np.random.default_rng(seed), **optics)
        px = _reading(BETWEEN_UM, **optics)
        low, high = (np.interp(px, curve.px, v) for v in (curve.low_um, curve.high_um))
        held.append(bool(((low <= BETWEEN_UM) & (high >= BETWEEN_UM)).all()))
        at_lots = np.isin(BETWEEN_UM, LOTS_UM)
        error = np.abs(curve.at(px) - BETWEEN_UM)[at_lots]
        assert (error <= np.where(BETWEEN_UM[at_lots] < 10, 0.3, 0.015 * BETWEEN_UM[at_lots])).all()
    assert np.mean(held) >= 0.9


def test_lots_on_a_line_are_trusted_more_than_lots_off_it() -> None:
    rng = np.random.default_rng(1)
    straight, bent = (_fit(rng, offset_um=3.0, blur_um=b) for b in (0.0, 6.5))
    width = [float(np.interp(7.5, c.um, c.high_um - c.low_um)) for c in (straight, bent)]
    assert width[1] > 1.5 * width[0]
