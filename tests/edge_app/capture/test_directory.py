from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from edge_app.capture.directory import open_directory
from edge_app.capture.source import FrameSource, lost_at_end
from edge_app.errors import UserError


@pytest.mark.parametrize("count", [1, 2, 12])
def test_frames_in_natural_order(bare_pictures: Callable[..., Path], count: int) -> None:
    source = open_directory(f"dir:{bare_pictures(count)}?rate_hz=4")
    assert isinstance(source, FrameSource)
    assert (source.info.width_px, source.info.height_px, source.info.frames_total) == (32, 24, count)
    frames = list(source.frames())
    assert [int(f.image[0, 0]) for f in frames] == [10 + i for i in range(count)]
    assert [f.sequence for f in frames] == list(range(count))
    assert [f.time_s for f in frames] == [i / 4 for i in range(count)]
    assert all(f.lost_before is None and f.image.flags.c_contiguous for f in frames)
    assert not source.problems


def test_bad_files_are_counted_and_the_run_goes_on(bare_pictures: Callable[..., Path], silent: None) -> None:
    folder = bare_pictures(6)
    (folder / "frame_1.png").write_bytes((folder / "frame_1.png").read_bytes()[:40])
    (folder / "frame_3.png").write_bytes(b"")
    (folder / "frame_4.png").write_text("this is text")
    source = open_directory(f"dir:{folder}")
    frames = list(source.frames())
    assert [f.sequence for f in frames] == [0, 2, 5]
    assert [f.lost_before for f in frames] == [None, 1, 2]
    assert dict(source.problems) == {"truncated": 1, "empty": 1, "unreadable": 1}
    assert [name in line for name, line in zip(("frame_1", "frame_3", "frame_4"), source.messages, strict=True)]
    assert all("\n" not in line for line in source.messages)


def test_frame_of_another_size_is_delivered(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(3)
    cv2.imwrite(str(folder / "frame_1.png"), np.zeros((7, 9), np.uint8))
    assert [f.image.shape for f in open_directory(f"dir:{folder}").frames()] == [(24, 32), (7, 9), (24, 32)]


def test_multi_page_files_among_single_ones(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(2)
    tifffile.imwrite(folder / "frame_0b.tif", np.stack([np.full((24, 32), v, np.uint8) for v in (77, 88)]))
    source = open_directory(f"dir:{folder}")
    frames = list(source.frames())
    assert [int(f.image[0, 0]) for f in frames] == [10, 77, 88, 11]
    assert [f.name for f in frames] == ["frame_0.png", "frame_0b.tif", "frame_0b.tif page 2", "frame_1.png"]
    assert source.info.frames_total == 4


def test_depth_is_one_for_the_folder_even_if_the_first_frame_is_dark(tmp_path: Path) -> None:
    for i, level in enumerate((30, 1000, 500, 100)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8), level, np.uint16))
    source = open_directory(f"dir:{tmp_path}")
    assert [int(f.image[0, 0]) for f in source.frames()] == [7, 250, 125, 25]
    assert source.info.uri.endswith("bits=10")


def test_depth_can_be_given(tmp_path: Path) -> None:
    for i, level in enumerate((800, 4000)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8), level, np.uint16))
    assert [int(f.image[0, 0]) for f in open_directory(f"dir:{tmp_path}?bits=12").frames()] == [50, 250]
    source = open_directory(f"dir:{tmp_path}?bits=10")
    assert [int(f.image[0, 0]) for f in source.frames()] == [200]
    assert dict(source.problems) == {"wrong_depth": 1}


