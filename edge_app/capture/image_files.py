"""One picture file in, grey uint8 pictures out, or a reason why not.

Decoders disagree on what they do with half a file: some fail, some hand out a picture whose lower part is grey, which
would be segmented as if it were true. So the file's own structure is checked first (chunks and their checksums, end
marker, strips that lie inside the file), and only a whole file is decoded.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import cv2
import numpy as np
import numpy.typing as npt

__all__ = [
    "IMAGE_SUFFIXES",
    "GreyScaling",
    "ImageFileError",
    "count_pictures",
    "is_whole",
    "list_images",
    "natural_key",
    "read_pictures",
]

Picture = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

IMAGE_SUFFIXES: Final = frozenset({".png", ".tif", ".tiff", ".pgm", ".ppm", ".pnm", ".bmp", ".jpg", ".jpeg"})
"""Endings, in lower case, of the files that sources look at; the content decides how they are read."""

_DARK_MAX: Final = 64
"""A 16-bit picture whose brightest pixel is below this says nothing about its bit depth."""

_TIFF_MAGIC: Final = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})

_CHUNK_BYTES: Final = 16 * 2**20
"""Pages of a stack are decoded in portions of about this size, so that memory stays flat on long stacks."""


class ImageFileError(Exception):
    """A picture that cannot be used: ``reason`` for the counter, ``text`` for the reader."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def natural_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key that puts ``frame_2`` before ``frame_10``.

    Examples
    --------
    >>> sorted(["f10.png", "f9.png", "F1.png"], key=natural_key)
    ['F1.png', 'f9.png', 'f10.png']
    """
    parts = re.split(r"([0-9]+)", name.casefold())
    return [(int(p), "") if i % 2 else (0, p) for i, p in enumerate(parts)], name


def list_images(directory: Path, *, recursive: bool = False) -> list[Path]:
    """Picture files of a directory in natural name order; hidden files and folders are left out.

    Raises
    ------
    OSError
        If the directory cannot be read.
    """
    if not recursive:
        entries = [p for p in directory.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.name[0] != "."]
        return sorted((p for p in entries if p.is_file()), key=lambda p: natural_key(p.name))
    found = [
        p
        for p in directory.rglob("*")
        if p.suffix.lower() in IMAGE_SUFFIXES
        and not any(part[0] == "." for part in p.relative_to(directory).parts)
        and p.is_file()
    ]
    return sorted(found, key=lambda p: natural_key(p.relative_to(directory).as_posix()))


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
            pages, _ = _tiff_pages(file)
    except (OSError, ImageFileError):
        return 1
    return max(1, len(pages))


def read_pictures(path: Path, *, grey: bool = True) -> Iterator[Picture]:
    """Decode a PNG, TIFF (every page), PGM, BMP or JPEG file to grey.

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


def _open_whole(path: Path) -> tuple[bytes | None, list[tuple[int, int]], bool]:
    """Check a file's structure: its bytes (None for a TIFF), a TIFF's whole pages, and whether all of it is whole."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            if not magic:
                raise ImageFileError("empty", "file of 0 bytes")
            if magic in _TIFF_MAGIC:
                return None, *_tiff_pages(file)
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise ImageFileError("unreadable", error.strerror or str(error)) from error
    _check_structure(data)
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


def _check_structure(data: bytes) -> None:
    """Raise unless the file is of a known kind and reaches its own end."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        # An embedded preview has its own end marker, but it stands before the last start of scan.
        if data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda") or b"\xff\xda" not in data:
            raise ImageFileError("truncated", "JPEG ends before its end marker")
    elif data.startswith(b"BM") and len(data) >= 26:
        _check_bmp(data)
    elif re.match(rb"P[1-6][\s#]", data):
        _check_pnm(data)
    else:
        raise ImageFileError("unreadable", f"not a PNG, TIFF, PGM, BMP or JPEG (begins with {data[:8]!r})")


def _check_png(data: bytes) -> None:
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageFileError("unreadable", f"PNG is damaged (checksum of chunk {kind.decode('latin-1')!r})")
        if kind == b"IEND":
            return
        at = end
    raise ImageFileError("truncated", "PNG ends before its last chunk")


