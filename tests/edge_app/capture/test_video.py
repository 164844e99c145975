from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.capture.video import open_video
from edge_app.errors import UserError


def write_video(path: Path, *, frames: int = 30, rate_hz: float = 12.5) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate_hz, (96, 64))
    assert writer.isOpened()
    rng = np.random.default_rng(1)
    for i in range(frames):
        picture = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
        picture[:32] = 40 + 5 * i
        writer.write(picture)
    writer.release()


@pytest.mark.parametrize("name", ["a.avi", "100%d done.avi", "what?.avi"])
def test_frames_with_the_file_s_own_times(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / name)
    source = open_video(f"video:{tmp_path / name}")
    assert (source.info.width_px, source.info.height_px) == (96, 64)
    assert source.info.frame_rate_hz == pytest.approx(12.5)
    frames = list(source.frames())
    assert [f.sequence for f in frames] == list(range(30)) == list(range(source.info.frames_total or 0))
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(30) / 12.5, atol=1e-3)
    for i, frame in enumerate(frames):
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (64, 96)
        assert abs(float(np.median(frame.image[4:28])) - (40 + 5 * i)) <= 2
    assert not source.problems
    source.close()


@pytest.mark.parametrize("count", [1, 2])
def test_short_videos(tmp_path: Path, count: int) -> None:
    write_video(tmp_path / "a.avi", frames=count)
    assert len(list(open_video(f"video:{tmp_path / 'a.avi'}").frames())) == count


def test_given_rate_replaces_the_times(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", frames=3)
    source = open_video(f"video:{tmp_path / 'a.avi'}?rate_hz=2")
    assert [f.time_s for f in source.frames()] == [0.0, 0.5, 1.0]
    assert source.info.frame_rate_hz == 2.0


def test_cut_video_gives_its_whole_frames_and_is_counted(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi")
    data = (tmp_path / "a.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 6 // 10])
    source = open_video(f"video:{tmp_path / 'cut.avi'}")
    delivered = len(list(source.frames()))
    assert 10 < delivered < 30
    assert dict(source.problems) == {"truncated": 1}
    assert f"after {delivered} of 30 frames" in source.messages[0]


def test_close_ends_the_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi")
    source = open_video(f"video:{tmp_path / 'a.avi'}")
    frames = source.frames()
    next(frames)
    source.close()
    assert list(frames) == []


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "text.avi").write_text("hello " * 100)
    (tmp_path / "zero.avi").touch()
    for name, says in (
        ("none.avi", "does not exist"),
        ("", "not a file"),
        ("zero.avi", "0 bytes"),
        ("text.avi", "cannot"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            open_video(f"video:{tmp_path / name}")
        assert "\n" not in str(caught.value)


def test_stack_of_pictures_is_no_video(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "a.tif"), [np.full((8, 8), v, np.uint8) for v in (1, 2)])
    with pytest.raises(UserError, match="is a picture, no video; use dir:"):
        open_video(f"video:{tmp_path / 'a.tif'}")
