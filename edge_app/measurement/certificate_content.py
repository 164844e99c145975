"""What a calibration certificate holds, and how it is read back unchanged."""

from pathlib import Path
from typing import Any, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_app.errors import UserError
from edge_app.measurement.asymmetry import AsymmetryMap
from edge_app.measurement.bead_fit import BeadFitSettings
from edge_app.measurement.calibration import CERTIFICATE_SCHEMA, Calibration, SizeRule, certificate_id

__all__ = ["CalibrationSettings", "Certificate", "Check", "LotResult", "OpticsFingerprint", "load_certificate"]


class CalibrationSettings(BaseModel):
    """Everything that decides a calibration beside the runs themselves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_rule: SizeRule = Field("half_max", description="Reading that the diameter is made of")
    valid_days: int = Field(90, ge=1, le=3650, description="Days until the calibration expires")
    min_lots: int = Field(3, ge=2, le=20, description="Fewest bead sizes")
    most_rsd_10um: float = Field(0.10, gt=0, lt=1, description="Largest RSD at 10 um (USP <1788>)")
    scale_tolerance: float = Field(0.05, gt=0, lt=1, description="Fitted against stated um per px")
    most_focus_offset_um: float = Field(25.0, gt=0, description="Focal plane off the middle of the cell")
    reading_tolerance: float = Field(0.015, gt=0, lt=1, description="How well a lot's reading must be known (k = 2)")
    reading_tolerance_um: float = Field(0.3, gt=0, description="The same for small beads: whichever is larger")
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
