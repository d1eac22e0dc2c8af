"""The microphone's own sound, played so much later that it arrives with the picture."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from engine.audio.delay_line import DelayLine
from engine.audio.devices import OpenStream, find_device, sound_library
from engine.errors import VoiceOutError

logger = logging.getLogger(__name__)

_LARGEST_OUTPUT_LATENCY_S = 1.0


class VoiceOut:
    """A `DelayLine` played on an output device, chosen by name and host API."""

    def __init__(self, name: str = "", host_api: str = "") -> None:
        self._index, device = find_device("output", name, host_api)
        self.label = device.name
        self.channels = min(2, device.channels)
        self.line = DelayLine(device.rate_hz)
        self._mono = np.zeros((1, 1), np.float32)
        self._stream: Any = None
        self.has_failed = False

    def start(self) -> None:
        """Open the device. Raises `VoiceOutError` with the cause."""
        library = sound_library()
        try:
            self._stream = library.OutputStream(
                device=self._index,
                samplerate=self.line.rate_hz,
                channels=self.channels,
                dtype="float32",
                blocksize=int(0.010 * self.line.rate_hz),
                latency="low",
                callback=self._callback,
                finished_callback=self._on_finished,
            )
            self._stream.start()
        except library.PortAudioError as error:
            if self._stream is not None:
                self._stream.close(ignore_errors=True)
                self._stream = None
            raise VoiceOutError(
                f'The sound output "{self.label}" could not be opened.',
                code="voice_out.failed",
                hint="It may be in use or gone: choose another one.",
                detail=str(error),
            ) from error
        OpenStream.opened()

    def stop(self) -> None:
        """Give the device back; safe to call twice."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)
        except Exception as error:  # noqa: BLE001 - a device that is gone may fail in any way
            logger.warning("closing the sound output %s failed: %s", self.label, error)
        OpenStream.closed()

    def _callback(self, out: np.ndarray, frames: int, times: Any, status: Any) -> None:
        ahead_s = times.outputBufferDacTime - times.currentTime
        if not 0.0 <= ahead_s <= _LARGEST_OUTPUT_LATENCY_S:
            ahead_s = frames / self.line.rate_hz
        if len(self._mono) != frames:
            self._mono = np.zeros((frames, 1), np.float32)
        self.line.fill(self._mono, time.monotonic() + ahead_s)
        out[:] = self._mono

    def _on_finished(self) -> None:
        self.has_failed = self._stream is not None
