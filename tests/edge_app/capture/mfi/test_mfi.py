from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from edge_app.capture.mfi.crops import open_mfi_crops
from edge_app.capture.mfi.source import open_mfi
from edge_app.capture.mfi.table import MFI_COLUMNS
from edge_app.capture.registry import open_crops, open_source
from edge_app.capture.source import FrameSource, lost_at_end
from edge_app.errors import UserError

FRAMES = (3, 4, 7)
ROWS = [(1, 3), (2, 3), (3, 4), (4, 9)]  # number of the particle, number of its frame; frame 9 has no picture

Export = Callable[..., Path]


def row(number: int, frame: int) -> dict[str, object]:
    values: dict[str, object] = dict.fromkeys(MFI_COLUMNS, 0)
    values |= {
        "#": number,
        "Frame #": frame,
        "Particle #": number,
        "Time Stamp(s)": frame / 8,
        "ECD(um)": 5.25 + number,
    }
    values |= {
        "Area(pixels)": 40 + number,
        "X Left": 10,
        "X Right": 62,
        "Y Top": 5,
        "Y Bottom": 44,
        "Circularity": 0.9125,
    }
    return values


@pytest.fixture
def mfi_export(tmp_path: Path) -> Export:
    """Three 10-bit frames of 64 x 48 px and a table of four particles."""

    def write(
        *,
        separator: str = ",",
        decimal: str = ".",
        encoding: str = "utf-8",
        newline: str = "\n",
        names: tuple[str, ...] = MFI_COLUMNS,
        preamble: str = "",
        table: str = "particles.csv",
        frame_name: str = "run7_frame_{:04d}.tif",
        bits: int = 10,
    ) -> Path:
        folder = tmp_path / "mfi"
        folder.mkdir()
        for n in FRAMES:
            level = 800 + 10 * n
            picture = np.full((48, 64), level >> (10 - bits), np.uint16 if bits > 8 else np.uint8)
            tifffile.imwrite(folder / frame_name.format(n), picture)

        def text(value: object) -> str:
            return str(value).replace(".", decimal) if isinstance(value, float) else str(value)

        # A name of our own stands at the place of the instrument's; the instrument's names may stand in any order.
        own = dict(zip(names, MFI_COLUMNS, strict=True))
        official = {n: n if n in MFI_COLUMNS else own[n] for n in names}
        lines = [separator.join(names)]
        lines += [separator.join(text(row(*r)[official[n]]) for n in names) for r in ROWS]
        (folder / table).write_text(preamble + "\n".join(lines) + "\n", encoding=encoding, newline=newline)
        return folder

    return write


def assert_read(uri: str) -> None:
    source = open_mfi(uri)
    frames = list(source.frames())
    assert [f.sequence for f in frames] == list(FRAMES)
    assert [int(f.image[0, 0]) for f in frames] == [207, 210, 217]
    companions = [f.companion for f in frames]
    assert all(c is not None for c in companions)
    assert [c.columns["#"].tolist() for c in companions if c] == [[1, 2], [3], []]
    assert [c.columns["ECD(um)"].tolist() for c in companions if c] == [[6.25, 7.25], [8.25], []]
    assert dict(source.problems) == {"no_frame": 1}


def test_frames_with_the_instrument_s_rows(mfi_export: Export) -> None:
    folder = mfi_export()
    assert_read(f"mfi:{folder}")
    source = open_source(f"mfi:{folder}?um_per_px=1.33&depth_um=100")
    assert isinstance(source, FrameSource)
    info = source.info
    assert (info.width_px, info.height_px, info.frames_total, info.um_per_px, info.depth_um) == (64, 48, 3, 1.33, 100.0)
    assert info.frame_rate_hz == 8.0
    assert "bits=10" in info.uri
    assert [f.time_s for f in source.frames()] == [3 / 8, 4 / 8, 7 / 8]


def test_missing_numbers_are_lost_frames(mfi_export: Export) -> None:
    assert [f.lost_before for f in open_mfi(f"mfi:{mfi_export()}").frames()] == [0, 0, 2]


@pytest.mark.parametrize(
    "variant",
    [
        {"separator": ";", "decimal": ","},
        {"separator": "\t", "table": "particles.txt"},
        {"encoding": "utf-16", "newline": "\r\n", "separator": "\t"},
        {"encoding": "utf-8-sig", "preamble": "MFI View System Software\nSample: a, b\n\n"},
        {"names": tuple(n.upper().replace("(UM)", " [\u00b5m]") for n in MFI_COLUMNS), "encoding": "cp1252"},
        {"names": MFI_COLUMNS[::-1]},
        {"bits": 8},
    ],
)
def test_variants_read_the_same(mfi_export: Export, variant: dict[str, object]) -> None:
    assert_read(f"mfi:{mfi_export(**variant)}")


