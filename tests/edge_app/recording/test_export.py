import builtins
import json
from dataclasses import fields

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import recorded_runs as runs

from edge_app.capture.mfi.table import MFI_COLUMNS, read_mfi_table
from edge_app.capture.problems import Problems
from edge_app.errors import UserError
from edge_app.measurement.histogram import Histogram
from edge_app.recording.errors import RecordingError
from edge_app.recording.export import EXPORT_FORMATS, column_text, export_table
from edge_app.recording.mfi_csv import BACKGROUND_LEVEL_10BIT
from edge_app.recording.particle_columns import PARTICLE_DTYPES
from edge_app.recording.record_reader import open_record
from edge_app.recording.tables import TABLE_NAMES
from edge_app.segmentation.particles import COLUMN_DOCS, Particles

DESIGN_COLUMNS = [
    "frame", "x_px", "y_px", "width_px", "height_px", "area_px",
    "ecd_um", "max_feret_um", "min_feret_um", "perimeter_um", "aspect_ratio", "circularity",
    "solidity", "intensity_mean", "intensity_min", "intensity_max", "intensity_std", "edge_gradient",
    "border", "weight", "class", "confidence",
]  # fmt: skip
LATER_COLUMNS = ["time_s", "centroid_x_px", "centroid_y_px", "half_max_area_px", "window", "row", "learned_ecd_px"]
PAIRS = [(t, f) for t in TABLE_NAMES for f in EXPORT_FORMATS if f != "mfi-csv" or t == "particles"]


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    with open_record(runs.write_run(tmp_path_factory.mktemp("run"), windows=4)) as opened:
        yield opened


