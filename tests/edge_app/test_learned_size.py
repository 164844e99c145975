"""Runs sized by the network: the truth of simulated frames, the record and what is made of it, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.detection_accuracy import match
from edge_app.capture.simulation.flow_cell import open_simulation
from edge_app.classification.bundle import SHIPPED, Bundle, sha256_of
from edge_app.classification.size_reader import check_size_rule
from edge_app.cli.main import edge_app, main
from edge_app.config import load_settings
from edge_app.errors import UserError
from edge_app.flow_cell_geometry import CALIBRATIONS, choose_calibration
from edge_app.measurement.calibration import load_calibration
from edge_app.measurement.histogram import Histogram
from edge_app.pipeline import Pipeline, RunRequest
from edge_app.reanalysis import ReanalysisRequest, reanalyse
from edge_app.recording import particle_columns
from edge_app.recording.audit import verify_record
from edge_app.recording.export import export_table
from edge_app.recording.record_reader import open_record
from edge_app.segmentation.particles import COLUMN_DOCS

SCENE = "sim:?concentration=150000&size_min_um=3.5&seed=3&width_px=640&height_px=512"
SIM = SCENE + "&frames=30"
LEAST = {"window.min_ecd_um": 4.0}


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))


def run(source: str, out: Path, **settings: Any) -> Path:
    pipeline = Pipeline(RunRequest(source=source, out=out), load_settings(None, {"mqtt.url": "off", **settings}))
    return Path(pipeline.run()["record"])


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same frames sized by the measured area and by the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_APP_STATE", str(tmp_path_factory.mktemp("state")))
        folder = tmp_path_factory.mktemp("runs")
        return {
            rule: run(SIM, folder / rule, **{"flow_cell.size_rule": rule, **LEAST}) for rule in ("half_max", "learned")
        }


def without_size_head(folder: Path) -> Path:
    """The shipped bundle as one that reads no size."""
    shutil.copytree(SHIPPED, folder)
    with np.load(folder / "reference.npz") as stored:
        kept = {name: stored[name] for name in stored if not name.startswith("size_")}
    np.savez(folder / "reference.npz", **kept)  # type: ignore[arg-type]
    return rehashed(folder)


def rehashed(folder: Path) -> Path:
    tree = json.loads((folder / "bundle.json").read_text())
    tree["files"] = {name: sha256_of(folder / name) for name in tree["files"]}
    (folder / "bundle.json").write_text(json.dumps(tree))
    return folder


def learned_certificate(folder: Path, *, reader: str) -> Path:
    """A learned calibration whose curve has an offset."""
    curve = load_calibration(CALIBRATIONS / "simulated_mfi.json")
    changed = {
        "id": "cal-learned", "size_rule": "learned", "size_reader_sha256": reader, "calibrated": True,
        "curve_px": (0.0, 2.0, 100.0), "curve_um": (0.0, 2.5, 135.0),
    }  # fmt: skip
    path = folder / "learned.json"
    path.write_text(curve.model_copy(update=changed).model_dump_json())
    return path


def test_what_is_counted_is_what_the_network_reads(records: dict[str, Path]) -> None:
    with open_record(records["learned"]) as record:
        rows, total = record.particles(), record.total()
        p, identity = rows.particles, record.identity
        assert record.calibration is not None
        assert not record.calibration.calibrated
        assert record.calibration.id == "nominal-1.33um-100um-learned"
    np.testing.assert_allclose(p.ecd_um, 1.33 * p.learned_ecd_px, rtol=1e-6)
    assert float(p.ecd_um.min()) >= 4.0
    # Nothing is small before the network has said so.
    assert total.rejected["small"] > 20
    again = Histogram.of(rows.class_index, p.ecd_um, p.weight, classes=rows.classes)
    assert np.array_equal(total.histogram.counts, again.counts)
    (step,) = (s for s in identity["steps"] if s.startswith("size:"))
    assert step == f"size:rule=learned^reader={Bundle.load().size_reader_sha256[:12]}"


def test_the_reading_is_kept_whatever_the_rule(records: dict[str, Path]) -> None:
    found = {}
    for rule, path in records.items():
        with open_record(path) as record:
            p = record.particles().particles
            steps = record.identity["steps"]
            assert any(s.startswith(f"size:rule={rule}") for s in steps)
        key = zip(p.frame.tolist(), p.x_px.tolist(), p.y_px.tolist(), p.width_px.tolist(), strict=True)
        found[rule] = dict(zip(key, p.learned_ecd_px.tolist(), strict=True))
        assert np.isfinite(p.learned_ecd_px).all()
    both = found["half_max"].keys() & found["learned"].keys()
    assert len(both) > 0.7 * len(found["learned"])
    # The same frames, the same network: to the last bit, whatever else was classified beside.
    assert all(found["half_max"][k] == found["learned"][k] for k in both)


def test_sizes_are_nearer_to_the_truth_than_by_area(records: dict[str, Path]) -> None:
    truth = {frame.sequence: frame.truth for frame in open_simulation(SIM).frames()}
    spread, protein = {}, {}
    for rule, path in records.items():
        ratio, family = [], []
        with open_record(path) as record:
            p = record.particles().particles
        for sequence, true in truth.items():
            assert true is not None
            found = p.take((p.frame == sequence) & ~p.border)
            owner, _ = match(true, found)
            rows = owner >= 0
            rows[rows] = (true.ecd_um[owner[rows]] >= 5) & (true.ecd_um[owner[rows]] < 25) & ~true.stuck[owner[rows]]
            ratio.append(found.ecd_um[rows] / true.ecd_um[owner[rows]])
            family.append(true.family[owner[rows]])
        all_ratios, families = np.concatenate(ratio), np.concatenate(family)
        assert len(all_ratios) > 100
        low, high = np.percentile(all_ratios, [16, 84])
        spread[rule] = float(high - low) / 2
        protein[rule] = float(np.median(all_ratios[families == "protein_aggregate"]))
    assert spread["learned"] < 0.9 * spread["half_max"]
    assert abs(protein["learned"] - 1) < abs(protein["half_max"] - 1)


def test_the_export_says_what_the_column_is(records: dict[str, Path], tmp_path: Path) -> None:
    with open_record(records["learned"]) as record:
        export_table(record, out=tmp_path / "p.csv")
        expected = record.particles().particles.learned_ecd_px
    lines = (tmp_path / "p.csv").read_text().splitlines()
    assert f"# column learned_ecd_px: {COLUMN_DOCS['learned_ecd_px']}" in lines
    header, *rows = (line.split(",") for line in lines if not line.startswith("#"))
    at = header.index("learned_ecd_px")
    assert np.array_equal(np.array([row[at] for row in rows], np.float32), expected)


def test_reanalysis_by_the_other_rule_is_the_run_by_that_rule(records: dict[str, Path], tmp_path: Path) -> None:
    parent = Path(shutil.copy(records["half_max"], tmp_path / records["half_max"].name))
    config = tmp_path / "s.toml"
    config.write_text('[flow_cell]\nsize_rule = "learned"\n')
    made = reanalyse(ReanalysisRequest(parent=parent, out=tmp_path / "out", reason="by the network", config=config))
    assert {c.name for c in made.difference.settings} == {"flow_cell.size_rule"}
    assert {c.name for c in made.difference.steps} == {"size", "calibration", "calibration hash"}
    with open_record(made.record) as ours, open_record(records["learned"]) as direct:
        assert ours.identity == direct.identity
        assert np.array_equal(ours.particles().particles.ecd_um, direct.particles().particles.ecd_um)
        assert ours.summary()["per_ml"] == direct.summary()["per_ml"]
    # A rule that was stated for the parent does not stand against a certificate that holds its own.
    certificate = learned_certificate(tmp_path, reader=Bundle.load().size_reader_sha256)
    again = reanalyse(
        ReanalysisRequest(parent=made.record, out=tmp_path / "third", reason="beads", calibration=certificate)
    )
    with open_record(again.record) as record:
        p, calibration = record.particles().particles, load_calibration(certificate)
        assert record.calibration == calibration
    assert np.array_equal(p.ecd_um, calibration.ecd_um(p.area_px, p.half_max_area_px, p.learned_ecd_px))


def test_a_record_of_before_opens_verifies_reports_and_is_analysed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delitem(particle_columns.PARTICLE_DTYPES, "learned_ecd_px")  # type: ignore[arg-type]
        old = run(SCENE + "&frames=10", tmp_path / "old")
    with open_record(old) as record:
        p = record.particles().particles
        assert len(p) > 30
        assert np.isnan(p.learned_ecd_px).all()
        export_table(record, out=tmp_path / "old.csv")
        export_table(record, format="json", out=tmp_path / "old.json")
    assert json.loads((tmp_path / "old.json").read_text())["data"][0][-8:].count(None) == 1
    assert verify_record(old).ok
    invoke = CliRunner().invoke
    assert invoke(edge_app, ["report", str(old), "-o", str(tmp_path / "old.html")]).exit_code == 0
    assert "area above half of the particle" in (tmp_path / "old.html").read_text()
    made = reanalyse(ReanalysisRequest(parent=old, out=tmp_path / "out", reason="once more"))
    assert made.difference.same_numbers
    with open_record(made.record) as record:
        assert np.isfinite(record.particles().particles.learned_ecd_px).all()
    result = invoke(
        edge_app,
        ["calibrate", "--size-rule", "learned", "--beads", f"5:5:0.03:{old}", "--beads", f"10:10:0.06:{old}"],
    )
    assert isinstance(result.exception, UserError)
    assert str(result.exception).startswith(f"{old}: holds no learned_ecd_px")
    assert "allowed with it: half_max, mask" in str(result.exception)


def test_a_report_says_in_words_what_sizes_are_made_of(records: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    result = CliRunner().invoke(edge_app, ["report", str(records["learned"]), "-o", str(page)])
    assert result.exit_code == 0, result.output
    assert "diameter as the network reads it off the picture, through a curve" in page.read_text()


def test_a_bundle_that_reads_no_size_counts_by_area_alone(tmp_path: Path) -> None:
    bundle = without_size_head(tmp_path / "bundle")
    path = run(SCENE + "&frames=6", tmp_path / "run", **{"classification.bundle": str(bundle)})
    with open_record(path) as record:
        p = record.particles().particles
    assert len(p) > 10
    assert np.isnan(p.learned_ecd_px).all()
    assert np.isfinite(p.ecd_um).all()


@pytest.mark.parametrize("command", ["run", "calibrate", "verify"])
def test_asked_to_size_by_it_is_one_line_and_exit_code_2(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, config = without_size_head(tmp_path / "bundle"), tmp_path / "s.toml"
    config.write_text(f'[flow_cell]\nsize_rule = "learned"\n[classification]\nbundle = "{bundle}"\n')
    certificate = learned_certificate(tmp_path, reader="")
    arguments, found = {
        "run": (["run", SIM, "--mqtt", "off", "--out", str(tmp_path / "none")], "flow_cell.size_rule: is learned"),
        "calibrate": (["calibrate", "--beads", f"5:5:0.03:{SIM}"], "--size-rule: is learned"),
        "verify": (
            ["verify", "--beads", SIM, "--calibration", str(certificate)],
            "--calibration: is cal-learned by size rule learned",
        ),
    }[command]
    monkeypatch.setattr("sys.argv", ["edge-app", *arguments, "--config", str(config)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == (
        f"edge-app: {found}, but bundle mfi-default ({bundle}) has no size head; allowed with it: mask, half_max"
    )
    assert not list(tmp_path.glob("none/*.sqlite"))


def test_a_calibration_holds_for_the_network_it_was_made_with(tmp_path: Path) -> None:
    bundle = Bundle.load()
    certificate = learned_certificate(tmp_path, reader="ab" * 32)
    with pytest.raises(UserError, match=r"flow_cell\.calibration_file: is cal-learned .* size reader abababababab"):
        run(SIM, tmp_path / "run", **{"flow_cell.calibration_file": str(certificate)})
    good = load_calibration(learned_certificate(tmp_path, reader=bundle.size_reader_sha256))
    check_size_rule(good, bundle)


def test_a_network_that_asks_for_the_measured_size_cannot_give_it(tmp_path: Path) -> None:
    bundle = Bundle.load()
    asks = {"context": (*bundle.description.input.context, "log2_ecd_um")}
    description = bundle.description.model_copy(update={"input": bundle.description.input.model_copy(update=asks)})
    strange = Bundle(
        directory=bundle.directory, description=description, model=bundle.model, prototypes=None,
        size_head=bundle.size_head,
    )  # fmt: skip
    scale = choose_calibration(
        load_settings(None, {"flow_cell.size_rule": "learned"}).flow_cell, open_simulation(SIM).info
    )
    with pytest.raises(UserError, match=r"asks for the measured size itself \(log2_ecd_um\)"):
        check_size_rule(scale, strange)


def test_the_settings_name_the_rule_and_a_wrong_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('[flow_cell]\nsize_rule = "network"\n')
    with pytest.raises(UserError, match=r"flow_cell\.size_rule is 'network': .*'mask', 'half_max' or 'learned'"):
        load_settings(path)
    certificate = learned_certificate(tmp_path, reader="")
    settings = load_settings(None, {"flow_cell.size_rule": "learned", "flow_cell.calibration_file": str(certificate)})
    with pytest.raises(UserError, match=r"flow_cell\.size_rule: is stated beside calibration cal-learned"):
        choose_calibration(settings.flow_cell, open_simulation(SIM).info)


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        (None, "simulated-mfi-1"),
        ("half_max", "simulated-mfi-1"),
        ("mask", "nominal-1.33um-100um"),
        ("learned", "nominal-1.33um-100um-learned"),
    ],
)
def test_a_source_keeps_its_own_curve_unless_another_rule_is_asked_for(rule: str | None, chosen: str) -> None:
    settings = load_settings(None, {"flow_cell.size_rule": rule})
    assert choose_calibration(settings.flow_cell, open_simulation(SIM).info).id == chosen
