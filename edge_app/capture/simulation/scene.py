"""What a simulated run is made of: sample, flow cell, camera, artefacts."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edge_app.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["DEFAULT_MIX", "FlowCellScene", "read_scene"]

DEFAULT_MIX: Final[Mapping[str, float]] = {
    "silicone_oil": 0.34,
    "air_bubble": 0.04,
    "protein_aggregate": 0.36,
    "protein_mimic": 0.08,
    "glass": 0.06,
    "cellulose": 0.04,
    "bead": 0.08,
}
"""A stressed protein formulation from a siliconised syringe, with a little of everything else (shares by number)."""


def _short(name: str, *aliases: str) -> AliasChoices:
    return AliasChoices(name, *aliases)


class FlowCellScene(BaseModel):
    """Everything that decides the frames of a simulated run; same scene, same frames.

    Short names for the query of a ``sim:`` URI stand beside the full ones (``concentration`` for
    ``concentration_per_ml``); both work in the URI and in a TOML scene.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, allow_inf_nan=False)

    # Sample
    concentration_per_ml: float = Field(
        60_000.0,
        ge=0,
        le=5e7,
        validation_alias=_short("concentration_per_ml", "concentration"),
        description="moving particles of the mix per mL, of size_min_um and more (by default 2 um)",
    )
    mix: dict[str, float] = Field(
        default_factory=lambda: dict(DEFAULT_MIX),
        description="share by number of each family of the sprite file, scaled to sum 1; family:share,family:share",
    )
    size_law: Literal["powerlaw", "lognormal"] = Field(
        "powerlaw", validation_alias=_short("size_law", "sizes"), description="number distribution of the true ECD"
    )
    size_min_um: float = Field(2.0, ge=1.0, le=100.0, description="smallest true ECD")
    size_max_um: float = Field(100.0, ge=1.0, le=200.0, description="largest true ECD")
    size_slope: float = Field(
        2.0, gt=0, le=8, description="power law: particles of at least d um go with d^-slope (cumulative slope)"
    )
    size_median_um: float = Field(6.0, gt=0, le=100, description="log-normal: median of the law before truncation")
    size_sigma_ln: float = Field(0.6, gt=0, le=3, description="log-normal: standard deviation of ln(ECD)")

    # Flow cell
    depth_um: float = Field(100.0, gt=0, le=2000, description="inner depth of the flow cell")
    cell_width_mm: float = Field(2.5, gt=0, le=50, description="inner width of the flow cell, across flow and light")
    flow_rate_ul_per_min: float = Field(
        200.0,
        ge=0,
        le=1e5,
        validation_alias=_short("flow_rate_ul_per_min", "flow_rate"),
        description="flow through the cell; particles run down the picture",
    )
    focus_offset_um: float = Field(0.0, ge=-500, le=500, description="focal plane minus middle of the cell")

    # Camera
    width_px: int = Field(1280, ge=32, le=8192, validation_alias=_short("width_px", "width"), description="frame width")
    height_px: int = Field(
        1024, ge=32, le=8192, validation_alias=_short("height_px", "height"), description="frame height"
    )
    um_per_px: float | None = Field(
        None, gt=0.05, le=20, description="scale; default: that of the sprites, which are resampled to any other"
    )
    rate_hz: float = Field(10.0, gt=0, le=10_000, description="frames per second of the camera")
    strobe_us: float = Field(10.0, ge=0, le=1e6, description="length of the light flash: smears what moves")
    level: float = Field(205.0, gt=0, le=250, description="mean grey level of the empty field, of 255")
    noise_fraction: float = Field(
        0.01,
        ge=0,
        le=0.2,
        validation_alias=_short("noise_fraction", "noise"),
        description="standard deviation of a background pixel in time, fraction of the level",
    )
    read_noise_share: float = Field(
        0.1, ge=0, le=1, description="share of the noise variance that does not fall with the light (read noise)"
    )
    fixed_pattern_fraction: float = Field(
        0.002, ge=0, le=0.1, description="standard deviation of the pixels' own gain, same in every frame"
    )
    shading_fraction: float = Field(
        0.06,
        ge=0,
        le=0.6,
        validation_alias=_short("shading_fraction", "shading"),
        description="vignette: loss of light in the corners",
    )
    led_drift_fraction: float = Field(
        0.004,
        ge=0,
        le=0.5,
        validation_alias=_short("led_drift_fraction", "led_drift"),
        description="amplitude of the lamp's slow drift (a sine that starts at 0)",
    )
    led_drift_period_s: float = Field(300.0, gt=0, description="period of the slow drift")
    led_flicker_fraction: float = Field(
        0.0005, ge=0, le=0.1, description="standard deviation of the lamp from frame to frame"
    )

    # Artefacts
    dirt_count: int = Field(
        7,
        ge=0,
        le=2000,
        validation_alias=_short("dirt_count", "dirt"),
        description="specks on the outside of the window, far out of focus: part of the background",
    )
    stuck_count: int = Field(
        2,
        ge=0,
        le=1000,
        validation_alias=_short("stuck_count", "stuck"),
        description="particles that sit on the inner walls and are in every frame",
    )
    stuck_from_frame: int = Field(0, ge=0, description="first frame that the stuck particles are in")
    bubble_bursts_per_min: float = Field(0.0, ge=0, le=600, description="mean rate of bursts of air bubbles")
    bubble_burst_per_ml: float = Field(
        100_000.0, ge=0, le=1e7, description="air bubbles per mL during a burst, on top of the concentration"
    )
    bubble_burst_s: float = Field(1.0, gt=0, le=600, description="length of a burst")
    schlieren_fraction: float = Field(
        0.0,
        ge=0,
        le=0.2,
        validation_alias=_short("schlieren_fraction", "schlieren"),
        description="standard deviation of the slow streaks of unmixed liquid, which run with the flow",
    )
    schlieren_size_um: float = Field(250.0, gt=10, le=5000, description="typical width of a streak")

    # Run
    seed: int = Field(1, ge=0, lt=2**63, description="decides every random number of the run")
    frames: int = Field(600, ge=0, description="frames that the camera exposes; 0: no end")
    lose_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        validation_alias=_short("lose_fraction", "lose"),
        description="share of the exposed frames that never arrive; the next one says how many",
    )
    prerender_frames: int = Field(
        0,
        ge=0,
        le=10_000,
        validation_alias=_short("prerender_frames", "prerender"),
        description="compose that many frames once and repeat them (speed measurements); 0: every frame is new",
    )
    realtime: bool = Field(
        False, description="deliver at rate_hz by the wall clock instead of as fast as they are read"
    )
    sprites: Path | None = Field(None, description="sprite file (.npz) of another optics; default: the shipped one")

    @field_validator("mix", mode="before")
    @classmethod
    def _mix_of_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        mix: dict[str, float] = {}
        for part in value.split(","):
            name, colon, share = part.strip().partition(":")
            try:
                number = float(share) if colon else 1.0
            except ValueError:
                raise ValueError(f"{part!r} is not family:share") from None
            if not name or name in mix:
                raise ValueError(f"{part!r}: each family is named once, as family:share")
            mix[name] = number
        return mix

    @field_validator("mix")
    @classmethod
    def _mix_sums_to_one(cls, mix: dict[str, float]) -> dict[str, float]:
        if any(not (math.isfinite(v) and v >= 0) for v in mix.values()) or sum(mix.values()) <= 0:
            raise ValueError("shares must be 0 or more, and one of them above 0")
        total = sum(mix.values())
        return {name: v / total for name, v in mix.items() if v > 0}

    @model_validator(mode="after")
    def _consistent(self) -> "FlowCellScene":
        if self.size_max_um <= self.size_min_um:
            raise ValueError(f"size_max_um is {self.size_max_um:g}, must be above size_min_um ({self.size_min_um:g})")
        return self

    @property
    def mean_speed_um_per_s(self) -> float:
        """Flow rate over the cell's cross-section (1 uL = 1e9 um^3)."""
        return self.flow_rate_ul_per_min * 1e9 / 60.0 / (self.depth_um * self.cell_width_mm * 1e3)

    def uri(self) -> str:
        """The ``sim:`` URI of this scene with every default filled in."""
        parts = []
        for name, value in self.model_dump(exclude_none=True).items():
            if name == "mix":
                text = ",".join(f"{k}:{v:.6g}" for k, v in value.items())
            elif isinstance(value, bool):
                text = str(int(value))
            elif isinstance(value, float):
                text = repr(value)
            else:
                text = str(value)
            parts.append(f"{name}={text.replace('%', '%25').replace('&', '%26')}")
        return "sim:?" + "&".join(parts)


