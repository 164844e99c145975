"""System suitability between calibrations: blank and beads against limits, and how the instrument drifts over time."""

import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_app import __version__
from edge_app.errors import UserError
from edge_app.measurement.asymmetry import ALARM_SHIFT, AsymmetryMap, drift_of
from edge_app.measurement.bead_fit import DEFAULT_FIT
from edge_app.measurement.bead_run import BeadRun
from edge_app.measurement.calibration import Calibration
from edge_app.measurement.certificate import Check, OpticsFingerprint, asymmetry_of, fit_lot
from edge_app.measurement.poisson import poisson_interval

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "SCHEMA",
    "BeadLimits",
    "BlankLimits",
    "OpticsLimits",
    "Suitability",
    "SuitabilityLimits",
    "check_beads",
    "check_blank",
    "check_calibration",
    "read_limits",
]

SCHEMA: Final = "mfi.suitability/1"
_NO_UNCERTAINTY: Final = DEFAULT_FIT.model_copy(update={"bootstrap": 20})
"""The location's own uncertainty is not asked for here, and resampling is most of the work."""


class BlankLimits(BaseModel):
    """Particle-free water. USP <787>: fewer than 1 particle per mL of 10 um and more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_um: float = Field(10.0, gt=0)
    most_per_ml: float = Field(1.0, gt=0)


class BeadLimits(BaseModel):
    """A count or size standard; acceptance of counts is specific to the lot, as its certificate states it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    nominal_um: float = Field(10.0, gt=0.5, le=200)
    certified_um: float | None = Field(None, gt=0.5, le=200, description="mean diameter; empty: size is not judged")
    size_tolerance: float = Field(0.05, gt=0, lt=1, description="share by which the median bead may differ")
    lot: str = Field("", max_length=80)
    count_from_um: float | None = Field(
        None, gt=0, description="particles of this size and more are counted; empty: 0.7 of the nominal size"
    )
    low_per_ml: float | None = Field(None, ge=0)
    high_per_ml: float | None = Field(None, gt=0)
    ratio_to_um: float = Field(15.0, gt=0, description="count from the size above over count from this size")
    low_ratio: float | None = Field(None, ge=0)
    high_ratio: float | None = Field(None, gt=0)
    most_rsd: float | None = Field(0.10, gt=0, lt=1, description="resolution; empty: not judged")
    most_clustered: float = Field(0.30, gt=0, le=1)


class OpticsLimits(BaseModel):
    """Light and optics, most of them against the state at the calibration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    background_change: float = Field(0.15, gt=0, description="share by which the background level may differ")
    most_noise: float = Field(0.025, gt=0, description="noise, share of background")
    most_shading: float = Field(0.30, gt=0, lt=1, description="loss of light to the darkest part of the field")
    shading_change: float = Field(0.05, gt=0, lt=1)


class SuitabilityLimits(BaseModel):
    """All limits of ``edge-app verify``; the TOML file has the same keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blank: BlankLimits = BlankLimits()
    beads: BeadLimits = BeadLimits()
    optics: OpticsLimits = OpticsLimits()


@dataclass(frozen=True, kw_only=True)
class Suitability:
    """One verification: its checks in order."""

    time: str
    who: str
    calibration_id: str
    calibration_state: str
    lot: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """No check failed."""
        return all(c.passed is not False for c in self.checks)

    def tree(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "schema": SCHEMA,
            "time": self.time,
            "who": self.who,
            "calibration_id": self.calibration_id,
            "calibration_state": self.calibration_state,
            "lot": self.lot,
            "software": f"edge-app {__version__}",
            "passed": self.passed,
            "checks": [c.model_dump(mode="json") for c in self.checks],
        }


