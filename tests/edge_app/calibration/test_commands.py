"""``calibrate`` and ``verify`` as a user calls them, and a run that names its calibration."""

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_app.cli.calibrate import calibrate
from edge_app.cli.run import run
from edge_app.cli.verify import verify
from edge_app.errors import UserError
from edge_app.measurement.calibration import load_calibration
from edge_app.recording.record_reader import open_record

from .conftest import Bench

LOTS = (5.0, 10.0, 25.0)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def invoke(command: object, *arguments: object, text: str | None = None) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], input=text)  # type: ignore[arg-type]


def beads(bench: Bench, *sizes: float, **kinds: float) -> list[str]:
    options = []
    for size in sizes:
        options += ["--beads", f"{size:g}:{size:g}:{0.006 * size:g}:{bench.uri(size, **kinds)}#L{size:g}"]  # type: ignore[arg-type]
    return options


@pytest.fixture(scope="module")
def calibration(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    path = folder / "calibration.json"
    result = invoke(
        calibrate, *beads(bench, *LOTS), "--out", path, "--folder", folder / "kept", "--who", "A. Analyst", "--json"
    )
    # The focal plane of this instrument is 32 um off: calibrated, with a failed check.
    assert result.exit_code == 1, result.output
    tree = json.loads(result.stdout)
    assert [c["name"] for c in tree["checks"] if c["passed"] is False] == ["focal plane off the middle of the cell"]
    assert (folder / "kept" / f"{tree['id']}.json").read_bytes() == path.read_bytes()
    assert tree["id"] in path.with_suffix(".md").read_text()
    return path


def test_a_run_names_its_calibration_and_sizes_by_it(bench: Bench, calibration: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[flow_cell]\ncalibration_file = "{calibration}"\n[mqtt]\nurl = "off"\n')
    source = bench.uri(10, doublets=0, dirt=0, seed=9)
    result = invoke(run, source, "--config", settings, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout.splitlines()[-1])
    certificate = json.loads(calibration.read_text())
    assert shown["calibrated"] is True
    assert shown["calibration_id"] == certificate["id"]
    with open_record(tmp_path / "run") as record:
        stored = record.calibration
        sizes = record.particles().particles.ecd_um
    assert stored == load_calibration(calibration)
    assert float(np.median(sizes)) == pytest.approx(10, rel=0.04)


def test_a_run_record_of_beads_serves_as_well_as_their_source(bench: Bench, calibration: Path, tmp_path: Path) -> None:
    for size in LOTS:
        result = invoke(run, bench.uri(size), "--mqtt", "off", "--out", tmp_path / f"b{size:g}")
        assert result.exit_code == 0, result.output
    options = []
    for size in LOTS:
        options += ["--beads", f"{size:g}:{size:g}:{0.006 * size:g}:{tmp_path / f'b{size:g}'}"]
    result = invoke(calibrate, *options, "--json", "--um-per-px", bench.scene.um_per_px, "--depth-um", 90)
    assert result.exit_code in (0, 1), result.output
    ours, theirs = json.loads(result.stdout), json.loads(calibration.read_text())
    for a, b in zip(ours["lots"], theirs["lots"], strict=True):
        assert a["reading_px"] == pytest.approx(b["reading_px"], rel=2e-3)
        assert a["volume_ml"] == pytest.approx(b["volume_ml"], rel=1e-6)
    here, there = ours["optics"]["asymmetry"]["25"], theirs["optics"]["asymmetry"]["25"]
    assert here["coefficients"]["x_by_u"] == pytest.approx(there["coefficients"]["x_by_u"], abs=0.02)
    assert here["beads"] < there["beads"]


def test_a_refusal_is_one_line_with_the_reason(bench: Bench) -> None:
    swapped = beads(bench, 5, 10, 15, 25)
    swapped[3], swapped[5] = (
        swapped[3].replace(bench.uri(10), bench.uri(15)),
        swapped[5].replace(bench.uri(15), bench.uri(10)),
    )
    result = invoke(calibrate, *swapped)
    assert isinstance(result.exception, UserError)
    assert "10 um (lot L10) and 15 um (lot L15) were swapped" in str(result.exception)
    result = invoke(calibrate)
    assert isinstance(result.exception, UserError)
    assert "--beads" in str(result.exception)


def test_the_wizard_leads_through_the_lots_and_asks_again(bench: Bench, tmp_path: Path) -> None:
    answers = ["B. Chemist", "sim"]
    for i, size in enumerate((5.0, 10.0, 10.0, 25.0)):
        clumped = 0.45 if i == 1 else 0.1
        answers += [f"{size:g}", f"{size:g}", f"{0.006 * size:g}", "L", bench.uri(size, doublets=clumped)]
    answers.append("n")
    out = tmp_path / "c.json"
    result = invoke(calibrate, "--wizard", "--out", out, text="\n".join(answers) + "\n")
    assert result.exit_code == 1, (result.output, result.exception)
    assert "clumped" in result.stderr
    assert "Flush the cell" in result.stderr
    tree = json.loads(out.read_text())
    assert tree["who"] == "B. Chemist"
    assert [lot["nominal_um"] for lot in tree["lots"]] == [5, 10, 25]


def test_suitability_passes_on_the_same_optics_and_finds_a_moved_condenser(
    bench: Bench, calibration: Path, tmp_path: Path
) -> None:
    limits = tmp_path / "lot.toml"
    limits.write_text(
        '[beads]\nnominal_um = 10\ncertified_um = 10\nlot = "L10"\nlow_per_ml = 70000\nhigh_per_ml = 100000\n'
    )
    history, chart = tmp_path / "history.jsonl", tmp_path / "chart.svg"
    common = ["--limits", limits, "--calibration", calibration, "--history", history]
    for seed in range(3, 9):
        result = invoke(verify, "--beads", bench.uri(10, seed=seed, frames=24), *common, "--chart", chart, "--json")
        assert result.exit_code == 0, result.output
    lines = history.read_text().splitlines()
    assert len(lines) == 6
    assert chart.read_text().count("<circle") == sum(
        c["value"] is not None and c["unit"] != "days" for line in lines for c in json.loads(line)["checks"]
    )
    result = invoke(verify, "--beads", bench.uri(10, tag="moved"), *common, "--json")
    assert result.exit_code == 1
    shown = json.loads(result.stdout)
    failed = {c["name"] for c in shown["checks"] if c["passed"] is False}
    assert "asymmetry drift" in failed
    assert shown["signals"]["asymmetry drift"] == "beyond 3 sigma"
    text = history.read_text()
    history.write_text(text.replace('"passed": true', '"passed": false', 1))
    result = invoke(verify, "--beads", bench.uri(10), *common)
    assert isinstance(result.exception, UserError)
    assert "line 2" in str(result.exception)


def test_a_blank_is_counted_against_its_limit(bench: Bench, calibration: Path, tmp_path: Path) -> None:
    clean = bench.uri(10, doublets=0, dirt=0).replace("concentration=90000", "concentration=0.001")
    result = invoke(verify, "--blank", clean, "--calibration", calibration, "--json")
    assert result.exit_code == 0, result.output
    checks = {c["name"]: c for c in json.loads(result.stdout)["checks"]}
    assert checks["blank, >= 10 um"]["value"] == 0
    # Nothing in 9.4 uL shows no more than fewer than 3.7 / 9.4 uL.
    assert checks["blank, upper end of the 95 % interval"]["value"] == pytest.approx(3.689 / 0.00939, rel=0.01)
    result = invoke(verify, "--blank", bench.uri(25), "--calibration", calibration, "--json")
    assert result.exit_code == 1


def test_verify_says_ok_or_names_the_first_broken_record(bench: Bench, tmp_path: Path) -> None:
    result = invoke(run, bench.uri(25), "--mqtt", "off", "--out", tmp_path / "run", "--frames", 10)
    assert result.exit_code == 0, result.output
    result = invoke(verify, tmp_path / "run")
    assert result.exit_code == 0
    assert result.output.startswith("OK ")
    path = next((tmp_path / "run").glob("*.sqlite"))
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA recursive_triggers = OFF")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE windows SET frames = frames + 1 WHERE seq = 0")
    connection.close()
    result = invoke(verify, path, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    assert json.loads(result.stdout)["first_broken"]
    for wrong in ((), (path, "--blank", "dir:x")):
        assert isinstance(invoke(verify, *wrong).exception, UserError)
