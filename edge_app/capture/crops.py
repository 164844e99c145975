"""``crops:PATH``: particle pictures cut by another instrument, for classification only."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from edge_app.capture.image_files import GreyScaling, ImageFileError, Picture, list_images, read_pictures
from edge_app.capture.picture_structure import KINDS
from edge_app.capture.problems import Problems
from edge_app.capture.uri import parse_path_uri, validate_options
from edge_app.errors import UserError

__all__ = ["MIN_SIDE_PX", "CropFile", "CropOptions", "CropSource", "iterate_crops", "open_crop_folder"]

MIN_SIDE_PX: Final = 5
"""Smaller pictures hold nothing to classify; they are counted as ``too_small``."""

_PROBED: Final = 32
"""Files of each folder looked at, spread over it, before its bit depth is decided."""

_UNUSED_BITS: Final = 3
"""A picture that leaves as many bits of its folder's depth unused is from another source: its own depth holds."""


class CropOptions(BaseModel):
    """Options of ``crops:``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: int | None = Field(default=None, ge=8, le=16, description="bits in use in 16-bit files; default: found out")


@dataclass(frozen=True, kw_only=True)
class CropFile:
    """One particle picture.

    Attributes
    ----------
    path_below
        Path below the folder that was opened, with ``/``; later pages of a file carry `` page N``.
    image
        uint8, shape (h, w), at least 5 x 5.
    instrument
        The instrument's own numbers for this particle, by its column names; empty where there are none.
    """

    path_below: str
    image: npt.NDArray[np.uint8]
    instrument: Mapping[str, object] = field(default_factory=dict)


class CropSource:
    """Particle pictures of a folder tree in natural name order."""

    def __init__(
        self,
        directory: Path,
        paths: list[Path],
        *,
        uri: str,
        bits: int | None = None,
        instrument: Mapping[Path, Mapping[str, object]] | None = None,
        problems: Problems | None = None,
    ) -> None:
        self.uri = uri
        self.total = len(paths)
        self._log = problems or Problems()
        self.problems: Counter[str] = self._log.counts
        self.messages: list[str] = self._log.messages
        self._directory, self._paths, self._bits = directory, paths, bits
        self._folders: dict[Path, list[Path]] = {}
        for path in paths:
            self._folders.setdefault(path.parent, []).append(path)
        self._scalings: dict[Path, GreyScaling] = {}
        self._instrument = instrument or {}

    def crops(self) -> Iterator[CropFile]:
        """Yield the pictures; what cannot be used is counted and skipped."""
        for path in self._paths:
            below = path.relative_to(self._directory).as_posix()
            page = 0
            pages = read_pictures(path)
            while True:
                name = below if page == 0 else f"{below} page {page + 1}"
                try:
                    picture = next(pages)
                    if min(picture.shape) < MIN_SIDE_PX:
                        raise ImageFileError("too_small", f"{picture.shape[1]} x {picture.shape[0]} px, at least 5 x 5")
                except StopIteration:
                    break
                except ImageFileError as error:
                    self._log.add(error.reason, f"{path}: {error.text}")
                    if error.reason != "too_small":
                        break
                else:
                    image = self._to_uint8(picture, path.parent)
                    yield CropFile(path_below=name, image=image, instrument=self._instrument.get(path, {}))
                page += 1

    def _to_uint8(self, picture: Picture, folder: Path) -> npt.NDArray[np.uint8]:
        if picture.dtype == np.uint8:
            return GreyScaling().to_uint8(picture)
        scaling = self._scalings.get(folder)
        if scaling is None:
            scaling = self._scalings[folder] = GreyScaling(bits=self._bits)
            scaling.decide(_spread(self._folders[folder]))
        # Folders of crops mix sources; each crop is judged against its own border, so its own depth will do.
        brightest = int(picture.max())
        bits = scaling.bits or 8
        if brightest < 1 << bits and (self._bits is not None or brightest >= 1 << (bits - _UNUSED_BITS)):
            return scaling.to_uint8(picture)
        return GreyScaling().to_uint8(picture)


def _spread(paths: list[Path]) -> Iterator[Picture]:
    for i in sorted({round(i) for i in np.linspace(0, len(paths) - 1, min(_PROBED, len(paths)))}):
        try:
            yield next(read_pictures(paths[i]))
        except ImageFileError:
            continue  # told when its turn comes


def _open_below(directory: Path, *, uri: str, options: CropOptions, problems: Problems | None = None) -> CropSource:
    if not directory.is_dir():
        found = "is a file, not a directory" if directory.exists() else "directory does not exist"
        raise UserError(f"{uri}: {found}")
    try:
        paths = list_images(directory, recursive=True)
    except OSError as error:
        raise UserError(f"{uri}: directory cannot be read ({error.strerror})") from error
    if not paths:
        raise UserError(f"{uri}: no picture in it or below it ({KINDS} files needed)")
    return CropSource(directory, paths, uri=uri, bits=options.bits, problems=problems)


def open_crop_folder(uri: str) -> CropSource:
    """Open ``crops:PATH?bits=10``.

    Raises
    ------
    UserError
        If the folder cannot be read or holds no picture file.
    """
    where = parse_path_uri(uri)
    return _open_below(where.path, uri=str(where), options=validate_options(where, CropOptions))


def iterate_crops(directory: Path, *, problems: Problems | None = None) -> Iterator[CropFile]:
    """Yield the particle pictures below a folder in natural name order.

    Parameters
    ----------
    directory
        Searched recursively.
    problems
        Takes what could not be used, by reason.

    Raises
    ------
    UserError
        If the folder cannot be read or holds no picture file.
    """
    return _open_below(directory, uri=f"crops:{directory}", options=CropOptions(), problems=problems).crops()
