"""Five lots on an unseen instrument, doublets and dirt: sizes come out right, or the calibration is refused."""

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

from benchmarks.bead_lots import DEPTH_UM, BeadLot, nominal_instrument, render_lot
from edge_app.capture.registry import open_source
from edge_app.errors import UserError
from edge_app.measurement.bead_fit import BeadFitSettings, diameters_px
from edge_app.measurement.bead_run import read_bead_run
from edge_app.measurement.calibration import certificate_id, load_calibration
from edge_app.measurement.certificate import (
    CalibrationRefused,
    CalibrationSettings,
    Certificate,
    calibrate,
    fingerprint_of,
    fit_lot,
    load_certificate,
    parse_beads,
    read_plan,
)
from edge_app.measurement.certificate_text import certificate_markdown
from edge_app.segmentation.particles import Particles

from .conftest import BETWEEN_UM, SIZES_UM, Bench

QUICK = CalibrationSettings(fit=BeadFitSettings(bootstrap=20))
NOW = datetime(2026, 11, 21, 9, 0, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def certificate(bench: Bench) -> Certificate:
    return calibrate(bench.lots(), who="A. Analyst", instrument="sim", now=NOW)


@pytest.mark.parametrize("size_um", [*SIZES_UM, BETWEEN_UM])
def test_beads_of_a_known_size_read_that_size(bench: Bench, certificate: Certificate, size_um: float) -> None:
    pure = [bench.run(size_um, doublets=0.0, dirt=0.0, seed=seed, frames=60) for seed in (77, 78)]
    p, calibration = Particles.concatenate([run.particles for run in pure]), certificate.calibration
    inside = p.weight > 0
    read = calibration.ecd_um(p.area_px[inside], p.half_max_area_px[inside])
    error = float(np.median(read)) - size_um
    assert abs(error) <= (0.3 if size_um < 10 else 0.015 * size_um)
    px = float(np.median(diameters_px(p.area_px[inside], p.half_max_area_px[inside], calibration.size_rule)))
    low, high = (np.interp(px, calibration.curve_px, b) for b in (calibration.band_low_um, calibration.band_high_um))
    assert low <= size_um <= high


def test_doublets_and_dirt_are_told_from_single_beads(certificate: Certificate) -> None:
    for lot in certificate.lots:
        beads = lot.singlets + lot.clusters
        assert 0.04 < lot.clusters / beads < 0.20, lot.nominal_um
        assert 0.005 < lot.background / (beads + lot.background) < 0.15, lot.nominal_um
        assert lot.frames == 40


def test_count_recovery_meets_the_truth_of_the_simulation(bench: Bench) -> None:
    lots = [(s.model_copy(update={"per_ml": 85500.0 if s.nominal_um < 40 else 38000.0}), r) for s, r in bench.lots()]
    found = calibrate(lots, settings=QUICK, now=NOW)
    checks = [c for c in found.checks if c.name.startswith("count recovery")]
    assert len(checks) == 5
    assert all(c.passed for c in checks)
    assert np.mean([lot.recovery for lot in found.lots]) == pytest.approx(1.0, abs=0.06)


def test_an_instrument_far_out_of_focus_does_not_pass(bench: Bench, certificate: Certificate) -> None:
    assert abs(bench.scene.focus_offset_um) > 28
    (check,) = (c for c in certificate.checks if c.name.startswith("focal plane"))
    assert check.passed is False
    assert check.value is None or check.value > 25


@pytest.mark.parametrize("offset_um", [0.0, -30.0, 30.0])
def test_the_distance_of_the_focal_plane_is_found(tmp_path: Path, offset_um: float) -> None:
    scene = replace(nominal_instrument(), focus_offset_um=offset_um)
    lot = BeadLot(diameter_um=10.0, sd_um=0.05)
    sprites = render_lot(tmp_path / "beads.npz", lot, scene, seed=3, beads=24, doublets=0, views=6)
    uri = f"sim:?sprites={sprites}&mix=bead:1&depth_um={DEPTH_UM:g}&focus_offset_um={offset_um:g}&frames=40&seed=2"
    run = read_bead_run(open_source(uri + "&concentration=90000"))
    fit = fit_lot(run, rule="half_max", settings=QUICK.fit)
    assert fit is not None
    found = fingerprint_of({"10": (run, fit)}).focus_offset_um
    assert found == pytest.approx(abs(offset_um), abs=DEPTH_UM / 6)


def test_crescents_follow_the_place_in_the_field_without_cross_terms(certificate: Certificate) -> None:
    for size in ("5", "10", "15"):
        found = certificate.optics.asymmetry[size]
        c, u = found.coefficients, found.u_coefficients
        assert abs(c["x_by_u"]) > 10 * u["x_by_u"]
        assert np.sign(c["x_by_u"]) == np.sign(c["y_by_v"])
        assert abs(c["x_by_v"]) < abs(c["x_by_u"]) / 3


def test_the_same_runs_give_the_same_certificate(bench: Bench, certificate: Certificate) -> None:
    again = calibrate(list(reversed(bench.lots())), who="A. Analyst", instrument="sim", now=NOW)
    assert again.json_bytes() == certificate.json_bytes()


def test_a_certificate_is_a_calibration_and_shows_any_change(certificate: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(certificate.json_bytes())
    assert load_certificate(path) == certificate
    calibration = load_calibration(path)
    assert calibration == certificate.calibration
    assert calibration.id == calibration.certificate_id == certificate.id
    assert calibration.state(NOW) == "valid"
    assert calibration.state(datetime(2027, 2, 20, tzinfo=timezone.utc)) == "expired"
    for where, value in (("expires", "2099-01-01T00:00:00Z"), ("who", "B.")):
        tree = json.loads(path.read_text())
        tree[where] = value
        path.with_name("changed.json").write_text(json.dumps(tree))
        for load in (load_calibration, load_certificate):
            with pytest.raises(UserError, match="was altered"):
                load(path.with_name("changed.json"))
    tree = json.loads(path.read_text())
    tree["calibration"]["curve_um"][-1] += 1
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match="was altered"):
        load_calibration(path)


def test_a_check_that_failed_goes_with_the_calibration(certificate: Certificate, tmp_path: Path) -> None:
    failed = tuple(c.name for c in certificate.checks if c.passed is False)
    assert failed == certificate.calibration.failed_checks != ()
    # A certificate made before the calibration held them.
    tree = certificate.tree()
    del tree["calibration"]["failed_checks"]
    tree["id"] = certificate_id(tree)
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(tree))
    assert load_calibration(path).failed_checks == failed


