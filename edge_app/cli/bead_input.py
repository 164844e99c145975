"""Bead and blank runs for ``calibrate`` and ``verify``: from a source, or from a run record that is there already."""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.registry import open_source
from edge_app.classification.backends import open_backend
from edge_app.classification.bundle import Bundle
from edge_app.classification.classifier import Classifier
from edge_app.classification.size_reader import SizeReader, check_size_rule
from edge_app.config import Settings
from edge_app.errors import UserError
from edge_app.flow_cell_geometry import DEFAULT_DEPTH_UM, DEFAULT_UM_PER_PX
from edge_app.measurement.bead_run import BeadRun, dark_shift_in_box, read_bead_run
from edge_app.measurement.calibration import Calibration, SizeRule, nominal_calibration
from edge_app.recording.particle_columns import RecordedParticles
from edge_app.recording.record_reader import RecordedPicture, open_record

__all__ = ["open_bead_run"]


SAME_SCALE: Final = 0.05
"""A record's learned sizes serve at another stated scale within this share: its crops were cut by its own."""


def open_bead_run(
    text: str,
    *,
    settings: Settings,
    frames: int | None = None,
    calibration: Calibration | None = None,
    size_rule: SizeRule | None = None,
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
    size_rule
        What sizes will be read by; default: the calibration's, ``mask`` without one. For ``learned`` the network of
        the settings reads a source; a record holds what its own network read.

    Raises
    ------
    UserError
        If it cannot be opened or holds no usable frame, or its sizes cannot be read by the rule.
    """
    rule = size_rule or (calibration.size_rule if calibration else "mask")
    path = Path(text)
    if path.suffix == ".sqlite" or path.is_dir():
        return _from_record(path, settings, calibration, rule)
    source = open_source(text, frames=frames)
    try:
        scale = calibration or _geometry(settings, source.info.um_per_px, source.info.depth_um, rule)
        reader = _size_reader(settings, scale) if rule == "learned" else None
    except BaseException:
        source.close()
        raise
    return read_bead_run(source, calibration=scale, segmentation=settings.segmentation, size_reader=reader)


def _size_reader(settings: Settings, calibration: Calibration) -> SizeReader:
    wanted = settings.classification
    bundle = Bundle.load(wanted.bundle, trusted_keys=wanted.trusted_keys)
    check_size_rule(calibration, bundle, key="--calibration" if calibration.calibrated else "--size-rule")
    return SizeReader(
        Classifier(bundle, open_backend(bundle, preference=wanted.backend, threads=wanted.threads).backend)
    )


def _geometry(settings: Settings, um_per_px: float | None, depth_um: float | None, rule: SizeRule) -> Calibration:
    cell = settings.flow_cell
    return nominal_calibration(
        um_per_px=cell.um_per_px or um_per_px or DEFAULT_UM_PER_PX,
        depth_um=cell.depth_um or depth_um or DEFAULT_DEPTH_UM,
        size_rule=rule,
    )


def _check_learned(
    path: Path, recorded: RecordedParticles, reader: str, *, used: Calibration | None, scale: Calibration
) -> None:
    """Refuse a record whose learned sizes cannot serve; ``reader``: SHA-256 of what read them."""
    if not np.isfinite(recorded.particles.learned_ecd_px).all():
        raise UserError(
            f"{path}: holds no learned_ecd_px: its network has no size head, or it was recorded before there was one; "
            "allowed with it: half_max, mask, or its frames again (a source)"
        )
    if scale.size_reader_sha256 and scale.size_reader_sha256 != reader:
        raise UserError(
            f"{path}: sizes read by size reader {reader[:12]}, calibration {scale.id} was made with "
            f"{scale.size_reader_sha256[:12]}: one network has to read both"
        )
    if used is not None and abs(used.um_per_px / scale.um_per_px - 1) > SAME_SCALE:
        raise UserError(
            f"{path}: the network read its sizes at {used.um_per_px:g} um/px, found {scale.um_per_px:g} um/px "
            f"(allowed for it: within {SAME_SCALE:.0%}): its frames again (a source) give them"
        )


def _from_record(path: Path, settings: Settings, calibration: Calibration | None, rule: SizeRule) -> BeadRun:
    with open_record(path) as record, record.snapshot():
        recorded = record.particles()
        total, particles, info = record.total(), recorded.particles, record.meta["info"]
        used, pictures = record.calibration, record.pictures()
        run_id, bundle = record.run_id, record.meta.get("bundle") or {}
    if total.frames == 0:
        raise UserError(f"{path}: run {run_id} analysed no frame")
    scale = calibration
    if scale is None:
        scale = _geometry(settings, used.um_per_px if used else None, used.depth_um if used else None, rule)
    reader = str(bundle.get("size_reader_sha256", ""))
    if rule == "learned":
        _check_learned(path, recorded, reader, used=used, scale=scale)
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
        size_reader_sha256=reader,
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
