"""A few small pictures of frames, and of the background behind each, spread evenly over a run of unknown length."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.frame import Frame
from edge_app.segmentation.background import Background

__all__ = ["FrameStrip", "StripMoment"]

U8 = npt.NDArray[np.uint8]

_WIDEST_PX: Final = 400


@dataclass(frozen=True, kw_only=True)
class StripMoment:
    """A frame as it was at one moment of the run.

    Attributes
    ----------
    sequence, time_s
        Of the frame.
    reason
        Why the frame was left out; None where it was analysed.
    frame, background
        uint8 (H, W), reduced; ``background`` is None where there was none yet.
    """

    sequence: int
    time_s: float
    reason: str | None
    frame: U8
    background: U8 | None


def _small(picture: U8) -> U8:
    height, width = picture.shape
    scale = min(1.0, _WIDEST_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


class FrameStrip:
    """Looks at every frame and keeps a few: each ``step``-th, where the step doubles whenever twice too many are kept.

    Which ones depends on the number of frames alone; of a long run one frame in many is touched.

    Parameters
    ----------
    most
        Moments handed out at the end.

    Examples
    --------
    >>> FrameStrip().moments()
    ()
    """

    def __init__(self, *, most: int = 4) -> None:
        self._most = most
        self._step = 1
        self._seen = 0
        self._kept: list[StripMoment] = []

    def look(self, frame: Frame, *, reason: str | None, background: Background) -> None:
        """Look at the next frame."""
        index, self._seen = self._seen, self._seen + 1
        if index % self._step:
            return
        self._kept.append(
            StripMoment(
                sequence=frame.sequence,
                time_s=frame.time_s,
                reason=reason,
                frame=_small(frame.image),
                background=_small(background.picture) if background.ready else None,
            )
        )
        if len(self._kept) > 4 * self._most:
            self._kept = self._kept[::2]
            self._step *= 2

    def moments(self) -> tuple[StripMoment, ...]:
        """At most ``most``, the first one included, the last one close to the end of what was seen."""
        kept = self._kept
        if len(kept) <= self._most:
            return tuple(kept)
        places = np.linspace(0, len(kept) - 1, self._most).round().astype(int)
        return tuple(kept[i] for i in places)