def test_a_piece_of_a_certificate_is_no_calibration(certificate: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "piece.json"
    tree = certificate.tree()["calibration"]
    tree["curve_um"][-1] += 1
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"piece of certificate cal-.* give the certificate"):
        load_calibration(path)


def test_the_text_names_what_an_auditor_asks_for(certificate: Certificate) -> None:
    text = certificate_markdown(certificate)
    for wanted in (certificate.id, "A. Analyst", "2026-11-21T09:00:00Z", "2027-02-19T09:00:00Z", "10 um T", "k = 2"):
        assert wanted in text


@pytest.mark.parametrize("pair", [(10.0, 15.0), (5.0, 25.0)])
def test_swapped_lots_are_refused(bench: Bench, pair: tuple[float, float]) -> None:
    exchange = {pair[0]: pair[1], pair[1]: pair[0]}
    lots = [(bench.standard(s), bench.run(exchange.get(s, s))) for s in SIZES_UM]
    with pytest.raises(CalibrationRefused, match="were swapped") as refused:
        calibrate(lots, settings=QUICK)
    assert all(f"{s:g} um" in str(refused.value) for s in pair)


def test_a_wrong_lot_is_refused_and_named(bench: Bench) -> None:
    lots = [(bench.standard(s), bench.run(BETWEEN_UM if s == 15 else s)) for s in SIZES_UM]
    with pytest.raises(CalibrationRefused, match=r"15 um \(lot T\).*wrong lot"):
        calibrate(lots, settings=QUICK)


