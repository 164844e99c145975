"""Bead and blank runs for ``calibrate`` and ``verify``: from a source, or from a run record that is there already."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.registry import open_source
from edge_app.config import Settings
from edge_app.errors import UserError
from edge_app.flow_cell_geometry import DEFAULT_DEPTH_UM, DEFAULT_UM_PER_PX
from edge_app.measurement.bead_run import BeadRun, dark_shift_in_box, read_bead_run
from edge_app.measurement.calibration import Calibration, nominal_calibration
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.record_reader import RecordedPicture, open_record

__all__ = ["open_bead_run"]


def open_bead_run(
    text: str, *, settings: Settings, frames: int | None = None, calibration: Calibration | None = None
) -> BeadRun:
    """Read a bead run.

    Parameters
    ----------
    text
        Source URI, or a run record (file or folder).
    settings
        Segmentation as in a run, and the scale and depth where they are stated.
    frames
        At most so many frames of a source.
    calibration
        Geometry of the cell; default: stated in the settings, else the source's own.

    Raises
    ------
    UserError
        If it cannot be opened or holds no usable frame.
    """
    path = Path(text)
    if path.suffix == ".sqlite" or path.is_dir():
        return _from_record(path, settings, calibration)
    source = open_source(text, frames=frames)
    return read_bead_run(
        source,
        calibration=calibration or _geometry(settings, source.info.um_per_px, source.info.depth_um),
        segmentation=settings.segmentation,
    )


def _geometry(settings: Settings, um_per_px: float | None, depth_um: float | None) -> Calibration:
    cell = settings.flow_cell
    return nominal_calibration(
        um_per_px=cell.um_per_px or um_per_px or DEFAULT_UM_PER_PX,
        depth_um=cell.depth_um or depth_um or DEFAULT_DEPTH_UM,
    )


def _from_record(path: Path, settings: Settings, calibration: Calibration | None) -> BeadRun:
    with open_record(path) as record, record.snapshot():
        recorded = record.particles()
        total, particles, info = record.total(), recorded.particles, record.meta["info"]
        used, pictures = record.calibration, record.pictures()
        run_id = record.run_id
    if total.frames == 0:
        raise UserError(f"{path}: run {run_id} analysed no frame")
    scale = calibration
    if scale is None:
        scale = _geometry(settings, used.um_per_px if used else None, used.depth_um if used else None)
    width, height = int(info["width_px"]), int(info["height_px"])
    # Recorded by another geometry, the same frames stand for another volume.
    changed = 1.0 if used is None else scale.frame_volume_ml(1, 1) / used.frame_volume_ml(1, 1)
    return BeadRun(
        origin=run_id,
        particles=particles,
        dark_shift=_shift_of_pictures(recorded, pictures),
        frames=total.frames,
        frames_rejected=total.frames_rejected,
        volume_ml=total.volume_ml * changed,
        width_px=width,
        height_px=height,
        calibration=scale,
        flow_rate_ul_per_min=info["flow_rate_ul_per_min"],
        seconds=total.t1_s - total.t0_s,
    )


def _shift_of_pictures(recorded: RecordedParticles, pictures: list[RecordedPicture]) -> npt.NDArray[np.float32]:
    """Dark shift of the particles whose picture was kept whole, nan for the others."""
    p = recorded.particles
    shift = np.full((len(p), 2), np.nan, np.float32)
    row_of = {key: i for i, key in enumerate(zip(recorded.window.tolist(), recorded.row.tolist(), strict=True))}
    for picture in pictures:
        pixels = cv2.imdecode(np.frombuffer(picture.png, np.uint8), cv2.IMREAD_GRAYSCALE)
        if pixels is None or pixels.shape != (picture.height_px, picture.width_px):
            continue
        i = row_of[picture.window, picture.row]
        y, x = int(p.y_px[i]) - picture.y_px, int(p.x_px[i]) - picture.x_px
        shift[i] = dark_shift_in_box(np.asarray(pixels, np.uint8)[y : y + p.height_px[i], x : x + p.width_px[i]])
    return shift
