"""Where sound comes from: the protocol that the session reads, a file in real time, and silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from engine.audio.audio_file import AudioFile
from engine.clock import Clock
from engine.media import SAMPLE_RATE_HZ, AudioBlock


class AudioSource(Protocol):
    """Sound as it happens. `start`, `read` and `stop` come from the session's threads, never two at once."""

    rate_hz: int
    channels: int
    label: str

    @property
    def has_ended(self) -> bool:
        """Whether there will be no more sound (the end of a file, a microphone that is gone)."""
        ...

    @property
    def overflows(self) -> int:
        """Samples lost because nobody read them in time."""
        ...

    def start(self, clock: Clock) -> None:
        """Begin; sample 0 is captured now. Raises `MicrophoneError` or `AudioFileError`."""
        ...

    def read(self) -> AudioBlock | None:
        """Everything that has been captured since the last call, or None. Never waits."""
        ...

    def stop(self) -> None:
        """Give the device back; safe to call twice."""
        ...


class FileInRealTime:
    """A sound file that is heard as if somebody were speaking it."""

    def __init__(self, file: AudioFile, *, is_looped: bool = False) -> None:
        self.rate_hz, self.channels = file.rate_hz, file.channels
        self.label = file.path.name
        self.overflows = 0
        self._file = file
        self._is_looped = is_looped
        self._blocks: Iterator[np.ndarray] = iter(())
        self._kept = np.zeros((0, file.channels), np.float32)
        self._position = 0
        self._is_exhausted = False

    @property
    def has_ended(self) -> bool:
        return self._is_exhausted and len(self._kept) == 0

    def start(self, clock: Clock) -> None:
        self._clock = clock
        self._blocks = self._file.blocks()
        self._fill(1)  # a damaged file fails here, not in the middle of a call
        self._started_s = clock.now()

    def read(self) -> AudioBlock | None:
        due = int((self._clock.now() - self._started_s) * self.rate_hz) - self._position
        if due <= 0 or self.has_ended:
            return None
        self._fill(due)
        samples, self._kept = self._kept[:due], self._kept[due:]
        if len(samples) == 0:
            return None
        first = self._position
        self._position += len(samples)
        captured_at_s = self._started_s + first / self.rate_hz
        return AudioBlock(first_sample=first, samples=samples, rate_hz=self.rate_hz, captured_at_s=captured_at_s)

    def stop(self) -> None:
        self._blocks = iter(())

    def _fill(self, count: int) -> None:
        parts, have = [self._kept], len(self._kept)
        while have < count and not self._is_exhausted:
            block = next(self._blocks, None)
            if block is None and self._is_looped:
                self._blocks = self._file.blocks()
                block = next(self._blocks, None)
            if block is None:
                self._is_exhausted = True
                break
            parts.append(block)
            have += len(block)
        if len(parts) > 1:
            self._kept = np.concatenate(parts)


class Silence:
    """Nothing is said: the portrait rests."""

    rate_hz, channels, label = SAMPLE_RATE_HZ, 1, ""
    overflows = 0
    has_ended = False

    def __init__(self) -> None:
        self._position = 0

    def start(self, clock: Clock) -> None:
        self._clock = clock
        self._started_s = clock.now()

    def read(self) -> AudioBlock | None:
        count = int((self._clock.now() - self._started_s) * self.rate_hz) - self._position
        if count <= 0:
            return None
        first, self._position = self._position, self._position + count
        return AudioBlock(
            first_sample=first,
            samples=np.zeros((count, 1), np.float32),
            rate_hz=self.rate_hz,
            captured_at_s=self._started_s + first / self.rate_hz,
        )

    def stop(self) -> None:
        pass
