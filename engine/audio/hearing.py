"""An ear for the sync test: what a microphone, or the virtual microphone's own other end, heard, and when."""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np

from engine.audio.microphone import Microphone
from engine.audio.pulse_stream import PulseError, PulseRecording
from engine.audio.virtual_voice_out import VirtualVoiceOut
from engine.audio.voice_out import AnyVoiceOut
from engine.clock import SystemClock
from engine.errors import MicrophoneError
from engine.settings import MicrophoneSource

_RATE_HZ = 48_000
_POLL_S = 0.010
_JOIN_S = 2.0


class Hearing(Protocol):
    """Listens from the moment it is opened until `stop`; then `recorded` tells."""

    rate_hz: int
    label: str

    def stop(self) -> None:
        """Listen no more; safe to call twice."""
        ...

    def recorded(self) -> tuple[np.ndarray, float]:
        """float32 (n,) at `rate_hz`, and the monotonic time of its first sample."""
        ...

    def close(self) -> None:
        """Give the device back; safe to call twice."""
        ...


def open_hearing(voice: AnyVoiceOut, microphone: MicrophoneSource | None) -> Hearing:
    """Listen at `microphone`; at the other end of `voice` where that is a virtual one and no microphone is named.

    Raises `MicrophoneError`, `DeviceError`.
    """
    if microphone is not None:
        return _Ear(Microphone(microphone.name, microphone.host_api))
    if isinstance(voice, VirtualVoiceOut):
        return _Tap(voice.source, voice.microphone)
    return _Ear(Microphone(voice.microphone))


class _Recorder:
    """Blocks with their times, put together. One thread of its own collects."""

    def __init__(self, label: str, rate_hz: int) -> None:
        self.label, self.rate_hz = label, rate_hz
        self._blocks: list[tuple[np.ndarray, float]] = []
        self._stopping = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._guarded, name="hearing", daemon=True)

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def recorded(self) -> tuple[np.ndarray, float]:
        if not self._blocks:
            return np.zeros(0, np.float32), 0.0
        sound = np.concatenate([samples for samples, _ in self._blocks])
        begins = np.cumsum([0] + [len(samples) for samples, _ in self._blocks[:-1]]) / self.rate_hz
        # Single times jitter by some ms; of all of them the middle one is right.
        return sound, float(np.median(np.array([at_s for _, at_s in self._blocks]) - begins))

    def close(self) -> None:
        self.stop()

    def _guarded(self) -> None:
        try:
            self._collect()
        except (PulseError, MicrophoneError) as error:
            self._error = error

    def _collect(self) -> None:
        raise NotImplementedError


class _Ear(_Recorder):
    """Any microphone of the system, through PortAudio."""

    def __init__(self, microphone: Microphone) -> None:
        super().__init__(microphone.label, microphone.rate_hz)
        self._microphone = microphone
        microphone.start(SystemClock())
        self._thread.start()

    def close(self) -> None:
        self.stop()
        self._microphone.stop()

    def _collect(self) -> None:
        while not self._stopping.wait(_POLL_S):
            block = self._microphone.read()
            if block is not None:
                self._blocks.append((block.samples.mean(axis=1, dtype=np.float32), block.captured_at_s))


class _Tap(_Recorder):
    """A source of the sound server, by its name."""

    def __init__(self, source: str, label: str) -> None:
        super().__init__(label, _RATE_HZ)
        try:
            self._stream = PulseRecording(source, _RATE_HZ)
        except PulseError as error:
            raise MicrophoneError(
                f'The microphone "{label}" could not be opened.', code="microphone.failed", detail=error.detail
            ) from error
        self._thread.start()

    def close(self) -> None:
        self.stop()
        if not self._thread.is_alive():
            self._stream.close()

    def _collect(self) -> None:
        while not self._stopping.is_set():
            samples, at_s = self._stream.read()
            self._blocks.append((samples[:, 0], at_s))
