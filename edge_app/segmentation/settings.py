"""Every number that decides what is a particle, with its default, in one place."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "DEFAULT_SETTINGS",
    "BackgroundSettings",
    "QualitySettings",
    "SegmentationSettings",
    "StuckSettings",
    "ThresholdSettings",
]


class BackgroundSettings(BaseModel):
    """How the picture of the empty flow cell is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prime_frames: int = Field(
        9, ge=1, le=64, description="frames whose per-pixel median starts the background, where they can be looked at"
    )
    stripes: int = Field(8, ge=1, le=64, description="the background is renewed one of this many stripes per frame")
    step_levels: float = Field(
        0.45, gt=0, le=8, description="most that a pixel of the background moves when it is renewed, grey levels"
    )
    fast_frames: int = Field(
        24, ge=0, description="frames after the start during which every row is renewed, with falling steps"
    )
    blind_fraction: float = Field(
        0.7, ge=0, lt=1, description="where dirt leaves less than this share of the light, nothing is looked for"
    )
    smooth_window_px: int = Field(
        168, ge=16, description="window of the spatial median that stands in for a background where there is one frame"
    )


class ThresholdSettings(BaseModel):
    """What differs from the background."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    floor_fraction: float = Field(
        0.04, gt=0, lt=0.5, description="least deviation from the background that counts, fraction of background"
    )
    noise_factor: float = Field(3.5, ge=0, le=20, description="least deviation in units of the frame's own noise")
    ceiling_fraction: float = Field(
        0.15, gt=0, lt=1, description="the noise never raises the threshold above this fraction of the background"
    )
    closing_radius_px: int = Field(2, ge=0, le=10, description="gaps up to twice this wide are closed")
    min_area_px: int = Field(9, ge=1, description="smallest particle, pixels after hole filling")
    max_particles: int = Field(20_000, ge=1, le=60_000, description="most particles that one frame may hold")
    neighbour_distance_px: int = Field(
        0, ge=0, le=64, description="pieces up to this far apart are one particle (FlowCam's rule; 0: off)"
    )


class QualitySettings(BaseModel):
    """When a whole frame is left out."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dark_level: int = Field(8, ge=0, le=254, description="a frame whose median grey level is below this has no light")
    dark_fraction: float = Field(0.2, ge=0, lt=1, description="a frame below this share of the background has no light")
    saturated_fraction: float = Field(
        0.5, gt=0, le=1, description="a frame with this share of pixels at the limit, and nothing darker, is saturated"
    )
    covered_fraction: float = Field(0.35, gt=0, le=1, description="most of a frame that particles may cover")
    region_fraction: float = Field(0.1, gt=0, le=1, description="largest share of a frame that one region may cover")
    uneven_fraction: float = Field(
        0.03, gt=0, le=1, description="largest rms of the slow texture (schlieren), fraction of background"
    )


class StuckSettings(BaseModel):
    """When an object sits on the window."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = Field(True, description="take stuck particles out of the count")
    distance_px: float = Field(2.0, gt=0, le=4, description="an object seen again has moved no further than this")
    area_ratio: float = Field(1.3, ge=1, description="and its area differs by no more than this factor")
    frames: int = Field(4, ge=2, description="seen in this many frames it is stuck")
    missed_frames: int = Field(2, ge=0, description="frames in a row in which it may be missed")
    heal_background: bool = Field(
        True, description="take an object found stuck into the background, so that it hides nothing behind it"
    )


class SegmentationSettings(BaseModel):
    """All settings of the room."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    background: BackgroundSettings = BackgroundSettings()
    threshold: ThresholdSettings = ThresholdSettings()
    quality: QualitySettings = QualitySettings()
    stuck: StuckSettings = StuckSettings()


DEFAULT_SETTINGS: Final = SegmentationSettings()
"""The defaults, made once."""
