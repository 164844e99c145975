"""What goes wrong in the middle of a run: nothing hangs, nothing that was counted is lost, the record stays whole."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_app.capture.frame import Frame
from edge_app.capture.source import SourceInfo
from edge_app.config import load_settings
from edge_app.errors import UserError
from edge_app.measurement.window import Window
from edge_app.pipeline import Pipeline, RunRequest
from edge_app.recording.audit import verify_record
from edge_app.recording.errors import RecordingError
from edge_app.recording.record_reader import open_record
from edge_app.recording.run_record import RunRecord, recover
from edge_app.run_ahead import RunAhead
from edge_app.segmentation.segmenter import Segmenter
from edge_app.segmentation.settings import SegmentationSettings

SHAPE = (160, 200)
RATE_HZ = 10


class Camera:
    """Delivers frames with five discs each; then fails, waits for more until it is closed, or ends."""

    def __init__(self, frames: int, *, then: str = "end", times: list[float] | None = None) -> None:
        self.info = SourceInfo(uri="camera:test", kind="camera", width_px=SHAPE[1], height_px=SHAPE[0])
        self.problems: Counter[str] = Counter()
        self.messages: list[str] = []
        self.delivered, self.then, self.closed = frames, then, threading.Event()
        self.times = times or [i / RATE_HZ for i in range(frames)]

    def frames(self) -> Iterator[Frame]:
        rng = np.random.default_rng(3)
        for i in range(self.delivered):
            image = np.clip(rng.normal(200, 1.5, SHAPE), 0, 255).astype(np.uint8)
            for _ in range(5):
                cv2.circle(image, (int(rng.integers(15, 185)), int(rng.integers(15, 145))), 5, 60, -1)
            yield Frame(image=image, sequence=i, time_s=self.times[i], lost_before=0)
        if self.then == "fail":
            raise OSError("the cable is out")
        if self.then == "wait":
            self.closed.wait(30)

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def pipeline_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make a pipeline on a camera of the test's own."""
    monkeypatch.setenv("EDGE_APP_STATE", str(tmp_path / "state"))

    def make(camera: Camera, **settings: Any) -> Pipeline:
        monkeypatch.setattr("edge_app.pipeline.open_source", lambda uri, **_: camera)
        request = RunRequest(source="camera:test", out=tmp_path / "run")
        return Pipeline(request, load_settings(None, {"mqtt.url": "off", **settings}))

    return make


def outcome(pipeline: Pipeline, *, seconds: float = 10.0) -> dict[str, Any] | BaseException:
    """Result or error of a run; fails if it has neither in time."""
    found: list[dict[str, Any] | BaseException] = []

    def work() -> None:
        try:
            found.append(pipeline.run())
        except BaseException as error:  # handed to the test
            found.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    hung = thread.is_alive()
    if hung:
        pipeline.source.close()
        thread.join(10)
    assert not hung, f"the run still hangs after {seconds} s"
    return found[0]


def stages_alive() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name in ("read", "segment", "count")]


def counted_frames(folder: Path) -> int:
    with open_record(folder) as record:
        return sum(w.frames + w.frames_rejected for w in record.windows())


@pytest.mark.parametrize("delivered", [0, 3, 16, 17, 40])
def test_a_source_that_fails_ends_the_run_with_its_error(pipeline_on, tmp_path: Path, delivered: int) -> None:
    error = outcome(pipeline_on(Camera(delivered, then="fail")))
    assert isinstance(error, OSError)
    assert "cable" in str(error)
    assert not stages_alive()
    with open_record(tmp_path / "run") as record:
        verdict = verify_record(record.path)
        windows = [w.seq for w in record.windows()]
    assert verdict.ok
    assert windows == list(range(len(windows)))


def test_every_frame_before_the_failure_is_in_the_record(pipeline_on, tmp_path: Path) -> None:
    outcome(pipeline_on(Camera(37, then="fail")))
    assert counted_frames(tmp_path / "run") == 37


def test_a_run_that_an_error_ended_says_so(pipeline_on, tmp_path: Path) -> None:
    outcome(pipeline_on(Camera(37, then="fail")))
    with open_record(tmp_path / "run") as record:
        assert record.finished
        assert record.meta["finished"]["state"] == "failed"
        assert "cable" in record.meta["finished"]["reason"]


