"""Bead runs in, a calibration certificate out, or the reason why there is none."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_app import __version__
from edge_app.errors import UserError
from edge_app.measurement.asymmetry import AsymmetryMap, fit_asymmetry
from edge_app.measurement.bead_fit import BeadFit, BeadFitSettings, diameters_px, extinction_area_px, fit_singlets
from edge_app.measurement.bead_run import BeadRun
from edge_app.measurement.calibration import CERTIFICATE_SCHEMA, Calibration, SizeRule, certificate_id
from edge_app.measurement.focus import estimate_focus_offset
from edge_app.measurement.poisson import poisson_interval
from edge_app.measurement.size_curve import CurvePoint, SizeCurve, find_mistake, fit_size_curve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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
FOCUS_SIZES_UM: Final = (5.0, 15.5)
"""Beads whose contrast tells the focal plane."""
PLAUSIBLE: Final = (0.70, 1.45)
PLAUSIBLE_OFFSET_UM: Final = {"half_max": 3.5, "mask": 9.5}
"""A lot read at the stated scale, without any calibration, lies between 0.70 and 1.45 times its size plus the halo."""


class CalibrationRefused(UserError):
    """The bead runs cannot give a calibration; the text says why, lot by lot."""


class BeadStandard(BaseModel):
    """One bead lot and where its run is.

    ``uncertainty_um`` is the expanded uncertainty (k = 2) of the certified mean diameter, as bead certificates state
    it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    nominal_um: float = Field(gt=0.5, le=200, description="nominal diameter")
    certified_um: float = Field(gt=0.5, le=200, description="certified mean diameter")
    uncertainty_um: float = Field(gt=0, le=10, description="its expanded uncertainty, k = 2")
    source: str = Field(min_length=1, description="source URI, or run record (file or folder)")
    lot: str = Field("", max_length=80, description="lot number")
    sd_um: float | None = Field(None, gt=0, description="certified standard deviation of the beads' diameters")
    per_ml: float | None = Field(None, gt=0, description="certified concentration of the suspension as it was run")
    per_ml_tolerance: float = Field(0.10, gt=0, lt=1, description="share by which the count may differ from it")
    pumped_ul: float | None = Field(None, gt=0, description="volume that went through the cell, weighed or dispensed")

    @property
    def name(self) -> str:
        """As it is called in messages."""
        return f"{self.nominal_um:g} um" + (f" (lot {self.lot})" if self.lot else "")


class BeadPlan(BaseModel):
    """The TOML form of a calibration: a table ``[[beads]]`` for each lot, and who and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beads: tuple[BeadStandard, ...] = Field(min_length=1)
    who: str = Field("", max_length=200)
    instrument: str = Field("", max_length=200)


class CalibrationSettings(BaseModel):
    """Everything that decides a calibration beside the runs themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_rule: SizeRule = Field("half_max", description="Area that the diameter is made of")
    valid_days: int = Field(90, ge=1, le=3650, description="Days until the calibration expires")
    min_lots: int = Field(3, ge=2, le=20, description="Fewest bead sizes")
    most_rsd_10um: float = Field(0.10, gt=0, lt=1, description="Largest RSD at 10 um (USP <1788>)")
    scale_tolerance: float = Field(0.05, gt=0, lt=1, description="Fitted against stated um per px")
    most_focus_offset_um: float = Field(25.0, gt=0, description="Focal plane off the middle of the cell")
    pumped_tolerance: float = Field(0.05, gt=0, lt=1, description="Pumped volume against flow rate times time")
    fit: BeadFitSettings = BeadFitSettings()


class Check(BaseModel):
    """One line of the certificate: what was found, what is allowed; ``passed`` is None for information only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    value: float | None
    unit: str
    limit: str
    passed: bool | None


class LotResult(BaseModel):
    """What one lot gave."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nominal_um: float
    lot: str
    certified_um: float
    uncertainty_um: float
    origin: str
    reading_px: float
    u_reading_px: float
    peak_px: float
    curve_um: float
    residual_um: float
    uncertainty_curve_um: float
    rsd: float
    rsd_without_lot: float | None
    particles: int
    singlets: float
    clusters: float
    background: float
    frames: int
    frames_rejected: int
    volume_ml: float
    per_ml: float
    per_ml_low: float
    per_ml_high: float
    certified_per_ml: float | None
    recovery: float | None