def test_number_by_pattern(mfi_export: Export) -> None:
    folder = mfi_export(frame_name="img{:d}_cam2.tif")
    with pytest.raises(UserError, match="pattern"):
        open_mfi(f"mfi:{folder}?pattern=(")
    with pytest.raises(UserError, match="group"):
        open_mfi(f"mfi:{folder}?pattern=img")
    assert_read(f"mfi:{folder}?pattern=img([0-9]+)_")
    # Without the pattern every name ends in the same number.
    source = open_mfi(f"mfi:{folder}")
    assert [f.sequence for f in source.frames()] == [2]
    assert source.problems["duplicate"] == 2


def test_stack_holds_the_run(mfi_export: Export) -> None:
    folder = mfi_export()
    for path in folder.glob("*.tif"):
        path.unlink()
    stack = np.stack([np.full((48, 64), 800 + n, np.uint16) for n in range(1, 6)])
    tifffile.imwrite(folder / "all.tif", stack, photometric="minisblack")
    frames = list(open_mfi(f"mfi:{folder}").frames())
    assert [f.sequence for f in frames] == [1, 2, 3, 4, 5]
    assert [len(f.companion.columns["#"]) for f in frames if f.companion] == [0, 0, 2, 1, 0]


def test_without_a_table_frames_have_no_companion(mfi_export: Export) -> None:
    folder = mfi_export()
    (folder / "particles.csv").unlink()
    frames = list(open_mfi(f"mfi:{folder}").frames())
    assert [f.companion for f in frames] == [None, None, None]
    assert frames[1].time_s == 0.4


def test_frames_in_a_folder_below(mfi_export: Export) -> None:
    folder = mfi_export()
    (folder / "images").mkdir()
    for path in folder.glob("*.tif"):
        path.rename(folder / "images" / path.name)
    assert_read(f"mfi:{folder}")


def test_broken_frame_is_counted_and_lost(mfi_export: Export, silent: None) -> None:
    folder = mfi_export()
    (folder / "run7_frame_0004.tif").write_bytes(b"II*\0")
    (folder / "no number.tif").write_bytes((folder / "run7_frame_0003.tif").read_bytes())
    source = open_mfi(f"mfi:{folder}")
    assert [(f.sequence, f.lost_before) for f in source.frames()] == [(3, 0), (7, 3)]
    assert dict(source.problems) == {"no_frame": 1, "truncated": 1, "no_number": 1}


def test_ragged_rows_are_counted(mfi_export: Export) -> None:
    folder = mfi_export()
    with (folder / "particles.csv").open("a") as file:
        file.write("5,3\n" + "," * 18 + "x\n")
    source = open_mfi(f"mfi:{folder}")
    assert source.problems["bad_row"] == 2
    assert len(list(source.frames())) == 3


def test_table_by_name(mfi_export: Export) -> None:
    folder = mfi_export(table="other.csv")
    (folder / "notes.csv").write_text("a,b\n1,2\n")
    assert_read(f"mfi:{folder}?table=other.csv")
    with pytest.raises(UserError, match="no header line"):
        open_mfi(f"mfi:{folder}?table=notes.csv")
    with pytest.raises(UserError, match="cannot be read"):
        open_mfi(f"mfi:{folder}?table=none.csv")


@pytest.fixture
def particle_pictures(mfi_export: Export) -> Path:
    """The table with a picture per particle in place of frames."""
    folder = mfi_export()
    for path in folder.glob("*.tif"):
        path.unlink()
    for number, side in ((1, 12), (2, 30), (4, 9), (77, 15)):
        cv2.imwrite(str(folder / f"particle_{number}.png"), np.full((side, side + 1), 100 + number, np.uint8))
    return folder


def test_particle_pictures_with_their_rows(particle_pictures: Path) -> None:
    source = open_crops(f"mfi:{particle_pictures}")
    crops = list(source.crops())
    assert [c.path_below for c in crops] == [f"particle_{n}.png" for n in (1, 2, 4, 77)]
    assert [c.instrument.get("ECD(um)") for c in crops] == [6.25, 7.25, 9.25, None]
    assert [c.image.shape for c in crops] == [(12, 13), (30, 31), (9, 10), (15, 16)]
    assert dict(source.problems) == {"no_row": 1}


