"""The boxes of an MP4 file (ISO/IEC 14496-12, section 4.2), as far as a recording that broke off needs them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO


def cut_broken_end(path: Path) -> int:
    """Cut a fragmented MP4 of which a write failed back to its last whole fragment; how many bytes that took away.

    A file that ends inside of a fragment's header is refused as a whole by FFmpeg, and by what is built on it. One
    without any whole fragment stays as it is. Needs no space on the disk. Raises `OSError`.
    """
    with path.open("r+b") as file:
        length = file.seek(0, 2)
        end = _end_of_last_whole_fragment(file, length)
        if not 0 < end < length:
            return 0
        file.truncate(end)
        return length - end


def _end_of_last_whole_fragment(file: BinaryIO, length: int) -> int:
    start = end = 0
    while start + 8 <= length:
        kind, size = _header(file, start, length)
        if size < 8 or start + size > length:
            break
        start += size
        if kind == b"mdat":  # each fragment ends with its media
            end = start
    return end


def _header(file: BinaryIO, start: int, length: int) -> tuple[bytes, int]:
    """Kind and size of the box at `start`; size 0 where the file ends inside of its header."""
    file.seek(start)
    head = file.read(16)
    size, kind = struct.unpack(">I4s", head[:8])
    if size == 0:  # reaches to the end of the file
        return kind, length - start
    if size == 1:
        return kind, struct.unpack(">Q", head[8:])[0] if len(head) == 16 else 0
    return kind, size
