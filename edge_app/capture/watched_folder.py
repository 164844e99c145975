"""``watch:PATH``: a folder that another program writes pictures into; only complete files are read."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.directory import iterate_pictures, probe_pictures
from edge_app.capture.frame import Frame
from edge_app.capture.image_files import GreyScaling, is_whole, list_images, natural_key
from edge_app.capture.problems import Problems
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["WatchOptions", "WatchedFolderSource", "open_watched_folder"]


class WatchOptions(BaseModel):
    """Options of ``watch:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=10.0, gt=0, le=100_000, description="frames per second, makes the frames' time")
    bits: int | None = Field(default=None, ge=8, le=16, description="bits in use in 16-bit files; default: found out")
    idle_s: float | None = Field(default=None, gt=0, description="stop after this long without a new file")
    settle_s: float = Field(default=0.3, ge=0, description="a file is complete when it has not changed for this long")
    give_up_s: float = Field(default=5.0, gt=0, description="a broken file that rests this long stays broken")
    poll_s: float = Field(default=0.1, gt=0, le=60, description="time between two looks at the folder")


@dataclass
class _Seen:
    stamp: tuple[int, int, int]
    since_s: float


class WatchedFolderSource:
    """Frames in natural name order as they become complete.

    A file is read once it has rested for ``settle_s`` (size, change time and inode stay the same; a file renamed into
    the folder rests from the start) and is whole by its own structure. One that is not whole is given ``give_up_s``,
    in case its writer only paused. A file waits for those named before it, so frames keep their order. A file is
    read once: one that is written again under the same name is counted as ``rewritten``.
    """

    def __init__(self, directory: Path, *, info: SourceInfo, scaling: GreyScaling, options: WatchOptions) -> None:
        self.info = info
        self._log = Problems()
        self.problems, self.messages = self._log.counts, self._log.messages
        self._directory, self._scaling, self._options = directory, scaling, options
        self._stop = threading.Event()
        self._done: dict[str, tuple[int, int, int]] = {}
        self._waiting: dict[str, _Seen] = {}
        self._folder_gone = False
        self.lost_at_end = 0

    def frames(self) -> Iterator[Frame]:
        """Yield frames until ``close`` is called or nothing new came for ``idle_s``."""
        sequence = 0
        last_news_s = time.monotonic()
        while not self._stop.is_set():
            self._look()
            ready = self._next_ready()
            if ready is None:
                if self._waiting:
                    last_news_s = time.monotonic()
                idle_s = self._options.idle_s
                if idle_s is not None and time.monotonic() - last_news_s >= idle_s:
                    return
                self._stop.wait(self._options.poll_s)
                continue
            for path in ready:
                last_news_s = time.monotonic()
                for name, _, image in iterate_pictures([path], self._scaling, self._log):
                    if self._stop.is_set():
                        return
                    if image is None:
                        self.lost_at_end += 1
                    else:
                        yield Frame(
                            image=image,
                            sequence=sequence,
                            time_s=sequence / self._options.rate_hz,
                            lost_before=self.lost_at_end or None,
                            name=name,
                        )
                        self.lost_at_end = 0
                    sequence += 1
                    last_news_s = time.monotonic()

    def close(self) -> None:
        """End ``frames``, also while it waits for a file."""
        self._stop.set()

    def _look(self) -> None:
        """Bring the list of waiting files up to date with the folder."""
        now_s = time.monotonic()
        try:
            paths = list_images(self._directory)
        except OSError as error:
            if not self._folder_gone:
                self._log.add("folder_gone", f"{self._directory}: cannot be read any more ({error.strerror})")
            self._folder_gone = True
            return
        self._folder_gone = False
        present: set[str] = set()
        for path in paths:
            try:
                stat = path.stat()
            except OSError:
                continue  # gone between listing and looking: handled below
            name, stamp = path.name, (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            present.add(name)
            if name in self._done:
                if self._done[name] != stamp:
                    self._done[name] = stamp
                    self._log.add("rewritten", f"{path}: written again after it was read, not read again")
            elif name not in self._waiting or self._waiting[name].stamp != stamp:
                self._waiting[name] = _Seen(stamp, now_s)
        for name in [n for n in self._waiting if n not in present]:
            del self._waiting[name]
            self._log.add("vanished", f"{self._directory / name}: gone before it could be read")
        # A name that is free again may be used for a new frame, and the memory of names stays bounded by the folder.
        for name in [n for n in self._done if n not in present]:
            del self._done[name]

    def _next_ready(self) -> list[Path] | None:
        """Complete files up to the first one that is not, in name order; None if there is none."""
        ready: list[Path] = []
        for name in sorted(self._waiting, key=natural_key):
            seen, path = self._waiting[name], self._directory / name
            rested_s = time.monotonic() - seen.since_s
            if rested_s < self._options.settle_s or (rested_s < self._options.give_up_s and not is_whole(path)):
                break
            self._done[name] = seen.stamp
            ready.append(path)
            if len(ready) >= 64:  # look at the folder again before a long backlog is read to its end
                break
        for path in ready:
            del self._waiting[path.name]
        return ready or None


def open_watched_folder(uri: str) -> WatchedFolderSource:
    """Open ``watch:PATH?idle_s=30&rate_hz=10``.

    Files that are in the folder already are read too. The frame size is 0 x 0 while no file has arrived.

    Raises
    ------
    UserError
        If the folder does not exist or cannot be read.
    """
    where = parse_path_uri(uri)
    options = validate_options(where, WatchOptions)
    if not where.path.is_dir():
        found = "is a file, not a directory" if where.path.exists() else "directory does not exist"
        raise UserError(f"{where}: {found}")
    scaling = GreyScaling(bits=options.bits)
    try:
        paths = list_images(where.path)
    except OSError as error:
        raise UserError(f"{where}: directory cannot be read ({error.strerror})") from error
    try:
        width, height = probe_pictures(paths, scaling) if paths else (0, 0)
    except UserError:
        width, height = 0, 0  # still being written
    info = SourceInfo(
        uri=where.opened_as(options),
        kind="watch",
        width_px=width,
        height_px=height,
        frame_rate_hz=options.rate_hz,
        knows_losses=False,
        details={"files_at_start": len(paths)},
    )
    return WatchedFolderSource(where.path, info=info, scaling=scaling, options=options)