def test_particle_pictures_are_no_frames_and_frames_no_particle_pictures(
    particle_pictures: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="edge-app classify"):
        open_mfi(f"mfi:{particle_pictures}")
    for path in particle_pictures.glob("*.png"):
        path.unlink()
    cv2.imwrite(str(particle_pictures / "frame_3.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(UserError, match="edge-app run"):
        open_mfi_crops(f"mfi:{particle_pictures}")


def test_particle_pictures_are_told_from_frames_without_places(particle_pictures: Path) -> None:
    table = particle_pictures / "particles.csv"
    table.write_text("#,Frame #,ECD(um),Area(pixels)\n1,3,5.5,20\n2,3,6.5,30\n")
    with pytest.raises(UserError, match="edge-app classify"):
        open_mfi(f"mfi:{particle_pictures}")
    assert len(list(open_mfi_crops(f"mfi:{particle_pictures}").crops())) == 4


def test_what_cannot_be_opened(tmp_path: Path, mfi_export: Export) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "unnumbered").mkdir()
    cv2.imwrite(str(tmp_path / "unnumbered" / "frame.png"), np.zeros((8, 8), np.uint8))
    for name, says in (
        ("none", "does not exist"),
        ("empty", "no frame or particle picture"),
        ("unnumbered", "no picture has a frame number in its name.*frame.png"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            open_mfi(f"mfi:{tmp_path / name}")
        assert "\n" not in str(caught.value)


def test_a_row_that_is_wrong_by_itself_does_not_make_the_frames_particle_pictures(mfi_export: Export) -> None:
    folder = mfi_export()
    table = folder / "particles.csv"
    lines = table.read_text().splitlines()
    lines[2] = lines[2].replace(",62,", ",9999,")
    table.write_text("\n".join(lines))
    source = open_mfi(f"mfi:{folder}")
    assert len(list(source.frames())) == 3
    assert dict(source.problems) == {"no_frame": 1, "outside": 1}


@pytest.mark.parametrize("names", [["run7"], ["run7_part1", "run7_part2"], ["stack_1", "stack_4"]])
def test_the_number_of_a_stack_is_not_that_of_a_frame(mfi_export: Export, names: list[str]) -> None:
    folder = mfi_export()
    for path in folder.glob("*.tif"):
        path.unlink()
    parts = np.array_split(np.stack([np.full((48, 64), 800 + n, np.uint16) for n in range(1, 7)]), len(names))
    for name, part in zip(names, parts, strict=True):
        tifffile.imwrite(folder / f"{name}.tif", part, photometric="minisblack")
    frames = list(open_mfi(f"mfi:{folder}").frames())
    assert [f.sequence for f in frames] == [1, 2, 3, 4, 5, 6]
    assert [len(f.companion.columns["#"]) for f in frames if f.companion] == [0, 0, 2, 1, 0, 0]


def test_frame_numbers_that_are_none_are_counted(mfi_export: Export) -> None:
    folder = mfi_export()
    table = folder / "particles.csv"
    lines = table.read_text().splitlines()
    lines[1:3] = [lines[1].replace("1,3,", "1,n/a,", 1), lines[2].replace("2,3,", "2,²,", 1)]
    table.write_text("\n".join(lines))
    source = open_mfi(f"mfi:{folder}")
    assert [len(f.companion.columns["#"]) for f in source.frames() if f.companion] == [0, 1, 0]
    assert source.problems["bad_row"] == 2


def test_files_that_are_no_tables_are_passed_over(mfi_export: Export) -> None:
    folder = mfi_export()
    (folder / "frames.dat").write_bytes(bytes(200_000))
    (folder / "book.xls").write_bytes(b"\xd0\xcf\x11\xe0" + bytes(5000))
    (folder / "notes.txt").write_text('"' + "a, " * 100_000)
    assert_read(f"mfi:{folder}")


def test_a_quote_that_is_never_closed_costs_its_own_line(mfi_export: Export) -> None:
    folder = mfi_export()
    with (folder / "particles.csv").open("a") as file:
        file.write('"5,3\n' + "1," * 90_000)
    source = open_mfi(f"mfi:{folder}")
    assert [len(f.companion.columns["#"]) for f in source.frames() if f.companion] == [2, 1, 0]
    assert source.problems["bad_row"] == 2


def test_table_in_a_folder_below_or_named_itself(mfi_export: Export) -> None:
    folder = mfi_export()
    assert_read(f"mfi:{folder / 'particles.csv'}?um_per_px=1.33")
    (folder / "data").mkdir()
    (folder / "particles.csv").rename(folder / "data" / "particles.csv")
    assert_read(f"mfi:{folder}")


def test_frame_that_is_broken_at_the_end_is_lost(mfi_export: Export) -> None:
    folder = mfi_export()
    (folder / "run7_frame_0007.tif").write_bytes(b"")
    source = open_mfi(f"mfi:{folder}")
    assert [f.sequence for f in source.frames()] == [3, 4]
    assert lost_at_end(source) == 3


def test_a_time_in_the_name_is_no_frame_number(mfi_export: Export) -> None:
    folder = mfi_export(frame_name="run7_{:04d}_20240408111101303.tif")
    with pytest.raises(UserError, match="no picture has a frame number in its name"):
        open_mfi(f"mfi:{folder}")
    assert_read(f"mfi:{folder}?pattern=run7_([0-9]+)_")


@pytest.mark.parametrize("option", ["depth_um=inf", "um_per_px=inf", "um_per_px=nan", "depth_um=0"])
def test_scale_and_depth_must_be_numbers_of_this_world(mfi_export: Export, option: str) -> None:
    with pytest.raises(UserError, match=option.partition("=")[0]):
        open_mfi(f"mfi:{mfi_export()}?{option}")
