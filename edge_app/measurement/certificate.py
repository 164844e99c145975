"""Bead runs in, a calibration certificate out, or the reason why there is none."""

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

import numpy as np

from edge_app import __version__
from edge_app.errors import UserError
from edge_app.measurement.bead_lot import FittedLot, far_from_focus, fit_lot, fit_or_reason, implausible, refusal_of
from edge_app.measurement.bead_plan import BeadPlan, BeadStandard, parse_beads, read_plan
from edge_app.measurement.bead_run import BeadRun
from edge_app.measurement.calibration import CERTIFICATE_SCHEMA, Calibration, certificate_id
from edge_app.measurement.certificate_checks import checks_of
from edge_app.measurement.certificate_content import (
    CalibrationSettings,
    Certificate,
    Check,
    LotResult,
    OpticsFingerprint,
    load_certificate,
)
from edge_app.measurement.optics_fingerprint import asymmetry_of, fingerprint_of
from edge_app.measurement.poisson import poisson_interval
from edge_app.measurement.size_curve import CurvePoint, SizeCurve, find_mistake, fit_size_curve

__all__ = [
    "BeadPlan",
    "BeadStandard",
    "CalibrationRefused",
    "CalibrationSettings",
    "Certificate",
    "Check",
    "LotResult",
    "OpticsFingerprint",
    "asymmetry_of",
    "calibrate",
    "fingerprint_of",
    "fit_lot",
    "load_certificate",
    "parse_beads",
    "read_plan",
    "refusal_of",
]

STANDARD_SIZES_UM: Final = (2.0, 5.0, 10.0, 15.0, 25.0, 50.0)


class CalibrationRefused(UserError):
    """The bead runs cannot give a calibration; the text says why, lot by lot."""


def calibrate(
    lots: Sequence[tuple[BeadStandard, BeadRun]],
    *,
    settings: CalibrationSettings | None = None,
    who: str = "",
    instrument: str = "",
    now: datetime | None = None,
) -> Certificate:
    """Make a certificate of bead runs.

    Parameters
    ----------
    lots
        Standards with their runs, any order, all on the same instrument.
    who, instrument
        Kept in the certificate.
    now
        Date of the certificate; default: the clock.

    Raises
    ------
    CalibrationRefused
        If a lot or the lots together cannot be believed; names every lot that is refused and why.
    """
    settings = settings or CalibrationSettings()
    if len(lots) < settings.min_lots:
        raise CalibrationRefused(f"{len(lots)} bead lots: a size curve needs {settings.min_lots} at least")
    sizes = [s.certified_um for s, _ in lots]
    if len(set(sizes)) < len(sizes):
        raise CalibrationRefused("two lots have the same certified diameter: the size curve needs different ones")
    first = lots[0][1]
    for standard, run in lots:
        if abs(run.um_per_px / first.um_per_px - 1) > 0.01 or run.width_px != first.width_px:
            raise CalibrationRefused(
                f"{standard.name}: {run.um_per_px:g} um/px and {run.width_px} px wide, not as {lots[0][0].name}: "
                "all lots have to be run on one instrument"
            )
        if settings.size_rule == "learned" and run.size_reader_sha256 != first.size_reader_sha256:
            raise CalibrationRefused(
                f"{standard.name}: read by size reader {run.size_reader_sha256[:12] or 'none'}, {lots[0][0].name} by "
                f"{first.size_reader_sha256[:12] or 'none'}: one network has to read all lots"
            )
    tried = [fit_or_reason(s, r, settings) for s, r in sorted(lots, key=lambda pair: pair[0].certified_um)]
    refused = [t for t in tried if isinstance(t, str)]
    if refused:
        raise CalibrationRefused("refused: " + "; ".join(refused))
    fitted = [t for t in tried if isinstance(t, FittedLot)]
    points = [
        CurvePoint(
            diameter_um=f.standard.certified_um,
            u_um=f.standard.uncertainty_um / 2,
            reading_px=f.fit.location_px,
            u_px=f.fit.u_px,
        )
        for f in fitted
    ]
    mistake = find_mistake(points, [f.standard.name for f in fitted])
    refused = [text for f in fitted if (text := implausible(f, settings)) is not None]
    if mistake is not None or refused:
        raise CalibrationRefused("refused: " + (mistake or far_from_focus(fitted, settings) or "; ".join(refused)))
    curve = fit_size_curve(points, seed=settings.fit.seed)
    return _certificate(fitted, curve, settings=settings, who=who, instrument=instrument, now=now)