def test_messages_are_bounded(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    for i in range(130):
        (tmp_path / f"b{i}.png").touch()
    source = open_directory(f"dir:{tmp_path}")
    assert len(list(source.frames())) == 1
    assert source.problems["empty"] == 130
    assert len(source.messages) == 100


def test_file_that_vanishes_is_counted(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(3)
    source = open_directory(f"dir:{folder}")
    (folder / "frame_1.png").unlink()
    assert [f.sequence for f in source.frames()] == [0, 2]
    assert dict(source.problems) == {"unreadable": 1}


def test_close_ends_the_frames(bare_pictures: Callable[..., Path]) -> None:
    source = open_directory(f"dir:{bare_pictures(4)}")
    frames = source.frames()
    next(frames)
    source.close()
    source.close()
    assert list(frames) == []


def test_what_cannot_be_opened(tmp_path: Path, bare_pictures: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").touch()
    broken = bare_pictures(2, name="broken")
    for path in broken.iterdir():
        path.write_bytes(b"")
    (tmp_path / "file").touch()
    for name, says in (
        ("none", "does not exist"),
        ("file", "is a file"),
        ("empty", "no picture"),
        ("text", "no picture"),
        ("broken", "none of 2 picture files can be read; frame_0.png: file of 0 bytes"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            open_directory(f"dir:{tmp_path / name}")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("nominal", [5, 10, 30])
def test_reference_discs_have_their_area(real_data: Path, nominal: int) -> None:
    folder = real_data / "iso_discs"
    source = open_directory(f"dir:{folder}")
    frames = [f for f in source.frames() if f.name.startswith(f"Monodisperse_n100_{nominal}px")]
    assert len(frames) == 5
    areas = []
    for frame in frames:
        assert frame.image.shape == (2048, 2048)
        assert set(np.unique(frame.image)) == {0, 255}
        areas.append(cv2.connectedComponentsWithStats((frame.image == 0).astype(np.uint8))[2][1:, cv2.CC_STAT_AREA])
    # The median passes over discs that touch each other or the border.
    assert 2 * np.sqrt(np.median(np.concatenate(areas)) / np.pi) == pytest.approx(nominal, abs=0.15)


@pytest.mark.parametrize("first", ["a_thumbnail.png", "zz.png"])
def test_one_picture_of_another_size_does_not_decide_the_frame_size(
    bare_pictures: Callable[..., Path], first: str
) -> None:
    folder = bare_pictures(6)
    cv2.imwrite(str(folder / first), np.zeros((7, 9), np.uint8))
    info = open_directory(f"dir:{folder}").info
    assert (info.width_px, info.height_px) == (32, 24)


def test_files_lost_after_the_last_frame_are_known(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(4)
    for name in ("frame_0.png", "frame_2.png", "frame_3.png"):
        (folder / name).write_bytes(b"")
    source = open_directory(f"dir:{folder}")
    assert [f.lost_before for f in source.frames()] == [1]
    assert lost_at_end(source) == 2


def test_link_to_nowhere_is_a_lost_frame(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(2)
    (folder / "frame_0b.png").symlink_to("nowhere.png")
    source = open_directory(f"dir:{folder}")
    assert [f.lost_before for f in source.frames()] == [None, 1]
    assert dict(source.problems) == {"unreadable": 1}


def test_only_files_of_a_name(bare_pictures: Callable[..., Path]) -> None:
    folder = bare_pictures(3)
    cv2.imwrite(str(folder / "background.png"), np.zeros((24, 32), np.uint8))
    assert len(list(open_directory(f"dir:{folder}?names=FRAME_*").frames())) == 3
    with pytest.raises(UserError, match="names is 'x'"):
        open_directory(f"dir:{folder}?names=x")


def test_a_folder_of_folders_is_told_of(bare_pictures: Callable[..., Path], tmp_path: Path) -> None:
    bare_pictures(3, name="outer")
    (tmp_path / "outer").rename(tmp_path / "inner")
    (tmp_path / "outer").mkdir()
    (tmp_path / "inner").rename(tmp_path / "outer" / "inner")
    with pytest.raises(UserError, match=r"no picture in it .*; 3 below it, the first in inner"):
        open_directory(f"dir:{tmp_path / 'outer'}")


def test_bits_that_fit_no_picture_are_refused(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8), 800 + i, np.uint16))
    with pytest.raises(UserError, match=r"option bits is 8, but every picture looked at is brighter .*800"):
        open_directory(f"dir:{tmp_path}?bits=8")