def _check_bmp(data: bytes) -> None:
    start, header = struct.unpack_from("<II", data, 10)
    if header < 40 or len(data) < 54:
        return
    width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    rows = ((abs(width) * depth + 31) // 32) * 4 * abs(height)
    if compression in (0, 3) and start + rows > len(data):
        raise ImageFileError("truncated", f"BMP holds {len(data) - start} of {rows} bytes of its picture")


def _check_pnm(data: bytes) -> None:
    match = re.match(rb"P([56])(?:\s|#[^\n]*\n)+([0-9]+)\s+(?:#[^\n]*\n)*([0-9]+)\s+(?:#[^\n]*\n)*([0-9]+)\s", data)
    if match is None:
        return  # ASCII form: the decoder sees its end
    kind, width, height, maximum = (int(g) for g in match.groups())
    size = width * height * (2 if maximum > 255 else 1) * (3 if kind == 6 else 1)
    if len(data) - match.end() < size:
        raise ImageFileError("truncated", f"PGM holds {len(data) - match.end()} of {size} bytes of its picture")


def _tiff_pages(file: BinaryIO) -> tuple[list[tuple[int, int]], bool]:
    """Walk a TIFF's directories: (index, bytes when decoded) of each whole full-size page, and whether all are whole.

    Raises
    ------
    ImageFileError
        If the file is no TIFF, or ends before its first page is whole.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head[:4] not in _TIFF_MAGIC:
        raise ImageFileError("unreadable", "not a TIFF")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    try:
        offset = struct.unpack_from(order + "Q", head, 8)[0] if big else struct.unpack_from(order + "I", head, 4)[0]
        pages: list[tuple[int, int]] = []
        seen: set[int] = set()
        index = 0
        while offset:
            if offset in seen:
                return pages, False
            seen.add(offset)
            tags, offset = _tiff_directory(file, offset, size, order, big)
            starts = tags.get(273) or tags.get(324) or []
            lengths = tags.get(279) or tags.get(325) or []
            if any(a + n > size for a, n in zip(starts, lengths, strict=False)):
                raise _TiffEnds
            samples = len(tags.get(258, [1]))
            raw = tags.get(256, [0])[0] * tags.get(257, [0])[0] * samples * ((tags.get(258, [8])[0] + 7) // 8)
            if not tags.get(254, [0])[0] & 1:  # bit 0: a reduced preview of another page
                pages.append((index, raw))
            index += 1
    except _TiffEnds:
        if not pages:
            raise ImageFileError("truncated", "TIFF ends before its first page is whole") from None
        return pages, False
    except struct.error as error:
        raise ImageFileError("truncated", "TIFF ends inside its header") from error
    if not pages:
        raise ImageFileError("unreadable", "TIFF without a page")
    return pages, True


class _TiffEnds(Exception):
    """The file is shorter than its directories say."""


_TIFF_TYPES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
_TIFF_WANTED: Final = frozenset({254, 256, 257, 258, 273, 279, 324, 325})


def _tiff_directory(file: BinaryIO, offset: int, size: int, order: str, big: bool) -> tuple[dict[int, list[int]], int]:
    count_form, entry_bytes, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    count_bytes, inline = struct.calcsize("=" + count_form), struct.calcsize("=" + pointer)
    if offset + count_bytes > size:
        raise _TiffEnds
    file.seek(offset)
    head = file.read(count_bytes)
    count = struct.unpack(order + count_form, head)[0]
    if offset + count_bytes + count * entry_bytes + inline > size:
        raise _TiffEnds
    body = file.read(count * entry_bytes + inline)
    tags: dict[int, list[int]] = {}
    for i in range(count):
        tag, kind, n = struct.unpack_from(order + "HH" + pointer, body, i * entry_bytes)
        if tag not in _TIFF_WANTED or kind not in _TIFF_TYPES:
            continue
        form = f"{order}{n}{_TIFF_TYPES[kind]}"
        length = n * struct.calcsize("=" + _TIFF_TYPES[kind])
        at = i * entry_bytes + 4 + inline
        if length <= inline:
            tags[tag] = list(struct.unpack_from(form, body, at))
            continue
        place = struct.unpack_from(order + pointer, body, at)[0]
        if place + length > size:
            raise _TiffEnds
        file.seek(place)
        tags[tag] = list(struct.unpack(form, file.read(length)))
    return tags, int(struct.unpack_from(order + pointer, body, count * entry_bytes)[0])


def _read_tiff(path: Path, pages: list[tuple[int, int]], *, grey: bool) -> Iterator[Picture]:
    wanted = {index for index, _ in pages}
    last = max(wanted)
    step = max(1, _CHUNK_BYTES // max(1, max(raw for _, raw in pages)))
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
                yield _picture(decoded[i], grey=grey)
