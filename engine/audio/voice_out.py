"""The microphone's own sound, played on an output so much later that it arrives with the picture."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import numpy as np

from engine.audio.delay_line import DelayLine
from engine.audio.devices import OpenStream, device_lock, find_device, sound_library
from engine.audio.sync_memory import opened_output, recall_ms
from engine.audio.virtual_microphone import present_cable
from engine.audio.virtual_voice_out import VirtualVoiceOut
from engine.errors import VoiceOutError
from engine.settings import VIRTUAL_MICROPHONE, VoiceOutSettings

logger = logging.getLogger(__name__)

_LARGEST_OUTPUT_LATENCY_S = 1.0
_DEAD_AFTER_S = 2.0


class VoiceOut:
    """A `DelayLine` played on an output device, chosen by name and host API."""

    uses_portaudio = True

    def __init__(self, name: str = "", host_api: str = "") -> None:
        self._wanted = (name, host_api)
        _, device = find_device("output", name, host_api)
        self.label = device.name
        self.microphone = ""
        """What to choose in the call, where this output is a virtual cable."""
        self.channels = min(2, device.channels)
        self.line = DelayLine(device.rate_hz)
        self._mono = np.zeros((1, 1), np.float32)
        self._stream: Any = None
        self.has_sounded = False
        """Whether the device has asked for anything yet."""
        self._called_s = 0.0
        self._has_finished = False

    @property
    def has_failed(self) -> bool:
        """Whether the device is gone: PortAudio has ended the stream, or its callback is silent."""
        is_dead = time.monotonic() - self._called_s > _DEAD_AFTER_S
        return self._stream is not None and (self._has_finished or is_dead)

    def start(self) -> None:
        """Open the device. Raises `VoiceOutError` with the cause."""
        with device_lock:
            index, _ = find_device("output", *self._wanted)
            OpenStream.opened()
        try:
            self._open(index)
        except BaseException:
            OpenStream.closed()
            raise

    def _open(self, index: int) -> None:
        library = sound_library()
        stream = None
        try:
            stream = library.OutputStream(
                device=index,
                samplerate=self.line.rate_hz,
                channels=self.channels,
                dtype="float32",
                blocksize=int(0.010 * self.line.rate_hz),
                latency="low",
                callback=self._callback,
                finished_callback=self._on_finished,
            )
            stream.start()
        except library.PortAudioError as error:
            if stream is not None:
                stream.close(ignore_errors=True)
            raise VoiceOutError(
                f'The sound output "{self.label}" could not be opened.',
                code="voice_out.failed",
                hint="It may be in use or gone: choose another one.",
                detail=str(error),
            ) from error
        self._called_s = time.monotonic()  # a driver may take long to open
        self._stream = stream

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
        now_s = time.monotonic()
        self._called_s, self.has_sounded = now_s, True
        ahead_s = times.outputBufferDacTime - times.currentTime
        if not 0.0 <= ahead_s <= _LARGEST_OUTPUT_LATENCY_S:
            ahead_s = frames / self.line.rate_hz
        if len(self._mono) != frames:
            self._mono = np.zeros((frames, 1), np.float32)
        self.line.fill(self._mono, now_s + ahead_s)
        out[:] = self._mono

    def _on_finished(self) -> None:
        self._has_finished = True


AnyVoiceOut = VoiceOut | VirtualVoiceOut


def open_voice_out(settings: VoiceOutSettings) -> AnyVoiceOut:
    """The output that these settings name, not started. Raises `VoiceOutError` where there is none."""
    voice = _found(settings.name, settings.host_api)
    voice.line.offset_s = correction_s(settings)
    return voice


def correction_s(settings: VoiceOutSettings) -> float:
    """How much later than the picture the voice is to be played: as set, or as the last sync test found."""
    if settings.offset_ms is not None:
        return 1e-3 * settings.offset_ms
    return 1e-3 * recall_ms(*opened_output(settings.name, settings.host_api))


def _found(name: str, host_api: str) -> AnyVoiceOut:
    if name != VIRTUAL_MICROPHONE:
        return VoiceOut(name, host_api)
    if sys.platform.startswith("linux"):
        return VirtualVoiceOut()
    cable = present_cable()
    voice = VoiceOut(cable.device.name, cable.device.host_api)
    voice.microphone = cable.microphone
    return voice
