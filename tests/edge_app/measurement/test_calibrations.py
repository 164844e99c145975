import numpy as np
import pytest

from edge_app.measurement.calibration import load_calibration
from edge_app.measurement.calibrations import SIMULATED_MFI


def test_simulated_calibration_is_a_curve_with_an_offset() -> None:
    calibration = load_calibration(SIMULATED_MFI)
    assert calibration.calibrated
    assert calibration.um_per_px == pytest.approx(1.33, abs=0.01)
    d_px = np.array([5.0, 10.0, 20.0, 40.0])
    area = np.pi * d_px**2 / 4
    size = calibration.ecd_um(area, area)
    assert (np.diff(size) > 0).all()
    # Straight through zero would be off by more than a micrometre at the small end.
    assert size[0] < d_px[0] * 1.33 - 0.5
