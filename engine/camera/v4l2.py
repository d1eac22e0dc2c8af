"""The few V4L2 calls that a camera's feeding side needs, with the kernel's own error numbers.

Structures and request numbers: include/uapi/linux/videodev2.h (64-bit layout).
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass

VIDIOC_QUERYCAP = 0x80685600
VIDIOC_G_FMT = 0xC0D05604
VIDIOC_S_FMT = 0xC0D05605
VIDIOC_STREAMON = 0x40045612
VIDIOC_G_PARM = 0xC0CC5615
VIDIOC_S_PARM = 0xC0CC5616
VIDIOC_G_CTRL = 0xC008561B

BUF_TYPE_OUTPUT = 2
CAP_VIDEO_CAPTURE = 0x1
CAP_VIDEO_OUTPUT = 0x2
CAP_DEVICE_CAPS = 0x80000000
FIELD_NONE = 1
COLORSPACE_SMPTE170M = 1
QUANTIZATION_LIMITED = 2

YUV420 = int.from_bytes(b"YU12", "little")
YUYV = int.from_bytes(b"YUYV", "little")

_KEEP_FORMAT = 0x0098F900
"""v4l2loopback's own control, the first of its class."""

_FORMAT = struct.Struct("<II12I")
_FORMAT_SIZE = 208
_PARM = struct.Struct("<I6I")
_PARM_SIZE = 204


@dataclass(frozen=True, kw_only=True)
class Capability:
    """What a device says of itself."""

    driver: str
    card: str
    caps: int

    @property
    def is_loopback(self) -> bool:
        return "v4l2 loopback" in self.driver or "v4l2loopback" in self.driver

    @property
    def takes_output(self) -> bool:
        return bool(self.caps & CAP_VIDEO_OUTPUT)

    @property
    def shows_capture(self) -> bool:
        return bool(self.caps & CAP_VIDEO_CAPTURE)


def query_capability(descriptor: int) -> Capability:
    """VIDIOC_QUERYCAP; raises OSError (ENOTTY for what is no video device)."""
    buffer = bytearray(104)
    _ioctl(descriptor, VIDIOC_QUERYCAP, buffer)
    driver, card = (bytes(part).split(b"\0")[0].decode("utf-8", "replace") for part in (buffer[:16], buffer[16:48]))
    capabilities, device_caps = struct.unpack_from("<II", buffer, 84)
    return Capability(driver=driver, card=card, caps=device_caps if capabilities & CAP_DEVICE_CAPS else capabilities)


def set_format(
    descriptor: int, width: int, height: int, pixel_format: int, bytes_per_frame: int
) -> tuple[int, int, int]:
    """VIDIOC_S_FMT on the output queue; returns the (width, height, pixel format) that the driver took."""
    buffer = bytearray(_FORMAT_SIZE)
    line = width if pixel_format == YUV420 else 2 * width
    _FORMAT.pack_into(
        buffer, 0, BUF_TYPE_OUTPUT, 0, width, height, pixel_format, FIELD_NONE, line, bytes_per_frame,
        COLORSPACE_SMPTE170M, 0, 0, 0, QUANTIZATION_LIMITED, 0,
    )  # fmt: skip
    _ioctl(descriptor, VIDIOC_S_FMT, buffer)
    return _FORMAT.unpack_from(buffer)[2:5]


def set_rate(descriptor: int, fps: int) -> float:
    """VIDIOC_S_PARM on the output queue; returns the rate that the driver took."""
    buffer = bytearray(_PARM_SIZE)
    _PARM.pack_into(buffer, 0, BUF_TYPE_OUTPUT, 0x1000, 0, 1, fps, 0, 0)  # 0x1000: V4L2_CAP_TIMEPERFRAME
    _ioctl(descriptor, VIDIOC_S_PARM, buffer)
    numerator, denominator = struct.unpack_from("<II", buffer, 12)
    return denominator / numerator if numerator else 0.0


def stream_on(descriptor: int) -> None:
    """VIDIOC_STREAMON on the output queue."""
    _ioctl(descriptor, VIDIOC_STREAMON, bytearray(struct.pack("<i", BUF_TYPE_OUTPUT)))


def repair_loopback(path: str) -> bool:
    """Make a v4l2loopback device of version 0.12 offer output again.

    With exclusive_caps=1 that version forgets to after a producer that only wrote has closed it; a STREAMON on the
    output queue brings it back. Harmless elsewhere (EINVAL). False if the device cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        stream_on(descriptor)
    except OSError:
        pass  # EINVAL is the usual answer, also where it worked
    finally:
        os.close(descriptor)
    return True


def keeps_format(path: str) -> bool:
    """Whether v4l2loopback's control keep_format is set; False where it cannot be asked."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        buffer = bytearray(struct.pack("<Ii", _KEEP_FORMAT, 0))
        _ioctl(descriptor, VIDIOC_G_CTRL, buffer)
        return struct.unpack("<Ii", buffer)[1] != 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


def pictures_flow(path: str, timeout_s: float) -> bool:
    """Whether at least two new pictures arrive within `timeout_s` (the last one is there even without a producer).

    For v4l2loopback 0.12 only: later versions have one reader at a time, whose place this would take.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        arrived, end_s = -1, time.monotonic() + timeout_s
        while arrived < 2 and time.monotonic() < end_s:
            try:
                os.read(descriptor, 64)
                arrived += 1
            except BlockingIOError:
                time.sleep(0.01)
        return arrived >= 2
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _ioctl(descriptor: int, request: int, buffer: bytearray) -> None:
    import fcntl  # Linux only; this module is imported elsewhere too, for its constants

    fcntl.ioctl(descriptor, request, buffer, True)
