import json
import sqlite3
import threading
from dataclasses import fields
from datetime import datetime, timezone

import numpy as np
import pytest
import recorded_runs as runs
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_app.errors import UserError
from edge_app.measurement.histogram import Histogram
from edge_app.recording.audit import verify_record
from edge_app.recording.event import Event
from edge_app.recording.outgoing import Outgoing
from edge_app.recording.particle_columns import (
    PARTICLE_DTYPES,
    RecordedParticles,
    pack_column,
    pack_particles,
    unpack_column,
    unpack_particles,
)
from edge_app.recording.record_reader import open_record
from edge_app.recording.run_record import add_audit_entry, new_run_id, recover
from edge_app.segmentation.particles import Particles


def assert_same_particles(found: RecordedParticles, content: runs.WindowContent) -> None:
    for f in fields(Particles):
        expected, got = getattr(content.particles, f.name), getattr(found.particles, f.name)
        assert got.dtype == expected.dtype, f.name
        np.testing.assert_array_equal(got, expected, err_msg=f.name)
    np.testing.assert_array_equal(found.class_index, content.class_index)
    np.testing.assert_array_equal(found.confidence, content.confidence)


def test_a_run_reads_back_as_it_was_written(tmp_path):
    runs.write_run(tmp_path, windows=4)
    rng = np.random.default_rng(0)
    with open_record(tmp_path) as record:
        windows, particles = list(record.windows()), list(record.particles_by_window())
        for seq in range(4):
            content = runs.window_content(rng, seq)
            for _ in range(3):
                rng.integers(90, 170, runs.SHAPE, np.uint8)
            assert windows[seq].rejected == content.window.rejected
            for name in ("seq", "first_frame", "last_frame", "t0_s", "t1_s", "frames", "frames_lost", "volume_ml"):
                assert getattr(windows[seq], name) == getattr(content.window, name)
            np.testing.assert_array_equal(windows[seq].histogram.counts, content.window.histogram.counts)
            np.testing.assert_array_equal(windows[seq].histogram.weighted, content.window.histogram.weighted)
            assert_same_particles(particles[seq], content)
            np.testing.assert_array_equal(particles[seq].probabilities, content.probabilities)
            assert (particles[seq].window == seq).all()
            assert particles[seq].row.tolist() == list(range(len(content.particles)))
        assert record.meta["settings"] == {"window": {"length_s": 0.3}}
        assert record.meta["identity"] == runs.IDENTITY
        assert record.meta["finished"]["state"] == "completed"
        assert record.meta["summary"] == {"seconds": 1.5}
        assert record.calibration == runs.CALIBRATION
        assert record.frames_sha256 == f"{3:064x}"
        assert [e.kind for e in record.events()] == ["led_drift"] * 4 + ["fallback"]
        seq, companion = list(record.companion_by_window())[1]
        assert seq == 1
        assert companion["ECD(um)"].tolist() == [0, 1, 2]
        assert companion["Edge Particle"].tolist() == ["yes", "no", "no"]


def test_a_reanalysis_of_the_recorded_particles_gives_the_recorded_histogram(tmp_path):
    runs.write_run(tmp_path, windows=3)
    with open_record(tmp_path) as record:
        for window, rows in zip(record.windows(), record.particles_by_window(), strict=True):
            again = Histogram.of(rows.class_index, rows.particles.ecd_um, rows.particles.weight, classes=rows.classes)
            np.testing.assert_array_equal(again.counts, window.histogram.counts)


def test_the_summary_is_the_sum_of_the_windows(tmp_path):
    runs.write_run(tmp_path, windows=5)
    with open_record(tmp_path) as record:
        windows, total, summary = list(record.windows()), record.total(), record.summary()
        rows = record.particles()
    assert total.frames == sum(w.frames for w in windows) == summary["frames"]
    assert summary["frames_lost"] == sum(w.frames_lost for w in windows)
    assert summary["frames_rejected"] == sum(w.frames_rejected for w in windows) == summary["rejected"]["frame_dark"]
    assert summary["particles"] == sum(w.particles for w in windows) == int((rows.particles.weight > 0).sum())
    assert summary["volume_ml"] == pytest.approx(sum(w.volume_ml for w in windows))
    assert summary["counts"] == {
        name: int(((rows.class_names == name) & (rows.particles.weight > 0)).sum()) for name in runs.CLASSES
    }
    above = (rows.particles.ecd_um >= 10) * rows.particles.weight.astype(np.float64)
    assert summary["per_ml"]["10"] == pytest.approx(above.sum() / summary["volume_ml"])
    assert list(summary["per_ml"]) == ["2", "5", "10", "25", "50", "70"]
    assert summary["pipeline_id"] == runs.IDENTITY["pipeline_id"]
    assert json.loads(json.dumps(summary)) == summary


