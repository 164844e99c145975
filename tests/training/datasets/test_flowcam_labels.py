"""FlowCam exports with labels: small ones made here, of which every pixel is known."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_app.errors import UserError
from training.datasets.flowcam import read_flowcam
from training.datasets.pictures import LabelledPictures

BACKGROUND = 150
SIDE = 12
NAMES = ("id", "image_x", "image_y", "image_w", "image_h", "src_x", "src_y", "src_image", "cal_const", "collage_file")
LABELS = "id,label\n1,oil\n2,rest\n3,oil\n4,rest\n"


def grey_of(particle: int) -> int:
    """Middle of a particle's picture: tells which one it is."""
    return 40 + 20 * particle


def write_export(
    folder: Path,
    *,
    labels: str | None = LABELS,
    ending: str = "tif",
    changes: dict[int, dict[str, Any]] | None = None,
    without: Sequence[str] = (),
    names: Sequence[str] = NAMES,
) -> Path:
    """Particles 1 to 4, two in each of the frames 3 and 4, on a background without noise; ``changes`` by particle."""
    folder.mkdir(parents=True)
    collage = np.full((SIDE, 4 * SIDE), BACKGROUND, np.uint8)
    rows = []
    for i in range(4):
        collage[3:9, i * SIDE + 3 : i * SIDE + 9] = grey_of(i + 1)
        row: dict[str, Any] = {"id": i + 1, "image_x": i * SIDE, "image_y": 0, "image_w": SIDE, "image_h": SIDE}
        row |= {"src_x": 10 + 25 * i, "src_y": 20, "src_image": 3 + i // 2, "cal_const": 0.5}
        rows.append(row | {"collage_file": f"run_000001.{ending}"} | (changes or {}).get(i + 1, {}))
    names = [n for n in names if n not in without]
    lines = ["017", f"num-fields|{len(names)}", *(f"{n}|double" for n in names)]
    lines += ["|".join(str(row[n]) for n in names) for row in rows]
    (folder / "run.lst").write_text("\n".join(lines) + "\n")
    cv2.imwrite(str(folder / f"run_000001.{ending}"), collage)
    cv2.imwrite(str(folder / f"cal_image_000001.{ending}"), np.full((80, 120), BACKGROUND, np.uint8))
    if labels is not None:
        (folder / "labels.csv").write_text(labels)
    return folder


def who(found: LabelledPictures) -> list[int]:
    """The particle that each picture is of, told by its pixels alone."""
    code = {round(grey_of(n) * 160 / BACKGROUND): n for n in range(1, 5)}
    return [code[int(picture[SIDE // 2, SIDE // 2])] for picture in found.pictures]


def named(found: LabelledPictures) -> list[tuple[int, str]]:
    """Particle and label of each picture."""
    return list(zip(who(found), (found.classes[c] for c in found.label), strict=True))


def test_each_picture_has_the_label_of_its_own_particle(tmp_path: Path) -> None:
    found = read_flowcam([write_export(tmp_path / "day5")])
    assert named(found) == [(1, "oil"), (2, "rest"), (3, "oil"), (4, "rest")]
    assert found.files == [f"{kind}/day5 particle {n}" for n, kind in enumerate(("oil", "rest") * 2, start=1)]
    assert found.group.tolist() == ["day5"] * 4
    assert (found.um_per_px, found.notes) == (0.5, {})
    assert [p.shape for p in found.pictures] == [(SIDE, SIDE)] * 4
    assert {int(p[0, 0]) for p in found.pictures} == {160}  # as bright as the background


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff"])
def test_exports_below_a_folder_are_found_whatever_their_pictures_are(tmp_path: Path, ending: str) -> None:
    for run in ("a", "b"):
        write_export(tmp_path / "runs" / run, labels=None, ending=ending)
    (tmp_path / "runs" / "labels.csv").write_text("run,id,label\na,1,oil\na,2,rest\nb,3,oil\n")
    found = read_flowcam([tmp_path / "runs"])
    assert found.files == ["oil/a particle 1", "rest/a particle 2", "oil/b particle 3"]
    assert found.notes == {"particles without a label": 5}


def test_labels_find_their_run_in_another_case(tmp_path: Path) -> None:
    export = write_export(tmp_path / "Day5_Nitrate", labels="run,id,label\nDAY5_nitrate,1,oil\nday5_NITRATE,4,rest\n")
    found = read_flowcam([export])
    assert named(found) == [(1, "oil"), (4, "rest")]
    assert set(found.group) == {"Day5_Nitrate"}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells a from A")
def test_runs_that_differ_by_case_alone_keep_their_own_labels(tmp_path: Path) -> None:
    exports = [write_export(tmp_path / run, labels=None) for run in ("run", "RUN")]
    labels = tmp_path / "labels.csv"
    labels.write_text("run,id,label\nrun,1,oil\nRUN,1,rest\nRun,2,oil\n")
    found = read_flowcam(exports, labels=labels)
    # Nothing says which of the two "Run" means.
    assert found.files == ["oil/run particle 1", "rest/RUN particle 1"]


@pytest.mark.parametrize("number", ["", "nan", 2.5, "inf"])
def test_a_particle_without_a_number_takes_no_label(tmp_path: Path, number: object) -> None:
    """An empty number among others makes them all fractions; 2.5 must not become the particle 2."""
    found = read_flowcam([write_export(tmp_path / "run", changes={3: {"id": number}})])
    assert named(found) == [(1, "oil"), (2, "rest"), (4, "rest")]
    assert found.notes == {"particles without a number of their own": 1}


def test_particles_that_share_a_number_take_no_label(tmp_path: Path) -> None:
    found = read_flowcam([write_export(tmp_path / "run", changes={4: {"id": 1}})])
    assert named(found) == [(2, "rest"), (3, "oil")]
    assert found.notes == {"particles without a number of their own": 2}


def test_numbers_that_are_text_are_refused(tmp_path: Path) -> None:
    export = write_export(tmp_path / "run", changes={n: {"id": f"P{n}"} for n in range(1, 5)})
    with pytest.raises(UserError, match=r"run\.lst: particle numbers \(id\) are text, the first is P1; whole numbers"):
        read_flowcam([export])


def test_without_numbers_the_row_counts_from_one(tmp_path: Path) -> None:
    found = read_flowcam([write_export(tmp_path / "run", without=["id"])])
    assert named(found) == [(1, "oil"), (2, "rest"), (3, "oil"), (4, "rest")]


def test_a_crop_that_lies_wholly_before_the_frame_is_no_picture(tmp_path: Path) -> None:
    """Its lower edge is negative: counted from the other end, the slice would be nearly the whole frame."""
    labels = "id,label\n" + "".join(f"{n},{'oil' if n % 2 else 'rest'}\n" for n in range(1, 13))
    export = write_export(tmp_path / "run", labels=labels)
    lines = (export / "run.lst").read_text().splitlines()
    # Of a background that a tenth of the particles do not lie in, the source says that it is not theirs.
    lines += ["|".join([str(n), *lines[-1].split("|")[1:]]) for n in range(5, 12)]
    outside = lines[-1].split("|")
    outside[0], outside[NAMES.index("src_y")] = "12", "-30"
    (export / "run.lst").write_text("\n".join([*lines, "|".join(outside)]) + "\n")
    found = read_flowcam([export])
    assert {p.shape for p in found.pictures} == {(SIDE, SIDE)}
    assert len(found.pictures) == 11
    assert found.notes == {"particles with less than 5 px in the frame": 1, "run: clipped": 1}


def test_a_number_that_stands_twice_is_no_one_s_even_where_one_frame_is_lost(tmp_path: Path) -> None:
    changes = {3: {"id": 1}, 4: {"src_y": "x"}}  # the bad row takes frame 4 out, and with it the second particle 1
    export = write_export(tmp_path / "run", changes=changes, labels="id,label\n1,oil\n2,rest\n")
    with pytest.raises(UserError, match="no particle of class oil is in run"):
        read_flowcam([export])


def test_particles_of_frames_that_are_lost_are_noted(tmp_path: Path) -> None:
    found = read_flowcam([write_export(tmp_path / "run", changes={4: {"src_y": "x"}})])
    assert named(found) == [(1, "oil"), (2, "rest")]
    assert found.notes == {"run: bad_row": 1, "particles of frames that are lost": 1}


def test_a_picture_is_divided_by_the_background_of_its_own_frame(tmp_path: Path) -> None:
    numbers = {n: {"cal_image": 1 + (n > 2)} for n in range(1, 5)}
    folder = write_export(tmp_path / "day5", names=(*NAMES, "cal_image"), changes=numbers)
    dimmer = 2 * BACKGROUND // 3
    collage = cv2.imread(str(folder / "run_000001.tif"), cv2.IMREAD_GRAYSCALE)
    late = collage[:, 2 * SIDE :]
    late[late == BACKGROUND] = dimmer
    cv2.imwrite(str(folder / "run_000001.tif"), collage)
    cv2.imwrite(str(folder / "cal_image_000002.tif"), np.full((80, 120), dimmer, np.uint8))
    found = read_flowcam([folder])
    middle = [int(picture[SIDE // 2, SIDE // 2]) for picture in found.pictures]
    assert middle == [round(grey_of(n) * 160 / (BACKGROUND if n < 3 else dimmer)) for n in range(1, 5)]
    assert all(picture[0, 0] == 160 for picture in found.pictures)
