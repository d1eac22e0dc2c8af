"""The few SPA pods that a PipeWire camera exchanges: what it offers, its buffers, and the format that was agreed.

A pod is its body's size, its type, and the body, padded to eight bytes (spa/pod/pod.h); numbers: spa/utils/type.h,
spa/param/format.h, spa/param/buffers.h, spa/param/video/{raw,color}.h.
"""

from __future__ import annotations

import struct

PARAM_ENUM_FORMAT = 3
PARAM_FORMAT = 4
PARAM_BUFFERS = 5
PARAM_META = 6

YUY2 = 4
I420 = 2

META_HEADER = 1
META_HEADER_SIZE = 32

_ID, _INT, _RECTANGLE, _FRACTION, _OBJECT, _CHOICE = 3, 4, 10, 11, 15, 19
_FORMAT_OBJECT, _BUFFERS_OBJECT, _META_OBJECT = 0x40003, 0x40004, 0x40005
_MEDIA_TYPE, _MEDIA_SUBTYPE = 1, 2
_VIDEO_FORMAT, _VIDEO_SIZE, _VIDEO_RATE = 0x20001, 0x20003, 0x20004
_COLOR_RANGE, _COLOR_MATRIX = 0x2000C, 0x2000D
_VIDEO, _RAW = 2, 1
_LIMITED_RANGE, _BT601 = 2, 4
_CHOICE_RANGE, _CHOICE_FLAGS = 1, 4
_MEMORY_TYPES = 1 << 1 | 1 << 2
"""SPA_DATA_MemPtr and SPA_DATA_MemFd: plain memory, shared by the server."""


def offered_format(pixel_format: int, width: int, height: int, fps: int) -> bytes:
    """One fixed format, limited-range BT.601, under the id EnumFormat."""
    return _object(
        _FORMAT_OBJECT,
        PARAM_ENUM_FORMAT,
        {
            _MEDIA_TYPE: _pod(_ID, struct.pack("=I", _VIDEO)),
            _MEDIA_SUBTYPE: _pod(_ID, struct.pack("=I", _RAW)),
            _VIDEO_FORMAT: _pod(_ID, struct.pack("=I", pixel_format)),
            _VIDEO_SIZE: _pod(_RECTANGLE, struct.pack("=II", width, height)),
            _VIDEO_RATE: _pod(_FRACTION, struct.pack("=II", fps, 1)),
            _COLOR_RANGE: _pod(_ID, struct.pack("=I", _LIMITED_RANGE)),
            _COLOR_MATRIX: _pod(_ID, struct.pack("=I", _BT601)),
        },
    )


def wanted_buffers(size: int, stride: int) -> bytes:
    """2 to 16 buffers of `size` bytes in one block; best 8, because a viewer may still read one that counts as free."""
    return _object(
        _BUFFERS_OBJECT,
        PARAM_BUFFERS,
        {
            1: _choice(_CHOICE_RANGE, 8, 2, 16),
            2: _pod(_INT, struct.pack("=i", 1)),
            3: _pod(_INT, struct.pack("=i", size)),
            4: _pod(_INT, struct.pack("=i", stride)),
            6: _choice(_CHOICE_FLAGS, _MEMORY_TYPES),
        },
    )


def wanted_header() -> bytes:
    """Room in each buffer for the time and the number of the picture (spa_meta_header)."""
    return _object(
        _META_OBJECT,
        PARAM_META,
        {1: _pod(_ID, struct.pack("=I", META_HEADER)), 2: _pod(_INT, struct.pack("=i", META_HEADER_SIZE))},
    )


def pixel_format_of(pod: bytes) -> int | None:
    """The pixel format in a Format object that was agreed; None where there is none."""
    offset = 16  # size, type, object type, id
    while offset + 16 <= len(pod):
        key, _flags, size, kind = struct.unpack_from("=IIII", pod, offset)
        if key == _VIDEO_FORMAT and offset + 16 + size <= len(pod):
            # A choice with one value: its kind and flags and the size and type of the value come first.
            return struct.unpack_from("=I", pod, offset + 16 + (16 if kind == _CHOICE else 0))[0]
        offset += 16 + -(-size // 8) * 8
    return None


def _object(kind: int, identity: int, properties: dict[int, bytes]) -> bytes:
    body = struct.pack("=II", kind, identity)
    for key, pod in properties.items():
        body += struct.pack("=II", key, 0) + pod
    return _pod(_OBJECT, body)


def _choice(kind: int, *values: int) -> bytes:
    return _pod(_CHOICE, struct.pack(f"=IIII{len(values)}i", kind, 0, 4, _INT, *values))


def _pod(kind: int, body: bytes) -> bytes:
    return struct.pack("=II", len(body), kind) + body + b"\0" * (-len(body) % 8)