def test_no_window_and_no_particle(tmp_path):
    runs.write_run(tmp_path / "no-window", windows=0)
    with open_record(tmp_path / "no-window") as record:
        assert list(record.windows()) == []
        assert len(record.particles()) == 0
        assert record.total().particles == 0
        assert record.summary()["per_ml"]["2"] is None
        assert record.pictures() == []
        assert record.frames_sha256 is None
    path = runs.write_run(tmp_path / "no-particle", windows=2, per_frame=0)
    with open_record(path) as record:
        assert len(record.particles()) == 0
        assert record.particles().particles.border.dtype == np.bool_
        assert record.summary()["per_ml"]["2"] == 0
    assert verify_record(path).ok


@given(
    hnp.arrays(
        st.sampled_from(["<f4", "<i4", "<i2", "|b1", "<f8", "<i8"]).map(np.dtype), st.integers(0, 40), elements=None
    )
)
def test_any_column_comes_back_bit_by_bit(values):
    codec, data = pack_column(values, values.dtype.str)
    back = unpack_column(values.dtype.str, codec, data)
    assert back.tobytes() == values.tobytes()
    assert back.dtype == values.dtype


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=4), st.integers(0, 2**32 - 1))
def test_windows_add_up_however_particles_fall_into_them(tmp_path_factory, sizes, seed):
    rng = np.random.default_rng(seed)
    directory = tmp_path_factory.mktemp("add")
    every = []
    with runs.create(directory) as record:
        for seq, n in enumerate(sizes):
            particles = runs.particles_of_frame(rng, frame=seq, n=n)
            index, confidence, _ = runs.classify(rng, n)
            every.append((particles, index))
            window = runs.window_of(record.run_id, seq, particles, index, frames=1)
            record.commit_window(window, particles, class_index=index, confidence=confidence)
    with open_record(directory) as record:
        total, rows = record.total(), record.particles()
    if every:
        particles = Particles.concatenate([p for p, _ in every])
        index = np.concatenate([i for _, i in every])
        whole = Histogram.of(index, particles.ecd_um, particles.weight, classes=runs.CLASSES)
        np.testing.assert_array_equal(total.histogram.counts, whole.counts)
        np.testing.assert_allclose(total.histogram.weighted, whole.weighted)
        np.testing.assert_array_equal(rows.particles.ecd_um, particles.ecd_um)
    assert total.frames == len(sizes)
    assert len(rows) == sum(sizes)


def test_columns_that_do_not_fit_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    good = runs.window_content(rng, 0)
    with runs.create(tmp_path) as record:

        def commit(**changes):
            columns = {"class_index": good.class_index, "confidence": good.confidence} | changes
            window = columns.pop("window", good.window)
            record.commit_window(window, good.particles, **columns)

        with pytest.raises(ValueError, match="18 particles, 17 classes"):
            commit(class_index=good.class_index[1:])
        with pytest.raises(ValueError, match=r"class index 0\.\.7 with 5 classes"):
            commit(class_index=np.arange(18) % 8)
        with pytest.raises(ValueError, match="probabilities have shape"):
            commit(probabilities=good.probabilities[1:])
        with pytest.raises(ValueError, match="window of run other"):
            commit(window=runs.window_content(rng, 0, run_id="other").window)
        commit()
        with pytest.raises(ValueError, match="window 0 after window 0"):
            commit()
        record.finish({})
        with pytest.raises(ValueError, match="is finished"):
            record.finish({})
        with pytest.raises(ValueError, match="is finished"):
            commit(window=runs.window_content(rng, 1).window)
    with open_record(tmp_path) as record:
        assert len(list(record.windows())) == 1


