"""Is a picture file whole? Told by its own structure, before anything is decoded.

Decoders disagree on what they do with half a file: some fail, some hand out a picture whose lower part is grey, which
would be segmented as if it were true. TIFF is walked where it is read (``image_files``), all others here.
"""

import re
import struct
import zlib

__all__ = ["KINDS", "ImageFileError", "check_structure"]

KINDS = "PNG, TIFF, PGM, BMP or JPEG, GIF, WebP or JPEG 2000"
"""What is read, for messages."""


class ImageFileError(Exception):
    """A picture that cannot be used: ``reason`` for the counter, ``text`` for the reader."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def check_structure(data: bytes) -> None:
    """Check that a file is of a known kind, holds one picture and reaches its own end.

    Raises
    ------
    ImageFileError
        Reason ``truncated`` or ``unreadable``.
    """
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
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _check_gif(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_webp(data)
    elif data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        # The coder never writes the end marker's code into its data.
        if b"\xff\xd9" not in data:
            raise ImageFileError("truncated", "JPEG 2000 ends before its end marker")
    else:
        raise ImageFileError("unreadable", f"not a {KINDS} (begins with {data[:8]!r})")


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


def _check_webp(data: bytes) -> None:
    size = struct.unpack_from("<I", data, 4)[0]
    if len(data) < 8 + size:
        raise ImageFileError("truncated", f"WebP holds {len(data) - 8} of {size} bytes")
    if data[12:16] == b"VP8X" and data[20] & 2:
        raise ImageFileError("unreadable", "WebP is an animation; save its pictures one by one")


def _check_gif(data: bytes) -> None:
    """Walk the blocks of a GIF to its end; the decoder would hand out the first picture of an animation only."""
    pictures = 0
    at = 13 + _gif_palette(data[10]) if len(data) > 13 else len(data)
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            if pictures != 1:
                raise ImageFileError("unreadable", f"GIF holds {pictures} pictures; save them one by one")
            return
        if kind == 0x2C and at + 10 < len(data):
            pictures += 1
            at += 11 + _gif_palette(data[at + 9])
        elif kind == 0x21:
            at += 2
        else:
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    raise ImageFileError("truncated", "GIF ends before its last block")


def _gif_palette(packed: int) -> int:
    return 3 << ((packed & 7) + 1) if packed & 0x80 else 0
