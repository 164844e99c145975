"""What every frame source offers, whatever is behind it."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import Frame

__all__ = ["FrameSource", "SourceInfo", "lost_at_end"]


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What a source knows of itself before its first frame; None where it cannot know.

    Attributes
    ----------
    uri
        The URI as it was opened, with every default filled in where that decides the frames.
    kind
        Scheme without the colon, for example ``flowcam``.
    width_px, height_px
        Frame size.
    frame_rate_hz
        Nominal rate.
    um_per_px, depth_um, flow_rate_ul_per_min
        What the instrument's own settings say of scale, cell depth and flow.
    frames_total
        Number of frames the source will deliver, None for a live one.
    knows_losses
        Whether ``Frame.lost_before`` can be trusted.
    background
        The instrument's own background picture (uint8, H x W) where it delivers one.
    thresholds
        The instrument's own grey-level thresholds (dark, light), for comparison runs.
    volume_imaged_ml
        Volume that the instrument says it imaged, where its frames with nothing in them are not exported.
    details
        Everything else worth keeping in the run record: instrument, software version, serial number.
    """

    uri: str
    kind: str
    width_px: int
    height_px: int
    frame_rate_hz: float | None = None
    um_per_px: float | None = None
    depth_um: float | None = None
    flow_rate_ul_per_min: float | None = None
    frames_total: int | None = None
    knows_losses: bool = True
    background: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    thresholds: tuple[int, int] | None = None
    volume_imaged_ml: float | None = None
    details: Mapping[str, object] = field(default_factory=dict)


@runtime_checkable
class FrameSource(Protocol):
    """Delivers frames in order. Opening fails with :class:`edge_app.errors.UserError`; reading never does.

    A file that cannot be read is skipped: ``problems`` counts it by reason (``unreadable``, ``truncated``,
    ``wrong_size``, ``empty``, ...) and ``messages`` holds one line for each of the first hundred.

    Frames that were lost behind the last delivered one have no frame to stand on: a source that can lose some there has
    an attribute ``lost_at_end``, see :func:`lost_at_end`.
    """

    info: SourceInfo
    problems: Counter[str]
    messages: list[str]

    def frames(self) -> Iterator[Frame]:
        """Yield frames until the source ends; may be called once."""
        ...

    def close(self) -> None:
        """Release files and devices; safe to call twice and from another thread."""
        ...


def lost_at_end(source: FrameSource) -> int:
    """Frames that a source lost after the last one that it delivered; 0 where it cannot say."""
    return int(getattr(source, "lost_at_end", 0))