class OpticsFingerprint(BaseModel):
    """State of the optics at the calibration; what ``edge-app verify`` compares with.

    Maps are kept by nominal size: the crescent of a small bead is larger than that of a large one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    asymmetry: dict[str, AsymmetryMap] = Field(default_factory=dict)
    focus_offset_um: float | None = None
    rsd_10um: float | None = None
    background_level: float | None = None
    noise: float | None = None
    shading: float | None = None


class Certificate(BaseModel):
    """A calibration certificate. Its id is the hash of its content: nothing in it can change unseen."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_name: Literal["mfi.certificate/1"] = Field(CERTIFICATE_SCHEMA, alias="schema")
    id: str
    created: str
    expires: str
    who: str
    instrument: str
    software: str
    calibration: Calibration
    lots: tuple[LotResult, ...]
    slope_um_per_px: float
    offset_um: float
    checks: tuple[Check, ...]
    optics: OpticsFingerprint
    settings: CalibrationSettings

    @property
    def passed(self) -> bool:
        """No check failed."""
        return all(c.passed is not False for c in self.checks)

    def tree(self) -> dict[str, Any]:
        """As JSON values."""
        return self.model_dump(mode="json", by_alias=True)

    def json_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785) with a newline: the bytes that are stored."""
        return bytes(rfc8785.dumps(self.tree())) + b"\n"


@dataclass(frozen=True, kw_only=True)
class _FittedLot:
    standard: BeadStandard
    run: BeadRun
    fit: BeadFit


def parse_beads(text: str) -> BeadStandard:
    """Read ``NOMINAL:CERTIFIED:UNCERTAINTY:SOURCE[#LOT]``.

    Raises
    ------
    UserError
        If it is something else.

    Examples
    --------
    >>> parse_beads("10:9.98:0.05:dir:/data/beads10#44021").name
    '10 um (lot 44021)'
    """
    parts = text.split(":", 3)
    form = "NOMINAL_UM:CERTIFIED_UM:UNCERTAINTY_UM:SOURCE[#LOT], for example 10:9.98:0.05:dir:beads10#44021"
    if len(parts) < 4:
        raise UserError(f"--beads {text!r}: {form}")
    source, _, lot = parts[3].partition("#")
    try:
        nominal, certified, uncertainty = (float(p) for p in parts[:3])
        return BeadStandard(
            nominal_um=nominal, certified_um=certified, uncertainty_um=uncertainty, source=source, lot=lot
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"--beads {text!r}: {first['loc'][0]} is {first['input']!r}: {first['msg']}") from error
    except ValueError as error:
        raise UserError(f"--beads {text!r}: {form}") from error


def read_plan(path: Path) -> BeadPlan:
    """Read bead lots from a TOML file.

    Raises
    ------
    UserError
        If it cannot be read or a key or value is not allowed.
    """
    try:
        return BeadPlan.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: bead file cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: bead file is not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        raise UserError(f"{path}: {key} is {first['input']!r}: {first['msg']}") from error


def load_certificate(path: Path) -> Certificate:
    """Read a certificate and check its id against its content.

    Raises
    ------
    UserError
        If it is missing, no certificate, or was changed.
    """
    try:
        found = Certificate.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: certificate cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: no certificate of edge-app calibrate: {first['loc']}: {first['msg']}") from error
    if certificate_id(found.tree()) != found.id:
        raise UserError(f"{path}: certificate {found.id} was altered: its content gives {certificate_id(found.tree())}")
    return found


def fit_lot(run: BeadRun, *, rule: SizeRule, settings: BeadFitSettings) -> BeadFit | None:
    """Mixture fit of a run's particles; None where there is next to nothing."""
    p = run.particles
    return fit_singlets(
        diameters_px(p.area_px, p.half_max_area_px, rule),
        extinction_area_px(p),
        p.frame,
        counted=p.weight > 0,
        settings=settings,
    )


def _fit_or_reason(standard: BeadStandard, run: BeadRun, settings: CalibrationSettings) -> _FittedLot | str:
    """The fitted lot, or why it is refused."""
    fit, limits = fit_lot(run, rule=settings.size_rule, settings=settings.fit), settings.fit
    if fit is None:
        return f"{standard.name}: too few beads: {len(run.particles)} particles in {run.frames} frames"
    if fit.background_share > limits.most_background:
        return (
            f"{standard.name}: {fit.background_share:.0%} of the particles are no beads (allowed "
            f"{limits.most_background:.0%}): rinse the cell, use filtered water"
        )
    if fit.clustered > limits.most_clustered:
        return (
            f"{standard.name}: clumped: {fit.clustered:.0%} of the beads are doublets or more (allowed "
            f"{limits.most_clustered:.0%}): sonicate and mix again"
        )
    if fit.singlets < limits.min_singlets:
        return (
            f"{standard.name}: too few beads: {fit.singlets:.0f} single beads in {run.frames} frames (needed "
            f"{limits.min_singlets}): run longer or less diluted"
        )
    return _FittedLot(standard=standard, run=run, fit=fit)


def _implausible(lot: _FittedLot, settings: CalibrationSettings) -> str | None:
    """Why a lot cannot have its certified size at the stated scale, None if it can."""
    standard, um_per_px = lot.standard, lot.run.um_per_px
    low = PLAUSIBLE[0] * standard.certified_um
    high = PLAUSIBLE[1] * standard.certified_um + PLAUSIBLE_OFFSET_UM[settings.size_rule]
    reads = lot.fit.location_px * um_per_px
    if low <= reads <= high:
        return None
    return (
        f"{standard.name}: wrong lot: {reads:.1f} um at the stated {um_per_px:g} um/px, "
        f"{low:.1f} to {high:.1f} um expected"
    )


def refusal_of(standard: BeadStandard, run: BeadRun, settings: CalibrationSettings) -> str | None:
    """Why a single lot would be refused, None if it is good; what only all lots together show is not looked at."""
    quick = settings.fit.model_copy(update={"bootstrap": 20})
    found = _fit_or_reason(standard, run, settings.model_copy(update={"fit": quick}))
    return found if isinstance(found, str) else _implausible(found, settings)


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
    tried = [_fit_or_reason(s, r, settings) for s, r in sorted(lots, key=lambda pair: pair[0].certified_um)]
    refused = [t for t in tried if isinstance(t, str)]
    if refused:
        raise CalibrationRefused("refused: " + "; ".join(refused))
    fitted = [t for t in tried if isinstance(t, _FittedLot)]
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
    refused = [text for f in fitted if (text := _implausible(f, settings)) is not None]
    if mistake is not None or refused:
        raise CalibrationRefused("refused: " + (mistake or "; ".join(refused)))
    curve = fit_size_curve(points, seed=settings.fit.seed)
    return _certificate(fitted, curve, settings=settings, who=who, instrument=instrument, now=now)


def _utc(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


def _certificate(
    lots: Sequence[_FittedLot],
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
        checks=tuple(_checks(lots, results, curve, optics, settings)),
        optics=optics,
        settings=settings,
    )
    own = certificate_id(bare.tree())
    return bare.model_copy(
        update={"id": own, "calibration": calibration.model_copy(update={"id": own, "certificate_id": own})}
    )


def _lot_result(lot: _FittedLot, curve: SizeCurve, residual: float) -> LotResult:
    standard, run, fit = lot.standard, lot.run, lot.fit
    counted = run.particles.weight[run.particles.weight > 0]
    beads = fit.singlets + fit.clusters
    per_bead = float(counted.mean()) / run.volume_ml
    low, high = poisson_interval(beads)
    # Relative spread in um: the curve's slope at the reading turns a share of px into a share of um.
    step = 0.02 * fit.location_px
    slope = float(np.diff(curve.at(np.array([fit.location_px - step, fit.location_px + step])))[0]) / (2 * step)
    rsd = fit.rsd * fit.location_px * slope / standard.certified_um
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


def asymmetry_of(run: BeadRun, fit: BeadFit) -> AsymmetryMap | None:
    """Map of the single beads of a run; None where too few of them have a picture."""
    p = run.particles
    centre = np.stack([p.x_px + (p.width_px - 1) / 2, p.y_px + (p.height_px - 1) / 2], axis=1)
    return fit_asymmetry(run.dark_shift, centre, fit.singlet_share, width_px=run.width_px, height_px=run.height_px)


def _median(values: Sequence[float | None], digits: int) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.median(known)), digits) if known else None


