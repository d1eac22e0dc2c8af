"""The session's sound at 16 kHz by absolute sample index, from any source, without a gap."""

from __future__ import annotations

import threading

import numpy as np

from engine.media import SAMPLE_RATE_HZ, AudioChunk, ChunkSpec, first_sample_of

CAPTURE_S = 0.050
"""From a sample's capture until the timeline has it: device buffer, 10 ms block, 10 ms poll, 20 ms resampler. Sound of
devices that take longer is placed later (`capture_way.py`)."""


class Timeline:
    """Keeps the last `kept_s` seconds. The audio thread appends, the generator's thread takes chunks."""

    def __init__(self, kept_s: float = 12.0) -> None:
        self._samples = np.zeros(int(kept_s * SAMPLE_RATE_HZ), np.float32)
        self._end = 0
        self._wakes = 0
        self._changed = threading.Condition()

    @property
    def end(self) -> int:
        """Index after the newest sample."""
        return self._end

    def append(self, samples: np.ndarray, redo: int = 0) -> None:
        """Add float32 (n,), the first `redo` of which replace the last ones; of more than is kept, only the end."""
        size = len(self._samples)
        with self._changed:
            self._end += len(samples) - min(redo, self._end)
            kept = samples[-size:]
            start = (self._end - len(kept)) % size
            head = min(len(kept), size - start)
            self._samples[start : start + head] = kept[:head]
            self._samples[: len(kept) - head] = kept[head:]
            self._changed.notify_all()

    def append_silence(self, count: int) -> None:
        """Add `count` samples of silence."""
        while count > 0:
            part = min(count, SAMPLE_RATE_HZ)
            self.append(np.zeros(part, np.float32))
            count -= part

    def silence_from(self, first: int) -> None:
        """Make everything from sample `first` on silent: what was said must not be shown any more."""
        with self._changed:
            size = len(self._samples)
            self._samples[np.arange(max(first, self._end - size, 0), self._end) % size] = 0.0

    def has(self, frame: int, spec: ChunkSpec) -> bool:
        """Whether the chunk that begins with `frame` is complete, look-ahead included."""
        return self._end >= first_sample_of(frame + spec.frames, spec.fps) + spec.lookahead_samples

    def wait(self, frame: int, spec: ChunkSpec, timeout_s: float) -> bool:
        """Wait until `has`; false after `timeout_s`, or when woken before."""
        with self._changed:
            wakes = self._wakes
            self._changed.wait_for(lambda: self.has(frame, spec) or self._wakes != wakes, timeout_s)
            return self.has(frame, spec)

    def wake(self) -> None:
        """End all waiting now."""
        with self._changed:
            self._wakes += 1
            self._changed.notify_all()

    def chunk(self, frame: int, spec: ChunkSpec, *, is_discontinuous: bool, economy: int = 0) -> AudioChunk:
        """The chunk that begins with `frame`; what is no longer kept is silent."""
        first = first_sample_of(frame, spec.fps)
        last = first_sample_of(frame + spec.frames, spec.fps) + spec.lookahead_samples
        size = len(self._samples)
        with self._changed:
            index = np.arange(first, last)
            samples = self._samples[index % size]
            samples[index < self._end - size] = 0.0
        return AudioChunk(
            first_frame=frame,
            frames=spec.frames,
            first_sample=first,
            samples=samples,
            is_discontinuous=is_discontinuous,
            economy=economy,
        )
