"""Every check of a calibration certificate: what was found, what is allowed."""

from collections.abc import Sequence

from edge_app.measurement.bead_lot import FittedLot
from edge_app.measurement.certificate_content import CalibrationSettings, Check, LotResult, OpticsFingerprint
from edge_app.measurement.optics_fingerprint import tells_focus
from edge_app.measurement.size_curve import SizeCurve

__all__ = ["checks_of"]


def checks_of(
    lots: Sequence[FittedLot],
    results: Sequence[LotResult],
    curve: SizeCurve,
    optics: OpticsFingerprint,
    settings: CalibrationSettings,
) -> list[Check]:
    """Every check of the certificate, in its order."""
    run = lots[0].run
    checks = []
    if optics.rsd_10um is not None:
        checks.append(
            Check(
                name="resolution at 10 um (RSD)",
                value=optics.rsd_10um * 100,
                unit="%",
                limit=f"<= {settings.most_rsd_10um:.0%}",
                passed=optics.rsd_10um <= settings.most_rsd_10um,
            )
        )
    scale = curve.slope_um_per_px / run.um_per_px
    checks.append(
        Check(
            name="slope of the curve over the stated scale",
            value=round(scale, 4),
            unit="",
            limit=f"1 +- {settings.scale_tolerance:g}",
            passed=abs(scale - 1) <= settings.scale_tolerance,
        )
    )
    found = optics.focus_offset_um
    if found is not None or any(tells_focus(lot.standard.nominal_um) for lot in lots):
        # No plane found is a plane at a wall or beyond, or optics too tilted to tell: neither may pass.
        checks.append(
            Check(
                name="focal plane off the middle of the cell",
                value=found,
                unit="um",
                limit=f"<= {settings.most_focus_offset_um:g}"
                + ("" if found is not None else "; none found inside the cell"),
                passed=found is not None and found <= settings.most_focus_offset_um,
            )
        )
    for lot, result in zip(lots, results, strict=True):
        checks.append(_reading_check(lot, result, curve, settings))
        tolerance = lot.standard.per_ml_tolerance
        if result.recovery is not None and result.certified_per_ml is not None:
            # The count fails only where even its own interval does not reach the tolerance.
            certified = result.certified_per_ml
            passed = (
                result.per_ml_high >= (1 - tolerance) * certified and result.per_ml_low <= (1 + tolerance) * certified
            )
            checks.append(
                Check(
                    name=f"count recovery at {lot.standard.name}",
                    value=round(result.recovery * 100, 2),
                    unit="%",
                    limit=f"100 +- {tolerance * 100:g}",
                    passed=passed,
                )
            )
        checks += _volume_checks(lot, settings)
    return checks


def _reading_check(lot: FittedLot, result: LotResult, curve: SizeCurve, settings: CalibrationSettings) -> Check:
    """Whether beads enough were seen: where blur spreads their readings, more are needed than ``min_singlets``."""
    allowed = max(settings.reading_tolerance * result.certified_um, settings.reading_tolerance_um)
    known_to = 2 * lot.fit.u_px * curve.slope_at(lot.fit.location_px)
    return Check(
        name=f"reading of {lot.standard.name} known to (k = 2)",
        value=round(known_to, 3),
        unit="um",
        limit=f"<= {allowed:.3g}; more: run longer",
        passed=known_to <= allowed,
    )


def _volume_checks(lot: FittedLot, settings: CalibrationSettings) -> list[Check]:
    run, checks = lot.run, []
    if run.flow_rate_ul_per_min and run.seconds > 0:
        passed_ul = run.flow_rate_ul_per_min / 60 * run.seconds
        frames = run.frames + run.frames_rejected
        # The span between the first and the last frame is one frame short of the time that was seen.
        imaged_ul = run.volume_ml * 1000 / max(run.frames, 1) * max(frames - 1, 1)
        checks.append(
            Check(
                name=f"volume imaged of what flowed, {lot.standard.name}",
                value=round(100 * imaged_ul / passed_ul, 2),
                unit="%",
                limit="information",
                passed=None,
            )
        )
        if lot.standard.pumped_ul is not None:
            ratio = passed_ul / lot.standard.pumped_ul
            checks.append(
                Check(
                    name=f"flow rate times time over pumped volume, {lot.standard.name}",
                    value=round(100 * ratio, 2),
                    unit="%",
                    limit=f"100 +- {settings.pumped_tolerance * 100:g}",
                    passed=abs(ratio - 1) <= settings.pumped_tolerance,
                )
            )
    return checks
