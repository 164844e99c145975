"""`edge-app run` and `export` on real files, good and bad."""

import csv
import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_app.errors import UserError
from edge_app.recording.record_reader import open_record

QUIET = ("--mqtt", "off")
KEYS = {
    "run_id", "frames", "frames_lost", "frames_rejected", "particles", "volume_ml", "per_ml", "counts", "rejected",
    "seconds", "particles_per_min", "pipeline_id", "model_sha256", "calibration_id",
}  # fmt: skip
COLUMNS = [
    "frame", "x_px", "y_px", "width_px", "height_px", "area_px", "ecd_um", "max_feret_um", "min_feret_um",
    "perimeter_um", "aspect_ratio", "circularity", "solidity", "intensity_mean", "intensity_min", "intensity_max",
    "intensity_std", "edge_gradient", "border", "weight", "class", "confidence",
]  # fmt: skip


def picture(*discs: tuple[int, int, int], size: tuple[int, int] = (240, 320), level: int = 200, seed: int = 0):
    """A grey frame with dark discs (x, y, radius) and a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full(size, level, np.float32) + rng.normal(0, 1.5, size).astype(np.float32)
    for x, y, r in discs:
        cv2.circle(image, (x, y), r, 60.0, -1, cv2.LINE_AA)
    return np.clip(image, 0, 255).astype(np.uint8)


def folder_of(path: Path, images: list[np.ndarray]) -> Path:
    path.mkdir()
    for i, image in enumerate(images):
        assert cv2.imwrite(str(path / f"frame_{i:04d}.png"), image)
    return path


@pytest.fixture
def flowcam_folder(tmp_path: Path) -> Path:
    """An export of one frame with one particle."""
    folder = tmp_path / "export"
    folder.mkdir()
    cv2.imwrite(str(folder / "cal_image_000001.tif"), np.full((120, 160), 190, np.uint8))
    cv2.imwrite(str(folder / "run_000001.tif"), np.full((30, 30), 150, np.uint8))
    names = ["id", "image_x", "image_y", "image_w", "image_h", "src_x", "src_y", "src_image", "cal_const"]
    lines = ["017", f"num-fields|{len(names) + 1}", *(f"{n}|int32" for n in names), "collage_file|string"]
    (folder / "run.lst").write_text("\n".join([*lines, "1|0|0|20|20|50|40|7|0.5544|run_000001.tif"]) + "\n")
    return folder


def scattered(n: int, frames: int, *, size: tuple[int, int] = (240, 320)) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    made = []
    for i in range(frames):
        discs = [(int(rng.integers(20, size[1] - 20)), int(rng.integers(20, size[0] - 20)), 5) for _ in range(n)]
        made.append(picture(*discs, seed=i, size=size))
    return made


def test_simulated_run_reports_every_number(app, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = app.json("run", "sim:?concentration=60000&seed=3&frames=25", "--out", out, *QUIET)
    assert result.keys() >= KEYS
    assert list(result["per_ml"]) == ["2", "5", "10", "25", "50", "70"]
    assert result["frames"] + result["frames_rejected"] == 25
    assert sum(result["counts"].values()) == result["particles"] > 100
    values = list(result["per_ml"].values())
    assert values == sorted(values, reverse=True)
    assert result["calibration_id"]
    assert len(result["pipeline_id"]) == 64 == len(result["model_sha256"])


def test_export_has_the_designs_columns_and_every_particle(app, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = app.json("run", "sim:?concentration=60000&seed=3&frames=12", "--out", out, *QUIET)
    table = tmp_path / "particles.csv"
    app("export", out, "--table", "particles", "--format", "csv", "-o", table)
    lines = [line for line in table.read_text().splitlines() if not line.startswith("#")]
    header, *rows = csv.reader(lines)
    assert header[: len(COLUMNS)] == COLUMNS
    weight = header.index("weight")
    assert sum(float(row[weight]) > 0 for row in rows) == result["particles"]


def test_same_frames_twice_give_identical_bytes(app, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        app.json("run", "sim:?concentration=175000&seed=5&frames=15", "--out", tmp_path / name, *QUIET)
        for table in ("particles", "histogram"):
            file = tmp_path / f"{name}-{table}.csv"
            app("export", tmp_path / name, "--table", table, "--format", "csv", "-o", file)
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
    assert digests[:2] == digests[2:]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_frames(app, tmp_path: Path, n: int) -> None:
    source = folder_of(tmp_path / "frames", scattered(6, n))
    result = app.json("run", f"dir:{source}", "--out", tmp_path / "run", *QUIET)
    assert result["frames"] + result["frames_rejected"] == n
    assert result["particles"] > 0


def test_no_frame_at_all(app, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = app("run", f"dir:{tmp_path / 'empty'}", "--out", tmp_path / "run", *QUIET, "--json", code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "empty" in done.stderr
    result = app.json("run", "sim:?seed=1", "--frames", 0, "--out", tmp_path / "none", *QUIET)
    assert (result["frames"], result["particles"], result["volume_ml"]) == (0, 0, 0)


def test_frame_of_another_size_is_counted_and_lowers_the_volume(app, tmp_path: Path) -> None:
    images = scattered(6, 6)
    whole = app.json("run", f"dir:{folder_of(tmp_path / 'a', images)}", "--out", tmp_path / "ra", *QUIET)
    images[3] = picture((50, 50, 5), size=(100, 100))
    mixed = app.json("run", f"dir:{folder_of(tmp_path / 'b', images)}", "--out", tmp_path / "rb", *QUIET)
    assert mixed["rejected"]["frame_size"] == 1
    assert mixed["frames"] == 5
    assert mixed["volume_ml"] == pytest.approx(whole["volume_ml"] * 5 / 6)


@pytest.mark.parametrize(("level", "reason"), [(0, "frame_dark"), (255, "frame_bright")])
def test_black_and_white_frames(app, tmp_path: Path, level: int, reason: str) -> None:
    images = scattered(6, 8)
    images[5] = np.full_like(images[0], level)
    result = app.json("run", f"dir:{folder_of(tmp_path / 'f', images)}", "--out", tmp_path / "r", *QUIET)
    assert result["rejected"].get(reason) == 1
    assert result["frames"] == 7
    alone = folder_of(tmp_path / "g", [np.full_like(images[0], level)] * 3)
    assert app.json("run", f"dir:{alone}", "--out", tmp_path / "s", *QUIET)["particles"] == 0


@pytest.mark.parametrize(("n", "size"), [(300, (1024, 1280)), (5000, (2048, 2560))])
def test_crowded_frames(app, tmp_path: Path, n: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    images = []
    for i in range(4):
        # On a jittered grid, so that the number is known: crowded, but not overlapping.
        per_row = int(np.ceil(np.sqrt(n * size[1] / size[0])))
        step = size[1] / per_row
        index = np.arange(n)
        x = (index % per_row + 0.5) * step + rng.uniform(-step / 6, step / 6, n)
        y = (index // per_row + 0.5) * step + rng.uniform(-step / 6, step / 6, n)
        keep = (x > 10) & (y > 10) & (x < size[1] - 10) & (y < size[0] - 10)
        images.append(picture(*[(int(a), int(b), 4) for a, b in zip(x[keep], y[keep], strict=True)], size=size, seed=i))
    result = app.json("run", f"dir:{folder_of(tmp_path / 'f', images)}", "--out", tmp_path / "r", *QUIET)
    # Every frame is either counted in full or named as overloaded: nothing vanishes silently.
    assert result["frames"] + result["frames_rejected"] == 4
    if result["frames"] == 4:
        assert result["particles"] + result["rejected"].get("border", 0) >= 0.97 * 4 * n
    else:
        assert result["rejected"].get("frame_overload", 0) > 0
    if n == 300:
        assert result["frames"] == 4


def test_broken_files_are_named_counted_and_the_run_goes_on(app, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "f", scattered(6, 6))
    whole = (source / "frame_0002.png").read_bytes()
    (source / "frame_0002.png").write_bytes(whole[: len(whole) // 3])
    (source / "frame_0004.png").write_bytes(b"")
    (source / "frame_0007.png").write_text("this is no picture")
    done = app("run", f"dir:{source}", "--out", tmp_path / "r", *QUIET, "--json")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    for name in ("frame_0002.png", "frame_0004.png", "frame_0007.png"):
        assert name in done.stderr
    assert result["frames"] == 4
    assert sum(result["source_problems"].values()) == 3


def test_every_picture_of_a_messy_folder_is_analysed_left_out_or_lost(app, tmp_path: Path) -> None:
    source = folder_of(tmp_path / "f \u00fc #1", scattered(8, 6))
    cv2.imwrite(str(source / "a_thumbnail.PNG"), np.full((50, 60), 200, np.uint8))
    cv2.imwrite(str(source / "frame_0003.png"), np.zeros((1, 1), np.uint8))
    (source / "frame_0005.png").unlink()
    (source / "frame_0005.png").symlink_to("nowhere.png")
    (source / "frame_0007.png").write_bytes(b"")  # the last one: no frame follows that could tell of it
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._frame_0001.png"):
        (source / name).write_bytes(b"x")
    result = app.json("run", f"dir:{source}", "--out", tmp_path / "r", *QUIET)
    assert (result["frames"], result["frames_rejected"], result["frames_lost"]) == (4, 2, 2)
    assert result["source_problems"] == {"empty": 1, "unreadable": 1}
    assert 28 <= result["particles"] + result["rejected"].get("border", 0) <= 32


def test_frames_that_are_lost_without_exception_are_counted(app, flowcam_folder: Path, tmp_path: Path) -> None:
    (flowcam_folder / "run_000001.tif").unlink()
    result = app.json("run", f"flowcam:{flowcam_folder}", "--out", tmp_path / "r", *QUIET)
    assert (result["frames"], result["frames_lost"]) == (0, 1)
    assert result["source_problems"] == {"no_collage": 1}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("dir:/nowhere/at/all", ["/nowhere/at/all"]),
        ("flowcam:/nowhere", ["/nowhere"]),
        ("mfi:/nowhere", ["/nowhere"]),
        ("video:/nowhere.avi", ["/nowhere.avi"]),
        ("magic:1", ["magic", "dir"]),
        ("sim:?concentraton=5", ["concentraton", "concentration"]),
        ("sim:?concentration=-5", ["concentration", "-5"]),
    ],
)
def test_source_that_cannot_be_opened_ends_with_one_line(app, tmp_path: Path, source: str, words: list[str]) -> None:
    done = app("run", source, "--out", tmp_path / "r", *QUIET, code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[segmentation\n", ["settings.toml"]),
        ("[window]\nlength = 3\n", ["window.length"]),
        ("[window]\nlength_s = -3\n", ["window.length_s", "-3"]),
        ("[mqtt]\nsite = 'Has Spaces'\n", ["mqtt.site", "Has Spaces"]),
        (b"\xff\xfe\x00", ["settings.toml"]),
    ],
)
def test_unusable_settings_end_with_one_line(app, tmp_path: Path, text: str | bytes, words: list[str]) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = app("run", "sim:?frames=2", "--config", file, "--out", tmp_path / "r", *QUIET, code=2)
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in words)


def test_settings_written_are_settings_read(app, tmp_path: Path) -> None:
    file = tmp_path / "edge-app.toml"
    app("config", "init", file)
    app("config", "check", file)
    assert app("config", "show", file).stdout == app("config", "show").stdout
    app("config", "init", file, code=2)


def test_bundle_that_was_altered_is_refused(app, tmp_path: Path) -> None:
    import shutil

    from edge_app.classification.bundle import SHIPPED

    copy = tmp_path / "bundle"
    shutil.copytree(SHIPPED, copy)
    data = bytearray((copy / "model.tflite").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.tflite").write_bytes(data)
    done = app("run", "sim:?frames=2", "--bundle", copy, "--out", tmp_path / "r", *QUIET, code=2)
    assert "model.tflite" in done.stderr


def test_interrupt_closes_the_record_in_order(app, wait_for, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = app.start("run", "sim:?seed=1&realtime=1", "--out", out, *QUIET, "--json")

    def two_windows() -> bool:
        try:
            with open_record(out) as record:
                return len(list(record.windows())) >= 2
        except UserError:
            return False

    wait_for(two_windows, what="two windows")
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert json.loads(stdout.strip().splitlines()[-1])["frames"] > 5


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_full_disk_is_one_line_and_keeps_what_was_recorded(app, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = app("run", "sim:?concentration=175000&seed=1&frames=600", "--out", small / "run", *QUIET, code=2)
        assert len(done.stderr.strip().splitlines()) == 1
        assert "disk" in done.stderr.lower() or "space" in done.stderr.lower()
        target = tmp_path / "w.csv"
        app("export", small / "run", "--table", "windows", "--format", "csv", "-o", target)
        rows = [line for line in target.read_text().splitlines() if not line.startswith("#")]
        assert len(rows) > 1
    finally:
        subprocess.run(["umount", str(small)], check=False)
