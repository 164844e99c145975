"""Death at any instant, and a full disk."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import recorded_runs as runs

from edge_app.errors import UserError
from edge_app.recording.audit import verify_record
from edge_app.recording.errors import RecordingError
from edge_app.recording.record_reader import open_record
from edge_app.recording.run_record import recover

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])}


def outbox_seqs(path: Path) -> list[int]:
    connection = sqlite3.connect(path)
    try:
        return [json.loads(p)["seq"] for (p,) in connection.execute("SELECT payload FROM outbox ORDER BY id")]
    finally:
        connection.close()


@pytest.mark.parametrize("attempt", range(4))
def test_after_kill_9_the_file_holds_every_closed_window_once(tmp_path, attempt):
    process = subprocess.Popen(
        [sys.executable, str(HERE / "write_until_killed.py"), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "-1\n"
    (path,) = tmp_path.glob("*.sqlite")
    assert not recover(path), "a record that is being written was taken for one left behind"
    time.sleep(random.Random(attempt).uniform(0, 0.25))
    os.kill(process.pid, signal.SIGKILL)
    told = [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    process.stdout.close()

    last = told[-1] if told else -1
    with open_record(tmp_path) as record:
        seqs = [w.seq for w in record.windows()]
        assert not record.finished
        assert record.summary()["state"] == "unfinished"
        rows = record.particles()
    # What was told is there; the one that was being told may be there too.
    assert seqs == list(range(len(seqs)))
    assert len(seqs) - 1 in (last, last + 1)
    assert len(rows) == 18 * len(seqs)
    assert outbox_seqs(path) == seqs
    assert verify_record(path).ok

    assert recover(path)
    assert not recover(path)
    with open_record(path) as record:
        assert record.meta["finished"]["state"] == "interrupted"
        assert [e.kind for e in record.events()] == ["interrupted"]
        assert record.meta["summary"]["particles"] == record.total().particles
    assert verify_record(path).ok
    assert verify_record(path).finished


def test_a_record_that_this_process_left_open_is_recovered_once_it_is_closed(tmp_path):
    with runs.create(tmp_path) as record:
        assert not recover(record.path)
    assert recover(record.path)
    with pytest.raises(UserError, match="no such run record"):
        recover(tmp_path / "none.sqlite")


def fill(record, *, windows: int) -> int:
    rng = np.random.default_rng(0)
    for seq in range(windows):
        content = runs.window_content(rng, seq, per_frame=60)
        try:
            record.commit_window(
                content.window, content.particles, class_index=content.class_index, confidence=content.confidence
            )
        except RecordingError as error:
            message = str(error)
            assert "\n" not in message
            assert "disk full" in message
            assert record.path.name in message
            assert "MB free" in message
            return seq
    raise AssertionError("the disk never filled up")


@pytest.fixture
def small_disk(tmp_path):
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_keeps_what_is_committed_and_goes_on_when_there_is_room(small_disk):
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(200_000))
    with runs.create(small_disk) as record:
        committed = fill(record, windows=200)
        assert committed > 0
        with open_record(record.path) as reader:
            assert len(list(reader.windows())) == committed
        ballast.unlink()
        rng = np.random.default_rng(5)
        content = runs.window_content(rng, committed)
        record.commit_window(
            content.window, content.particles, class_index=content.class_index, confidence=content.confidence
        )
        record.finish({})
    with open_record(small_disk) as reader:
        assert [w.seq for w in reader.windows()] == list(range(committed + 1))
    assert verify_record(record.path).ok


def test_a_disk_too_full_for_a_new_record_says_so_and_leaves_nothing(small_disk):
    (small_disk / "ballast").write_bytes(bytes(1_000_000))
    with pytest.raises(RecordingError, match="disk full"):
        runs.create(small_disk)
    assert [p.name for p in small_disk.iterdir()] == ["ballast"]


def test_a_database_at_its_limit_keeps_what_is_committed(tmp_path):
    """The same without a mount: SQLite's own limit of pages."""
    with runs.create(tmp_path) as record:
        record._connection.execute("PRAGMA max_page_count=200")
        committed = fill(record, windows=200)
    assert committed > 0
    assert verify_record(record.path).windows == committed


def test_a_file_size_limit_keeps_what_is_committed(tmp_path):
    """A write that the kernel refuses (EFBIG), in a process of its own, since the limit cannot be taken back."""
    done = subprocess.run(
        [sys.executable, str(HERE / "write_until_killed.py"), str(tmp_path), "400000"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be written" in done.stderr
    last = int(done.stdout.splitlines()[-1])
    assert last > 0
    (path,) = tmp_path.glob("*.sqlite")
    with open_record(path) as record:
        assert [w.seq for w in record.windows()] == list(range(last + 1))
    assert verify_record(path).ok
