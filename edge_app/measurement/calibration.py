"""The only door from pixels to um."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import rfc8785
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from edge_app.errors import UserError

__all__ = [
    "SIZE_RULES",
    "SIZE_RULE_WORDS",
    "Calibration",
    "CalibrationState",
    "SizeRule",
    "certificate_id",
    "load_calibration",
    "nominal_calibration",
    "reading_px",
]

SizeRule: TypeAlias = Literal["mask", "half_max", "learned"]
SIZE_RULES: Final[tuple[SizeRule, ...]] = get_args(SizeRule)
SIZE_RULE_WORDS: Final[Mapping[SizeRule, str]] = {
    "mask": "area of the filled mask",
    "half_max": "area above half of the particle's own contrast",
    "learned": "diameter as the network reads it off the picture",
}
"""What a size is made of, as a certificate and a report say it."""
CERTIFICATE_SCHEMA: Final = "mfi.certificate/1"
CalibrationState: TypeAlias = Literal["valid", "expired", "not_calibrated"]

_DECIDING: Final = (
    "id", "um_per_px", "depth_um", "size_rule", "curve_px", "curve_um", "calibrated", "note", "size_reader_sha256",
)  # fmt: skip


class Calibration(BaseModel):
    """A monotone size curve and the geometry of the cell.

    The curve maps the equivalent diameter of the size rule in px (see `reading_px`) to um through
    ``(curve_px, curve_um)``, linear between the knots and beyond the last two. A real MFI's curve has an offset of
    several um, because its masks hold the diffraction halo; a single um/px factor does not describe it.

    Parameters
    ----------
    id
        ``nominal-...`` for one made from a stated scale without beads, else the certificate's id.
    um_per_px
        Geometric scale: lengths (Feret, perimeter) and the field are made of it.
    depth_um
        Inner depth of the flow cell.
    size_rule
        ``mask``: area of the filled mask; ``half_max``: area above half of the particle's own contrast; ``learned``:
        diameter as the network reads it off the picture.
    created, expires
        UTC, ISO 8601; empty where it never expires (a nominal scale).
    certificate_id, who
        Certificate that it comes from and who made it.
    lots
        Bead lots by name.
    valid_um
        Smallest and largest certified diameter; the curve is extrapolated outside.
    u_um
        Expanded uncertainty (k = 2) of the curve at each knot, um; empty where it is not known.
    band_low_um, band_high_um
        Band that holds the whole true curve between ``valid_um`` with 95 % confidence.
    optics
        Fingerprint of the optics: shift of the dark centroid over the field, resolution, background.
    size_reader_sha256
        Network and size head whose readings the curve was made of (``learned``): with others it says nothing. Empty
        where none is needed, or there were no beads.
    failed_checks
        Checks of its certificate that were not passed, by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    um_per_px: float = Field(gt=0)
    depth_um: float = Field(gt=0)
    size_rule: SizeRule = "mask"
    curve_px: tuple[float, ...] = (0.0, 1.0)
    curve_um: tuple[float, ...] = ()
    calibrated: bool = False
    note: str = ""
    created: str = ""
    expires: str = ""
    certificate_id: str = ""
    who: str = ""
    lots: tuple[str, ...] = ()
    valid_um: tuple[float, float] | None = None
    u_um: tuple[float, ...] = ()
    band_low_um: tuple[float, ...] = ()
    band_high_um: tuple[float, ...] = ()
    optics: dict[str, Any] = Field(default_factory=dict)
    size_reader_sha256: str = ""
    failed_checks: tuple[str, ...] = ()

    @model_serializer(mode="wrap")
    def _without_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Certificates made before there was such a key keep the hash that is their id.
        tree: dict[str, Any] = handler(self)
        if not self.size_reader_sha256:
            tree.pop("size_reader_sha256", None)
        return tree

    @model_validator(mode="after")
    def _monotone(self) -> "Calibration":
        x, y = self.curve_px, self.curve_um
        if len(x) < 2 or len(x) != len(y):
            raise ValueError(
                f"curve_px and curve_um need the same number of knots, at least 2; found {len(x)}, {len(y)}"
            )
        if (np.diff(x) <= 0).any() or (np.diff(y) < 0).any():
            raise ValueError("curve_px must rise and curve_um must not fall")
        for name in ("u_um", "band_low_um", "band_high_um"):
            if len(getattr(self, name)) not in (0, len(x)):
                raise ValueError(f"{name} needs a value for each of the {len(x)} knots, or none")
        for name in ("created", "expires"):
            if getattr(self, name):
                _moment(getattr(self, name))
        return self

    def state(self, at: datetime | None = None) -> CalibrationState:
        """Whether sizes may be called calibrated at a moment (default: now).

        Examples
        --------
        >>> made = nominal_calibration(um_per_px=1.33, depth_um=100).model_copy(
        ...     update={"calibrated": True, "expires": "2026-06-30T12:00:00Z"}
        ... )
        >>> [made.state(datetime(2026, month, 1, tzinfo=timezone.utc)) for month in (6, 7)]
        ['valid', 'expired']
        """
        if not self.calibrated:
            return "not_calibrated"
        at = at or datetime.now(timezone.utc)
        return "expired" if self.expires and at > _moment(self.expires) else "valid"

    def age_days(self, at: datetime | None = None) -> float | None:
        """Days since it was made at a moment (default: now), below 0 before; None where it was never made with beads.

        Examples
        --------
        >>> made = nominal_calibration(um_per_px=1.33, depth_um=100).model_copy(
        ...     update={"calibrated": True, "created": "2026-06-01T12:00:00Z"}
        ... )
        >>> made.age_days(datetime(2026, 6, 4, tzinfo=timezone.utc))
        2.5
        """
        if not self.calibrated or not self.created:
            return None
        return ((at or datetime.now(timezone.utc)) - _moment(self.created)).total_seconds() / 86400

    def uncertainty_um(self, ecd_um: npt.NDArray[np.floating]) -> npt.NDArray[np.float64] | None:
        """Expanded uncertainty (k = 2) of the curve at given sizes, um; None where it is not known."""
        if not self.u_um:
            return None
        return np.asarray(np.interp(ecd_um, self.curve_um, self.u_um))

    def ecd_um(
        self,
        area_px: npt.NDArray[np.generic],
        half_max_area_px: npt.NDArray[np.generic],
        learned_ecd_px: npt.NDArray[np.floating] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Equivalent circular diameter in um, shape (n,), from the reading of the size rule in px.

        Parameters
        ----------
        area_px, half_max_area_px
            Area of the mask and of the half maximum, (n,).
        learned_ecd_px
            Diameter that the network reads, (n,); None: not read.

        Returns
        -------
        float32 (n,), nan where the rule's reading is not known
        """
        d = reading_px(self.size_rule, area_px, half_max_area_px, learned_ecd_px)
        x, y = np.asarray(self.curve_px), np.asarray(self.curve_um)
        size = np.interp(d, x, y)
        slope = (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.maximum(np.where(d > x[-1], y[-1] + slope * (d - x[-1]), size), 0.0).astype(np.float32)

    def frame_volume_ml(self, width_px: int, height_px: int) -> float:
        """Volume seen by one frame: field times depth (1 mL = 1e12 um^3)."""
        return width_px * height_px * self.um_per_px**2 * self.depth_um * 1e-12

    @property
    def size_rule_words(self) -> str:
        """What sizes are made of, for people."""
        reader = f" (size reader {self.size_reader_sha256[:12]})" if self.size_reader_sha256 else ""
        return SIZE_RULE_WORDS[self.size_rule] + reader

    @property
    def sha256(self) -> str:
        """Hash of everything that decides a size or a volume."""
        deciding = self.model_dump(include=set(_DECIDING))
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def reading_px(
    rule: SizeRule,
    area_px: npt.NDArray[np.generic],
    half_max_area_px: npt.NDArray[np.generic],
    learned_ecd_px: npt.NDArray[np.floating] | None = None,
) -> npt.NDArray[np.float64]:
    """Equivalent diameter of a size rule in px of the frame, shape (n,).

    ``2 * sqrt(A / pi)`` of the area of ``mask`` or ``half_max``; of ``learned`` the network's diameter as it is, nan
    where it has read none.

    Examples
    --------
    >>> [float(reading_px(rule, np.pi * np.ones(1), 4 * np.pi * np.ones(1), 3 * np.ones(1))[0]) for rule in SIZE_RULES]
    [2.0, 4.0, 3.0]
    """
    if rule == "learned":
        return np.full(len(area_px), np.nan) if learned_ecd_px is None else np.asarray(learned_ecd_px, np.float64)
    area = half_max_area_px if rule == "half_max" else area_px
    return np.asarray(2.0 * np.sqrt(np.asarray(area, np.float64) / np.pi))


def nominal_calibration(*, um_per_px: float, depth_um: float, size_rule: SizeRule = "mask") -> Calibration:
    """A straight line through zero from a stated scale: pixels times um per px, flagged as not calibrated.

    Examples
    --------
    >>> nominal_calibration(um_per_px=1.33, depth_um=100.0).ecd_um(np.array([100]), np.array([0.0])).round(2)
    array([15.01], dtype=float32)
    >>> nominal_calibration(um_per_px=1.33, depth_um=100.0, size_rule="learned").id
    'nominal-1.33um-100um-learned'
    """
    return Calibration(
        id=f"nominal-{um_per_px:g}um-{depth_um:g}um" + ("" if size_rule == "mask" else f"-{size_rule}"),
        um_per_px=um_per_px,
        depth_um=depth_um,
        size_rule=size_rule,
        curve_um=(0.0, um_per_px),
    )


def certificate_id(tree: dict[str, Any]) -> str:
    """Id of a certificate: hash of its canonical JSON (RFC 8785) without the id itself, wherever it stands.

    Examples
    --------
    >>> one = certificate_id({"schema": "x", "id": "", "calibration": {"id": "", "certificate_id": ""}})
    >>> one == certificate_id({"schema": "x", "id": one, "calibration": {"id": one, "certificate_id": one}})
    True
    """
    bare = {k: v for k, v in tree.items() if k != "id"}
    if isinstance(bare.get("calibration"), dict):
        bare["calibration"] = {k: v for k, v in bare["calibration"].items() if k not in ("id", "certificate_id")}
    return "cal-" + hashlib.sha256(rfc8785.dumps(bare)).hexdigest()[:16]


def _with_failed_checks(certificate: dict[str, Any]) -> Any:
    """The calibration of a certificate with the names of the checks that it failed (one of before has none in it)."""
    calibration, checks = certificate.get("calibration"), certificate.get("checks")
    if not isinstance(calibration, dict) or not isinstance(checks, list):
        return calibration
    failed = [str(c.get("name")) for c in checks if isinstance(c, dict) and c.get("passed") is False]
    return {**calibration, "failed_checks": failed}


def load_calibration(path: Path) -> Calibration:
    """Read a calibration from a JSON file: a calibration record, or a certificate made by ``edge-app calibrate``.

    Raises
    ------
    UserError
        If the file is missing, holds no calibration, is a certificate that was changed after it was made, or a piece
        of one, which nobody can check.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(tree, dict) and tree.get("schema") == CERTIFICATE_SCHEMA:
            found = certificate_id(tree)
            if tree.get("id") != found:
                raise UserError(f"{path}: certificate {tree.get('id')} was altered: its content gives {found}")
            tree = _with_failed_checks(tree)
        elif isinstance(tree, dict) and tree.get("certificate_id"):
            raise UserError(
                f"{path}: is a piece of certificate {tree['certificate_id']}, which cannot be checked; "
                "give the certificate as edge-app calibrate wrote it"
            )
        return Calibration.model_validate(tree)
    except OSError as error:
        raise UserError(f"{path}: calibration cannot be read ({error.strerror})") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: calibration is not JSON ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"]) or "file"
        raise UserError(f"{path}: {key}: {first['msg']}") from error
