"""What is said of a calibration that is not to be taken at its word."""

from datetime import datetime, timezone

import pytest

from edge_app.flow_cell_geometry import calibration_doubts
from edge_app.measurement.calibration import nominal_calibration

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
GOOD = nominal_calibration(um_per_px=1.33, depth_um=100.0).model_copy(
    update={
        "id": "cal-1", "certificate_id": "cal-1", "calibrated": True, "created": "2026-05-01T00:00:00Z",
        "expires": "2026-08-01T00:00:00Z",
    }
)  # fmt: skip


def test_nothing_is_said_of_a_good_one() -> None:
    assert calibration_doubts(GOOD, NOW) == {}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"calibrated": False}, "calibration_not_calibrated", "not from a bead calibration"),
        ({"expires": "2026-05-31T00:00:00Z"}, "calibration_expired", "expired on 2026-05-31"),
        ({"failed_checks": ("a", "b")}, "calibration_checks_failed", "with a check not passed: a, b"),
        ({"certificate_id": ""}, "calibration_uncertified", "has no certificate"),
        ({"created": "2026-06-02T00:00:00Z"}, "calibration_later", "after this run: is the clock right?"),
    ],
)
def test_each_doubt_is_one_line(changes: dict[str, object], kind: str, words: str) -> None:
    found = calibration_doubts(GOOD.model_copy(update=changes), NOW)
    assert list(found) == [kind]
    assert words in found[kind]
    assert "\n" not in found[kind]


def test_a_simulated_cell_needs_no_certificate() -> None:
    assert calibration_doubts(GOOD.model_copy(update={"certificate_id": ""}), NOW, simulated=True) == {}
