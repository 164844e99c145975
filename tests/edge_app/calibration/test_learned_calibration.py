"""Beads through the size rule ``learned``: from sources and from records, on an instrument 32 um out of focus."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_app.capture.registry import open_source
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.size_reader import SizeReader
from edge_app.cli.calibrate import calibrate
from edge_app.cli.run import run
from edge_app.cli.verify import verify
from edge_app.errors import UserError
from edge_app.measurement.bead_run import read_bead_run
from edge_app.measurement.calibration import load_calibration
from edge_app.measurement.certificate import CalibrationRefused, CalibrationSettings
from edge_app.measurement.certificate import calibrate as make_certificate
from edge_app.recording.record_reader import open_record

from .conftest import BETWEEN_UM, SIZES_UM, Bench


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))


def invoke(command: object, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments])  # type: ignore[arg-type]


def beads(sources: dict[float, object]) -> list[str]:
    return [f"--beads={size:g}:{size:g}:{0.006 * size:g}:{source}#L{size:g}" for size, source in sources.items()]


@pytest.fixture(scope="module")
def certified(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The certificate's file and what is printed of it."""
    folder = tmp_path_factory.mktemp("learned")
    path = folder / "calibration.json"
    sources = {size: bench.uri(size) for size in SIZES_UM}
    result = invoke(
        calibrate, *beads(sources), "--size-rule", "learned", "--out", path, "--folder", folder / "kept", "--who", "A."
    )
    # The focal plane of this instrument is 32 um off: calibrated, with a failed check.
    assert result.exit_code == 1, (result.output, result.exception)
    return path, path.with_suffix(".md").read_text()


def test_the_certificate_names_rule_and_network_and_keeps_its_resolution_out_of_focus(
    certified: tuple[Path, str],
) -> None:
    path, text = certified
    calibration, reader = load_calibration(path), Bundle.load().size_reader_sha256
    assert (calibration.size_rule, calibration.size_reader_sha256) == ("learned", reader)
    assert f"diameter as the network reads it off the picture (size reader {reader[:12]})" in text
    tree = json.loads(path.read_text())
    # By area 10 um beads spread by more than 10 % here, and two checks fail (test_certificate.py).
    assert [c["name"] for c in tree["checks"] if c["passed"] is False] == ["focal plane off the middle of the cell"]
    by_size = {lot["nominal_um"]: lot for lot in tree["lots"]}
    assert by_size[10]["rsd"] < 0.06
    # Doublets and dirt are told as ever.
    assert all(0.04 < lot["clusters"] / (lot["singlets"] + lot["clusters"]) < 0.2 for lot in tree["lots"])
    assert 0 < by_size[10]["uncertainty_curve_um"] < 0.15


@pytest.mark.parametrize("size_um", [5.0, 10.0, BETWEEN_UM, 50.0])
def test_a_run_of_beads_of_a_known_size_reads_that_size(
    bench: Bench, certified: tuple[Path, str], size_um: float, tmp_path: Path
) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[flow_cell]\ncalibration_file = "{certified[0]}"\n[mqtt]\nurl = "off"\n')
    source = bench.uri(size_um, doublets=0, dirt=0, seed=9)
    result = invoke(run, source, "--config", settings, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    with open_record(tmp_path / "run") as record:
        p, calibration = record.particles().particles, record.calibration
    assert calibration is not None
    read = float(np.median(p.ecd_um[p.weight > 0]))
    assert read == pytest.approx(size_um, abs=0.3 if size_um < 10 else 0.015 * size_um)
    px = float(np.median(p.learned_ecd_px[p.weight > 0]))
    low, high = (np.interp(px, calibration.curve_px, b) for b in (calibration.band_low_um, calibration.band_high_um))
    assert low <= size_um <= high


def test_records_of_beads_serve_as_well_as_their_source(
    bench: Bench, certified: tuple[Path, str], tmp_path: Path
) -> None:
    lots = (5.0, 10.0, 25.0)
    for size in lots:
        result = invoke(run, bench.uri(size), "--mqtt", "off", "--out", tmp_path / f"b{size:g}")
        assert result.exit_code == 0, result.output
    records: dict[float, object] = {size: tmp_path / f"b{size:g}" for size in lots}
    result = invoke(
        calibrate, *beads(records), "--size-rule", "learned", "--json",
        "--um-per-px", bench.scene.um_per_px, "--depth-um", 90,
    )  # fmt: skip
    assert result.exit_code in (0, 1), (result.output, result.exception)
    ours, theirs = json.loads(result.stdout), json.loads(certified[0].read_text())
    readings = {lot["nominal_um"]: lot["reading_px"] for lot in theirs["lots"]}
    for lot in ours["lots"]:
        assert lot["reading_px"] == pytest.approx(readings[lot["nominal_um"]], rel=2e-3)
    assert ours["calibration"]["size_reader_sha256"] == theirs["calibration"]["size_reader_sha256"]
    # Far from the scale that its crops were cut at, a record does not say what the network would read.
    result = invoke(calibrate, *beads(records), "--size-rule", "learned", "--um-per-px", 2)
    assert isinstance(result.exception, UserError)
    assert "the network read its sizes at 1.41072 um/px, found 2 um/px" in str(result.exception)
    limits = tmp_path / "lot.toml"
    limits.write_text("[beads]\nnominal_um = 10\ncertified_um = 10\nmost_rsd = 0.06\n")
    for source in (bench.uri(10, seed=4), records[10.0]):
        result = invoke(verify, "--beads", source, "--limits", limits, "--calibration", certified[0], "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        checks = {c["name"]: c for c in json.loads(result.stdout)["checks"]}
        assert checks["median single bead"]["value"] == pytest.approx(10, rel=0.015)
        assert checks["resolution (RSD)"]["passed"] is True


def test_the_rule_of_the_settings_is_the_default(bench: Bench, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text('[flow_cell]\nsize_rule = "learned"\n')
    sources: dict[float, object] = {size: bench.uri(size, frames=24) for size in (5.0, 10.0, 25.0)}
    result = invoke(calibrate, *beads(sources), "--config", settings, "--json")
    assert result.exit_code in (0, 1), (result.output, result.exception)
    assert json.loads(result.stdout)["settings"]["size_rule"] == "learned"


def test_lots_that_cannot_be_read_or_were_read_by_two_networks_are_refused(bench: Bench) -> None:
    rule = CalibrationSettings(size_rule="learned")
    bundle = Bundle.load()
    reader = SizeReader(Classifier(bundle, open_backend(bundle).backend))
    lots = [
        (bench.standard(size), read_bead_run(open_source(bench.uri(size, frames=20)), size_reader=reader))
        for size in (10.0, 15.0, 25.0)
    ]
    unread = [(standard, replace(read, size_reader_sha256="")) for standard, read in lots]
    with pytest.raises(UserError, match="no network has read its sizes; allowed: half_max, mask"):
        make_certificate(unread, settings=rule)
    mixed = [lots[0], (lots[1][0], replace(lots[1][1], size_reader_sha256="ab" * 32)), lots[2]]
    with pytest.raises(CalibrationRefused, match=r"15 um .* read by size reader abababababab"):
        make_certificate(mixed, settings=rule)
    # The same beads on an instrument that says it has more than twice the um in a px.
    wrong = lots[0][1].calibration.model_copy(update={"um_per_px": 2.2 * lots[0][1].um_per_px})
    with pytest.raises(CalibrationRefused, match=r"all lots agree.* or the stated scale is wrong"):
        make_certificate([(s, replace(r, calibration=wrong)) for s, r in lots], settings=rule)
