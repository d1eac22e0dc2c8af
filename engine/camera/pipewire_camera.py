"""A camera of PipeWire's, without a kernel driver: a Video/Source node that browsers and OBS list.

The node drives its watchers: each picture that comes starts one cycle of the graph. Nothing here waits for a watcher
or for the server; a picture that finds every buffer still in use is dropped.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections import deque

import cv2
import numpy as np

from engine.camera import pipewire_library as pw
from engine.camera import pipewire_pods as pods
from engine.camera.pipewire_system import LABEL, NODE_NAME
from engine.errors import CameraError
from engine.real_time import ask_for_real_time

logger = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 5.0
_MOST_BUFFERS = 16
"""See `pods.wanted_buffers`."""

_CONVERSIONS = {pods.YUY2: cv2.COLOR_RGB2YUV_YUY2, pods.I420: cv2.COLOR_RGB2YUV_I420}


class PipewireCamera:
    """Publishes pictures as the node `device` in the user's PipeWire server, with `label` as the name people see.

    `send` and `close` belong to one thread. The library tells of states and formats from a second one, which holds the
    loop's lock then, and asks for pictures from a third one, without it: filling a buffer anywhere else would race with
    handing it over, and lose one picture in twenty on a busy machine.
    """

    def __init__(self, device: str, width: int, height: int, fps: int, label: str = LABEL) -> None:
        self.device = device or NODE_NAME
        self.label = label
        self.dropped = 0
        """Pictures for which no buffer was free, or that the next one came before."""
        self._size = (width, height)
        self._format: int | None = None
        self._state, self._state_error = pw.STATE_UNCONNECTED, ""
        self._has_answer = threading.Event()
        self._waiting: deque[np.ndarray] = deque(maxlen=1)
        self._sequence = self._favoured_thread = 0
        self._library = pw.load()
        self._stream = None
        self._loop = self._library.pw_thread_loop_new(b"standin-camera", None)
        # The library keeps pointers to these.
        self._events = pw.StreamEvents(
            version=0,
            state_changed=pw.STATE_CHANGED(self._on_state),
            param_changed=pw.PARAM_CHANGED(self._on_param),
            process=pw.PROCESS(self._on_process),
        )
        try:
            self._connect(self._offers(fps))
        except CameraError:
            self.close()
            raise

    def send(self, image: np.ndarray) -> None:
        """Show the picture to whoever watches; without watchers it costs nothing."""
        state, pixel_format = self._state, self._format
        if state in (pw.STATE_ERROR, pw.STATE_UNCONNECTED):
            raise CameraError(
                f"PipeWire ended the camera ({self._state_error or 'disconnected'}).",
                code="camera.pipewire_ended",
                hint="If its server was restarted, start the camera again and select it in the call once more.",
            )
        if state != pw.STATE_STREAMING or pixel_format is None:
            return
        picture = np.ascontiguousarray(cv2.cvtColor(image, _CONVERSIONS[pixel_format]))
        self.dropped += len(self._waiting)
        self._waiting.append(picture)
        with self._locked():
            self._library.pw_stream_trigger_process(self._stream)

    def close(self) -> None:
        """Take the node out of the server."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        self._library.pw_thread_loop_stop(loop)
        if self._stream is not None:
            self._library.pw_stream_destroy(self._stream)
        self._library.pw_thread_loop_destroy(loop)

    def _offers(self, fps: int) -> pw.Pods:
        width, height = self._size
        formats = [pods.YUY2]
        if width % 8 == 0:  # otherwise programs differ in where the chroma planes' lines begin
            formats.append(pods.I420)
        return pw.Pods(*(pods.offered_format(one, width, height, fps) for one in formats))

    def _connect(self, offers: pw.Pods) -> None:
        library = self._library
        library.pw_thread_loop_start(self._loop)
        flags = pw.FLAG_DRIVER | pw.FLAG_MAP_BUFFERS | pw.FLAG_NO_CONVERT | pw.FLAG_RT_PROCESS
        with self._locked():
            self._stream = library.pw_stream_new_simple(
                library.pw_thread_loop_get_loop(self._loop),
                self.label.encode(),
                library.pw_properties_new_string(self._properties()),
                ctypes.byref(self._events),
                None,
            )
            if self._stream is None:
                raise _not_connected(ctypes.get_errno())
            status = library.pw_stream_connect(
                self._stream, pw.DIRECTION_OUTPUT, pw.ANY_ID, flags, offers.pointers, offers.count
            )
        if status < 0:
            raise _not_connected(-status)
        if not self._has_answer.wait(_ANSWER_TIMEOUT_S):
            raise CameraError(
                "PipeWire does not answer.",
                code="camera.pipewire_hangs",
                hint="Restart it: systemctl --user restart pipewire wireplumber",
            )
        if self._state == pw.STATE_ERROR:
            raise CameraError(
                f"PipeWire refused the camera ({self._state_error}).",
                code="camera.pipewire_refused",
                hint="Restart it: systemctl --user restart pipewire wireplumber",
            )

    def _properties(self) -> bytes:
        wanted = {
            "media.type": "Video",
            "media.class": "Video/Source",
            "media.role": "Camera",
            "node.name": self.device,
            "node.nick": self.label,
            "node.description": self.label,
            "node.virtual": "true",
            "application.name": "Standin",
        }
        return " ".join(f'{key} = "{_quoted(value)}"' for key, value in wanted.items()).encode()

    @contextlib.contextmanager
    def _locked(self):
        self._library.pw_thread_loop_lock(self._loop)
        try:
            yield
        finally:
            self._library.pw_thread_loop_unlock(self._loop)

    def _on_state(self, _data, _old: int, state: int, error: bytes | None) -> None:
        self._state, self._state_error = state, (error or b"").decode(errors="replace")
        logger.info("PipeWire stream: state %d %s", state, self._state_error)
        if state in (pw.STATE_ERROR, pw.STATE_PAUSED):
            self._has_answer.set()

    def _on_param(self, _data, identity: int, address: int | None) -> None:
        if identity != pods.PARAM_FORMAT:
            return
        self._format = pods.pixel_format_of(pw.pod_at(address)) if address else None
        if self._format is None:
            return
        size, stride = self._layout(self._format)
        answer = pw.Pods(pods.wanted_buffers(size, stride), pods.wanted_header())
        self._library.pw_stream_update_params(self._stream, answer.pointers, answer.count)

    def _layout(self, pixel_format: int) -> tuple[int, int]:
        """(bytes of a picture, bytes of its first plane's line)."""
        width, height = self._size
        return (2 * width * height, 2 * width) if pixel_format == pods.YUY2 else (width * height * 3 // 2, width)

    def _on_process(self, _data) -> None:
        self._favour_this_thread()
        pixel_format = self._format
        if not self._waiting or pixel_format is None:
            return  # a watcher asked for one between two pictures
        picture = self._waiting.pop()
        self._sequence += 1
        size, stride = self._layout(pixel_format)
        taken = self._free_buffer()
        if not taken:
            self.dropped += 1
            return
        buffer = taken.contents.buffer.contents
        data = buffer.datas[0]
        chunk = data.chunk.contents
        chunk.offset, chunk.stride, chunk.flags = 0, stride, 0
        chunk.size = size if data.data and picture.nbytes == size <= data.maxsize else 0
        if chunk.size:
            ctypes.memmove(data.data, picture.ctypes.data, size)
        self._stamp(buffer)
        self._library.pw_stream_queue_buffer(self._stream, taken)

    def _favour_this_thread(self) -> None:
        """PipeWire gives its thread for data no priority of its own unless its configuration says so, and every picture
        passes there."""
        thread = threading.get_native_id()
        if thread != self._favoured_thread:
            self._favoured_thread = thread
            ask_for_real_time(is_replaceable=True)

    def _free_buffer(self):
        """The next buffer that nobody uses. One that a watcher keeps (it went away, or was stopped, while it had it) is
        put behind the others by the library, and NULL comes instead of it."""
        for _ in range(_MOST_BUFFERS):
            taken = self._library.pw_stream_dequeue_buffer(self._stream)
            if taken:
                return taken
        return None

    def _stamp(self, buffer: pw.SpaBuffer) -> None:
        for index in range(buffer.n_metas):
            meta = buffer.metas[index]
            if meta.type == pods.META_HEADER and meta.size >= pods.META_HEADER_SIZE:
                header = ctypes.cast(meta.data, ctypes.POINTER(pw.Header)).contents
                header.flags, header.offset, header.dts_offset = 0, 0, 0
                header.pts, header.seq = time.monotonic_ns(), self._sequence


def _not_connected(number: int) -> CameraError:
    return CameraError(
        f"PipeWire's server cannot be reached ({os.strerror(number) if number else 'unknown cause'}).",
        code="camera.pipewire_missing",
        hint="Start it: systemctl --user start pipewire wireplumber",
    )


def _quoted(text: str) -> str:
    return "".join(" " if ord(letter) < 32 else letter for letter in text).replace("\\", "\\\\").replace('"', '\\"')
