"""One TOML file <-> typed settings. Each room defines its own options; this file puts them together."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from edge_app.classification.settings import ClassificationSettings
from edge_app.errors import UserError
from edge_app.measurement.calibration import SizeRule
from edge_app.messaging.mqtt_url import redacted
from edge_app.messaging.settings import MqttSettings
from edge_app.recording.pictures import PictureOptions
from edge_app.segmentation.settings import SegmentationSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "FlowCellSettings",
    "RecordingSettings",
    "RunSettings",
    "Settings",
    "WindowSettings",
    "load_settings",
    "settings_as_toml",
    "without_secrets",
]


class FlowCellSettings(BaseModel):
    """Geometry and scale where the source does not say them itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    um_per_px: float | None = Field(None, gt=0.01, lt=100, description="Scale; empty: the source's own, else 1.33")
    depth_um: float | None = Field(None, gt=1, lt=10_000, description="Inner depth; empty: the source's own, else 100")
    calibration_file: Path | None = Field(None, description="Calibration record (JSON); empty: nominal scale, flagged")
    size_rule: SizeRule | None = Field(
        None,
        description="What a nominal scale sizes by: mask, half_max or learned (by the network); empty: the curve that "
        "the source is known to follow, else mask. A calibration record holds its own",
    )


class WindowSettings(BaseModel):
    """How a run is cut into windows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length_s: float = Field(1.0, gt=0, le=3600, description="Length of a window in the frames' own time")
    min_ecd_um: float = Field(
        2.0, ge=0, le=100, description="Smaller particles are counted as rejected (small) and not reported"
    )
    leave_out_bubble_bursts: bool = Field(
        True, description="Leave out frames in a burst of air bubbles, with their volume (frame_bubbles)"
    )


class RecordingSettings(BaseModel):
    """What the run record keeps beside the counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hash_frames: bool = Field(True, description="Keep a SHA-256 over all frames")
    probabilities: bool = Field(True, description="Keep the probability of every class for every particle")
    pictures: PictureOptions = PictureOptions()


class RunSettings(BaseModel):
    """Who runs what: kept in the record, no influence on any number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    operator: str = Field("", max_length=200, description="Who runs it")
    sample: str = Field("", max_length=200, description="Sample id")


class Settings(BaseModel):
    """Everything a user can set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: RunSettings = RunSettings()
    flow_cell: FlowCellSettings = FlowCellSettings()
    segmentation: SegmentationSettings = SegmentationSettings()
    classification: ClassificationSettings = ClassificationSettings()
    window: WindowSettings = WindowSettings()
    recording: RecordingSettings = RecordingSettings()
    mqtt: MqttSettings = MqttSettings()


def _one_line(error: ValidationError, origin: str) -> str:
    first = error.errors()[0]
    key = ".".join(str(p) for p in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{origin}: {key} is no known key; `edge-app config show` lists them"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{origin}: {key} is {first['input']!r}: {first['msg']}{more}"


def load_settings(path: Path | None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read settings from a TOML file, then apply overrides.

    Parameters
    ----------
    path
        TOML file; None: all defaults.
    overrides
        Dotted key -> value, for example ``{"mqtt.url": "off"}``; None values are skipped. They come from the command
        line and go before the file.

    Raises
    ------
    UserError
        If the file cannot be read, or a key or value is not allowed: one line with key, value and what it takes.

    Examples
    --------
    >>> load_settings(None, {"mqtt.url": "off", "window.length_s": 2}).window.length_s
    2.0
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: settings cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: settings are not UTF-8 text ({error.reason} at byte {error.start})") from error
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{path}: settings are not TOML: {error}") from error
        try:
            Settings.model_validate(tree)
        except ValidationError as error:
            raise UserError(_one_line(error, str(path))) from error
    for dotted, value in (overrides or {}).items():
        if value is not None:
            *parents, leaf = dotted.split(".")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise UserError(_one_line(error, "command line")) from error


def without_secrets(settings: Settings) -> Settings:
    """The settings as they may be shown and recorded: no user or password in the broker's URL.

    Examples
    --------
    >>> without_secrets(load_settings(None, {"mqtt.url": "mqtts://lab:secret@broker"})).mqtt.url
    'mqtts://broker'
    """
    return settings.model_copy(update={"mqtt": settings.mqtt.model_copy(update={"url": redacted(settings.mqtt.url)})})


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"{value!r}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _limits(info: FieldInfo) -> str:
    words = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    found = [f"{sign} {getattr(m, name):g}" for m in info.metadata for name, sign in words.items() if hasattr(m, name)]
    return f" ({', '.join(found)})" if found else ""


def _lines(model: BaseModel, table: str) -> Iterator[str]:
    nested: list[tuple[str, BaseModel]] = []
    doc = (type(model).__doc__ or "").strip().splitlines()[0]
    if table:
        yield ""
        yield f"# {doc}"
        yield f"[{table}]"
    for key, info in type(model).model_fields.items():
        value = getattr(model, key)
        if isinstance(value, BaseModel):
            nested.append((f"{table}.{key}" if table else key, value))
            continue
        if info.description:
            yield f"# {info.description}{_limits(info)}"
        yield f"# {key} =" if value is None else f"{key} = {_toml_value(value)}"
    for name, child in nested:
        yield from _lines(child, name)


def settings_as_toml(settings: Settings) -> str:
    """Write settings as TOML with each key's meaning and limits above it; reading it back gives the same settings."""
    head = "# Settings of edge-app. Every key is optional; what stands here is what is used without it."
    return "\n".join([head, *_lines(settings, "")]) + "\n"
