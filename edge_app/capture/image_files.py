"""One picture file in, grey uint8 pictures out, or a reason why not.

The file's own structure is checked first (chunks and their checksums, end marker, strips that lie inside the file), and
only a whole file is decoded: see ``picture_structure``.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from edge_app.capture.picture_structure import KINDS, ImageFileError, check_structure
from edge_app.capture.tiff_pages import TIFF_MAGIC, TiffPage, tiff_pages

__all__ = [
    "IMAGE_SUFFIXES",
    "GreyScaling",
    "ImageFileError",
    "count_pictures",
    "is_left_out",
    "is_whole",
    "list_images",
    "natural_key",
    "no_pictures",
    "read_pictures",
]

Picture = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

IMAGE_SUFFIXES: Final = frozenset(
    {".png", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".pbm", ".bmp", ".dib", ".jpg", ".jpeg", ".jpe"}
    | {".gif", ".webp", ".jp2", ".j2k"}
)
"""Endings, in lower case, of the files that sources look at; the content decides how they are read."""

_DARK_MAX: Final = 64
"""A 16-bit picture whose brightest pixel is below this says nothing about its bit depth."""

_CHUNK_BYTES: Final = 16 * 2**20
"""Pages of a stack are decoded in portions of about this size, so that memory stays flat on long stacks."""


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts ``frame_2`` before ``frame_10``.

    Examples
    --------
    >>> sorted(["f10.png", "f9.png", "F1.png"], key=natural_key)
    ['F1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], name


LEFT_BEHIND: Final = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
"""Folders, in lower case, that operating systems and file servers leave among a user's own."""


def is_left_out(name: str) -> bool:
    """Whether a file or folder is hidden, or is one that operating systems leave behind.

    Examples
    --------
    >>> [is_left_out(name) for name in ("._a.png", ".DS_Store", "__MACOSX", "oil")]
    [True, True, True, False]
    """
    return name.startswith(".") or name.casefold() in LEFT_BEHIND


def list_images(directory: Path, *, recursive: bool = False) -> list[Path]:
    """Picture files of a directory in natural name order; hidden files and folders are left out.

    Links are followed. One that leads nowhere is listed: it stands for a picture that is missing.

    Raises
    ------
    OSError
        If the directory, or one below it, cannot be read.
    """
    if not recursive:
        found = [p for p in directory.iterdir() if _is_picture(p)]
        return sorted(found, key=lambda p: natural_key(p.name))
    found = []
    seen: set[Path] = set()

    def fail(error: OSError) -> None:
        raise error

    for folder, below, names in os.walk(directory, followlinks=True, onerror=fail):
        below[:] = [name for name in below if not is_left_out(name)]
        place = Path(folder).resolve()
        if place in seen:  # a link to a folder above it, or two links to one
            below.clear()
            continue
        seen.add(place)
        found += [path for path in (Path(folder, name) for name in names) if _is_picture(path)]
    return sorted(found, key=lambda p: natural_key(p.relative_to(directory).as_posix()))


def _is_picture(path: Path) -> bool:
    if path.suffix.lower() not in IMAGE_SUFFIXES or is_left_out(path.name):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def no_pictures(directory: Path) -> str:
    """Say that a directory holds no picture, what is looked for, and where below it some are."""
    said = f"no picture in it ({KINDS} files needed)"
    try:
        below = list_images(directory, recursive=True)
    except OSError:
        below = []
    if below:
        said += f"; {len(below)} below it, the first in {below[0].parent.relative_to(directory).as_posix()}"
    return said


@dataclass
class GreyScaling:
    """One rule per source for 16-bit containers: which of their bits are used.

    Scaling each picture by its own maximum would change the grey levels from frame to frame, so the depth is decided
    once: given by the user, or from the brightest pixel of the first pictures (8, 10, 12, 14 or 16 bit).

    Parameters
    ----------
    bits
        Bits in use, 8 to 16; None: not decided yet.

    Examples
    --------
    >>> scaling = GreyScaling()
    >>> scaling.to_uint8(np.array([[1023, 512]], np.uint16)), scaling.bits
    (array([[255, 128]], dtype=uint8), 10)
    """

    bits: int | None = None
    _decided_by: str = field(default="", repr=False)

    def decide(self, pictures: Iterable[Picture]) -> None:
        """Set the depth from the brightest pixel of some pictures, unless it is set."""
        if self.bits is None:
            self._decide_by(max((int(p.max()) for p in pictures if p.dtype == np.uint16 and p.size), default=0))

    def _decide_by(self, brightest: int) -> None:
        if brightest >= _DARK_MAX:
            self.bits = next(b for b in (8, 10, 12, 14, 16) if brightest < 1 << b)

    def to_uint8(self, picture: Picture) -> npt.NDArray[np.uint8]:
        """Bring a picture to uint8: an 8-bit one as it is, a 16-bit one shifted by ``bits - 8``.

        Raises
        ------
        ImageFileError
            ``wrong_depth`` if a pixel is brighter than the depth allows: cutting it off would falsify the picture.
        """
        if picture.dtype == np.uint8:
            return np.ascontiguousarray(picture, dtype=np.uint8)
        brightest = int(picture.max()) if picture.size else 0
        if self.bits is None:
            self._decide_by(brightest)
            if self.bits is None:
                return picture.astype(np.uint8)
        if brightest >= 1 << self.bits:
            raise ImageFileError(
                "wrong_depth",
                f"brightest pixel {brightest} does not fit the source's {self.bits} bits (option bits=8..16 sets them)",
            )
        return (picture >> (self.bits - 8)).astype(np.uint8)