def read_limits(path: Path | None) -> SuitabilityLimits:
    """Read limits from a TOML file; None: the defaults.

    Raises
    ------
    UserError
        If it cannot be read or a key or value is not allowed.
    """
    if path is None:
        return SuitabilityLimits()
    try:
        return SuitabilityLimits.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UserError(f"{path}: limits cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: limits are not TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        raise UserError(f"{path}: {key} is {first['input']!r}: {first['msg']}") from error


def check_calibration(calibration: Calibration, *, now: datetime | None = None) -> Check:
    """Days that are left of the calibration."""
    now = now or datetime.now(timezone.utc)
    state = calibration.state(now)
    days = None
    if calibration.expires:
        end = datetime.fromisoformat(calibration.expires.replace("Z", "+00:00"))
        days = round((end - now).total_seconds() / 86400, 1)
    return Check(
        name="calibration valid for", value=days, unit="days", limit="valid, not expired", passed=state == "valid"
    )


def _sizes_um(run: BeadRun, calibration: Calibration) -> npt.NDArray[np.float32]:
    p = run.particles
    return calibration.ecd_um(p.area_px, p.half_max_area_px, p.learned_ecd_px)


def check_blank(run: BeadRun, calibration: Calibration, limits: BlankLimits) -> list[Check]:
    """Particles per mL of a blank.

    Judged by the value, as the chapter does; the upper end of the exact 95 % interval is given beside it, because a
    small volume with nothing in it shows little.
    """
    weight = run.particles.weight[_sizes_um(run, calibration) >= limits.size_um]
    volume_ml = run.volume_ml
    value = float(weight.sum()) / volume_ml
    upper = float(poisson_interval(int((weight > 0).sum()))[1]) / volume_ml
    return [
        Check(
            name=f"blank, >= {limits.size_um:g} um",
            value=round(value, 2),
            unit="per mL",
            limit=f"< {limits.most_per_ml:g}",
            passed=value < limits.most_per_ml,
        ),
        Check(
            name="blank, upper end of the 95 % interval",
            value=round(upper, 2),
            unit="per mL",
            limit=f"information; {volume_ml:.3g} mL imaged",
            passed=None,
        ),
    ]


def _between(name: str, value: float, unit: str, low: float | None, high: float | None) -> Check:
    within = (low is None or value >= low) and (high is None or value <= high)
    if low is None and high is None:
        return Check(name=name, value=value, unit=unit, limit="information (no lot limits)", passed=None)
    limit = f"{'' if low is None else f'{low:g}'} to {'' if high is None else f'{high:g}'}"
    return Check(name=name, value=value, unit=unit, limit=limit.strip(), passed=within)


def check_beads(run: BeadRun, calibration: Calibration, limits: SuitabilityLimits) -> list[Check]:
    """Count, size, resolution, clumps, light and crescents of a bead run.

    Raises
    ------
    UserError
        If there are too few beads to judge anything by.
    """
    beads = limits.beads
    fit = fit_lot(run, rule=calibration.size_rule, settings=_NO_UNCERTAINTY)
    if fit is None or fit.singlets < DEFAULT_FIT.min_singlets:
        found = len(run.particles) if fit is None else round(fit.singlets)
        raise UserError(f"{run.origin}: {found} beads, {DEFAULT_FIT.min_singlets} are needed to judge the system")
    size, weight = _sizes_um(run, calibration), run.particles.weight
    volume_ml = run.volume_ml
    from_um = beads.count_from_um or round(0.7 * beads.nominal_um, 3)
    count = float(weight[size >= from_um].sum())
    above = float(weight[size >= beads.ratio_to_um].sum())
    name = f"beads, >= {from_um:g} um" + (f", lot {beads.lot}" if beads.lot else "")
    checks = [_between(name, round(count / volume_ml, 1), "per mL", beads.low_per_ml, beads.high_per_ml)]
    if beads.low_ratio is not None or beads.high_ratio is not None:
        ratio = round(count / max(above, 1e-9), 3)
        label = f"count ratio >= {from_um:g} / >= {beads.ratio_to_um:g} um"
        checks.append(_between(label, ratio, "", beads.low_ratio, beads.high_ratio))
    share = fit.singlet_share > 0.5
    low, middle, high = np.percentile(size[share], [15.87, 50, 84.13]).tolist()
    if beads.certified_um is not None:
        least, most = ((1 + s * beads.size_tolerance) * beads.certified_um for s in (-1, 1))
        checks.append(_between("median single bead", round(middle, 3), "um", round(least, 3), round(most, 3)))
    if beads.most_rsd is not None:
        rsd = 100 * (high - low) / 2 / middle
        checks.append(_between("resolution (RSD)", round(rsd, 2), "%", None, 100 * beads.most_rsd))
    checks.append(_between("clumped beads", round(100 * fit.clustered, 1), "%", None, 100 * beads.most_clustered))
    then = OpticsFingerprint.model_validate(calibration.optics) if calibration.optics else OpticsFingerprint()
    return [
        *checks,
        *_light(run, then, limits.optics),
        *_crescents(asymmetry_of(run, fit), then.asymmetry.get(f"{beads.nominal_um:g}"), beads.nominal_um),
    ]


def _light(run: BeadRun, then: OpticsFingerprint, limits: OpticsLimits) -> list[Check]:
    """Background, noise and shading; a run record keeps none of them."""
    checks = []
    if run.background_level is not None:
        low = high = None
        if then.background_level is not None:
            low, high = ((1 + s * limits.background_change) * then.background_level for s in (-1, 1))
        checks.append(_between("background", round(run.background_level, 1), "grey levels", low, high))
    if run.noise is not None:
        checks.append(_between("noise", round(100 * run.noise, 3), "%", None, 100 * limits.most_noise))
    if run.shading is not None:
        most = limits.most_shading
        if then.shading is not None:
            most = min(most, then.shading + limits.shading_change)
        checks.append(_between("shading", round(100 * run.shading, 2), "%", None, round(100 * most, 2)))
    return checks


def _crescents(now: AsymmetryMap | None, then: AsymmetryMap | None, nominal_um: float) -> list[Check]:
    """Drift of the asymmetry map since the calibration, with beads of the same size."""
    if now is None or then is None:
        missing = "in this run (a source is needed)" if now is None else "in the calibration"
        limit = f"no map of {nominal_um:g} um beads {missing}"
        return [Check(name="asymmetry drift", value=None, unit="of a box", limit=limit, passed=None)]
    change, alarm = drift_of(now, then)
    limit = f"<= {ALARM_SHIFT:g} or within its error" + (f"; moved: {alarm}" if alarm else "")
    return [Check(name="asymmetry drift", value=round(change, 4), unit="of a box", limit=limit, passed=alarm is None)]