def _utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _certificate(
    lots: Sequence[FittedLot],
    curve: SizeCurve,
    *,
    settings: CalibrationSettings,
    who: str,
    instrument: str,
    now: datetime | None,
) -> Certificate:
    made = now or datetime.now(timezone.utc)
    created, expires = _utc(made), _utc(made + timedelta(days=settings.valid_days))
    results = tuple(_lot_result(f, curve, residual) for f, residual in zip(lots, curve.residual_um, strict=True))
    optics = fingerprint_of({f"{f.standard.nominal_um:g}": (f.run, f.fit) for f in lots}, results)
    checks = tuple(checks_of(lots, results, curve, optics, settings))
    run = lots[0].run

    def numbers(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(round(float(v), 5) for v in values)

    calibration = Calibration(
        id="",
        um_per_px=run.calibration.um_per_px,
        depth_um=run.calibration.depth_um,
        size_rule=settings.size_rule,
        curve_px=numbers(curve.px.tolist()),
        curve_um=numbers(curve.um.tolist()),
        calibrated=True,
        note=f"bead calibration with {', '.join(f.standard.name for f in lots)}",
        created=created,
        expires=expires,
        who=who,
        lots=tuple(f.standard.name for f in lots),
        valid_um=curve.valid_um,
        u_um=numbers(curve.u_um.tolist()),
        band_low_um=numbers(curve.low_um.tolist()),
        band_high_um=numbers(curve.high_um.tolist()),
        optics=optics.model_dump(mode="json"),
        size_reader_sha256=run.size_reader_sha256 if settings.size_rule == "learned" else "",
        failed_checks=tuple(c.name for c in checks if c.passed is False),
    )
    bare = Certificate(
        schema_name=CERTIFICATE_SCHEMA,
        id="",
        created=created,
        expires=expires,
        who=who,
        instrument=instrument,
        software=f"edge-app {__version__}",
        calibration=calibration,
        lots=results,
        slope_um_per_px=round(curve.slope_um_per_px, 5),
        offset_um=round(curve.offset_um, 4),
        checks=checks,
        optics=optics,
        settings=settings,
    )
    own = certificate_id(bare.tree())
    return bare.model_copy(
        update={"id": own, "calibration": calibration.model_copy(update={"id": own, "certificate_id": own})}
    )


def _lot_result(lot: FittedLot, curve: SizeCurve, residual: float) -> LotResult:
    standard, run, fit = lot.standard, lot.run, lot.fit
    counted = run.particles.weight[run.particles.weight > 0]
    beads = fit.singlets + fit.clusters
    per_bead = float(counted.mean()) / run.volume_ml
    low, high = poisson_interval(beads)
    # Relative spread in um: the curve's slope at the reading turns a share of px into a share of um.
    rsd = fit.rsd * fit.location_px * curve.slope_at(fit.location_px) / standard.certified_um
    without = None
    if standard.sd_um is not None:
        without = float(np.sqrt(max(rsd**2 - (standard.sd_um / standard.certified_um) ** 2, 0.0)))
    return LotResult(
        nominal_um=standard.nominal_um,
        lot=standard.lot,
        certified_um=standard.certified_um,
        uncertainty_um=standard.uncertainty_um,
        origin=run.origin,
        reading_px=round(fit.location_px, 4),
        u_reading_px=round(fit.u_px, 5),
        peak_px=round(fit.peak_px, 4),
        curve_um=round(standard.certified_um - residual, 4),
        residual_um=round(residual, 4),
        uncertainty_curve_um=round(float(np.interp(fit.location_px, curve.px, curve.u_um)), 4),
        rsd=round(rsd, 4),
        rsd_without_lot=None if without is None else round(without, 4),
        particles=len(run.particles),
        singlets=round(fit.singlets, 1),
        clusters=round(fit.clusters, 1),
        background=round(fit.background, 1),
        frames=run.frames,
        frames_rejected=run.frames_rejected,
        volume_ml=round(run.volume_ml, 9),
        per_ml=round(beads * per_bead, 1),
        per_ml_low=round(float(low) * per_bead, 1),
        per_ml_high=round(float(high) * per_bead, 1),
        certified_per_ml=standard.per_ml,
        recovery=None if standard.per_ml is None else round(beads * per_bead / standard.per_ml, 4),
    )
