"""State of the optics from bead runs: what a calibration keeps and ``edge-app verify`` compares with."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from edge_app.measurement.asymmetry import AsymmetryMap, fit_asymmetry
from edge_app.measurement.bead_fit import BeadFit
from edge_app.measurement.bead_run import BeadRun
from edge_app.measurement.certificate_content import LotResult, OpticsFingerprint
from edge_app.measurement.focus import estimate_focus_offset

__all__ = ["asymmetry_of", "fingerprint_of", "tells_focus"]

FOCUS_SIZES_UM: Final = (5.0, 15.5)
"""Beads whose contrast tells the focal plane."""


def asymmetry_of(run: BeadRun, fit: BeadFit) -> AsymmetryMap | None:
    """Map of the single beads of a run; None where too few of them have a picture."""
    p = run.particles
    centre = np.stack([p.x_px + (p.width_px - 1) / 2, p.y_px + (p.height_px - 1) / 2], axis=1)
    return fit_asymmetry(run.dark_shift, centre, fit.singlet_share, width_px=run.width_px, height_px=run.height_px)


def _median(values: Sequence[float | None], digits: int) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.median(known)), digits) if known else None


def tells_focus(nominal_um: float) -> bool:
    """Whether beads of this size are used for the focal plane."""
    return FOCUS_SIZES_UM[0] <= nominal_um <= FOCUS_SIZES_UM[1]


def fingerprint_of(runs: Mapping[str, tuple[BeadRun, BeadFit]], results: Sequence[LotResult] = ()) -> OpticsFingerprint:
    """State of the optics from bead runs by nominal size (as text, ``"10"``)."""
    focus = [
        estimate_focus_offset(
            run.particles.intensity_mean, run.particles.intensity_std, fit.singlet_share,
            depth_um=run.calibration.depth_um,
        )
        for size, (run, fit) in runs.items()
        if tells_focus(float(size))
    ]  # fmt: skip
    known = [run for run, _ in runs.values()]
    ten = min(results, key=lambda r: abs(np.log(r.nominal_um / 10)), default=None)
    return OpticsFingerprint(
        asymmetry={size: found for size, (run, fit) in runs.items() if (found := asymmetry_of(run, fit)) is not None},
        focus_offset_um=_median(focus, 1),
        rsd_10um=ten.rsd if ten is not None and 8 <= ten.nominal_um <= 12 else None,
        background_level=_median([r.background_level for r in known], 2),
        noise=_median([r.noise for r in known], 5),
        shading=_median([r.shading for r in known], 4),
    )
