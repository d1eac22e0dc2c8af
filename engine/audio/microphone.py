"""A microphone through PortAudio: the callback copies into a ring, everything else happens elsewhere."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from engine.audio.devices import OpenStream, device_lock, find_device, sound_library
from engine.audio.ring import SampleRing
from engine.clock import Clock
from engine.errors import MicrophoneError
from engine.media import AudioBlock

logger = logging.getLogger(__name__)

_RING_S = 2.0
_BLOCK_S = 0.010
_LARGEST_INPUT_LATENCY_S = 0.5
_DEAD_AFTER_S = 2.0


class Microphone:
    """An `AudioSource`. The device is chosen by name and host API and opened at its own rate, in mono or stereo.

    A device that is unplugged ends the source (`has_ended`); PortAudio says so by stopping the stream or by silence
    of its callback.
    """

    def __init__(self, name: str = "", host_api: str = "") -> None:
        self._wanted = (name, host_api)
        _, device = find_device("input", name, host_api)
        self.rate_hz = device.rate_hz
        self.channels = min(2, device.channels)
        self.label = device.name
        self._ring = SampleRing(int(_RING_S * self.rate_hz), self.channels)
        self._flags = 0
        # (samples written before a callback, monotonic time of its first sample): replaced whole, so never torn.
        self._mark = (0, 0.0)
        self._called_s = 0.0
        self._stream: Any = None
        self._has_finished = False

    @property
    def has_ended(self) -> bool:
        if self._stream is None:
            return False
        is_dead = time.monotonic() - self._called_s > _DEAD_AFTER_S
        return (self._has_finished or is_dead) and len(self._ring) == 0

    @property
    def overflows(self) -> int:
        return self._ring.overflows + self._flags

    def start(self, clock: Clock) -> None:
        """Open the device. Raises `MicrophoneError` with the cause."""
        with device_lock:
            index, _ = find_device("input", *self._wanted)
            OpenStream.opened()
        try:
            self._open(index)
        except BaseException:
            self._close()
            OpenStream.closed()
            raise

    def _open(self, index: int) -> None:
        library = sound_library()
        self._called_s = time.monotonic()
        try:
            self._stream = library.InputStream(
                device=index,
                samplerate=self.rate_hz,
                channels=self.channels,
                dtype="float32",
                blocksize=int(_BLOCK_S * self.rate_hz),
                latency="low",
                callback=self._callback,
                finished_callback=self._on_finished,
            )
            self._stream.start()
        except library.PortAudioError as error:
            raise _explained(self.label, error) from error

    def read(self) -> AudioBlock | None:
        position = self._ring.position
        samples = self._ring.read()
        if len(samples) == 0:
            return None
        index, time_s = self._mark
        captured_at_s = time_s + (position - index) / self.rate_hz
        return AudioBlock(first_sample=position, samples=samples, rate_hz=self.rate_hz, captured_at_s=captured_at_s)

    def stop(self) -> None:
        if self._stream is not None:
            self._close()
            OpenStream.closed()

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.abort(ignore_errors=True)
                stream.close(ignore_errors=True)
            except Exception as error:  # noqa: BLE001 - a device that is gone may fail in any way; it is gone either way
                logger.warning("closing the microphone %s failed: %s", self.label, error)

    def _callback(self, samples: np.ndarray, frames: int, times: Any, status: Any) -> None:
        now_s = time.monotonic()
        waited_s = times.currentTime - times.inputBufferAdcTime
        if not 0.0 <= waited_s <= _LARGEST_INPUT_LATENCY_S:
            waited_s = frames / self.rate_hz  # some drivers report nonsense; a buffer is at least as old as itself
        self._mark = (self._ring.written, now_s - waited_s)
        self._called_s = now_s
        if status:
            self._flags += 1
        self._ring.write(samples)

    def _on_finished(self) -> None:
        self._has_finished = True


def _explained(label: str, error: Exception) -> MicrophoneError:
    """PortAudio's words to a cause; its error numbers are PaErrorCode's."""
    text = str(error)
    number = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], int) else 0
    if number == -9985 or "unavailable" in text.lower() or "busy" in text.lower():
        code, why, hint = "busy", "is in use by another program", "Close that program, or choose another microphone."
    elif "permission" in text.lower() or "denied" in text.lower():
        code, why, hint = "permission", "may not be used", "Allow microphone access in the system's privacy settings."
    elif number == -9997 or "sample rate" in text.lower():
        code, why, hint = "rate", "does not run at the rate it promises", "Choose another rate for it in the system."
    elif number == -9996 or "invalid device" in text.lower():
        code, why, hint = "missing", "is not there any more", "Connect it again, or choose another microphone."
    else:
        code, why, hint = "failed", "could not be opened", "Try another microphone, or connect it again."
    return MicrophoneError(f'The microphone "{label}" {why}.', code=f"microphone.{code}", hint=hint, detail=text)
