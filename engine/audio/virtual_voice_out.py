"""The delayed voice into the virtual microphone of a PulseAudio or PipeWire server."""

from __future__ import annotations

import logging
import threading
import time

import numpy as np

from engine.audio.delay_line import DelayLine
from engine.audio.pulse_stream import PulseError, PulsePlayback
from engine.audio.virtual_microphone import ServerMicrophone
from engine.errors import VoiceOutError
from engine.real_time import ask_for_real_time

logger = logging.getLogger(__name__)

_RATE_HZ = 48_000
_BLOCK_S = 0.010
_LATENCY_S = 0.050
"""As long as this thread may be kept waiting; with what the microphone takes, less than the shortest delay of a
picture (100 ms)."""

_RETRY_S = 0.5
_GIVE_UP_S = 60.0
"""A sound server that is started again is back within seconds; one that stays away is told of."""

_JOIN_S = 2.0

_lock = threading.RLock()
_shared: list[ServerMicrophone] = []
_users = 0


class VirtualVoiceOut:
    """Like `VoiceOut`, for the system's virtual microphone, which exists from `start` to `stop`.

    Made again when the server has been started again. Two of one process play into the same microphone, so that it
    stays while one takes over from the other. `microphone` is the name to choose in the call.
    """

    uses_portaudio = False

    def __init__(self) -> None:
        self.label = self.microphone = ""
        self.source = ""
        """The microphone's name in the server."""
        self.channels = 1
        self.line = DelayLine(_RATE_HZ)
        self.has_failed = False
        self._device: ServerMicrophone | None = None
        self._stream: PulsePlayback | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Make the microphone and play into it. Raises `VoiceOutError` with the cause."""
        self._device = _take()
        try:
            self._stream = self._open()
        except VoiceOutError:
            self._release()
            raise
        self.label = self.microphone = self._device.label
        self.source = self._device.source
        self._thread = threading.Thread(target=self._run, name="voice-out", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the stream and remove the microphone; safe to call twice."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(_JOIN_S)
        self._release()  # a stream that hangs ends with its sink
        if thread is not None and thread.is_alive():
            thread.join(_JOIN_S)

    def _open(self) -> PulsePlayback:
        assert self._device is not None
        with _lock:
            self._device.open()
        try:
            return PulsePlayback(self._device.sink, _RATE_HZ, latency_s=_LATENCY_S, block_s=_BLOCK_S)
        except PulseError as error:
            raise VoiceOutError(
                "The virtual microphone could not be opened.",
                code="voice_out.failed",
                hint=error.hint or "Choose another output.",
                detail=error.detail,
            ) from error

    def _run(self) -> None:
        ask_for_real_time()
        lost_at_s: float | None = None
        while not self._stopping.is_set():
            try:
                if self._stream is None:
                    self._stream = self._open()
                    logger.info("the virtual microphone is there again")
                lost_at_s = None
                self._play(self._stream)
            except (PulseError, VoiceOutError) as error:
                now_s = time.monotonic()
                if lost_at_s is None:
                    logger.warning("the virtual microphone is gone: %s (%s)", error, error.detail)
                    lost_at_s = now_s
                self._close_stream()
                if now_s - lost_at_s > _GIVE_UP_S:
                    self.has_failed = True
                    return
                self._stopping.wait(_RETRY_S)
        self._close_stream()

    def _play(self, stream: PulsePlayback) -> None:
        block = np.zeros((int(_BLOCK_S * _RATE_HZ), 1), np.float32)
        self.line.restart()
        while not self._stopping.is_set():
            self.line.fill(block, stream.next_sounds_at_s())
            stream.write(block)

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _release(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            _give_back()


def _take() -> ServerMicrophone:
    global _users
    with _lock:
        if not _shared:
            _shared.append(ServerMicrophone())
        _users += 1
        return _shared[0]


def _give_back() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _shared.pop().close()
