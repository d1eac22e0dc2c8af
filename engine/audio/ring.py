"""A ring of samples between one writer and one reader in different threads; neither ever waits."""

from __future__ import annotations

import numpy as np


class SampleRing:
    """Holds up to `capacity` samples of float32 (n, channels); all memory is taken here.

    One thread calls `write`, one other `read` (or `read_into`). Only the writer moves the write position and only the
    reader the read position, and each is a single assignment, so no lock is needed. When full, what does not fit is
    left out and counted in `overflows`.
    """

    def __init__(self, capacity: int, channels: int = 1) -> None:
        self._samples = np.zeros((capacity, channels), np.float32)
        self._capacity = capacity
        self._written = 0
        self._read = 0
        self.overflows = 0

    def __len__(self) -> int:
        """Samples that wait to be read."""
        return self._written - self._read

    @property
    def written(self) -> int:
        """Samples written since the start."""
        return self._written

    @property
    def position(self) -> int:
        """Samples read since the start."""
        return self._read

    def write(self, samples: np.ndarray) -> int:
        """Append (n, channels); returns how many samples fitted."""
        count = min(len(samples), self._capacity - len(self))
        if count < len(samples):
            self.overflows += len(samples) - count
        start = self._written % self._capacity
        head = min(count, self._capacity - start)
        self._samples[start : start + head] = samples[:head]
        self._samples[: count - head] = samples[head:count]
        self._written += count
        return count

    def read(self, most: int | None = None) -> np.ndarray:
        """What waits, at most `most` samples, as a new array (n, channels)."""
        count = len(self) if most is None else min(most, len(self))
        out = np.empty((count, self._samples.shape[1]), np.float32)
        self.read_into(out)
        return out

    def read_into(self, out: np.ndarray) -> int:
        """Fill the beginning of `out` (n, channels) with what waits; returns how many samples that were."""
        count = min(len(out), len(self))
        start = self._read % self._capacity
        head = min(count, self._capacity - start)
        out[:head] = self._samples[start : start + head]
        out[head:count] = self._samples[: count - head]
        self._read += count
        return count

    def is_quieter(self, count: int, level: float) -> bool:
        """Whether the next `count` samples are there and all below `level` (called by the reader)."""
        if len(self) < count:
            return False
        start = self._read % self._capacity
        head = min(count, self._capacity - start)
        parts = (self._samples[start : start + head], self._samples[: count - head])
        return all(part.size == 0 or float(np.abs(part).max()) < level for part in parts)

    def skip(self, count: int) -> int:
        """Forget up to `count` waiting samples (called by the reader); returns how many."""
        skipped = min(count, len(self))
        self._read += skipped
        return skipped
