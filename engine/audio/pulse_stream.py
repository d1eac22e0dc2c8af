"""Sound to and from one named sink or source of a PulseAudio server (PipeWire speaks the same protocol).

PortAudio knows no such names on Linux: its ALSA devices lead to the default sink only. libpulse-simple is there
wherever a program can play through the server at all, and knows how late each sample is.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import time
from collections import deque
from typing import Any

import numpy as np

from engine.audio.pulse_modules import SYNC_TEST
from engine.errors import DeviceError

_FLOAT32 = 5 if sys.byteorder == "little" else 6
_PLAYBACK, _RECORD = 1, 2
_ANY = 0xFFFFFFFF
_CLIENT = b"Standin"
_TRIES, _PROMPT_S = 3, 0.001
_PROMPT_WITHIN_S = 3.0


class PulseError(DeviceError):
    """The server is not there, has gone away, or has no such device. `detail` is in its words."""

    default_code = "pulse"


class _SampleSpec(ctypes.Structure):
    _fields_ = (("format", ctypes.c_int), ("rate", ctypes.c_uint32), ("channels", ctypes.c_uint8))


class _BufferAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint32) for name in ("maxlength", "tlength", "prebuf", "minreq", "fragsize"))


class PulsePlayback:
    """Mono float32 to `sink`. One thread writes; `write` waits until there is room. Raises `PulseError`."""

    def __init__(self, sink: str, rate_hz: int, *, latency_s: float, block_s: float) -> None:
        block, target = (4 * int(seconds * rate_hz) for seconds in (block_s, latency_s))
        attributes = _BufferAttributes(_ANY, target, block, block, _ANY)
        self._stream = _Stream(_PLAYBACK, sink, "Delayed voice", rate_hz, attributes)

    def next_sounds_at_s(self) -> float:
        """Monotonic time at which the sample that is written next leaves the sink."""
        before_s = latency_s = 0.0
        for _ in range(_TRIES):
            before_s = time.monotonic()
            latency_s = self._stream.latency_s()
            if time.monotonic() - before_s < _PROMPT_S:
                break  # else this thread had to wait between the two, and they do not belong together
        return before_s + latency_s

    def write(self, samples: np.ndarray) -> None:
        """Queue float32 (n, 1), contiguous."""
        self._stream.call("pa_simple_write", samples.ctypes.data, samples.nbytes)

    def close(self) -> None:
        """Give the stream back; safe to call twice. What has not sounded is lost."""
        self._stream.close()


class PulseRecording:
    """Mono float32 from `source`, with the time of each block. One thread reads. Raises `PulseError`.

    A block's time is that of its arrival, as a program that records it sees it. Arrivals are late when the machine is
    busy, never early: of those of the last seconds the promptest one places all of them.
    """

    def __init__(self, source: str, rate_hz: int, *, block_s: float = 0.010) -> None:
        self._block = np.zeros((int(block_s * rate_hz), 1), np.float32)
        attributes = _BufferAttributes(_ANY, _ANY, _ANY, _ANY, self._block.nbytes)
        self._stream = _Stream(_RECORD, source, SYNC_TEST, rate_hz, attributes)
        self._rate_hz = rate_hz
        self._count = 0
        self._origins_s: deque[float] = deque(maxlen=round(_PROMPT_WITHIN_S / block_s))

    def read(self) -> tuple[np.ndarray, float]:
        """Wait for one block: float32 (n, 1), a copy, and the monotonic time at which it begins."""
        self._stream.call("pa_simple_read", self._block.ctypes.data, self._block.nbytes)
        begins_s = self._count / self._rate_hz
        self._count += len(self._block)
        self._origins_s.append(time.monotonic() - self._count / self._rate_hz)
        return self._block.copy(), min(self._origins_s) + begins_s

    def close(self) -> None:
        """Give the stream back; safe to call twice."""
        self._stream.close()


class _Stream:
    """A `pa_simple`; every call may wait for the server, and lets other threads run meanwhile."""

    def __init__(self, direction: int, device: str, title: str, rate_hz: int, attributes: _BufferAttributes) -> None:
        self._library = _library()
        error = ctypes.c_int(0)
        spec = _SampleSpec(_FLOAT32, rate_hz, 1)
        self._handle = self._library.pa_simple_new(
            None, _CLIENT, direction, device.encode(), title.encode(),
            ctypes.byref(spec), None, ctypes.byref(attributes), ctypes.byref(error),
        )  # fmt: skip
        if not self._handle:
            raise _error(f'The sound server has no "{device}", or does not answer.', error)

    def call(self, function: str, address: int, size: int) -> None:
        error = ctypes.c_int(0)
        if getattr(self._library, function)(self._handle, address, size, ctypes.byref(error)) < 0:
            raise _error("The sound server has ended the connection.", error)

    def latency_s(self) -> float:
        error = ctypes.c_int(0)
        latency_us = self._library.pa_simple_get_latency(self._handle, ctypes.byref(error))
        if error.value:
            raise _error("The sound server has ended the connection.", error)
        return latency_us * 1e-6

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle:
            self._library.pa_simple_free(handle)


def check_library() -> None:
    """Raises `PulseError` where libpulse-simple is not installed."""
    _library()


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL("libpulse-simple.so.0")
    except OSError as error:
        raise PulseError(
            "The library libpulse-simple is not installed.",
            code="pulse.no_library",
            hint="Install it: sudo apt install libpulse0 (Fedora: pulseaudio-libs, Arch: libpulse).",
            detail=str(error),
        ) from error
    pointer, integer, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    library.pa_simple_new.restype = pointer
    library.pa_simple_new.argtypes = [text, text, integer, text, text, pointer, pointer, pointer, pointer]
    for name in ("pa_simple_write", "pa_simple_read"):
        getattr(library, name).argtypes = [pointer, pointer, ctypes.c_size_t, pointer]
    library.pa_simple_get_latency.restype = ctypes.c_uint64
    library.pa_simple_get_latency.argtypes = [pointer, pointer]
    library.pa_simple_free.argtypes = [pointer]
    library.pa_simple_free.restype = None
    library.pa_strerror.restype = text
    library.pa_strerror.argtypes = [integer]
    return library


def _error(message: str, error: ctypes.c_int) -> PulseError:
    words = _library().pa_strerror(error.value)
    return PulseError(message, detail=words.decode("utf-8", "replace") if words else str(error.value))
