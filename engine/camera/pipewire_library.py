"""libpipewire's stream interface through ctypes: the structures and the functions that a camera needs.

Layouts: pipewire/stream.h and spa/buffer/{buffer,meta}.h of version 0.3.65; they are part of the library's promise
of a stable interface (soname libpipewire-0.3.so.0, also in 1.x).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p

from engine.errors import CameraError

SONAME = "libpipewire-0.3.so.0"

STATE_ERROR, STATE_UNCONNECTED, STATE_PAUSED, STATE_STREAMING = -1, 0, 2, 3
DIRECTION_OUTPUT = 1
ANY_ID = 0xFFFFFFFF
FLAG_MAP_BUFFERS, FLAG_DRIVER, FLAG_RT_PROCESS, FLAG_NO_CONVERT = 1 << 2, 1 << 3, 1 << 4, 1 << 5

STATE_CHANGED = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_int, c_char_p)
PARAM_CHANGED = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_void_p)
PROCESS = ctypes.CFUNCTYPE(None, c_void_p)


class StreamEvents(ctypes.Structure):
    """pw_stream_events, version 0: later members are never looked at."""

    _fields_ = [
        ("version", c_uint32),
        ("destroy", c_void_p),
        ("state_changed", STATE_CHANGED),
        ("control_info", c_void_p),
        ("io_changed", c_void_p),
        ("param_changed", PARAM_CHANGED),
        ("add_buffer", c_void_p),
        ("remove_buffer", c_void_p),
        ("process", PROCESS),
        ("drained", c_void_p),
    ]


class Header(ctypes.Structure):
    """spa_meta_header."""

    _fields_ = [
        ("flags", c_uint32),
        ("offset", c_uint32),
        ("pts", c_int64),
        ("dts_offset", c_int64),
        ("seq", c_uint64),
    ]


class Chunk(ctypes.Structure):
    """spa_chunk."""

    _fields_ = [("offset", c_uint32), ("size", c_uint32), ("stride", c_int32), ("flags", c_int32)]


class Data(ctypes.Structure):
    """spa_data."""

    _fields_ = [
        ("type", c_uint32),
        ("flags", c_uint32),
        ("fd", c_int64),
        ("mapoffset", c_uint32),
        ("maxsize", c_uint32),
        ("data", c_void_p),
        ("chunk", POINTER(Chunk)),
    ]


class Meta(ctypes.Structure):
    """spa_meta."""

    _fields_ = [("type", c_uint32), ("size", c_uint32), ("data", c_void_p)]


class SpaBuffer(ctypes.Structure):
    """spa_buffer."""

    _fields_ = [("n_metas", c_uint32), ("n_datas", c_uint32), ("metas", POINTER(Meta)), ("datas", POINTER(Data))]


class Buffer(ctypes.Structure):
    """pw_buffer, as far as it is used."""

    _fields_ = [("buffer", POINTER(SpaBuffer))]


_FUNCTIONS = {
    "pw_init": (None, c_void_p, c_void_p),
    "pw_thread_loop_new": (c_void_p, c_char_p, c_void_p),
    "pw_thread_loop_get_loop": (c_void_p, c_void_p),
    "pw_thread_loop_start": (c_int, c_void_p),
    "pw_thread_loop_stop": (None, c_void_p),
    "pw_thread_loop_destroy": (None, c_void_p),
    "pw_thread_loop_lock": (None, c_void_p),
    "pw_thread_loop_unlock": (None, c_void_p),
    "pw_properties_new_string": (c_void_p, c_char_p),
    "pw_stream_new_simple": (c_void_p, c_void_p, c_char_p, c_void_p, POINTER(StreamEvents), c_void_p),
    "pw_stream_connect": (c_int, c_void_p, c_int, c_uint32, c_int, POINTER(c_void_p), c_uint32),
    "pw_stream_update_params": (c_int, c_void_p, POINTER(c_void_p), c_uint32),
    "pw_stream_dequeue_buffer": (POINTER(Buffer), c_void_p),
    "pw_stream_queue_buffer": (c_int, c_void_p, POINTER(Buffer)),
    "pw_stream_trigger_process": (c_int, c_void_p),
    "pw_stream_destroy": (None, c_void_p),
}


def load() -> ctypes.CDLL:
    """The library with its functions declared and started. Raises `CameraError` where it is missing or too old."""
    try:
        library = ctypes.CDLL(SONAME, use_errno=True)
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise CameraError(
            "The PipeWire library is missing or too old.",
            code="camera.no_pipewire",
            hint="Install PipeWire 0.3.40 or later.",
            detail=str(error),
        ) from error
    library.pw_init(None, None)
    return library


class Pods:
    """Pods as the array of pointers that the library takes; they live as long as this object."""

    def __init__(self, *pods: bytes) -> None:
        # Aligned to eight bytes, which the library's readers rely on.
        self._kept = [(c_uint64 * (len(pod) // 8)).from_buffer_copy(pod) for pod in pods]
        self.count = len(pods)
        self.pointers = (c_void_p * len(pods))(*(ctypes.addressof(pod) for pod in self._kept))


def pod_at(address: int) -> bytes:
    """A copy of the pod at `address`."""
    size = ctypes.cast(address, POINTER(c_uint32))[0]
    return ctypes.string_at(address, 8 + size)
