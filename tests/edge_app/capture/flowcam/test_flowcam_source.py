from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edge_app.capture.flowcam.source import open_flowcam
from edge_app.capture.source import FrameSource, lost_at_end
from edge_app.errors import UserError

Export = Callable[..., Any]


def assert_rebuilt(truth: Any, **options: Any) -> None:
    source = open_flowcam(f"flowcam:{truth.folder}")
    frames = list(source.frames())
    assert [f.sequence for f in frames] == [32, 35, 41]
    for frame in frames:
        np.testing.assert_array_equal(frame.image, truth.frames[frame.sequence])
        assert frame.time_s == pytest.approx(frame.sequence / 16.98, abs=1e-3)
        assert frame.lost_before == 0
    assert not source.problems


def test_frames_are_what_the_crops_were_cut_from(flowcam_export: Export) -> None:
    assert_rebuilt(flowcam_export())


@pytest.mark.parametrize(
    "variant",
    [
        {"reverse_columns": True},
        {"upper": True},
        {"separator": ";"},
        {"decimal": ","},
        {"newline": "\r\n", "encoding": "utf-8-sig"},
        {"encoding": "utf-16"},
        {"name": "what? #1 100%"},
    ],
)
def test_variants_of_the_list_read_the_same(flowcam_export: Export, variant: dict[str, Any]) -> None:
    assert_rebuilt(flowcam_export(**variant))


def test_info(flowcam_export: Export) -> None:
    truth = flowcam_export()
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert isinstance(source, FrameSource)
    info = source.info
    assert (info.width_px, info.height_px, info.frames_total) == (160, 120, 3)
    assert info.um_per_px == pytest.approx(0.5544)
    assert info.thresholds == (20, 15)
    assert info.depth_um == 100.0
    assert info.flow_rate_ul_per_min == pytest.approx(150.0)
    assert info.frame_rate_hz == pytest.approx(16.98)
    assert info.volume_imaged_ml == pytest.approx(0.02903)
    assert info.background is not None
    np.testing.assert_array_equal(info.background, truth.background)
    details = dict(info.details)
    assert details["grey_offset"] == pytest.approx(7 / 3, abs=0.001)
    assert details["thresholds_used"] == "dark"
    assert details["images_imaged"] == 12
    assert details["serial_number"] == "4711"
    assert details["volume_from"] == "summary"


def test_the_list_itself_can_be_named(flowcam_export: Export) -> None:
    truth = flowcam_export()
    assert len(list(open_flowcam(f"flowcam:{truth.list_file}").frames())) == 3


def test_companion_holds_the_instrument_s_rows_of_the_frame(flowcam_export: Export) -> None:
    truth = flowcam_export()
    source = open_flowcam(f"flowcam:{truth.folder}")
    for frame in source.frames():
        assert frame.companion is not None
        columns = frame.companion.columns
        expected = [r for r in truth.rows if r["src_image"] == frame.sequence]
        assert columns["id"].tolist() == [r["id"] for r in expected]
        assert columns["raw_area"].tolist() == [r["raw_area"] for r in expected]
        for row, number in zip(columns["row"], columns["id"], strict=True):
            mask = source.mask(int(row))
            assert mask is not None
            np.testing.assert_array_equal(mask, truth.masks[number - 1])


