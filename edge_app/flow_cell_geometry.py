"""The calibration and the frame volume of a run: from its settings, else from what its source says."""

from datetime import datetime
from pathlib import Path
from typing import Final

from edge_app.capture.source import SourceInfo
from edge_app.config import FlowCellSettings
from edge_app.errors import UserError
from edge_app.measurement.calibration import Calibration, load_calibration, nominal_calibration

__all__ = ["calibration_doubts", "choose_calibration", "frame_volume_ml"]

CALIBRATIONS: Final = Path(__file__).parent / "measurement" / "calibrations"
DEFAULT_UM_PER_PX: Final = 1.33
DEFAULT_DEPTH_UM: Final = 100.0


def choose_calibration(flow_cell: FlowCellSettings, info: SourceInfo) -> Calibration:
    """The calibration of a run: the stated record, else the stated scale, else what the source is known to follow.

    A simulated flow cell and an MFI export have a size curve of their own; every other source gets its stated scale
    (or 1.33 um per px) as a straight line, and is flagged as not calibrated. So does one whose size curve is not of
    the size rule that the settings ask for.

    Raises
    ------
    UserError
        If the record cannot be read, or a scale, depth or size rule is stated beside it.
    """
    depth_um = flow_cell.depth_um or info.depth_um or DEFAULT_DEPTH_UM
    if flow_cell.calibration_file is not None:
        calibration = load_calibration(flow_cell.calibration_file)
        stated = [k for k in ("um_per_px", "depth_um", "size_rule") if getattr(flow_cell, k) is not None]
        if stated:
            raise UserError(
                f"flow_cell.{stated[0]}: is stated beside calibration {calibration.id}, which holds it; leave one out"
            )
        return calibration
    shipped = {"sim": "simulated_mfi.json", "mfi": "mfi_export.json"}.get(info.kind)
    if shipped is not None and flow_cell.um_per_px is None:
        curve = load_calibration(CALIBRATIONS / shipped)
        same_scale = info.um_per_px is None or abs(info.um_per_px / curve.um_per_px - 1) < 0.02
        if same_scale and flow_cell.size_rule in (None, curve.size_rule):
            return curve.model_copy(update={"depth_um": depth_um})
    um_per_px = flow_cell.um_per_px or info.um_per_px or DEFAULT_UM_PER_PX
    return nominal_calibration(um_per_px=um_per_px, depth_um=depth_um, size_rule=flow_cell.size_rule or "mask")


def frame_volume_ml(height_px: int, width_px: int, *, calibration: Calibration, info: SourceInfo) -> float:
    """Volume that one frame of the source stands for.

    Where an instrument exports only frames with particles in them, the volume that it says it imaged is shared out
    over the exported ones, so that the whole export adds up to it.
    """
    if info.volume_imaged_ml is not None and info.frames_total:
        return info.volume_imaged_ml / info.frames_total
    return calibration.frame_volume_ml(width_px, height_px)


def calibration_doubts(calibration: Calibration, at: datetime, *, simulated: bool = False) -> dict[str, str]:
    """Why sizes are not to be taken at their word at a moment: kind of the event -> one line; empty where they are.

    Parameters
    ----------
    simulated
        A simulated flow cell: its own size curve needs no certificate.
    """
    state, name = calibration.state(at), calibration.id
    if state == "not_calibrated":
        return {"calibration_not_calibrated": f"sizes come from {name}, not from a bead calibration of this instrument"}
    found = {}
    if state == "expired":
        found["calibration_expired"] = f"calibration {name} expired on {calibration.expires}"
    if calibration.failed_checks:
        failed = ", ".join(calibration.failed_checks)
        found["calibration_checks_failed"] = f"calibration {name} was made with a check not passed: {failed}"
    age_days = calibration.age_days(at)
    if age_days is not None and age_days < 0:
        found["calibration_later"] = (
            f"calibration {name} was made on {calibration.created}, after this run: is the clock right?"
        )
    if not calibration.certificate_id and not simulated:
        found["calibration_uncertified"] = f"calibration {name} has no certificate: a change of it would not show"
    return found
