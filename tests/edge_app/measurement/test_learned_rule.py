"""The size rule ``learned`` at the door from px to um: any monotone curve, any reading."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_app.errors import UserError
from edge_app.measurement.bead_fit import diameters_px
from edge_app.measurement.calibration import (
    SIZE_RULE_WORDS,
    SIZE_RULES,
    Calibration,
    load_calibration,
    nominal_calibration,
    reading_px,
)
from edge_app.measurement.calibrations import SIMULATED_MFI

STEPS = st.lists(
    st.tuples(st.floats(0.1, 20), st.floats(0, 20)),
    min_size=1,
    max_size=8,
)
READINGS = st.lists(st.floats(0, 300, width=32), min_size=2, max_size=30)


@given(steps=STEPS, readings=READINGS)
def test_a_larger_reading_is_never_a_smaller_particle(steps: list[tuple[float, float]], readings: list[float]) -> None:
    px, um = np.cumsum(np.array([(0.0, 0.0), *steps]), axis=0).T
    calibration = Calibration(
        id="x", um_per_px=1, depth_um=100, size_rule="learned", curve_px=tuple(px), curve_um=tuple(um)
    )
    read = np.sort(np.array(readings, np.float32))
    area = np.ones(len(read))
    size = calibration.ecd_um(area, area, read)
    assert (np.diff(size) >= 0).all()
    # Areas have no part in it, and what was not read is not known.
    assert np.array_equal(size, calibration.ecd_um(1000 * area, 50 * area, read))
    assert np.isnan(calibration.ecd_um(area, area)).all()


@given(readings=READINGS, um_per_px=st.floats(0.05, 20))
def test_without_beads_a_learned_size_is_the_reading_times_the_stated_scale(
    readings: list[float], um_per_px: float
) -> None:
    scale = nominal_calibration(um_per_px=um_per_px, depth_um=100, size_rule="learned")
    read = np.array(readings, np.float32)
    np.testing.assert_allclose(scale.ecd_um(read, read, read), read * um_per_px, rtol=1e-5)
    assert scale.state() == "not_calibrated"


@pytest.mark.parametrize("rule", ["mask", "half_max"])
def test_the_other_rules_do_not_look_at_the_network(rule: str) -> None:
    scale = nominal_calibration(um_per_px=1.33, depth_um=100, size_rule=rule)  # type: ignore[arg-type]
    mask, half = np.array([100.0, 400.0]), np.array([80.0, 300.0])
    assert np.array_equal(scale.ecd_um(mask, half), scale.ecd_um(mask, half, np.array([1.0, np.nan])))
    assert np.array_equal(reading_px(scale.size_rule, mask, half), diameters_px(mask, half, scale.size_rule))


def test_each_rule_has_words_and_a_nominal_id_of_its_own() -> None:
    assert set(SIZE_RULE_WORDS) == set(SIZE_RULES)
    made = [nominal_calibration(um_per_px=1.33, depth_um=100, size_rule=rule) for rule in SIZE_RULES]
    assert len({c.id for c in made}) == len({c.sha256 for c in made}) == len(SIZE_RULES)
    # Records of before name it so.
    assert made[0].id == "nominal-1.33um-100um"


def test_the_network_is_part_of_a_learned_calibration_and_of_no_other(tmp_path: Path) -> None:
    shipped = load_calibration(SIMULATED_MFI)
    assert "size_reader_sha256" not in shipped.model_dump()
    learned = shipped.model_copy(update={"size_rule": "learned", "size_reader_sha256": "ab" * 32})
    other = learned.model_copy(update={"size_reader_sha256": "cd" * 32})
    assert len({shipped.sha256, learned.sha256, other.sha256}) == 3
    assert learned.size_rule_words == "diameter as the network reads it off the picture (size reader abababababab)"
    path = tmp_path / "c.json"
    path.write_text(learned.model_dump_json())
    assert load_calibration(path) == learned


def test_an_unknown_rule_is_one_line(tmp_path: Path) -> None:
    tree = json.loads(SIMULATED_MFI.read_text()) | {"size_rule": "ruler"}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"c\.json: size_rule: Input should be 'mask', 'half_max' or 'learned'"):
        load_calibration(path)