@pytest.mark.parametrize(("table", "format"), PAIRS)
def test_same_frames_same_bytes_whatever_the_run_is_called(record, tmp_path, table, format):
    other = runs.write_run(tmp_path, windows=4, run_id="another-run")
    with open_record(other) as again:
        for name, opened in (("a", record), ("b", again)):
            export_table(opened, table=table, format=format, out=tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert runs.RUN_ID.encode() not in (tmp_path / "a").read_bytes()


def test_particles_as_csv(record, tmp_path):
    out = tmp_path / "p.csv"
    assert export_table(record, out=out) == 72
    lines = out.read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[: len(head)] == head
    assert head[0] == "# mfi.particles/1"
    assert f"# pipeline_id: {'ab' * 32}" in head
    assert "# steps.1: threshold:fraction=0.04" in head
    assert f"# frames_sha256: {3:064x}" in head
    columns = lines[len(head)].split(",")
    assert columns[: len(DESIGN_COLUMNS)] == DESIGN_COLUMNS
    assert {f.name for f in fields(Particles)} <= set(columns)
    assert [f"# column {c}: {COLUMN_DOCS[c]}" for c in DESIGN_COLUMNS] == head[-len(columns) :][: len(DESIGN_COLUMNS)]
    rows = record.particles()
    table = pd.read_csv(out, comment="#")
    assert len(table) == 72
    for f in fields(Particles):
        expected = getattr(rows.particles, f.name)
        # Floats are written by the fewest digits that read back the same.
        np.testing.assert_array_equal(table[f.name].to_numpy().astype(expected.dtype), expected, err_msg=f.name)
    assert table["class"].tolist() == rows.class_names.tolist()
    np.testing.assert_array_equal(table["p_glass"].to_numpy(np.float32), rows.probabilities[:, 3])


def test_golden_rows(tmp_path):
    """The format itself: a change of it breaks others' scripts, and is made on purpose or not at all."""
    values = {
        "frame": 12, "time_s": 1.25, "x_px": 100, "y_px": 40, "width_px": 12,
        "height_px": 9, "centroid_x_px": 105.4, "centroid_y_px": 44.1, "area_px": 80, "half_max_area_px": 71.3,
        "ecd_um": 13.42, "max_feret_um": 15.6, "min_feret_um": 11.1, "perimeter_um": 44.5, "aspect_ratio": 0.7115,
        "circularity": 0.948, "solidity": 1 / 3, "intensity_mean": 0.8, "intensity_min": 0.5, "intensity_max": 1.3,
        "intensity_std": 0.0625, "edge_gradient": 1e-6, "border": False, "weight": 1.1,
        "learned_ecd_px": 9.75,
    }  # fmt: skip
    particles = Particles(**{name: np.array([value], PARTICLE_DTYPES[name]) for name, value in values.items()})
    index = np.array([3])
    with runs.create(tmp_path, identity={"pipeline_id": "p", "steps": ["a:b=1", "c:"]}) as writer:
        window = runs.window_of(writer.run_id, 0, particles, index, frames=2, lost=1, rejected={"small": 4})
        writer.commit_window(window, particles, class_index=index, confidence=np.array([0.9]), frames_sha256="f0")
    with open_record(tmp_path) as record:
        for table in TABLE_NAMES:
            export_table(record, table=table, out=tmp_path / table)
        export_table(record, format="mfi-csv", out=tmp_path / "mfi")
        export_table(record, format="json", out=tmp_path / "json")

    def lines(name, *, comments=False):
        return [x for x in (tmp_path / name).read_text().splitlines() if x.startswith("#") == comments]

    assert lines("particles", comments=True)[:6] == [
        "# mfi.particles/1",
        "# pipeline_id: p",
        "# steps.0: a:b=1",
        "# steps.1: c:",
        "# frames_sha256: f0",
        f"# column frame: {COLUMN_DOCS['frame']}",
    ]
    row = (
        "12,100,40,12,9,80,13.42,15.6,11.1,44.5,0.7115,0.948,0.33333334,0.8,0.5,1.3,0.0625,1e-06,0,1.1,glass,0.9,"
        "1.25,105.4,44.1,71.3,0,0,9.75"
    )
    assert lines("particles") == [
        ",".join([*DESIGN_COLUMNS, *LATER_COLUMNS]),
        row,
    ]
    assert json.loads((tmp_path / "json").read_text())["data"] == [
        [float(x) if x != "glass" else x for x in row.split(",")]
    ]
    assert (tmp_path / "mfi").read_text().splitlines() == [
        "#,Frame #,Particle #,Time Stamp(s),ECD(um),Area(pixels),Perimeter,Circularity,Intensity Mean,Intensity STD,"
        "Intensity Min,Intensity Max,Max Feret Diameter(um),Aspect Ratio,X Left,X Right,Y Top,Y Bottom,Edge Particle",
        "1,12,1,1.250,13.420,80,33.459,0.9480,661.6,51.7,413.5,1023.0,15.600,0.7115,100,111,40,48,0",
    ]
    header, first = lines("windows")
    assert header.startswith(
        "window,first_frame,last_frame,t0_s,t1_s,frames,frames_lost,frames_rejected,particles,volume_ml,per_ml_2,"
        "per_ml_5,per_ml_10,per_ml_25,per_ml_50,per_ml_70,count_silicone_oil,"
    )
    assert first == (
        "0,0,2,0.0,0.3,2,1,0,1,4.347248640000001e-06,253033.611586,253033.611586,253033.611586,0.0,0.0,0.0,0,0,0,1,0,0,4,0,0,"
        "0,0,0,0,0,0,0,0"
    )
    assert [x for x in lines("histogram") if ",1," in x] == ["glass,12.5,16.0,1,1.100000023841858,253033.611586"]


def test_histogram_table_equals_one_made_of_the_particle_table(record, tmp_path):
    export_table(record, table="histogram", out=tmp_path / "h.csv")
    export_table(record, table="particles", out=tmp_path / "p.csv")
    found, rows = (pd.read_csv(tmp_path / name, comment="#") for name in ("h.csv", "p.csv"))
    index = rows["class"].map({c: i for i, c in enumerate(runs.CLASSES)}).to_numpy()
    expected = Histogram.of(
        index, rows["ecd_um"].to_numpy(np.float32), rows["weight"].to_numpy(np.float32), classes=runs.CLASSES
    )
    assert found["count"].tolist() == expected.counts.ravel().tolist()
    np.testing.assert_allclose(found["weighted_count"], expected.weighted.ravel())
    assert found["class"].unique().tolist() == list(runs.CLASSES)
    assert found["ecd_to_um"].max() == float("inf")
    above = found["ecd_from_um"] >= 10
    assert found["per_ml"][above].sum() == pytest.approx(record.summary()["per_ml"]["10"], rel=1e-6)


def test_windows_table_adds_up_to_the_summary(record, tmp_path):
    export_table(record, table="windows", out=tmp_path / "w.csv")
    table, summary = pd.read_csv(tmp_path / "w.csv", comment="#"), record.summary()
    assert table["window"].tolist() == [0, 1, 2, 3]
    for name in ("frames", "frames_lost", "frames_rejected", "particles"):
        assert table[name].sum() == summary[name]
    assert {c: table[f"count_{c}"].sum() for c in runs.CLASSES} == summary["counts"]
    assert table["rejected_border"].sum() == summary["rejected"]["border"]
    assert table["rejected_stuck"].sum() == 0
    np.testing.assert_allclose((table["per_ml_5"] * table["volume_ml"]).sum() / table["volume_ml"].sum(),
                               summary["per_ml"]["5"])  # fmt: skip


@pytest.mark.parametrize("table", TABLE_NAMES)
def test_json_and_parquet_hold_what_csv_holds(record, tmp_path, table):
    for format in ("csv", "json", "parquet"):
        export_table(record, table=table, format=format, out=tmp_path / format)
    csv = pd.read_csv(tmp_path / "csv", comment="#")
    document = json.loads((tmp_path / "json").read_text())
    assert document["schema"] == f"mfi.{table}/1"
    assert document["provenance"]["model_sha256"] == "cd" * 32
    assert list(document["docs"]) == document["columns"] == csv.columns.tolist()
    from_json = pd.DataFrame(document["data"], columns=document["columns"]).fillna(np.inf)
    pd.testing.assert_frame_equal(from_json, csv.fillna(np.inf), check_dtype=False)
    parquet = pyarrow.parquet.read_table(tmp_path / "parquet")
    assert parquet.schema.metadata[b"schema"] == f"mfi.{table}/1".encode()
    assert parquet.schema.field(csv.columns[0]).metadata[b"doc"].decode() == document["docs"][csv.columns[0]]
    pd.testing.assert_frame_equal(parquet.to_pandas(), csv, check_dtype=False, rtol=1e-6)


@pytest.mark.parametrize("windows", [0, 2])
@pytest.mark.parametrize(("table", "format"), PAIRS)
def test_a_run_without_particles(tmp_path, windows, table, format):
    path = runs.write_run(tmp_path, windows=windows, per_frame=0)
    with open_record(path) as empty:
        rows = export_table(empty, table=table, format=format, out=tmp_path / "out")
        assert rows == {"particles": 0, "windows": windows, "histogram": 5 * 26, "tracks": 0}[table]
    if format == "parquet":
        full = tmp_path / "full"
        with open_record(runs.write_run(full, windows=1)) as other:
            export_table(other, table=table, format=format, out=full / "out")
        found, expected = (pyarrow.parquet.read_table(p / "out").schema for p in (tmp_path, full))
        probabilities = [n for n in expected.names if n.startswith("p_")]
        assert {n: found.field(n).type for n in found.names} == {
            n: expected.field(n).type for n in expected.names if n not in probabilities or n in found.names
        }
    elif format == "json":
        assert len(json.loads((tmp_path / "out").read_text())["data"]) == rows
    elif format == "csv":
        assert len(pd.read_csv(tmp_path / "out", comment="#")) == rows
    else:
        assert (tmp_path / "out").read_text() == ",".join(MFI_COLUMNS) + "\n"


def test_the_instruments_own_columns_read_back_by_the_mfi_reader(record, tmp_path):
    out = tmp_path / "particles.csv"
    assert export_table(record, format="mfi-csv", out=out) == 72
    problems = Problems()
    table = read_mfi_table(out, problems)
    assert table is not None
    assert not problems.counts
    assert tuple(table.columns) == MFI_COLUMNS
    p = record.particles().particles

    def column(name):
        return table.columns[name].astype(np.float64)

    assert column("#").tolist() == list(range(1, 73))
    np.testing.assert_array_equal(column("Frame #"), p.frame)
    for frame in np.unique(p.frame):
        assert column("Particle #")[p.frame == frame].tolist() == list(range(1, (p.frame == frame).sum() + 1))
    np.testing.assert_allclose(column("ECD(um)"), p.ecd_um, atol=6e-4)
    np.testing.assert_array_equal(column("Area(pixels)"), p.area_px)
    np.testing.assert_allclose(column("Perimeter") * 1.33, p.perimeter_um, atol=1e-3)
    np.testing.assert_allclose(column("Intensity Mean"), p.intensity_mean * BACKGROUND_LEVEL_10BIT, atol=0.06)
    assert column("Intensity Max").max() <= 1023
    np.testing.assert_array_equal(column("X Right") - column("X Left") + 1, p.width_px)
    np.testing.assert_array_equal(column("Y Bottom") - column("Y Top") + 1, p.height_px)
    np.testing.assert_array_equal(column("Edge Particle"), p.border)


def test_a_frame_that_goes_on_in_the_next_window_is_numbered_on(tmp_path):
    rng = np.random.default_rng(0)
    with runs.create(tmp_path) as writer:
        for seq in range(2):
            particles = runs.particles_of_frame(rng, frame=7, n=3)
            index, confidence, _ = runs.classify(rng, 3)
            window = runs.window_of(writer.run_id, seq, particles, index, frames=1)
            writer.commit_window(window, particles, class_index=index, confidence=confidence)
    with open_record(tmp_path) as record:
        export_table(record, format="mfi-csv", out=tmp_path / "o.csv")
    assert pd.read_csv(tmp_path / "o.csv")["Particle #"].tolist() == [1, 2, 3, 4, 5, 6]


def test_wishes_that_cannot_be_met_are_one_line(record, tmp_path, monkeypatch):
    cases = [
        ({"table": "frames"}, "table 'frames': allowed are particles, windows, histogram"),
        ({"format": "xlsx"}, "format 'xlsx': allowed are csv, parquet, json, mfi-csv"),
        ({"table": "windows", "format": "mfi-csv"}, "has a row per particle"),
        ({"out": tmp_path}, "is a folder"),
        ({"out": tmp_path / "none" / "x.csv"}, "its folder does not exist"),
    ]
    for change, message in cases:
        with pytest.raises(UserError, match=message) as caught:
            export_table(record, **{"out": tmp_path / "x", **change})
        assert "\n" not in str(caught.value)
    real = builtins.__import__

    def without_pyarrow(name, *arguments, **options):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(UserError, match=r"edge-app\[parquet\]"):
        export_table(record, format="parquet", out=tmp_path / "x")
    for format in ("csv", "json", "mfi-csv"):
        assert export_table(record, format=format, out=tmp_path / format) == 72
    assert not (tmp_path / "x").exists()


def test_mfi_csv_needs_a_calibration(tmp_path):
    with runs.create(tmp_path, calibration=None):
        pass
    with (
        open_record(tmp_path) as record,
        pytest.raises(UserError, match="holds no calibration"),
    ):
        export_table(record, format="mfi-csv", out=tmp_path / "o.csv")


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "mfi-csv"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(record, tmp_path, monkeypatch, format):
    out = tmp_path / "out"
    out.write_text("old")

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_app.recording.atomic_file.os.fsync", no_room)
    with pytest.raises(RecordingError, match="disk full"):
        export_table(record, format=format, out=out)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_text_of_columns():
    assert column_text(np.array([True, False])) == ["1", "0"]
    assert column_text(np.array([3, -4], np.int32)) == ["3", "-4"]
    assert column_text(np.array([1e-7, 1 / 3, 1e20, np.inf], np.float32)) == ["1e-07", "0.33333334", "1e+20", "inf"]
    assert column_text(np.array(["glass", 'a "b", c'])) == ["glass", '"a ""b"", c"']


def test_a_record_being_written_is_exported_as_it_was_at_the_beginning(tmp_path):
    rng = np.random.default_rng(0)
    with runs.create(tmp_path) as writer, open_record(tmp_path) as record:
        for seq in range(3):
            content = runs.window_content(rng, seq)
            writer.commit_window(
                content.window, content.particles, class_index=content.class_index, confidence=content.confidence
            )
            assert export_table(record, out=tmp_path / "x.csv") == 18 * (seq + 1)