def test_without_masks_and_summaries(flowcam_export: Export) -> None:
    truth = flowcam_export(masks=False, summaries=False)
    assert_rebuilt(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert source.mask(0) is None
    # 12 images of 158 x 118 px, times the velocity correction
    assert source.info.volume_imaged_ml == pytest.approx(12 * 158 * 118 * 0.5544**2 * 100e-12 * 0.5)
    assert source.info.details["volume_from"] == "settings"
    assert source.info.details["thresholds_used"] == "dark"
    (truth.folder / "run.ctx").unlink()
    info = open_flowcam(f"flowcam:{truth.folder}").info
    assert (info.volume_imaged_ml, info.thresholds, info.depth_um, info.frame_rate_hz) == (None, None, None, None)
    assert info.um_per_px == pytest.approx(0.5544)  # the table has it too


def test_missing_collage_takes_its_frames_out(flowcam_export: Export) -> None:
    truth = flowcam_export()
    (truth.folder / "run_000002.tif").unlink()  # rows 2 and 4: frames 32 and 35
    source = open_flowcam(f"flowcam:{truth.folder}")
    frames = list(source.frames())
    assert [f.sequence for f in frames] == [41]
    assert frames[0].lost_before == 2
    assert source.problems["no_collage"] == 2
    assert source.info.frames_total == 3  # the imaged volume is that of all three
    assert "run_000002.tif" in source.messages[0]


def test_cut_collage(flowcam_export: Export, silent: None) -> None:
    truth = flowcam_export()
    data = (truth.folder / "run_000001.tif").read_bytes()
    (truth.folder / "run_000001.tif").write_bytes(data[: len(data) // 2])
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [f.sequence for f in source.frames()] == [32]
    assert source.problems["truncated"] == 1
    assert source.problems["no_collage"] == 3


def test_crop_that_leaves_the_frame_is_clipped_and_counted(flowcam_export: Export, rewrite_list: Export) -> None:
    truth = flowcam_export()
    truth.rows[1]["src_x"] = 150
    truth.rows[3]["src_y"] = -5
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}?grey_offset=2.3333")
    frames = {f.sequence: f.image for f in source.frames()}
    assert dict(source.problems) == {"clipped": 2}
    h, y = truth.rows[1]["image_h"], truth.rows[1]["src_y"]
    original = truth.frames[32][y : y + h, 67:77]
    np.testing.assert_array_equal(frames[32][y : y + h, 150:], original)
    np.testing.assert_array_equal(frames[32][:, :150], truth.background[:, :150])


def test_a_bad_row_takes_its_frame_out(flowcam_export: Export) -> None:
    """The frame would hold a particle less than was in its volume."""
    truth = flowcam_export()
    with truth.list_file.open("a") as file:
        file.write("|".join("x" if n == "src_x" else str(truth.rows[3][n]) for n in truth.names) + "\n")
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [(f.sequence, f.lost_before) for f in source.frames()] == [(32, 0), (41, 1)]
    assert dict(source.problems) == {"bad_row": 1}
    assert source.info.frames_total == 3
    assert len(source.table) == 5


def test_a_frame_of_bad_rows_alone_is_lost_and_its_volume_with_it(flowcam_export: Export, rewrite_list: Export) -> None:
    """Were it forgotten, the frames that are left would be given its share of the imaged volume."""
    truth = flowcam_export()
    truth.rows[1]["image_h"] = 0  # frame 32
    for row in (0, 2):  # frame 41, the last
        truth.rows[row]["src_y"] = "x"
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [(f.sequence, f.lost_before) for f in source.frames()] == [(35, 1)]
    assert lost_at_end(source) == 1
    assert dict(source.problems) == {"bad_row": 3}
    assert source.info.frames_total == 3


@pytest.mark.parametrize(("rows", "frames"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_rows_that_do_not_say_their_frame_are_lost_frames(flowcam_export: Export, rows: int, frames: int) -> None:
    """As many as they fill on average, here with 5 rows in 3 frames; at least one."""
    truth = flowcam_export()
    with truth.list_file.open("a") as file:
        file.write("6|too|short\n" * rows)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [(f.sequence, f.lost_before) for f in source.frames()] == [(32, 0), (35, 0), (41, 0)]
    assert dict(source.problems) == {"bad_row": rows}
    assert (source.info.frames_total, lost_at_end(source)) == (3 + frames, frames)


def test_a_table_of_rows_that_do_not_say_their_frame(flowcam_export: Export, rewrite_list: Export) -> None:
    truth = flowcam_export()
    truth.rows.clear()
    rewrite_list(truth)
    with truth.list_file.open("a") as file:
        file.write("6|too|short\n" * 2)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert list(source.frames()) == []
    assert (source.info.frames_total, lost_at_end(source), source.problems["bad_row"]) == (2, 2, 2)


def test_box_outside_its_collage(flowcam_export: Export, rewrite_list: Export) -> None:
    truth = flowcam_export()
    truth.rows[1]["image_x"] = 95
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [f.sequence for f in source.frames()] == [35, 41]
    assert dict(source.problems) == {"no_collage": 1}


def test_collage_named_by_a_path_of_another_computer_in_other_case(
    flowcam_export: Export, rewrite_list: Export
) -> None:
    truth = flowcam_export()
    for row in truth.rows:
        row["collage_file"] = "C:\\VisualSpreadsheet\\run\\" + row["collage_file"].upper()
    rewrite_list(truth)
    assert_rebuilt(truth)


def test_several_backgrounds(flowcam_export: Export, rewrite_list: Export) -> None:
    import cv2

    truth = flowcam_export()
    cv2.imwrite(str(truth.folder / "cal_image_000002.tif"), truth.background + 1)
    for row in truth.rows:
        if row["src_image"] == 41:
            row["cal_image"] = 2
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}?grey_offset=2.3333")
    corner = {f.sequence: int(f.image[0, 159]) - int(truth.background[0, 159]) for f in source.frames()}
    assert corner == {32: 0, 35: 0, 41: 1}
    assert source.info.details["backgrounds"] == 2


SHEET = {
    "id": "Particle ID",
    "image_x": "Image X",
    "image_y": "Image Y",
    "image_w": "Image Width",
    "image_h": "Image Height",
    "src_x": "Capture X",
    "src_y": "Capture Y",
    "src_image": "Source Image",
    "cal_image": "Calibration Image",
    "cal_const": "Calibration Factor",
    "elapsed_time": "Elapsed Time",
    "collage_file": "Image File",
}


def test_spreadsheet_export_stands_in_for_a_missing_list(flowcam_export: Export) -> None:
    truth = flowcam_export()
    truth.list_file.unlink()
    lines = [",".join(SHEET.values())] + [",".join(str(row[n]) for n in SHEET) for row in truth.rows]
    (truth.folder / "run.csv").write_text("\n".join(lines))
    assert_rebuilt(truth)


def test_table_without_a_particle_gives_no_frame(flowcam_export: Export, rewrite_list: Export) -> None:
    truth = flowcam_export()
    truth.rows.clear()
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert list(source.frames()) == []
    assert source.info.frames_total == 0


def test_what_cannot_be_opened(flowcam_export: Export, tmp_path: Any) -> None:
    (tmp_path / "empty").mkdir()
    no_header = flowcam_export(name="no header")
    no_header.list_file.write_text("1|0|0|22|22\n")
    lacking = flowcam_export(name="lacking")
    lacking.list_file.write_text(lacking.list_file.read_text().replace("src_y|", "other|"))
    no_background = flowcam_export(name="no background")
    (no_background.folder / "cal_image_000001.tif").unlink()
    for name, says in (
        ("none", "does not exist"),
        ("empty", "no particle table"),
        ("no header", "num-fields"),
        ("lacking", "lacks the column.* src_y"),
        ("no background", "no background picture"),
    ):
        with pytest.raises(UserError, match=says) as caught:
            open_flowcam(f"flowcam:{tmp_path / name}")
        assert "\n" not in str(caught.value)


IN_PIXELS = ("image_x", "image_y", "image_w", "image_h", "src_x", "src_y")


def write_sheet(truth: Any, names: dict[str, str], *, encoding: str = "utf-8", floats: bool = False) -> None:
    def text(value: Any) -> str:
        return f"{value:.4f}" if floats and isinstance(value, int) else str(value)

    truth.list_file.unlink(missing_ok=True)
    lines = [",".join(names.values())] + [",".join(text(row[n]) for n in names) for row in truth.rows]
    (truth.folder / "run.csv").write_text("\r\n".join(lines), encoding=encoding)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
def test_sheet_with_units_and_decimals(flowcam_export: Export, encoding: str) -> None:
    truth = flowcam_export()
    units = dict.fromkeys(IN_PIXELS, " (px)") | {"elapsed_time": " (s)", "cal_const": " (\u00b5m/px)"}
    names = {key: name + units.get(key, "") for key, name in SHEET.items()} | {"id": "Capture ID"}
    write_sheet(truth, names, encoding=encoding, floats=True)
    assert_rebuilt(truth)
    assert open_flowcam(f"flowcam:{truth.folder}").info.um_per_px == pytest.approx(0.5544)


def test_a_file_for_each_particle_in_place_of_collages(flowcam_export: Export, rewrite_list: Export) -> None:
    import cv2

    truth = flowcam_export()
    (truth.folder / "images").mkdir()
    for row in truth.rows:
        sheet = cv2.imread(str(truth.folder / row["collage_file"]))
        box = np.s_[row["image_y"] : row["image_y"] + row["image_h"], row["image_x"] : row["image_x"] + row["image_w"]]
        row["collage_file"] = f"run_{row['id']}.png"
        cv2.imwrite(str(truth.folder / "images" / row["collage_file"]), sheet[box])
    for path in truth.folder.glob("run_0*.tif"):
        path.unlink()
    truth.names = [n for n in truth.names if n not in ("image_x", "image_y")]
    rewrite_list(truth)
    assert_rebuilt(truth)
    # A second file of that name below the export: nothing says which one is meant.
    (truth.folder / "other").mkdir()
    (truth.folder / "other" / "run_1.png").touch()
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [f.sequence for f in source.frames()] == [32, 35]
    assert (source.problems["no_collage"], lost_at_end(source)) == (1, 1)


def test_table_without_places_names_the_way_out(flowcam_export: Export) -> None:
    truth = flowcam_export()
    names = {key: name for key, name in SHEET.items() if key not in ("image_x", "image_y", "collage_file")}
    write_sheet(truth, names)
    with pytest.raises(UserError, match=r"lacks the column.* image_x, image_y, collage_file; .*\.lst"):
        open_flowcam(f"flowcam:{truth.folder}")
    (truth.folder / "rawfile_000001.tif").touch()
    with pytest.raises(UserError, match=r"dir:.*\?names=rawfile_\*"):
        open_flowcam(f"flowcam:{truth.folder}")


@pytest.mark.parametrize("value", ["", "none"])
def test_row_that_names_no_background_takes_the_first(flowcam_export: Export, rewrite_list: Export, value: str) -> None:
    truth = flowcam_export()
    truth.rows[1]["cal_image"] = value
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    for frame in source.frames():
        np.testing.assert_array_equal(frame.image, truth.frames[frame.sequence])
    assert set(source.problems) == {"no_background"}


def test_place_that_is_no_whole_pixel_is_a_bad_row(flowcam_export: Export, rewrite_list: Export) -> None:
    """1.024 may be a thousand and twenty-four."""
    truth = flowcam_export()
    truth.rows[1]["src_x"] = 1.024
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [(f.sequence, f.lost_before) for f in source.frames()] == [(35, 1), (41, 0)]
    assert dict(source.problems) == {"bad_row": 1}
    assert source.info.frames_total == 3


def test_sixteen_bit_export_has_one_depth(flowcam_export: Export) -> None:
    """A collage without a bright pixel must not be read with fewer bits than the others."""
    import cv2

    truth = flowcam_export()
    for path in [*truth.folder.glob("run_00000?.tif"), truth.folder / "cal_image_000001.tif"]:
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16)
        cv2.imwrite(str(path), picture * 4 if path.name != "run_000002.tif" else np.minimum(picture, 60) * 4)
    source = open_flowcam(f"flowcam:{truth.folder}?grey_offset=2.3333")
    for frame in source.frames():
        if frame.sequence != 41:  # those are of the darkened collage
            assert frame.image[:, :4].tolist() == truth.background[:, :4].tolist()
        if frame.sequence == 35:
            assert int(frame.image[100, 20]) <= 60
    assert not source.problems


def test_backgrounds_of_two_sizes(flowcam_export: Export) -> None:
    import cv2

    truth = flowcam_export()
    cv2.imwrite(str(truth.folder / "cal_image_000000.tif"), np.full((9, 9), 150, np.uint8))
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert (source.info.width_px, source.info.height_px) == (160, 120)
    assert dict(source.problems) == {"wrong_size": 1}
    cv2.imwrite(str(truth.folder / "cal_image_000001.tif"), np.full((9, 9), 150, np.uint8))
    with pytest.raises(UserError, match="5 of 5 particles lie outside of the background picture of 9 x 9 px"):
        open_flowcam(f"flowcam:{truth.folder}")


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "run_summary.csv",
            "Name: run\n\tFluid Volume Imaged,0.0290 ml\n\tFrame Rate,16.98 fps\n\tFlow Rate,0.150 ml/min\n",
        ),
        (
            "run_run_summary.txt",
            "Run:\n\tFlow Rate:  0.150 ml/min\n\tFluid Volume Imaged: 29,0 \u00b5l\nImages:\n\tFrame Rate: 16.98\n",
        ),
    ],
)
def test_summaries_of_other_versions(flowcam_export: Export, file: str, text: str) -> None:
    truth = flowcam_export(summaries=False)
    (truth.folder / "run.ctx").unlink()
    (truth.folder / file).write_text(text, encoding="cp1252")
    info = open_flowcam(f"flowcam:{truth.folder}").info
    assert info.volume_imaged_ml == pytest.approx(0.029)
    assert info.frame_rate_hz == pytest.approx(16.98)
    assert info.flow_rate_ul_per_min == pytest.approx(150)