def _tells_focus(nominal_um: float) -> bool:
    return FOCUS_SIZES_UM[0] <= nominal_um <= FOCUS_SIZES_UM[1]


def fingerprint_of(runs: Mapping[str, tuple[BeadRun, BeadFit]], results: Sequence[LotResult] = ()) -> OpticsFingerprint:
    """State of the optics from bead runs by nominal size (as text, ``"10"``)."""
    focus = [
        estimate_focus_offset(
            run.particles.intensity_mean, run.particles.intensity_std, fit.singlet_share,
            depth_um=run.calibration.depth_um,
        )
        for size, (run, fit) in runs.items()
        if _tells_focus(float(size))
    ]  # fmt: skip
    known = [run for run, _ in runs.values()]
    ten = min(results, key=lambda r: abs(np.log(r.nominal_um / 10)), default=None)
    return OpticsFingerprint(
        asymmetry={size: found for size, (run, fit) in runs.items() if (found := asymmetry_of(run, fit)) is not None},
        focus_offset_um=_median(focus, 1),
        rsd_10um=ten.rsd if ten is not None and 8 <= ten.nominal_um <= 12 else None,
        background_level=_median([r.background_level for r in known], 2),
        noise=_median([r.noise for r in known], 5),
        shading=_median([r.shading for r in known], 4),
    )


def _checks(
    lots: Sequence[_FittedLot],
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
    if found is not None or any(_tells_focus(lot.standard.nominal_um) for lot in lots):
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


def _volume_checks(lot: _FittedLot, settings: CalibrationSettings) -> list[Check]:
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