def _aliases() -> dict[str, str]:
    """Every accepted key -> the field's own name."""
    table = {}
    for name, info in FlowCellScene.model_fields.items():
        table[name] = name
        if isinstance(info.validation_alias, AliasChoices):
            table.update({str(a): name for a in info.validation_alias.choices})
    return table


def _keys() -> str:
    short = []
    for name, info in FlowCellScene.model_fields.items():
        alias = info.validation_alias
        short.append(str(alias.choices[-1]) if isinstance(alias, AliasChoices) else name)
    return ", ".join(short)


def _query(query: str, *, uri: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for part in query.split("&"):
        if not part:
            continue
        key, equals, value = part.partition("=")
        if not equals:
            raise UserError(f"{uri}: {part!r} is not key=value")
        key = unquote(key).strip()
        if key in values:
            raise UserError(f"{uri}: {key} is given twice")
        values[key] = unquote(value).strip()
    return values


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: scene cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML scene: {' '.join(str(error).split())}") from error


def _canonical(values: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    table = _aliases()
    result: dict[str, Any] = {}
    for key, value in values.items():
        if key not in table:
            raise UserError(f"{where}: unknown key {key!r}; allowed: {_keys()}")
        if table[key] in result:
            raise UserError(f"{where}: {table[key]} is given twice")
        result[table[key]] = value
    return result


def read_scene(uri: str) -> FlowCellScene:
    """Read a scene from a ``sim:`` URI.

    Parameters
    ----------
    uri
        ``sim:``, ``sim:?key=value&key=value``, ``sim:scene.toml`` or ``sim:scene.toml?key=value`` (the query wins).
        A relative ``sprites`` path is taken from the folder of the TOML file, or from the current one in a query.

    Raises
    ------
    UserError
        If a key is unknown or given twice, a value is not allowed, or the file cannot be read.

    Examples
    --------
    >>> read_scene("sim:?concentration=175000&mix=glass:1&seed=3").concentration_per_ml
    175000.0
    """
    if not uri.startswith("sim:"):
        raise UserError(f"{uri}: not a simulation, must begin with sim:")
    name, _, query = uri[len("sim:") :].partition("?")
    values: dict[str, Any] = {}
    if name:
        path = Path(unquote(name)).expanduser()
        values = _canonical(_toml(path), where=str(path))
        if isinstance(values.get("sprites"), str):
            values["sprites"] = path.parent / Path(values["sprites"]).expanduser()
    where = uri if len(uri) <= 120 else uri[:117] + "..."
    values.update(_canonical(_query(query, uri=where), where=where))
    try:
        return FlowCellScene(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        message = str(first["msg"]).removeprefix("Value error, ")
        found = first.get("input")
        shown = f" is {found!r}" if key and isinstance(found, str | int | float) else ""
        raise UserError(f"{where}: {key}{shown}{': ' if key else ''}{message}") from error
