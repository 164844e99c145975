"""Who made a number, with what, and how far its sizes can be believed: the same in every message of a run."""

from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from edge_app.measurement.calibration import Calibration, CalibrationState

__all__ = ["CalibrationWords", "Provenance", "calibration_words"]


class CalibrationWords(TypedDict):
    """What every message says of the calibration."""

    calibration: str
    calibration_state: CalibrationState
    calibration_age_days: float | None


def calibration_words(calibration: Calibration, moment: datetime | None = None) -> CalibrationWords:
    """Id, state and age of a calibration at a moment (default: now), under the keys that they have in a message.

    Examples
    --------
    >>> from edge_app.measurement.calibration import nominal_calibration
    >>> calibration_words(nominal_calibration(um_per_px=1.33, depth_um=100))["calibration_state"]
    'not_calibrated'
    """
    age_days = calibration.age_days(moment)
    return {
        "calibration": calibration.id,
        "calibration_state": calibration.state(moment),
        "calibration_age_days": None if age_days is None else round(age_days, 3),
    }


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who made a number, and how: the same in every message of a run."""

    device: str
    boot_id: str
    pipeline: str
    model_sha256: str
    calibration: Calibration

    def calibration_at(self, moment: datetime | None = None) -> CalibrationWords:
        """What a message says of the calibration at the time of its frames: one may expire in the middle of a run."""
        return calibration_words(self.calibration, moment)
