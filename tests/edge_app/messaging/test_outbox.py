"""The outbox on disk, without a broker."""

import json
import subprocess
import sys

import numpy as np
import pytest
from publishing_device import RUN_ID, STARTED, provenance, window

from edge_app.messaging.messages import HistogramMessage, histogram_message, outgoing, total_message
from edge_app.messaging.outbox import IN_FLIGHT_LIMIT, PendingRegistry, RunOutbox, default_state_dir
from edge_app.messaging.topics import Topics
from edge_app.recording.outgoing import enqueue
from edge_app.recording.schema import DDL, connect_writer

TOPICS = Topics(site="lab", device="mfi-t")


@pytest.fixture
def record(tmp_path):
    """Outbox table of a record with 100 windows and their totals."""
    path = tmp_path / "r.sqlite"
    connection = connect_writer(path, mode="rwc")
    connection.execute("PRAGMA journal_mode=WAL")
    for statement in DDL.split(";\n"):
        connection.execute(statement)
    total = None
    connection.execute("BEGIN")
    for seq in range(100):
        one = window(seq)
        total = one if total is None else total + one
        messages = [
            histogram_message(one, provenance=provenance("b"), started=STARTED),
            total_message(total, provenance=provenance("b"), started=STARTED),
        ]
        enqueue(connection, RUN_ID, [outgoing(TOPICS, m) for m in messages])
    connection.execute("COMMIT")
    connection.close()
    return path


def windows_of(outbox: RunOutbox) -> list[HistogramMessage]:
    rows = outbox.fetch(after_id=0, limit=10_000)
    return [HistogramMessage.model_validate_json(r.payload) for r in rows if r.kind == "histogram"]


def test_rows_come_in_order_and_go_when_delivered(record):
    outbox = RunOutbox(record)
    first = outbox.fetch(after_id=0, limit=3)
    assert [(r.kind, r.seq, r.retain) for r in first] == [
        ("histogram", 0, False),
        ("total", 0, True),
        ("histogram", 1, False),
    ]
    outbox.delete([r.id for r in first])
    assert outbox.count() == 197
    assert outbox.fetch(after_id=0, limit=1)[0].id == first[-1].id + 1
    outbox.close()


def test_replayed_is_said_in_the_payload_and_nothing_else_changes(record):
    outbox = RunOutbox(record)
    row = outbox.fetch(after_id=0, limit=1)[0]
    before, after = json.loads(row.payload), json.loads(row.replayed_payload())
    assert after.pop("replayed") is True
    assert before.pop("replayed") is False
    assert before == after


def test_merging_keeps_every_sum_and_leaves_alone_what_may_have_been_sent(record):
    outbox = RunOutbox(record)
    before = windows_of(outbox)
    protected = [r.id for r in outbox.fetch(after_id=0, limit=IN_FLIGHT_LIMIT)]
    untouched = {r.id: r.payload for r in outbox.fetch(after_id=0, limit=IN_FLIGHT_LIMIT)}
    merged = outbox.merge(keep=30)
    after = windows_of(outbox)
    assert merged == 70
    assert len(after) == 30
    assert {r.id: r.payload for r in outbox.fetch(after_id=0, limit=IN_FLIGHT_LIMIT)} == untouched
    assert [r.id for r in outbox.fetch(after_id=0, limit=IN_FLIGHT_LIMIT)] == protected
    for name in before[0].counts:
        np.testing.assert_array_equal(
            np.sum([m.counts[name] for m in before], axis=0), np.sum([m.counts[name] for m in after], axis=0)
        )
        np.testing.assert_allclose(
            np.sum([m.weighted[name] for m in before], axis=0), np.sum([m.weighted[name] for m in after], axis=0)
        )
    for key in ("n", "frames", "frames_lost", "frames_rejected", "frames_dropped", "windows"):
        assert sum(getattr(m, key) for m in before) == sum(getattr(m, key) for m in after)
    for reason in ("border", "stuck"):
        assert sum(m.rejected.get(reason, 0) for m in before) == sum(m.rejected.get(reason, 0) for m in after)
    assert sum(m.volume_ml for m in after) == pytest.approx(sum(m.volume_ml for m in before))
    assert [s for m in after for s in range(m.first_seq, m.seq + 1)] == list(range(100))
    assert max(m.windows for m in after) < 100, "it merges evenly, not all into one"
    outbox.close()


def test_merging_ends_where_nothing_is_adjacent(record):
    outbox = RunOutbox(record)
    rows = outbox.fetch(after_id=0, limit=1000)
    outbox.delete([r.id for r in rows if r.seq is not None and r.seq % 2])
    assert outbox.merge(keep=5) == 0
    assert outbox.count_windows() == 50


def test_only_the_newest_retained_message_of_a_topic_need_wait(record):
    outbox = RunOutbox(record)
    outbox.drop_superseded()
    totals = [r for r in outbox.fetch(after_id=0, limit=1000) if r.kind == "total"]
    assert totals[-1].seq == 99
    assert len(totals) == IN_FLIGHT_LIMIT // 2 + 1
    assert outbox.count_windows() == 100


def test_writer_is_not_held_up_by_a_reader_that_merges(record):
    outbox = RunOutbox(record)
    writer = connect_writer(record)
    writer.execute("PRAGMA busy_timeout=0")
    outbox.merge(keep=50)
    enqueue(writer, RUN_ID, [outgoing(TOPICS, histogram_message(window(100), provenance=provenance("b")))])
    outbox.delete([1])
    writer.close()
    assert outbox.count_windows() == 50


def test_a_claim_is_held_by_one_process_until_it_is_gone(tmp_path, record):
    registry = PendingRegistry(tmp_path / "state")
    mine = registry.claim(record, "run-1", boot_id="b")
    assert mine is not None
    assert registry.claim(record, "run-1", boot_id="b") is None
    assert PendingRegistry(tmp_path / "state").adopt() == []
    mine.release(done=False)
    [adopted] = registry.adopt()
    assert (adopted.record, adopted.run_id) == (record, "run-1")
    adopted.release(done=True)
    assert registry.adopt() == []
    assert not list((tmp_path / "state" / "pending").iterdir())


def test_a_killed_process_lets_go_of_its_claim(tmp_path, record):
    code = (
        "import sys, time; from pathlib import Path; from edge_app.messaging.outbox import PendingRegistry\n"
        f"p = PendingRegistry(Path({str(tmp_path / 'state')!r})).claim(Path({str(record)!r}), 'run-1', boot_id='b')\n"
        "print('held', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    registry = PendingRegistry(tmp_path / "state")
    assert registry.adopt() == []
    process.kill()
    process.wait()
    process.stdout.close()
    [adopted] = registry.adopt()
    adopted.release(done=True)


@pytest.mark.parametrize("content", ["", "{", '{"record": 5}', '{"record": "/nowhere/r.sqlite"}'])
def test_entries_that_lead_nowhere_are_forgotten(tmp_path, content):
    pending = tmp_path / "pending"
    pending.mkdir()
    (pending / "run-1.json").write_text(content)
    assert PendingRegistry(tmp_path).adopt() == []
    assert not list(pending.iterdir())


def test_a_state_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path, record, caplog):
    (tmp_path / "state").write_text("a file")
    pending = PendingRegistry(tmp_path / "state").claim(record, "run-1", boot_id="b")
    assert pending is not None
    assert "do not outlive it" in caplog.text
    pending.release(done=False)


def test_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "own"))
    assert default_state_dir() == tmp_path / "own"
    monkeypatch.delenv("EDGE_APP_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / "edge-app"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_dir() == tmp_path / ".local" / "state" / "edge-app"
