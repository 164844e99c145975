"""``dir:PATH``: the pictures of a folder in natural name order, every page of a TIFF a frame."""

from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.frame import Frame
from edge_app.capture.image_files import (
    GreyScaling,
    ImageFileError,
    Picture,
    count_pictures,
    list_images,
    no_pictures,
    read_pictures,
)
from edge_app.capture.problems import Problems
from edge_app.capture.source import SourceInfo
from edge_app.capture.uri import parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["DirectoryOptions", "DirectorySource", "iterate_pictures", "open_directory", "probe_pictures"]

_PROBED = 8
"""Files looked at, spread over the folder, before the frame size and the bit depth are decided."""


class DirectoryOptions(BaseModel):
    """Options of ``dir:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate_hz: float = Field(default=10.0, gt=0, le=100_000, description="frames per second, makes the frames' time")
    bits: int | None = Field(default=None, ge=8, le=16, description="bits in use in 16-bit files; default: found out")
    names: str | None = Field(default=None, description="only files with such a name, * and ? stand for anything")


class DirectorySource:
    """Frames of a folder; the sequence number counts pictures from 0, a broken file takes one number."""

    def __init__(self, paths: Sequence[Path], *, info: SourceInfo, scaling: GreyScaling, rate_hz: float) -> None:
        self.info = info
        self._log = Problems()
        self.problems, self.messages = self._log.counts, self._log.messages
        self._paths, self._scaling, self._rate_hz = paths, scaling, rate_hz
        self.lost_at_end = 0
        self._closed = False

    def frames(self) -> Iterator[Frame]:
        """Yield the frames; files that cannot be used are counted and skipped."""
        lost = 0
        for sequence, (name, page, image) in enumerate(iterate_pictures(self._paths, self._scaling, self._log)):
            if self._closed:
                return
            if image is None:
                lost += 1
                continue
            yield Frame(
                image=image,
                sequence=sequence,
                time_s=sequence / self._rate_hz,
                lost_before=lost or None,
                name=name,
                page=page,
            )
            lost = 0
        self.lost_at_end = lost

    def close(self) -> None:
        """End ``frames`` before its next frame."""
        self._closed = True


def iterate_pictures(
    paths: Sequence[Path], scaling: GreyScaling, problems: Problems
) -> Iterator[tuple[str, int, npt.NDArray[np.uint8] | None]]:
    """Yield (name, page, uint8 picture) for every picture of the files, None in place of one that cannot be used."""
    for path in paths:
        pages = read_pictures(path)
        page = 0
        while True:
            name = path.name if page == 0 else f"{path.name} page {page + 1}"
            try:
                image = scaling.to_uint8(next(pages))
            except StopIteration:
                break
            except ImageFileError as error:
                problems.add(error.reason, f"{path}: {error.text}")
                yield name, page, None
                if error.reason != "wrong_depth":
                    break
            else:
                yield name, page, image
            page += 1


def probe_pictures(paths: Sequence[Path], scaling: GreyScaling) -> tuple[int, int]:
    """Find the frame size (width, height) and decide the bit depth from some files spread over the folder.

    The size is the one that most of them have: a thumbnail that comes first by its name must not decide it.

    Raises
    ------
    UserError
        If none of the files opens, with what is wrong with the first; if none fits the depth that is given.
    """
    first_error = ""
    for path in paths:
        try:
            first = next(read_pictures(path))
            break
        except ImageFileError as error:
            first_error = first_error or f"{path.name}: {error.text}"
    else:
        raise UserError(f"{paths[0].parent}: none of {len(paths)} picture files can be read; {first_error}")
    spread = sorted({round(i) for i in np.linspace(0, len(paths) - 1, min(_PROBED, len(paths)))})
    seen = [first, *_first_pictures([paths[i] for i in spread if paths[i] != path])]
    deep = [int(picture.max()) for picture in seen if picture.dtype == np.uint16 and picture.size]
    if scaling.bits is not None and deep and min(deep) >= 1 << scaling.bits:
        raise UserError(
            f"{paths[0].parent}: option bits is {scaling.bits}, but every picture looked at is brighter "
            f"(brightest pixel {min(deep)} and more)"
        )
    scaling.decide(seen)
    # Counter keeps the order of first sight, so the first picture wins where two sizes are equally common.
    (height, width), _ = Counter(picture.shape for picture in seen).most_common(1)[0]
    return width, height


def _first_pictures(paths: Sequence[Path]) -> Iterator[Picture]:
    for path in paths:
        try:
            yield next(read_pictures(path))
        except ImageFileError:
            continue  # told when its turn as a frame comes


def open_directory(uri: str) -> DirectorySource:
    """Open ``dir:PATH?rate_hz=10&bits=10``.

    Raises
    ------
    UserError
        If the folder cannot be read, or holds no picture that opens.
    """
    where = parse_path_uri(uri)
    options = validate_options(where, DirectoryOptions)
    if not where.path.is_dir():
        found = "is a file, not a directory" if where.path.exists() else "directory does not exist"
        raise UserError(f"{where}: {found}")
    try:
        paths = list_images(where.path)
    except OSError as error:
        raise UserError(f"{where}: directory cannot be read ({error.strerror})") from error
    if not paths:
        raise UserError(f"{where}: {no_pictures(where.path)}")
    if options.names is not None:
        paths = [path for path in paths if fnmatch(path.name.casefold(), options.names.casefold())]
        if not paths:
            raise UserError(f"{where}: option names is {options.names!r}: no picture has such a name")
    scaling = GreyScaling(bits=options.bits)
    width, height = probe_pictures(paths, scaling)
    info = SourceInfo(
        uri=where.opened_as(options, bits=scaling.bits),
        kind="dir",
        width_px=width,
        height_px=height,
        frame_rate_hz=options.rate_hz,
        frames_total=sum(count_pictures(p) for p in paths),
        knows_losses=False,
        details={"files": len(paths)},
    )
    return DirectorySource(paths, info=info, scaling=scaling, rate_hz=options.rate_hz)