def test_folder_of_exports_names_them(flowcam_export: Export, tmp_path: Any) -> None:
    flowcam_export(name="run a")
    flowcam_export(name="run b")
    (tmp_path / "labels.csv").write_text("run,id,label\n")
    with pytest.raises(UserError, match="holds several exports, name one of them: run a, run b"):
        open_flowcam(f"flowcam:{tmp_path}")


def test_frames_lost_at_the_end_are_known(flowcam_export: Export) -> None:
    truth = flowcam_export()
    (truth.folder / "run_000001.tif").unlink()  # rows 1, 3 and 5: frames 41 and 35
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [f.sequence for f in source.frames()] == [32]
    assert lost_at_end(source) == 2


@pytest.mark.parametrize("total", ["1,620", "1.620", "1620"])
def test_number_of_images_may_have_a_sign_before_thousands(flowcam_export: Export, total: str) -> None:
    truth = flowcam_export(summaries=False)
    ctx = truth.folder / "run.ctx"
    ctx.write_text(ctx.read_text().replace("RawImageTotal=12", f"RawImageTotal={total}"))
    info = open_flowcam(f"flowcam:{truth.folder}").info
    assert info.details["images_imaged"] == 1620
    assert info.volume_imaged_ml == pytest.approx(1620 * 158 * 118 * 0.5544**2 * 100e-12 * 0.5)