def test_a_window_and_its_messages_are_one_transaction(tmp_path):
    content = runs.window_content(np.random.default_rng(0), 0)
    bad = Outgoing(topic="t", payload={"x": float("nan")}, kind="histogram", seq=0)
    good = Outgoing(topic="t", payload='{"seq":0}', kind="histogram", seq=0, retain=True)
    columns = {"class_index": content.class_index, "confidence": content.confidence}
    with runs.create(tmp_path) as record:
        with pytest.raises(ValueError, match="JSON compliant"):
            record.commit_window(content.window, content.particles, **columns, outgoing=[good, bad])
        with sqlite3.connect(record.path) as other:
            assert other.execute("SELECT count(*) FROM windows").fetchone() == (0,)
            assert other.execute("SELECT count(*) FROM outbox").fetchone() == (0,)
        other.close()
        record.commit_window(content.window, content.particles, **columns, outgoing=[good])
        record.enqueue([Outgoing(topic="r", payload={"a": 1}, kind="run", qos=0)])
        with sqlite3.connect(record.path) as other:
            found = other.execute("SELECT topic, payload, qos, retain, kind, run_id, seq FROM outbox ORDER BY id")
            assert found.fetchall() == [
                ("t", '{"seq":0}', 1, 1, "histogram", runs.RUN_ID, 0),
                ("r", '{"a":1}', 0, 0, "run", runs.RUN_ID, None),
            ]
        other.close()
    assert verify_record(record.path).ok


def test_delivered_messages_leave_and_the_record_stays_true(tmp_path):
    path = runs.write_run(tmp_path)
    with sqlite3.connect(path) as other:
        assert other.execute("DELETE FROM outbox").rowcount == 3
    other.close()
    assert verify_record(path).ok


def test_run_ids_sort_by_time_and_the_newest_record_is_taken(tmp_path):
    old = new_run_id(datetime(2026, 11, 21, 7, 45, tzinfo=timezone.utc))
    new = new_run_id(datetime(2026, 11, 21, 7, 46, tzinfo=timezone.utc))
    for run_id in (new, old):
        runs.write_run(tmp_path, windows=1, run_id=run_id)
    with open_record(tmp_path) as record:
        assert record.run_id == new
    with open_record(tmp_path, run_id=old) as record:
        assert record.run_id == old
    with open_record(tmp_path / f"{old}.sqlite") as record:
        assert record.run_id == old
    with pytest.raises(UserError, match=f"no run 'nope', found {old}, {new}"):
        open_record(tmp_path, run_id="nope")


