"""Which bead lots a calibration is made of, as options or as a TOML file."""

import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge_app.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["BeadPlan", "BeadStandard", "parse_beads", "read_plan"]


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
