from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.capture.crops import iterate_crops, open_crop_folder
from edge_app.capture.problems import Problems
from edge_app.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "oil" / "lot 2").mkdir(parents=True)
    (tmp_path / ".cache").mkdir()
    cv2.imwrite(str(tmp_path / "p10.png"), np.full((5, 5), 100, np.uint8))
    cv2.imwrite(str(tmp_path / "p9.bmp"), np.full((6, 7, 3), (90, 120, 150), np.uint8))
    cv2.imwrite(str(tmp_path / "oil" / "a.tif"), np.full((40, 30), 800, np.uint16))
    cv2.imwrite(str(tmp_path / "oil" / "lot 2" / "b.png"), np.full((9, 9, 4), (10, 10, 10, 255), np.uint8))
    cv2.imwrite(str(tmp_path / ".cache" / "no.png"), np.zeros((9, 9), np.uint8))
    return tmp_path


def test_every_kind_recursively_in_name_order(folder: Path) -> None:
    crops = list(iterate_crops(folder))
    assert [c.path_below for c in crops] == ["oil/a.tif", "oil/lot 2/b.png", "p9.bmp", "p10.png"]
    assert [c.image.shape for c in crops] == [(40, 30), (9, 9), (6, 7), (5, 5)]
    assert [int(c.image[0, 0]) for c in crops] == [200, 10, 120, 100]
    assert all(c.image.dtype == np.uint8 and not c.instrument for c in crops)


def test_bad_files_are_counted(folder: Path, silent: None) -> None:
    cv2.imwrite(str(folder / "tiny.png"), np.zeros((4, 20), np.uint8))
    (folder / "text.png").write_text("not a picture")
    (folder / "zero.jpg").touch()
    (folder / "cut.png").write_bytes((folder / "p10.png").read_bytes()[:50])
    problems = Problems()
    assert len(list(iterate_crops(folder, problems=problems))) == 4
    assert dict(problems.counts) == {"too_small": 1, "unreadable": 1, "empty": 1, "truncated": 1}
    assert len(problems.messages) == 4


def test_mixed_depths_lose_no_crop(tmp_path: Path) -> None:
    for i in range(40):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((8, 8), 800, np.uint16))
    cv2.imwrite(str(tmp_path / "1b.png"), np.full((8, 8), 40000, np.uint16))  # not among those that are probed
    source = open_crop_folder(f"crops:{tmp_path}")
    values = [int(c.image[0, 0]) for c in source.crops()]
    assert len(values) == source.total == 41
    assert sorted(set(values)) == [156, 200]


def test_pages_carry_their_number(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "s.tif"), [np.full((8, 8), v, np.uint8) for v in (1, 2)])
    assert [c.path_below for c in iterate_crops(tmp_path)] == ["s.tif", "s.tif page 2"]


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, says in (("none", "does not exist"), ("file", "is a file"), ("empty", "no picture in it or below")):
        with pytest.raises(UserError, match=says):
            open_crop_folder(f"crops:{tmp_path / name}")


def test_real_crops_of_protein_and_oil(real_data: Path) -> None:
    folder = real_data / "flowcam_nano"
    source = open_crop_folder(f"crops:{folder}")
    crops = list(source.crops())
    assert len(crops) == source.total == 211
    assert crops[0].path_below == "mAb7_SO/001.png"
    assert crops[0].image.shape == (34, 34)
    assert not source.problems


def test_each_folder_has_its_own_depth(tmp_path: Path) -> None:
    for name, level in (("ten", 800), ("twelve", 3200), ("sixteen", 51200)):
        (tmp_path / name).mkdir()
        for i in range(3):
            cv2.imwrite(str(tmp_path / name / f"{i}.tif"), np.full((8, 8), level, np.uint16))
    crops = list(iterate_crops(tmp_path))
    assert [int(c.image[0, 0]) for c in crops] == [200] * 9


def test_a_picture_of_fewer_bits_does_not_turn_black(tmp_path: Path) -> None:
    for i, level in enumerate((60000, 900, 8200)):
        cv2.imwrite(str(tmp_path / f"{i}.tif"), np.full((8, 8), level, np.uint16))
    assert [int(c.image[0, 0]) for c in iterate_crops(tmp_path)] == [234, 225, 32]


def test_linked_folders_are_read(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    cv2.imwrite(str(other / "c.png"), np.full((9, 9), 77, np.uint8))
    (folder / "link").symlink_to(other)
    assert "link/c.png" in [c.path_below for c in iterate_crops(folder)]