@pytest.mark.parametrize("stage", ["segment", "measure", "classify", "window"])
def test_an_error_in_a_stage_ends_the_run(pipeline_on, tmp_path: Path, monkeypatch, stage: str) -> None:
    calls = Counter[str]()

    def broken(original, *, after: int):
        def call(*arguments: Any, **options: Any) -> Any:
            calls[stage] += 1
            if calls[stage] > after:
                raise ZeroDivisionError(f"in {stage}")
            return original(*arguments, **options)

        return call

    pipeline = pipeline_on(Camera(200))
    loop = pipeline._loop
    if stage == "segment":
        monkeypatch.setattr(Segmenter, "process", broken(Segmenter.process, after=30))
    elif stage == "measure":
        monkeypatch.setattr("edge_app.loop.measure", broken(__import__("edge_app.loop").loop.measure, after=30))
    elif stage == "classify":
        monkeypatch.setattr(pipeline.classifier, "classify", broken(pipeline.classifier.classify, after=10))
    else:
        monkeypatch.setattr(loop._builder, "add", broken(loop._builder.add, after=30))
    error = outcome(pipeline)
    assert isinstance(error, ZeroDivisionError)
    assert not stages_alive()
    assert verify_record(next((tmp_path / "run").glob("*.sqlite"))).ok


def test_a_failed_write_ends_a_run_whose_source_is_silent(pipeline_on, monkeypatch) -> None:
    commit = RunRecord.commit_window

    def full(record: RunRecord, window: Window, *rest: Any, **more: Any) -> None:
        if window.seq == 1:
            raise RecordingError("disk full")
        commit(record, window, *rest, **more)

    monkeypatch.setattr(RunRecord, "commit_window", full)
    # The frame that closes the second window is the last one, so that every stage waits for the source; frames are
    # held back until it is known which of their particles are stuck.
    stuck = SegmentationSettings().stuck
    held = stuck.frames - 1 + stuck.missed_frames + 1  # and one until the next tells whether a bubble burst begins
    error = outcome(pipeline_on(Camera(21 + held, then="wait")), seconds=4)
    assert isinstance(error, RecordingError)


def test_stop_ends_a_run_whose_source_is_silent(pipeline_on, tmp_path: Path) -> None:
    pipeline = pipeline_on(Camera(25, then="wait"))
    threading.Timer(1.0, pipeline.stop).start()
    result = outcome(pipeline, seconds=4)
    assert isinstance(result, dict)
    assert result["frames"] + result["frames_rejected"] == 25
    with open_record(tmp_path / "run") as record:
        assert record.meta["finished"]["state"] == "stopped"


def test_interrupt_ends_a_watched_folder_that_gets_nothing_more(app, wait_for, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, frame in enumerate(Camera(30).frames()):
        assert cv2.imwrite(str(folder / f"{i:03d}.png"), frame.image)
    process = app.start("run", f"watch:{folder}", "--out", tmp_path / "run", "--mqtt", "off", "--json")
    try:
        wait_for(lambda: any((tmp_path / "run").glob("*.sqlite")), what="record")
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        stdout, _ = process.communicate(timeout=6)
    finally:
        process.kill()
        process.communicate()
    assert json.loads(stdout.strip().splitlines()[-1])["frames"] == 30


def test_one_wrong_time_does_not_keep_a_window_open_for_ever(pipeline_on) -> None:
    times = [i / RATE_HZ for i in range(100)]
    times[20] = 1e6
    result = outcome(pipeline_on(Camera(100, times=times)))
    assert isinstance(result, dict)
    assert result["frames"] + result["frames_rejected"] == 100
    assert result["windows"] >= 8


def test_a_clock_that_steps_back_a_little_opens_no_closed_window(pipeline_on, tmp_path: Path) -> None:
    times = [i / RATE_HZ for i in range(40)]
    times[21] = 1.95
    result = outcome(pipeline_on(Camera(40, times=times)))
    assert isinstance(result, dict)
    assert result["windows"] == 4
    assert counted_frames(tmp_path / "run") == 40


class Closing:
    """An iterator whose end of use fails."""

    def __iter__(self) -> "Closing":
        return self

    def __next__(self) -> int:
        raise StopIteration

    def close(self) -> None:
        raise OSError("cannot be closed")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stage_that_cannot_be_closed_does_not_hang_its_consumer() -> None:
    ahead = RunAhead(Closing(), depth=2, name="closing")
    ended = threading.Event()

    def consume() -> None:
        try:
            list(ahead)
        except OSError:
            pass
        ended.set()

    threading.Thread(target=consume, daemon=True).start()
    assert ended.wait(1.5)


def test_an_error_of_the_callback_ends_stages_and_leaves_a_whole_record(pipeline_on, tmp_path: Path) -> None:
    pipeline = pipeline_on(Camera(100))

    def broken_pipe(_: object) -> None:
        raise BrokenPipeError("nobody reads")

    pipeline.on_window = broken_pipe
    assert isinstance(outcome(pipeline), BrokenPipeError)
    assert not stages_alive()
    path = next((tmp_path / "run").glob("*.sqlite"))
    assert verify_record(path).ok
    with open_record(path) as record:
        assert len(list(record.windows())) == 1


def test_an_interrupt_in_the_middle_of_loading_a_module_ends_with_130(tmp_path: Path) -> None:
    # Dataclasses and named tuples are made by the exec of a string; an interrupt there must not end us by the signal.
    (tmp_path / "loading.py").write_text('exec("import os, signal, time; os.kill(os.getpid(), 2); time.sleep(9)")\n')
    (tmp_path / "program.py").write_text(
        "import sys\nimport edge_app.__main__, edge_app.cli.main as commands\n"
        "commands.COMMANDS['loading'] = ('loading', '')\nsys.argv[1:] = ['loading']\nedge_app.__main__.main()\n"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "program"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip() == "edge-app: stopped"


@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.6, 1.0, 1.6])
def test_an_interrupt_at_any_moment_leaves_no_trace_but_a_whole_record(
    app, wait_for, tmp_path: Path, after_s: float
) -> None:
    source = "sim:?seed=1&realtime=1&width_px=480&height_px=320&rate_hz=20"
    process = app.start("run", source, "--out", tmp_path / "run", "--mqtt", "off")
    # Before its first library is loaded it is the interpreter that answers; a busy machine takes its time for that.
    libraries = Path(f"/proc/{process.pid}/maps")
    wait_for(lambda: "numpy" in libraries.read_text(), what="numpy loaded")
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    try:
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode in (0, 130), stderr
    assert "Traceback" not in stdout + stderr
    for path in (tmp_path / "run").glob("*.sqlite"):
        verdict = verify_record(path)
        assert verdict.ok
        assert verdict.finished
    assert not list((tmp_path / "run").glob("*.partial*"))


