"""Exports of instruments as the tests know them to the pixel: written here, read back through the sources."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real instrument data, or a skip with the reason."""
    folder = Path(os.environ.get("EDGE_APP_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set EDGE_APP_REAL_DATA)")
    return folder


@pytest.fixture
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fail if a decoder writes lines of its own to the terminal."""
    yield
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""


def disc(image: np.ndarray, x: int, y: int, radius: int, depth: int) -> np.ndarray:
    """Darken a disc in place; return its mask."""
    yy, xx = np.mgrid[: image.shape[0], : image.shape[1]]
    mask = (xx - x) ** 2 + (yy - y) ** 2 <= radius**2
    image[mask] -= depth
    return mask


@dataclass
class FlowCamTruth:
    """A synthetic export and what went into it."""

    folder: Path
    background: np.ndarray
    frames: dict[int, np.ndarray]
    masks: list[np.ndarray]
    rows: list[dict[str, Any]]
    names: list[str]
    types: dict[str, str] = field(default_factory=dict)

    @property
    def list_file(self) -> Path:
        return self.folder / "run.lst"


FLOWCAM_CTX = """[Software]
SoftwareName=VisualSpreadsheet
SoftwareVersion=4.19.3
[CameraBehavior]
AutoImageRate=17
[Fluid]
FlowCellType=FC100
FlowCellDepth=100
PumpFlowRate=0.1500
CalibrationConstant=0.5544
[CaptureRegion]
AcceptableLeft=1
AcceptableRight=158
AcceptableTop=1
AcceptableBottom=118
[CaptureParameters]
ThresholdDark=20.0000
ThresholdLight=15.0000
CaptureDarkOrLightPixels=0
[CaptureStats]
RawImageTotal=12
VolumeCF=0.5000
IncludesVolumeCF=1
"""

FLOWCAM_RUN_SUMMARY = """Run:
\tMode:  AutoImage
\tFlow Rate:  0.150 ml/min
\tFluid Volume Imaged: 0.0290 ml

Images:
\tTotal:  12
\tUsed:  3
\tFrame Rate:  16.98 fps

Environment:
\tCalibration Factor: 0.5544
\tSerialNo:  4711
"""

FLOWCAM_SUMMARY = """List File,run.lst
Particles / ml,34448
Sample Volume Imaged ml,0.02903

Summary Stats,Mean,Min,Max,StdDev,% CV
Area (ABD),9.54,0.92,464.16,33.35,349.49

Particle Segmentation,Dark Threshold 20.00
"""


@pytest.fixture
def flowcam_export(tmp_path: Path) -> Callable[..., FlowCamTruth]:
    """Write an export of three frames and five particles over two collages."""

    def write(
        *,
        name: str = "flow cam",
        reverse_columns: bool = False,
        separator: str = "|",
        encoding: str = "utf-8",
        newline: str = "\n",
        decimal: str = ".",
        upper: bool = False,
        summaries: bool = True,
        masks: bool = True,
    ) -> FlowCamTruth:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(3)
        background = (150 + 40 * np.linspace(0, 1, 160)[None, :] + rng.integers(0, 3, (120, 160))).astype(np.int16)
        cv2.imwrite(str(folder / "cal_image_000001.tif"), background.astype(np.uint8))
        frames: dict[int, np.ndarray] = {}
        mask_of: list[np.ndarray] = []
        rows: list[dict[str, Any]] = []
        # frame, x, y, radius of the particle; the order in the table is not that of the frames
        wanted = [(41, 30, 40, 6), (32, 80, 60, 9), (41, 120, 90, 4), (35, 20, 100, 5), (35, 140, 20, 7)]
        full = {n: background.copy() for n, *_ in wanted}
        mask_full = [disc(full[n], x, y, r, 60) for n, x, y, r in wanted]
        sheets = [np.zeros((60, 100, 3), np.uint8) for _ in range(2)]
        binaries = [np.zeros((60, 100), np.uint8) for _ in range(2)]
        at = [2, 2]
        for i, (number, x, y, r) in enumerate(wanted):
            page = i % 2
            w = h = 2 * r + 9
            sx, sy = x - r - 4, y - r - 4
            crop = full[number][sy : sy + h, sx : sx + w]
            # Colour camera: mean of the channels is 7/3 levels above the grey of the background.
            sheets[page][3 : 3 + h, at[page] : at[page] + w] = crop[..., None] + np.array([47, -22, -18])
            mask = mask_full[i][sy : sy + h, sx : sx + w]
            binaries[page][3 : 3 + h, at[page] : at[page] + w] = mask * 255
            mask_of.append(mask)
            row = {"id": i + 1, "image_x": at[page], "image_y": 3, "image_w": w, "image_h": h, "src_x": sx, "src_y": sy}
            row |= {"src_image": number, "cal_image": 1, "cal_const": 0.5544, "raw_area": float(mask.sum())}
            row |= {"elapsed_time": number / 16.98, "timestamp": "2024-04-08T11:11:01.303"}
            rows.append(row | {"collage_file": f"run_{page + 1:06d}.tif"})
            at[page] += w + 2
        for n, image in full.items():
            frames[n] = image.astype(np.uint8)
        for page in range(2):
            cv2.imwrite(str(folder / f"run_{page + 1:06d}.tif"), sheets[page])
            if masks:
                cv2.imwrite(str(folder / f"run_{page + 1:06d}_bin.tif"), binaries[page])
        types = {
            k: "double" if isinstance(v, float) else "int32" if isinstance(v, int) else "string" for k, v in row.items()
        }
        types["collage_file"] = "string"
        names = list(types)
        truth = FlowCamTruth(folder, background.astype(np.uint8), frames, mask_of, rows, names, types)
        if reverse_columns:
            truth.names = names[::-1]
        write_flowcam_list(truth, separator=separator, encoding=encoding, newline=newline, decimal=decimal, upper=upper)
        (folder / "run.ctx").write_text(FLOWCAM_CTX, newline=newline)
        if summaries:
            (folder / "run_run_summary.txt").write_text(FLOWCAM_RUN_SUMMARY, newline="\r\n")
            (folder / "run_summary.csv").write_text(FLOWCAM_SUMMARY, newline="\r\n")
        return truth

    return write


def write_flowcam_list(
    truth: FlowCamTruth,
    *,
    separator: str = "|",
    encoding: str = "utf-8",
    newline: str = "\n",
    decimal: str = ".",
    upper: bool = False,
) -> None:
    def text(value: Any) -> str:
        return f"{value:.4f}".replace(".", decimal) if isinstance(value, float) else str(value)

    lines = ["017", f"num-fields{separator}{len(truth.names)}"]
    lines += [f"{n.upper() if upper else n}{separator}{truth.types[n]}" for n in truth.names]
    lines += [separator.join(text(row[n]) for n in truth.names) for row in truth.rows]
    truth.list_file.write_text("\n".join(lines) + "\n", encoding=encoding, newline=newline)


@pytest.fixture
def rewrite_list() -> Callable[..., None]:
    """Write a changed table back."""
    return write_flowcam_list


@pytest.fixture
def bare_pictures(tmp_path: Path) -> Callable[..., Path]:
    """Write ``count`` 8-bit PNG frames whose grey level is their number; return the folder."""

    def write(count: int, *, name: str = "frames", size: tuple[int, int] = (32, 24)) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / f"frame_{i}.png"), np.full(size[::-1], 10 + i, np.uint8))
        return folder

    return write
