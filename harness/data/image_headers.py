"""What an image file says of itself, read before anything is decoded.

OpenCV decodes more than it should: the part of a file that is there, a picture of gigabytes out of a file of
kilobytes, any picture of an animation, ids stretched to the range of 8 bits. So its input is looked at first.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_HEADER = struct.Struct(">IIBB")
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
#: how far from its end a JPEG's end marker may lie: some cameras write a few bytes behind it
_JPEG_TAIL = 1024
_EXIF = b"Exif\0\0"
_ORIENTATION, _TURNED = 0x0112, range(2, 9)


@dataclass(frozen=True)
class ImageHeader:
    """Size in pixels, bits per channel, and what makes a picture unfit to be a frame."""

    kind: str
    width: int
    height: int
    depth: int
    animated: bool = False
    turned: bool = False


def read_header(content: bytes) -> ImageHeader | None:
    """The header of a whole PNG or JPEG; None where it is neither, is cut short or has a wrong checksum.

    Checksums cost 2 % of the decoding.
    """
    if content.startswith(_JPEG_START):
        return _jpeg_header(content)
    return _png_header(content) if content.startswith(_PNG_SIGNATURE) else None


def _png_header(content: bytes) -> ImageHeader | None:
    chunks: dict[bytes, memoryview] = {}
    for kind, data in _png_chunks(content):
        chunks.setdefault(kind, data)  # the first of a kind is the one that a decoder goes by
    if b"IEND" not in chunks or next(iter(chunks)) != b"IHDR" or len(chunks[b"IHDR"]) != 13:
        return None
    width, height, depth, _ = _PNG_HEADER.unpack_from(chunks[b"IHDR"])
    return ImageHeader("PNG", width, height, depth, b"acTL" in chunks, _is_turned(chunks.get(b"eXIf", b"")))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks whose checksums are right, up to the end or the first wrong one."""
    view, position = memoryview(content), len(_PNG_SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        end = position + 8 + length
        if end + 4 > len(content) or zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            return
        kind = bytes(view[position + 4 : position + 8])
        yield kind, view[position + 8 : end]
        if kind == b"IEND":
            return
        position = end + 4


def _jpeg_header(content: bytes) -> ImageHeader | None:
    frame, turned = None, False
    for marker, start, end in _jpeg_segments(content):
        # baseline, progressive and so on; DHT, JPG and DAC lie among them
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and end - start >= 6:
            frame = struct.unpack_from(">BHH", content, start)
        elif marker == 0xE1 and content[start : start + len(_EXIF)] == _EXIF:
            turned = _is_turned(content[start + len(_EXIF) : end])
        elif marker == 0xDA:
            # the last: an end marker before it is that of a thumbnail
            whole = content.rfind(_JPEG_END, max(end, len(content) - _JPEG_TAIL)) >= 0
            if frame is None or not whole:
                return None
            depth, height, width = frame
            return ImageHeader("JPEG", width, height, depth, turned=turned)
    return None


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of the segments before the first scan, and of its header."""
    position = len(_JPEG_START)
    while position + 4 <= len(content) and content[position] == 0xFF:
        if content[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        end = position + 2 + length
        if length < 2 or end > len(content):
            return
        yield content[position + 1], position + 4, end
        position = end


def _is_turned(exif: bytes | memoryview) -> bool:
    """Whether Exif asks to turn or mirror the pixels, which OpenCV does with images and not with masks."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    if order is None or len(exif) < 8:
        return False
    (start,) = struct.unpack_from(f"{order}I", exif, 4)
    if start + 2 > len(exif):
        return False
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, entry)
        if tag == _ORIENTATION:
            return value in _TURNED
    return False
