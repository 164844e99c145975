import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.capture.frame import Frame
from edge_app.capture.watched_folder import WatchedFolderSource, open_watched_folder
from edge_app.errors import UserError

FAST = "settle_s=0.05&poll_s=0.01&give_up_s=0.4"


def png(level: int) -> bytes:
    return cv2.imencode(".png", np.full((24, 32), level, np.uint8))[1].tobytes()


class Reading:
    """Reads a source in a thread, as the pipeline does while another program writes."""

    def __init__(self, source: WatchedFolderSource) -> None:
        self.frames: list[Frame] = []
        self._source = source
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for frame in self._source.frames():
            self.frames.append(frame)

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 30
        while len(self.frames) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def join(self) -> list[Frame]:
        self._thread.join(timeout=30)
        assert not self._thread.is_alive()
        return self.frames


def levels(frames: list[Frame]) -> list[int]:
    return [int(f.image[0, 0]) for f in frames]


def test_files_that_are_there_and_files_that_come(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(2)
    source = open_watched_folder(f"watch:{folder}?idle_s=0.8&rate_hz=5&{FAST}")
    assert (source.info.width_px, source.info.height_px, source.info.frames_total) == (32, 24, None)
    reading = Reading(source)
    for i in (2, 3, 10):
        time.sleep(0.1)
        (folder / f"frame_{i}.png").write_bytes(png(10 + i))
    frames = reading.join()
    assert levels(frames) == [10, 11, 12, 13, 20]
    assert [f.sequence for f in frames] == [0, 1, 2, 3, 4]
    assert frames[-1].time_s == 0.8
    assert not source.problems


def test_slow_writer_is_waited_for_and_order_is_kept(tmp_path: Path, silent: None) -> None:
    source = open_watched_folder(f"watch:{tmp_path}?idle_s=1&settle_s=0.05&poll_s=0.01&give_up_s=5")
    assert source.info.width_px == 0
    reading = Reading(source)
    data = png(50)
    with (tmp_path / "a.png").open("wb") as file:
        file.write(data[:30])
        file.flush()
        (tmp_path / "b.png").write_bytes(png(60))
        time.sleep(0.4)  # longer than settle_s: only its structure tells that the file is not whole
        file.write(data[30:])
    assert levels(reading.join()) == [50, 60]
    assert not source.problems


def test_renamed_in_file_is_one_frame(tmp_path: Path) -> None:
    source = open_watched_folder(f"watch:{tmp_path}?idle_s=0.6&{FAST}")
    reading = Reading(source)
    (tmp_path / "a.png.part").write_bytes(png(50)[:20])
    time.sleep(0.1)
    (tmp_path / "a.png.part").write_bytes(png(50))
    (tmp_path / "a.png.part").rename(tmp_path / "a.png")
    assert levels(reading.join()) == [50]


def test_file_that_stays_broken_is_counted_after_give_up(tmp_path: Path, silent: None) -> None:
    (tmp_path / "a.png").write_bytes(png(50)[:30])
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.png").write_bytes(png(60))
    source = open_watched_folder(f"watch:{tmp_path}?idle_s=0.6&{FAST}")
    started = time.monotonic()
    frames = list(source.frames())
    assert levels(frames) == [60]
    assert frames[0].sequence == 2
    assert frames[0].lost_before == 2
    assert dict(source.problems) == {"truncated": 1, "empty": 1}
    assert time.monotonic() - started >= 0.4


def test_file_that_vanishes_and_file_that_is_written_again(tmp_path: Path) -> None:
    source = open_watched_folder(f"watch:{tmp_path}?idle_s=0.8&settle_s=1&poll_s=0.01")
    (tmp_path / "a.png").write_bytes(png(50))
    (tmp_path / "b.png").write_bytes(png(60))
    reading = Reading(source)
    time.sleep(0.2)
    (tmp_path / "b.png").unlink()
    reading.wait_for(1)
    (tmp_path / "a.new").write_bytes(png(99))
    (tmp_path / "a.new").rename(tmp_path / "a.png")
    assert levels(reading.join()) == [50]
    assert dict(source.problems) == {"vanished": 1, "rewritten": 1}


def test_removed_folder_is_told_once_and_the_run_ends(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    source = open_watched_folder(f"watch:{folder}?idle_s=0.3&{FAST}")
    folder.rmdir()
    assert list(source.frames()) == []
    assert dict(source.problems) == {"folder_gone": 1}


def test_nothing_ever_comes(tmp_path: Path) -> None:
    assert list(open_watched_folder(f"watch:{tmp_path}?idle_s=0.1&{FAST}").frames()) == []


def test_close_ends_the_waiting(tmp_path: Path) -> None:
    source = open_watched_folder(f"watch:{tmp_path}")
    reading = Reading(source)
    time.sleep(0.1)
    source.close()
    assert reading.join() == []


def test_what_cannot_be_watched(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, says in (("none", "does not exist"), ("file", "is a file")):
        with pytest.raises(UserError, match=says):
            open_watched_folder(f"watch:{tmp_path / name}")