def count_pictures(path: Path) -> int:
    """Pictures a file holds by its directory: the pages of a TIFF, else 1 (also for a broken file)."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return 1  # not opened: folders of 100,000 frames are common
    try:
        with path.open("rb") as file:
            pages, _ = tiff_pages(file)
    except (OSError, ImageFileError):
        return 1
    return max(1, len(pages))


def read_pictures(path: Path, *, grey: bool = True) -> Iterator[Picture]:
    """Decode a picture file (of a TIFF every page) to grey.

    Colour becomes the mean of its channels; transparent pixels take the level of the opaque border.

    Parameters
    ----------
    grey
        False: leave colour pictures as they are, shape (H, W, channels).

    Yields
    ------
    uint8 or uint16, shape (H, W), with the values of the file (see :class:`GreyScaling`).

    Raises
    ------
    ImageFileError
        Reason ``empty``, ``truncated`` or ``unreadable``. Whole pages before the broken one are yielded first.
    """
    data, pages, whole = _open_whole(path)
    if data is None:
        yield from _read_tiff(path, pages, grey=grey)
        if not whole:
            raise ImageFileError("truncated", f"TIFF ends after {len(pages)} whole pages")
        return
    if re.match(rb"P[1-3]\s", data):
        data += b"\n"  # the decoder wants a blank behind the last number
    with _quiet():
        try:
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error as error:
            raise ImageFileError("unreadable", f"cannot be decoded ({error.err})") from error
    if decoded is None:
        raise ImageFileError("unreadable", "content is damaged, it cannot be decoded")
    yield _picture(decoded, grey=grey)


def is_whole(path: Path) -> bool:
    """Whether a file is a picture and reaches its own end (its structure only, nothing is decoded)."""
    try:
        return _open_whole(path)[2]
    except ImageFileError:
        return False


def _open_whole(path: Path) -> tuple[bytes | None, list[TiffPage], bool]:
    """Check a file's structure: its bytes (None for a TIFF), a TIFF's whole pages, and whether all of it is whole."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if not magic:
                raise ImageFileError("empty", "file of 0 bytes")
            if magic in TIFF_MAGIC:
                return None, *tiff_pages(file)
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise ImageFileError("unreadable", error.strerror or str(error)) from error
    check_structure(data)
    return data, [], True


@contextmanager
def _quiet() -> Iterator[None]:
    # The decoder writes its own lines to stderr, several per file; the caller tells the user in one.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _picture(picture: npt.NDArray[np.generic], *, grey: bool) -> Picture:
    if picture.dtype == np.int16 and (not picture.size or picture.min() >= 0):
        picture = picture.view(np.uint16)
    if picture.dtype not in (np.uint8, np.uint16):
        raise ImageFileError("unreadable", f"pixels are {picture.dtype}, needed are 8 or 16 bit integers")
    return _grey(picture) if grey and picture.ndim == 3 else picture  # type: ignore[arg-type, return-value]


def _grey(picture: Picture) -> Picture:
    channels = picture.shape[2]
    colours = picture[..., : 3 if channels >= 3 else 1]
    grey = cv2.transform(colours, np.full((1, colours.shape[2]), 1.0 / colours.shape[2], np.float32))
    grey = grey.reshape(picture.shape[:2])
    if channels not in (2, 4):
        return grey  # type: ignore[return-value]
    opaque = picture[..., -1] > 0
    if not opaque.any() or opaque.all():
        return grey  # type: ignore[return-value]
    inside = cv2.erode(opaque.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE) > 0
    rim = opaque & ~inside
    grey[~opaque] = np.median(grey[rim if rim.any() else opaque])
    return grey  # type: ignore[return-value]


def _read_tiff(path: Path, pages: list[TiffPage], *, grey: bool) -> Iterator[Picture]:
    if pages[0].raw is not None:
        yield from _read_raw(path, pages)
        return
    wanted = {page.index: page for page in pages}
    last = max(wanted)
    step = max(1, _CHUNK_BYTES // max(1, max(page.decoded_bytes for page in pages)))
    for start in range(0, last + 1, step):
        count = min(step, last + 1 - start)
        with _quiet():
            try:
                _, decoded = cv2.imreadmulti(str(path), start, count, flags=cv2.IMREAD_UNCHANGED)
            except cv2.error as error:
                raise ImageFileError("unreadable", f"TIFF cannot be decoded ({error.err})") from error
        for i in range(count):
            if i >= len(decoded):
                raise ImageFileError("unreadable", f"TIFF page {start + i + 1} cannot be decoded")
            if start + i in wanted:
                picture = _picture(decoded[i], grey=grey)
                if wanted[start + i].white_is_zero and picture.dtype == np.uint16:
                    picture = ~picture  # the decoder turns 8-bit pictures over itself
                yield picture


def _read_raw(path: Path, pages: list[TiffPage]) -> Iterator[Picture]:
    for page in pages:
        assert page.raw is not None
        offset, width, height, kind = page.raw
        pixels = np.fromfile(path, dtype=kind, count=width * height, offset=offset)
        picture = pixels.reshape(height, width).astype(np.uint8 if kind.endswith("1") else np.uint16)
        yield ~picture if page.white_is_zero else picture
