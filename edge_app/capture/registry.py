"""The one door to every frame source: ``open_source(uri)``."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Final

from edge_app.capture.crops import CropSource, open_crop_folder
from edge_app.capture.directory import open_directory
from edge_app.capture.flowcam.source import open_flowcam
from edge_app.capture.frame import Frame
from edge_app.capture.mfi.crops import open_mfi_crops
from edge_app.capture.mfi.source import open_mfi
from edge_app.capture.source import FrameSource, SourceInfo, lost_at_end
from edge_app.capture.uri import split_scheme
from edge_app.capture.video import open_video
from edge_app.capture.watched_folder import open_watched_folder
from edge_app.errors import UserError

__all__ = ["SCHEMES", "open_crops", "open_source"]


def _open_simulation(uri: str) -> FrameSource:
    # The flow cell loads its sprite library; a run on real frames must not pay for it.
    source: FrameSource = import_module("edge_app.capture.simulation.flow_cell").open_simulation(uri)
    return source


_OPENERS: Final[Mapping[str, Callable[[str], FrameSource]]] = {
    "sim": _open_simulation,
    "dir": open_directory,
    "watch": open_watched_folder,
    "flowcam": open_flowcam,
    "mfi": open_mfi,
    "video": open_video,
}

SCHEMES: Final[Mapping[str, str]] = {
    "sim": "simulated flow cell with known truth",
    "dir": "pictures of a folder in name order",
    "watch": "folder that another program writes into",
    "flowcam": "FlowCam export replayed as frames",
    "mfi": "MFI export: frame pictures beside the instrument's particle table",
    "video": "video file",
    "crops": "particle pictures cut by another instrument (edge-app classify)",
}
"""Scheme -> what it opens."""

_CAMERAS: Final = ("v4l2", "picamera2", "gige")


class _FirstFrames:
    """At most ``count`` frames of a source; what the info says of the whole run shrinks with it."""

    def __init__(self, source: FrameSource, count: int) -> None:
        self._source, self._count = source, count
        self.problems: Counter[str] = source.problems
        self.messages: list[str] = source.messages
        info, total = source.info, source.info.frames_total
        share = min(count, total) if total is not None else count
        volume = info.volume_imaged_ml
        if volume is not None and total:
            volume *= share / total
        self.info: SourceInfo = replace(info, frames_total=share, volume_imaged_ml=volume)

    @property
    def lost_at_end(self) -> int:
        return lost_at_end(self._source)

    def frames(self) -> Iterator[Frame]:
        return islice(self._source.frames(), self._count)

    def close(self) -> None:
        self._source.close()


def open_source(uri: str, *, frames: int | None = None) -> FrameSource:
    """Open a frame source by its URI.

    Parameters
    ----------
    uri
        ``scheme:PATH?option=value``; the path of an existing directory alone is taken as ``dir:``.
    frames
        Deliver at most this many frames.

    Raises
    ------
    UserError
        If the scheme is not known or the source cannot be opened; one line, with what is allowed.

    Examples
    --------
    >>> open_source("ftp:x")
    Traceback (most recent call last):
        ...
    edge_app.errors.UserError: ftp:x: source scheme 'ftp' is not known, allowed: sim, dir, watch, flowcam, mfi, video
    """
    if frames is not None and frames < 0:
        raise UserError(f"frames is {frames}, must be 0 or more")
    scheme, _ = split_scheme(uri)
    if uri and scheme not in _OPENERS and Path(uri).is_dir():
        uri, scheme = f"dir:{uri}", "dir"
    allowed = ", ".join(_OPENERS)
    if scheme is None:
        raise UserError(f"{uri}: not a directory, and no source scheme before it, allowed: {allowed}")
    if scheme in _CAMERAS:
        raise UserError(f"{uri}: cameras ({', '.join(_CAMERAS)}) are not in this version, allowed: {allowed}")
    if scheme == "crops":
        raise UserError(f"{uri}: crops: holds particles, not frames; use `edge-app classify {uri}`")
    if scheme not in _OPENERS:
        raise UserError(f"{uri}: source scheme {scheme!r} is not known, allowed: {allowed}")
    source = _OPENERS[scheme](uri)
    return source if frames is None else _FirstFrames(source, frames)


def open_crops(uri: str) -> CropSource:
    """Open a source of particle pictures: ``crops:PATH``, or ``mfi:PATH`` with a table and particle pictures.

    The path of an existing directory alone is taken as ``crops:``.

    Raises
    ------
    UserError
        If the scheme is another one, or the source cannot be opened.
    """
    scheme, _ = split_scheme(uri)
    if uri and scheme not in ("crops", "mfi") and Path(uri).is_dir():
        uri, scheme = f"crops:{uri}", "crops"
    if scheme == "crops":
        return open_crop_folder(uri)
    if scheme == "mfi":
        return open_mfi_crops(uri)
    raise UserError(f"{uri}: not a source of particle pictures, allowed: crops:PATH, mfi:PATH")