def test_names_are_found_however_their_umlauts_are_stored(flowcam_export: Export, rewrite_list: Export) -> None:
    import unicodedata

    truth = flowcam_export()
    for row in truth.rows:
        row["collage_file"] = row["collage_file"].replace("run", "l\u00e4uf")
    rewrite_list(truth)
    for path in truth.folder.glob("run_00000?.tif"):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name.replace("run", "l\u00e4uf"))))
    assert_rebuilt(truth)


@pytest.mark.parametrize("value", [10**15, "1e300", "inf"])
def test_frame_number_beyond_all_measure_is_a_bad_row(flowcam_export: Export, rewrite_list: Export, value: Any) -> None:
    truth = flowcam_export()
    truth.rows[1]["src_image"] = value
    rewrite_list(truth)
    source = open_flowcam(f"flowcam:{truth.folder}")
    assert [(f.sequence, f.lost_before) for f in source.frames()] == [(35, 0), (41, 0)]
    assert dict(source.problems) == {"bad_row": 1}
    assert (source.info.frames_total, lost_at_end(source)) == (3, 1)


def test_table_without_a_row_that_can_be_used_is_refused(flowcam_export: Export, rewrite_list: Export) -> None:
    truth = flowcam_export()
    for row in truth.rows:
        row["image_w"] = 0
    rewrite_list(truth)
    with pytest.raises(UserError, match="none of 5 rows has its place in whole pixels"):
        open_flowcam(f"flowcam:{truth.folder}")