def test_what_is_no_record_is_refused_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.sqlite").write_text("not a database, only text " * 100)
    (tmp_path / "nothing.sqlite").touch()
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    for name, message in {
        "missing": "no such folder or run record",
        "empty": "no run record",
        "text.sqlite": "not a readable run record",
        "nothing.sqlite": "not a run record",
        "other.sqlite": "not a run record",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            open_record(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_of_a_record_of_a_newer_program_nothing_is_said(tmp_path):
    path = runs.write_run(tmp_path)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=2")
    with pytest.raises(UserError, match="use a newer edge-app"):
        verify_record(path)


def test_a_record_of_a_newer_program_is_refused(tmp_path):
    path = runs.write_run(tmp_path)
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=2")
    other.close()
    for use in (open_record, recover, verify_record_ok):
        with pytest.raises((UserError, AssertionError), match="version 2, this program reads up to 1"):
            use(path)


def verify_record_ok(path):
    verdict = verify_record(path)
    assert verdict.ok, verdict.first_broken


def test_creating_where_it_cannot_be(tmp_path):
    runs.write_run(tmp_path, windows=0)
    with pytest.raises(UserError, match="is there already"):
        runs.create(tmp_path)
    with pytest.raises(UserError, match="allowed are a-z"):
        runs.create(tmp_path, run_id="../up")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="folder for run records cannot be made"):
        runs.create(tmp_path / "file")
    with pytest.raises(ValueError, match="the record's own"):
        runs.create(tmp_path, run_id="x", extra={"run_id": "y"})
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{runs.RUN_ID}.sqlite", "file"]


def test_readers_beside_a_writer_see_whole_windows_only(tmp_path):
    rng = np.random.default_rng(0)
    contents = [runs.window_content(rng, seq) for seq in range(40)]
    done = threading.Event()
    seen: list[int] = []
    wrong: list[str] = []

    def read() -> None:
        with open_record(tmp_path) as record:
            while not done.is_set() or not seen or seen[-1] != 40:
                with record.snapshot():
                    windows, rows = list(record.windows()), record.particles()
                counted = sum(w.particles for w in windows)
                if counted != int((rows.particles.weight > 0).sum()) or len(rows) != 18 * len(windows):
                    wrong.append(f"{len(windows)} windows, {counted} counted, {len(rows)} rows")
                    return
                seen.append(len(windows))

    with runs.create(tmp_path) as record:
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        for content in contents:
            record.commit_window(
                content.window, content.particles, class_index=content.class_index, confidence=content.confidence
            )
        done.set()
        for reader in readers:
            reader.join(30)
    assert not wrong
    assert seen[-1] == 40


def test_a_record_on_a_read_only_disk_opens(tmp_path, monkeypatch):
    path = runs.write_run(tmp_path)
    monkeypatch.setattr("edge_app.recording.schema.os.access", lambda *_: False)
    with open_record(path) as record:
        assert record.summary()["windows"] == 3
    assert verify_record(path).ok


def test_reading_leaves_no_files_behind(tmp_path):
    path = runs.write_run(tmp_path)
    with open_record(path) as record, open_record(path) as other:
        assert record.summary() == other.summary()
    verify_record(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_column_is_read_by_sqlite3_and_numpy_alone(tmp_path):
    """The recipe of docs/run_record.md."""
    import zlib

    path = runs.write_run(tmp_path)
    connection = sqlite3.connect(path)
    parts = []
    for dtype, codec, data in connection.execute(
        "SELECT dtype, codec, data FROM particle_columns WHERE name = 'ecd_um' ORDER BY seq"
    ):
        parts.append(np.frombuffer(zlib.decompress(data) if codec == "zlib" else data, dtype))
    connection.close()
    with open_record(path) as record:
        np.testing.assert_array_equal(np.concatenate(parts), record.particles().particles.ecd_um)


def test_events_and_audit_entries(tmp_path):
    path = runs.write_run(tmp_path, windows=1)
    with pytest.raises(UserError, match="a reason is needed"):
        add_audit_entry(path, action="reviewed", reason=" ")
    head = add_audit_entry(
        path, action="reviewed", reason="second look at glass", user="quality", details={"verdict": "accepted"}
    )
    with open_record(path) as record:
        last = list(record.audit())[-1]
        event = list(record.events())[-1]
    assert (last.action, last.reason, last.user, last.entry_sha256) == (
        "reviewed",
        "second look at glass",
        "quality",
        head,
    )
    assert event.details == {"verdict": "accepted"}
    verdict = verify_record(path, expected_head=head)
    assert verdict.ok
    assert verdict.finished


def test_every_dtype_of_particles_is_in_the_record():
    assert list(PARTICLE_DTYPES) == [f.name for f in fields(Particles)]


def test_unknown_codec_is_refused():
    with pytest.raises(ValueError, match="lzma"):
        unpack_column("<f4", "lzma", b"")


def test_packing_is_deterministic_and_names_probabilities():
    content = runs.window_content(np.random.default_rng(0), 0)
    columns = [
        list(
            pack_particles(
                content.particles, content.class_index, content.confidence, content.probabilities, classes=runs.CLASSES
            )
        )
        for _ in range(2)
    ]
    assert columns[0] == columns[1]
    assert [c[0] for c in columns[0]][-4:] == ["p_silicone_oil", "p_air_bubble", "p_protein_aggregate", "p_glass"]
    back = unpack_particles(columns[0], window=7, classes=runs.CLASSES)
    assert_same_particles(back, content)
    assert back.class_names.tolist() == [runs.CLASSES[i] for i in content.class_index]


def test_settings_with_infinities_are_kept(tmp_path):
    with runs.create(tmp_path, settings={"largest_um": float("inf"), "seed": 2**60}) as record:
        pass
    with open_record(record.path) as back:
        assert back.meta["settings"] == {"largest_um": "inf", "seed": 2**60}
        assert back.edges_um[-1] == float("inf")


def test_event_in_a_window_keeps_its_window(tmp_path):
    content = runs.window_content(np.random.default_rng(0), 0)
    with runs.create(tmp_path) as record:
        record.commit_window(
            content.window,
            content.particles,
            class_index=content.class_index,
            confidence=content.confidence,
            events=[Event(kind="a", message="one"), Event(kind="b", message="two", details={"n": 2})],
        )
        record.event("c", "three", time_s=1.5)
    with open_record(tmp_path) as back:
        assert [(e.id, e.kind, e.seq, e.time_s) for e in back.events()] == [
            (1, "a", 0, None),
            (2, "b", 0, None),
            (3, "c", None, 1.5),
        ]


def test_a_record_that_its_writer_closes_while_we_look_is_left_alone(tmp_path, monkeypatch):
    record = runs.create(tmp_path)

    def ends_now(path, writer):
        record.finish({"seconds": 1})
        return False

    monkeypatch.setattr("edge_app.recording.run_record._is_in_use", ends_now)
    assert not recover(record.path)
    with open_record(record.path) as found:
        assert found.meta["finished"]["state"] == "completed"
    assert verify_record(record.path).ok
    record.close()
