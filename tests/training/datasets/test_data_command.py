"""The real command, as a lab would call it."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from training.__main__ import main


def data(lab, *more: str, groups: bool = True) -> Result:
    said = ["--groups", str(lab.groups)] if groups else []
    return CliRunner().invoke(main, ["data", "--data", str(lab.data), *said, *more])


def test_counts_by_class_group_and_size(lab) -> None:
    lab.fill({"oil": 7, "rest": 9}, side=20)
    (lab.data / "oil" / "notes.txt").write_text("looked at by hand")
    (lab.data / "oil" / ".DS_Store").write_text("")
    cv2.imwrite(str(lab.data / "overview.png"), np.zeros((9, 9), np.uint8))
    done = data(lab, "--json", "--um-per-px", "0.5")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["pictures"] == 16
    assert found["classes"]["oil"]["pictures"] == 7
    assert found["classes"]["rest"]["groups"] == 3
    assert sum(found["classes"]["rest"]["by_longer_side_um"].values()) == 9
    assert found["classes"]["oil"]["by_longer_side_um"]["8-15"] == 7
    assert found["groups"]["run0"]["by_class"] == {"oil": 3, "rest": 3}
    assert abs(found["groups"]["run0"]["background_level"] - 205) < 3
    assert found["left_out_or_met"] == {"files that are no pictures": 1, "pictures in no class folder": 1}
    assert found["duplicates"]["pairs"] == 0


def test_tables_copies_and_contact_sheet(lab, draw: Callable, tmp_path: Path) -> None:
    lab.fill()
    lab.write("rest/8.png", np.ascontiguousarray(np.rot90(draw(0))))
    done = data(lab, "--sheet", str(tmp_path / "sheet.png"))
    assert done.exit_code == 0, done.output
    assert "oil/0.png (group run0) = rest/8.png (group run2)" in done.output
    assert "different classes: one label of each is wrong" in done.output
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[1] > 1000
    assert 0.02 < (sheet < 128).mean() < 0.6


def test_the_contact_sheet_is_the_same_every_time(lab, tmp_path: Path) -> None:
    lab.fill()
    for name in ("a.png", "b.png"):
        assert data(lab, "--sheet", str(tmp_path / name)).exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_given_split_is_checked(lab, draw: Callable, tmp_path: Path) -> None:
    lab.fill()
    lab.write("oil/8.png", draw(0))
    split = tmp_path / "split.csv"
    split.write_text("group,side\nrun0,train\nrun1,train\nrun2,test\n")
    done = data(lab, "--split", str(split))
    assert done.exit_code == 0, done.output
    assert "12 pictures to train, 6 to measure" in done.output
    assert "1 pair of copies stands on both sides of the split" in done.output


def break_unreadable(lab, tmp_path: Path) -> list[str]:
    (lab.data / "oil" / "3.png").write_bytes(b"no picture")
    return []


def break_truncated(lab, tmp_path: Path) -> list[str]:
    whole = (lab.data / "oil" / "3.png").read_bytes()
    (lab.data / "oil" / "3.png").write_bytes(whole[: len(whole) // 2])
    return []


def break_one_pixel_wide(lab, tmp_path: Path) -> list[str]:
    lab.write("rest/2.png", np.full((30, 1), 200, np.uint8))
    return []


def break_frame(lab, tmp_path: Path) -> list[str]:
    lab.write("rest/2.png", np.full((1024, 1280), 200, np.uint8))
    return []


def break_one_class(lab, tmp_path: Path) -> list[str]:
    (lab.data / "rest").rename(tmp_path / "rest")
    return []


def break_empty_class(lab, tmp_path: Path) -> list[str]:
    for path in (lab.data / "rest").iterdir():
        path.unlink()
    return []


def break_no_group(lab, tmp_path: Path) -> list[str]:
    lab.write("oil/new.png", np.full((20, 20), 200, np.uint8))
    return []


def break_two_groups(lab, tmp_path: Path) -> list[str]:
    with lab.groups.open("a") as file:
        file.write("oil/0.png,run2\n")
    return []


def break_ending(lab, tmp_path: Path) -> list[str]:
    lab.groups.write_text(lab.groups.read_text().replace("oil/0.png", "oil/0"))
    return []


def break_table(lab, tmp_path: Path) -> list[str]:
    lab.groups.unlink()
    return []


def break_split(lab, tmp_path: Path) -> list[str]:
    split = tmp_path / "split.csv"
    split.write_text("file,side\noil/0.png,train\noil/1.png,test\noil/3.png,test\n")
    return ["--split", str(split)]


def break_copies(lab, tmp_path: Path) -> list[str]:
    (lab.data / "oil" / "1.png").write_bytes((lab.data / "oil" / "0.png").read_bytes())
    return ["--refuse-duplicates"]


def break_scale(lab, tmp_path: Path) -> list[str]:
    return ["--um-per-px", "0"]


def break_sheet(lab, tmp_path: Path) -> list[str]:
    return ["--sheet", str(tmp_path / "nowhere" / "sheet.png")]


def break_two_rules(lab, tmp_path: Path) -> list[str]:
    return ["--group-regex", "x"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (break_unreadable, "oil/3.png: not a PNG, TIFF, PGM, BMP or JPEG"),
        (break_truncated, "oil/3.png: PNG ends before its last chunk"),
        (break_one_pixel_wide, "rest/2.png: too small, 1 x 30 px; a particle picture has 5 to 1000 px a side"),
        (break_frame, "rest/2.png: too large, 1280 x 1024 px"),
        (break_one_class, "1 class folder, at least 2 are needed"),
        (break_empty_class, "rest: no picture in this class folder"),
        (break_no_group, "no group for oil/new.png; every picture needs one"),
        (break_two_groups, "oil/0.png is in group run0 and in group run2"),
        (break_ending, "oil/0 does not end like a picture file"),
        (break_table, "groups.csv: cannot be read"),
        (break_split, "group run0 stands on two sides (oil/0.png in train, oil/3.png in test)"),
        (break_copies, "1 pair(s) of copies across groups, refused: oil/0.png (group run0) = oil/1.png (group run1)"),
        (break_scale, "--um-per-px is 0, must be 0.01 to 100"),
        (break_sheet, "sheet.png: cannot be written"),
        (break_two_rules, "--groups and --group-regex are given"),
    ],
    ids=lambda v: v.__name__ if callable(v) else "",
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(lab, tmp_path: Path, damage: Callable, said: str) -> None:
    lab.fill()
    done = data(lab, *damage(lab, tmp_path))
    assert done.exit_code == 2, done.output
    lines = [line for line in done.output.splitlines() if line]
    assert len(lines) == 1
    assert said in lines[0]


def test_without_groups_the_path_must_tell_them(lab) -> None:
    lab.fill()
    done = data(lab, groups=False)
    assert done.exit_code == 2
    assert "nothing says which pictures belong together" in done.output
    assert data(lab, "--group-regex", r"(\d)", groups=False).exit_code == 0


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "no such folder"),
        ("ftp:pictures", "ftp is no source of labelled pictures"),
        ("flowcam:nowhere", "no such folder"),
        ("sim:daylight", "optics are not known, allowed: training, held-out, nominal"),
        ("sim:training?particles=20", "at least 56 are needed"),
        ("sim:training?particle=20", "option particle is not known"),
        ("sim:training?classes=oil,bead", "class oil is not known"),
    ],
)
def test_sources_that_are_not_there(tmp_path: Path, source: str, said: str) -> None:
    folder = source == "nowhere"
    groups = ["--groups", "groups.csv"] if folder else []
    done = CliRunner().invoke(main, ["data", "--data", source, *groups])
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert len(done.output.strip().splitlines()) == 1
