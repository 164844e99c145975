"""The directories of a TIFF, read without decoding: which pages it holds, and whether it reaches their ends."""

import re
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from edge_app.capture.picture_structure import ImageFileError

__all__ = ["TIFF_MAGIC", "TiffPage", "tiff_pages"]

TIFF_MAGIC: Final = frozenset({b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"})

_TYPES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 16: "Q"}
_WANTED: Final = frozenset({254, 256, 257, 258, 259, 262, 270, 273, 277, 279, 324, 325})
_DESCRIPTION: Final = 270
_DESCRIPTION_BYTES: Final = 200

Tags = dict[int, list[int]]


@dataclass(frozen=True, kw_only=True)
class TiffPage:
    """One full-size picture.

    Attributes
    ----------
    index
        Number of its directory.
    decoded_bytes
        Size when decoded.
    white_is_zero
        The file stores light as 0.
    raw
        Place of the pixels in the file, width, height and numpy type, where they stand there without a directory of
        their own (stacks of ImageJ beyond 4 GB); else None.
    """

    index: int
    decoded_bytes: int
    white_is_zero: bool = False
    raw: tuple[int, int, int, str] | None = None


class _TiffEnds(Exception):
    """The file is shorter than its directories say."""


def tiff_pages(file: BinaryIO) -> tuple[list[TiffPage], bool]:
    """Walk a TIFF's directories: each whole full-size page, and whether all of them are whole.

    Raises
    ------
    ImageFileError
        If the file is no TIFF, or ends before its first page is whole.
    """
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(16)
    if head[:4] not in TIFF_MAGIC:
        raise ImageFileError("unreadable", "not a TIFF")
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    pages: list[TiffPage] = []
    directories: list[Tags] = []
    try:
        offset = struct.unpack_from(order + "Q", head, 8)[0] if big else struct.unpack_from(order + "I", head, 4)[0]
        seen: set[int] = set()
        while offset:
            if offset in seen:
                return pages, False
            seen.add(offset)
            tags, offset = _directory(file, offset, size, order, big)
            starts = tags.get(273) or tags.get(324) or []
            lengths = tags.get(279) or tags.get(325) or []
            if any(a + n > size for a, n in zip(starts, lengths, strict=False)):
                raise _TiffEnds
            if not tags.get(254, [0])[0] & 1:  # bit 0: a reduced preview of another page
                white_is_zero = tags.get(262, [1])[0] == 0
                pages.append(
                    TiffPage(index=len(directories), decoded_bytes=_decoded_bytes(tags), white_is_zero=white_is_zero)
                )
            directories.append(tags)
    except _TiffEnds:
        if not pages:
            raise ImageFileError("truncated", "TIFF ends before its first page is whole") from None
        return pages, False
    except struct.error as error:
        raise ImageFileError("truncated", "TIFF ends inside its header") from error
    if not pages:
        raise ImageFileError("unreadable", "TIFF without a page")
    if len(directories) == 1:
        return _without_directories(pages[0], directories[0], order, size)
    return pages, True


def _decoded_bytes(tags: Tags) -> int:
    bits = tags.get(258, [8])
    return tags.get(256, [0])[0] * tags.get(257, [0])[0] * len(bits) * ((bits[0] + 7) // 8)


def _without_directories(page: TiffPage, tags: Tags, order: str, size: int) -> tuple[list[TiffPage], bool]:
    """ImageJ writes one directory for a large stack: its text says how many pictures follow the first."""
    text = bytes(tags.get(_DESCRIPTION, [])).decode("latin-1")
    match = re.search(r"(?m)^images=([0-9]+)", text) if text.startswith("ImageJ=") else None
    count = int(match[1]) if match else 1
    bits = tags.get(258, [8])
    plain = tags.get(259, [1])[0] == 1 and len(bits) == 1 and bits[0] in (8, 16) and 273 in tags
    if count < 2 or not plain:
        return [page], count < 2
    start, width, height = tags[273][0], tags[256][0], tags[257][0]
    whole = min(count, (size - start) // page.decoded_bytes) if page.decoded_bytes else 1
    kind = f"{order}u{bits[0] // 8}"
    raws = [(start + i * page.decoded_bytes, width, height, kind) for i in range(whole)]
    return [
        TiffPage(index=i, decoded_bytes=page.decoded_bytes, white_is_zero=page.white_is_zero, raw=raw)
        for i, raw in enumerate(raws)
    ], whole == count


def _directory(file: BinaryIO, offset: int, size: int, order: str, big: bool) -> tuple[Tags, int]:
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
    tags: Tags = {}
    for i in range(count):
        tag, kind, n = struct.unpack_from(order + "HH" + pointer, body, i * entry_bytes)
        if tag not in _WANTED or kind not in _TYPES:
            continue
        if tag == _DESCRIPTION and n > _DESCRIPTION_BYTES:  # may be megabytes; its beginning is what is looked at
            n = _DESCRIPTION_BYTES
        form = f"{order}{n}{_TYPES[kind]}"
        length = n * struct.calcsize("=" + _TYPES[kind])
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
