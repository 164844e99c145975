"""What the reader of a report must know before any number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_app.measurement.calibration import Calibration, CalibrationState
from edge_app.measurement.coincidence import Coincidence
from edge_app.measurement.verification_history import Entry, VerificationState
from edge_app.measurement.window import Window
from edge_app.recording.audit import Verdict
from edge_app.reporting.number_text import age_text

__all__ = ["Flag", "failed_checks", "run_flags"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """Something that the reader must know before any number."""

    severity: Literal["info", "warning", "error"]
    title: str
    text: str


def failed_checks(entry: Entry) -> str:
    """Names of the checks that a verification failed."""
    return ", ".join(str(c["name"]) for c in entry.get("checks", ()) if c["passed"] is False) or "not stated"


def run_flags(
    *,
    audit: Verdict,
    finished: Mapping[str, Any] | None,
    calibration: Calibration | None,
    state: CalibrationState,
    age_days: float | None,
    verification: VerificationState,
    simulated: bool,
    bundle: Mapping[str, Any],
    total: Window,
    overlap: Coincidence | None,
    knows_losses: bool,
) -> tuple[Flag, ...]:
    """Flags of one run, what weighs most first."""
    flags = []
    if not audit.ok:
        flags.append(_error("Record altered", f"The audit chain of the run record is broken: {audit.first_broken}."))
    flags += _calibration_flags(calibration, state, age_days, simulated=simulated)
    flags += _verification_flags(verification, calibration)
    if not simulated and (bundle.get("measured") or {}).get("taught_on") == "simulator":
        text = (
            f"{bundle.get('name')} was taught and measured on simulated pictures, not on those of this instrument. All "
            "particles count whatever their class; classes, and origins with them, are indicative only."
        )
        flags.append(_warning("Classes not verified", text))
    if finished is None:
        flags.append(_warning("Run not finished", "The record was still open when this report was made."))
    elif finished.get("state") not in ("completed", "stopped"):
        text = f"The record was closed as {finished.get('state')}; it holds every closed window."
        flags.append(_warning("Run interrupted", text))
    if total.frames == 0:
        flags.append(_warning("Nothing analysed", "No frame was analysed, so that no concentration can be given."))
    if overlap is not None and overlap.dilute:
        flags.append(_warning("Too concentrated", f"{overlap.advice[0].upper()}{overlap.advice[1:]}."))
    if simulated:
        flags.append(_info("Simulated data", "The frames come from the built-in simulator, not from a sample."))
    if not knows_losses:
        flags.append(_info("Lost frames", "The source cannot tell whether frames were lost."))
    return tuple(flags)


def _calibration_flags(
    calibration: Calibration | None, state: CalibrationState, age_days: float | None, *, simulated: bool
) -> list[Flag]:
    if state == "not_calibrated" or calibration is None:
        name = "none" if calibration is None else calibration.id
        text = (
            f"Sizes and volume come from {name}, not from a bead calibration of this instrument. "
            "Every size, and every concentration at and above a size, is indicative only."
        )
        return [_error("Not calibrated", text)]
    flags = []
    if state == "expired":
        text = f"{calibration.id} expired on {calibration.expires}, before this run"
        text += f"; it was {age_text(age_days)} old." if age_days is not None else "."
        flags.append(_error("Calibration expired", text))
    if calibration.failed_checks:
        text = f"{calibration.id} was made with a check not passed: {', '.join(calibration.failed_checks)}."
        flags.append(_error("Calibration check failed", text))
    if not calibration.certificate_id and not simulated:
        text = f"{calibration.id} is a calibration without a certificate: a change of it would not show."
        flags.append(_warning("No certificate", text))
    if age_days is not None and age_days < 0:
        text = f"{calibration.id} was made {age_text(-age_days)} after the frames were taken."
        flags.append(_warning("Calibrated later", text))
    return flags


def _verification_flags(verification: VerificationState, calibration: Calibration | None) -> list[Flag]:
    if verification.result == "altered":
        text = f"The history of verifications cannot be relied on: {verification.problem}."
        return [_error("Verification altered", text)]
    flags = []
    last, after = verification.last, verification.after
    if last is None or verification.age_days is None:
        text = "No verification (system suitability: blank, beads, optics) is on record from before this run."
        flags.append(_warning("Not verified", text))
    elif not last["passed"]:
        text = (
            f"The last verification, {age_text(verification.age_days)} before this run, was not passed: "
            f"{failed_checks(last)}."
        )
        flags.append(_error("Verification failed", text))
    elif calibration is not None and last.get("calibration_id") != calibration.id:
        text = f"The last verification was made with {last.get('calibration_id')}, this run with {calibration.id}."
        flags.append(_warning("Verified otherwise", text))
    if after is not None and not after["passed"]:
        text = f"The first verification after this run was not passed: {failed_checks(after)}."
        flags.append(_error("Failed afterwards", text))
    return flags


def _error(title: str, text: str) -> Flag:
    return Flag(severity="error", title=title, text=text)


def _warning(title: str, text: str) -> Flag:
    return Flag(severity="warning", title=title, text=text)


def _info(title: str, text: str) -> Flag:
    return Flag(severity="info", title=title, text=text)
