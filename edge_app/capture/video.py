"""``video:PATH``: the frames of a video file, with the times that the file gives them."""

import os
from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.frame import Frame
from edge_app.capture.image_files import IMAGE_SUFFIXES
from edge_app.capture.problems import Problems
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["VideoOptions", "VideoSource", "open_video"]


class VideoOptions(BaseModel):
    """Options of ``video:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float | None = Field(
        default=None, gt=0, le=100_000, description="frames per second in place of the file's own times"
    )


_RATE_IF_UNKNOWN_HZ = 10.0


class VideoSource:
    """Frames of a video file, decoded by OpenCV (its wheel brings FFmpeg with it)."""

    def __init__(self, capture: cv2.VideoCapture, *, info: SourceInfo, promised: int, rate_hz: float | None) -> None:
        self.info = info
        self._log = Problems()
        self.problems, self.messages = self._log.counts, self._log.messages
        self._capture, self._promised, self._rate_hz = capture, promised, rate_hz
        self._closed = False

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; a file that ends before its own frame count is counted as ``truncated``."""
        sequence, last_s = 0, 0.0
        try:
            while not self._closed:
                ok, picture = self._capture.read()
                if not ok:
                    self._tell_if_short(sequence)
                    return
                if self._rate_hz is not None:
                    time_s = sequence / self._rate_hz
                else:
                    # Containers without times answer 0 for every frame; time must not run backwards.
                    time_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
                    if sequence and time_s <= last_s:
                        time_s = last_s + 1.0 / (self.info.frame_rate_hz or _RATE_IF_UNKNOWN_HZ)
                last_s = time_s
                yield Frame(
                    image=_grey(np.asarray(picture, np.uint8)),
                    sequence=sequence,
                    time_s=time_s,
                    lost_before=None,
                    name=f"frame {sequence}",
                )
                sequence += 1
        finally:
            self._capture.release()

    def _tell_if_short(self, delivered: int) -> None:
        if delivered < self._promised:
            self._log.add("truncated", f"{self.info.uri}: video ends after {delivered} of {self._promised} frames")

    def close(self) -> None:
        """End ``frames`` before its next frame; the reading thread releases the file."""
        self._closed = True


def _grey(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if picture.ndim == 2:
        return np.ascontiguousarray(picture)
    grey = cv2.transform(picture, np.full((1, picture.shape[2]), 1.0 / picture.shape[2], np.float32))
    return np.asarray(grey, np.uint8).reshape(picture.shape[:2])


def open_video(uri: str) -> VideoSource:
    """Open ``video:PATH?rate_hz=10``.

    Raises
    ------
    UserError
        If the file is missing or is no video that OpenCV can decode.
    """
    where = parse_path_uri(uri)
    options = validate_options(where, VideoOptions)
    if not where.path.is_file():
        found = "is not a file" if where.path.exists() else "file does not exist"
        raise UserError(f"{where}: {found}")
    if where.path.suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
        # The decoder would take the first page of a stack for the whole video.
        raise UserError(f"{where}: is a picture, no video; use dir:{where.path.parent}")
    if where.path.stat().st_size == 0:
        raise UserError(f"{where}: file of 0 bytes")
    # FFmpeg writes its own lines on a damaged file; ours says the same in one.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        # Without FFmpeg first, a % in the name would be taken as the pattern of an image sequence.
        capture = cv2.VideoCapture(str(where.path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            capture = cv2.VideoCapture(str(where.path), cv2.CAP_OPENCV_MJPEG)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if not capture.isOpened():
        raise UserError(f"{where}: cannot be opened as a video (not a video, cut off, or a codec that is not built in)")
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    promised = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    info = SourceInfo(
        uri=where.opened_as(options),
        kind="video",
        width_px=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height_px=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        frame_rate_hz=options.rate_hz or (rate if 0 < rate < 100_000 else None),
        frames_total=promised or None,
        knows_losses=False,
        details={"backend": capture.getBackendName()},
    )
    return VideoSource(capture, info=info, promised=promised, rate_hz=options.rate_hz)