def test_lots_that_all_read_too_large_are_not_called_wrong(bench: Bench) -> None:
    # The same beads on an instrument that says it has more than twice the um in a px.
    lots = bench.lots()
    other = lots[0][1].calibration.model_copy(update={"um_per_px": 2.2 * lots[0][1].um_per_px})
    lots = [(standard, replace(run, calibration=other)) for standard, run in lots]
    with pytest.raises(CalibrationRefused, match=r"all lots agree: the focal plane.*or the stated scale is wrong"):
        calibrate(lots, settings=QUICK)


def test_a_reading_that_is_not_known_well_enough_fails_its_check(bench: Bench, certificate: Certificate) -> None:
    few = [(bench.standard(s), bench.run(s, frames=18)) for s in SIZES_UM]
    short = calibrate(few, settings=QUICK, now=NOW)
    for found in (short, certificate):
        for lot in found.lots:
            (check,) = (
                c for c in found.checks if c.name == f"reading of {lot.nominal_um:g} um (lot T) known to (k = 2)"
            )
            assert check.value is not None
            assert check.value == pytest.approx(2 * lot.u_reading_px * found.slope_um_per_px, rel=0.6)
            assert check.passed is (check.value <= max(0.3, 0.015 * lot.certified_um))
    strict = QUICK.model_copy(update={"reading_tolerance": 1e-6, "reading_tolerance_um": 1e-6})
    assert not calibrate(few, settings=strict, now=NOW).passed


def test_clumped_beads_are_refused(bench: Bench) -> None:
    lots = [(bench.standard(s), bench.run(s, doublets=0.45 if s == 10 else 0.1)) for s in SIZES_UM]
    with pytest.raises(CalibrationRefused, match=r"10 um \(lot T\): clumped"):
        calibrate(lots, settings=QUICK)


def test_too_few_beads_are_refused(bench: Bench) -> None:
    lots = [(bench.standard(s), bench.run(s, frames=4 if s == 25 else 40)) for s in SIZES_UM]
    with pytest.raises(CalibrationRefused, match=r"25 um \(lot T\): too few beads: \d+"):
        calibrate(lots, settings=QUICK)


def test_dirty_water_is_refused(bench: Bench) -> None:
    lots = [(bench.standard(s), bench.run(s, dirt=0.75 if s == 5 else 0.05)) for s in SIZES_UM]
    with pytest.raises(CalibrationRefused, match="5 um"):
        calibrate(lots, settings=QUICK)


def test_lots_of_two_instruments_are_refused(bench: Bench) -> None:
    lots = bench.lots()
    other = lots[1][1].calibration.model_copy(update={"um_per_px": 1.6})
    lots[1] = lots[1][0], replace(lots[1][1], calibration=other)
    with pytest.raises(CalibrationRefused, match="one instrument"):
        calibrate(lots, settings=QUICK)
    with pytest.raises(CalibrationRefused, match="needs 3"):
        calibrate(lots[:2])


@pytest.mark.parametrize(
    "text", ["10:9.98:0.05", "ten:9.98:0.05:dir:x", "10:-1:0.05:dir:x", "10:9.98:0:dir:x", "10:9.98:0.05:"]
)
def test_a_wrong_beads_option_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--beads") as error:
        parse_beads(text)
    assert "\n" not in str(error.value)


def test_a_plan_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "beads.toml"
    path.write_text(
        'who = "A"\n[[beads]]\nnominal_um = 10\ncertified_um = 9.98\nuncertainty_um = 0.05\n'
        'source = "dir:x"\nlot = "7"\n'
    )
    assert read_plan(path).beads[0] == parse_beads("10:9.98:0.05:dir:x#7")
    path.write_text(path.read_text() + "diametre = 3\n")
    with pytest.raises(UserError, match=r"beads\.0\.diametre"):
        read_plan(path)
