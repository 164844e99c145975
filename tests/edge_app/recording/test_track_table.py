"""Tracks of a record: named wherever they are used, beside the run's own counts and never in their place."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recorded_runs as runs
from click.testing import CliRunner, Result

from edge_app.cli.main import edge_app as command
from edge_app.errors import UserError
from edge_app.measurement.tracks import TrackRule
from edge_app.recording.record_reader import open_record
from edge_app.recording.track_table import TRACK_DOCS, parse_rule, read_tracks

INFO = {
    "uri": "sim:?seed=1", "kind": "sim", "frame_rate_hz": 10.0, "width_px": 128, "height_px": 96,
    "flow_rate_ul_per_min": 6.0, "details": {"scene": {"cell_width_mm": 0.34048}},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three particles run down a picture of 96 px, 20 px a frame, over two windows; a fourth one rests."""
    rng = np.random.default_rng(2)
    with runs.create(tmp_path, info=INFO) as record:
        for seq in range(2):
            content = runs.window_content(rng, seq, per_frame=4)
            frame = content.particles.frame
            lane = np.tile(np.arange(4), 3)
            place = np.where(lane == 3, 50.0, 8.0 + 16.0 * frame)
            particles = replace(
                content.particles,
                centroid_x_px=(20.0 + 25.0 * lane).astype(np.float32),
                centroid_y_px=place.astype(np.float32),
                ecd_um=(6.0 + 4.0 * lane + 0.1 * frame).astype(np.float32),
                border=np.zeros(12, bool),
                weight=np.ones(12, np.float32),
            )
            # One image of the second lane is taken for something else.
            class_index = np.where((lane == 1) & (frame != 0), 3, np.where(lane == 1, 0, lane)).astype(np.int16)
            record.commit_window(
                runs.window_of(runs.RUN_ID, seq, particles, class_index, frames=3),
                particles,
                class_index=class_index,
                confidence=np.full(12, 0.9, np.float32),
            )
        record.finish({})
    return record.path


def _export(run: Path, *arguments: str) -> Result:
    return CliRunner().invoke(command, ["export", str(run), *arguments])


def test_each_particle_is_one_row_over_window_borders(run: Path, tmp_path: Path) -> None:
    with open_record(run) as record:
        found = read_tracks(record, TrackRule())
        default = record.summary()["per_ml"]
    table = found.table()
    assert list(table) == list(TRACK_DOCS)
    assert table["images"].tolist() == [6, 6, 6, 6]
    assert table["counted"].tolist() == [True, True, True, False]
    assert table["class"].tolist() == ["silicone_oil", "glass", "protein_aggregate", "glass"]
    assert table["ecd_um"] == pytest.approx([6.25, 10.25, 14.25, 18.25], abs=1e-5)
    assert table["speed_um_per_s"][:3] == pytest.approx([16 * 1.33 * 10] * 3, rel=1e-5)
    s = found.summary
    assert (s.particles, s.images, s.resting, s.single_images) == (3, 24, 1, 0)
    # 6 uL/min for 0.6 + 0.1 s, of which the picture shows 128 of 256 px of the cell's width.
    assert s.volume_ml is not None
    assert s.per_ml is not None
    assert s.volume_ml == pytest.approx(6 / 60e3 * 0.7 * 0.5)
    assert s.per_ml["10"] == pytest.approx(2 / s.volume_ml)
    facts = found.facts()
    assert facts["counting"].startswith("NIST-style tracks: across_um=3.8")
    for size, value in default.items():
        assert float(facts[f"default_counting.per_ml_{size}"]) == pytest.approx(value, rel=1e-5)


def test_the_export_names_the_mode_and_leaves_the_run_as_it_was(run: Path, tmp_path: Path) -> None:
    before = hashlib.sha256(run.read_bytes()).hexdigest()
    result = _export(run, "--table", "tracks", "-o", str(tmp_path / "t.csv"), "--track-rule", "along_um=300")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("NIST-style tracks: ")
    assert "3 distinct particles in 24 images" in result.stdout
    assert "default counting" in result.stdout
    text = (tmp_path / "t.csv").read_text()
    assert "# counting: NIST-style tracks: across_um=3.8,along_um=300," in text
    assert "# tracks.particles: 3" in text
    table = pd.read_csv(tmp_path / "t.csv", comment="#")
    assert table.columns.tolist() == list(TRACK_DOCS)
    assert table["counted"].sum() == 3
    assert hashlib.sha256(run.read_bytes()).hexdigest() == before


def test_too_fast_a_flow_is_said_to_be_counted_too_low(run: Path, tmp_path: Path) -> None:
    result = _export(run, "--table", "tracks", "-o", str(tmp_path / "t.csv"))
    assert "too low" not in result.stdout
    result = _export(run, "--table", "tracks", "-o", str(tmp_path / "t.csv"), "--track-rule", "min_images=6")
    assert "too low: the fastest particles found are in the picture for 6.0 frames only" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "tracks", "--track-rule", "along=3"), "--track-rule 'along=3': KEY=VALUE with one of across_um"),
        (("--table", "tracks", "--track-rule", "ahead_s=soon"), "--track-rule ahead_s is 'soon'"),
        (("--table", "tracks", "--track-rule", "min_images=1"), "--track-rule min_images is '1'"),
        (("--table", "windows", "--track-rule", "ahead_s=1"), "is for --table tracks"),
    ],
)
def test_a_wrong_rule_is_one_line(run: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = _export(run, *arguments, "-o", str(tmp_path / "t.csv"))
    assert isinstance(result.exception, UserError)  # one line and exit code 2 by the program's entry
    assert message in str(result.exception)
    assert not (tmp_path / "t.csv").exists()


def test_without_flow_rate_there_is_no_concentration(tmp_path: Path) -> None:
    with open_record(runs.write_run(tmp_path)) as record:
        found = read_tracks(record, TrackRule())
    assert found.summary.per_ml is None
    assert "no concentration: the source does not say its flow rate" in list(found.lines())


def test_no_calibration_no_tracks(tmp_path: Path) -> None:
    with runs.create(tmp_path, calibration=None) as record:
        record.finish({})
    with open_record(record.path) as opened, pytest.raises(UserError, match="holds no calibration"):
        read_tracks(opened, TrackRule())
    assert parse_rule(()) == TrackRule()