def test_two_interrupts_end_no_worse_than_one(app, wait_for, tmp_path: Path) -> None:
    source = "sim:?seed=1&realtime=1&width_px=480&height_px=320&rate_hz=20"
    process = app.start("run", source, "--out", tmp_path / "run", "--mqtt", "off", "--json")
    wait_for(lambda: any((tmp_path / "run").glob("*.sqlite")), what="record")
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert json.loads(stdout.strip().splitlines()[-1])["frames"] > 5


def test_runs_that_start_in_the_same_second_share_a_folder(app, tmp_path: Path) -> None:
    source = "sim:?concentration=50000&frames=12&width_px=480&height_px=320&seed="
    running = [app.start("run", f"{source}{i}", "--out", tmp_path / "run", "--mqtt", "off", "--json") for i in range(3)]
    results = []
    for process in running:
        stdout, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        results.append(json.loads(stdout.strip().splitlines()[-1]))
    assert len({r["run_id"] for r in results}) == 3
    for result in results:
        verdict = verify_record(Path(result["record"]), expected_head=result["record_head"])
        assert (verdict.ok, verdict.finished) == (True, True)
        with open_record(Path(result["record"])) as record:
            assert record.meta["finished"]["state"] == "completed"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_disk_that_fills_up_keeps_a_whole_record_that_can_be_closed_later(app, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        source = "sim:?concentration=175000&seed=1&frames=400&width_px=640&height_px=512"
        done = app("run", source, "--out", small / "run", "--mqtt", "off", code=2)
        assert "disk full" in done.stderr
        path = next((small / "run").glob("*.sqlite"))
        before = verify_record(path)
        assert before.ok
        assert before.windows >= 1
        ballast.unlink()
        # Closed as failed by the run itself, where the few bytes for that still fitted, else by the next start.
        assert recover(path) != before.finished
        after = verify_record(path, expected_head=before.head)
        assert (after.ok, after.finished, after.windows) == (True, True, before.windows)
    finally:
        subprocess.run(["umount", str(small)], check=False)


def test_an_unusable_broker_address_is_refused_before_anything_is_written(pipeline_on, tmp_path: Path) -> None:
    error = outcome(pipeline_on(Camera(5), **{"mqtt.url": "mqtts://broker?ca=/nowhere/ca.pem"}))
    assert isinstance(error, UserError)
    assert not list(tmp_path.glob("run/*"))


def test_a_run_that_cannot_begin_lets_go_of_its_source(pipeline_on) -> None:
    camera = Camera(5)
    outcome(pipeline_on(camera, **{"mqtt.url": "mqtts://broker?ca=/nowhere/ca.pem"}))
    assert camera.closed.is_set()
