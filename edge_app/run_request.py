"""What one run is asked to do."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["RunRequest"]


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """What one run is asked to do.

    Attributes
    ----------
    source
        URI of the frames.
    out
        Folder that gets the run record.
    frames
        At most this many frames; None: until the source ends.
    instrument_thresholds
        Use the grey-level thresholds and the background that the instrument's export names, to compare with it.
    stalled_after_s
        Seconds without a frame after which the source is reported as stalled.
    """

    source: str
    out: Path
    frames: int | None = None
    instrument_thresholds: bool = False
    stalled_after_s: float = 10.0
