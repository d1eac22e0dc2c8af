"""How loud the microphone is, for the meter."""

from __future__ import annotations

import math

import numpy as np

FLOOR_DBFS = -120.0
_RELEASE_DB_PER_S = 24.0
"""The needle falls like a common peak programme meter: fast enough to follow words, slow enough to read."""


class LevelMeter:
    """RMS and peak of what was pushed lately, in dB relative to full scale; the peak falls slowly."""

    def __init__(self) -> None:
        self.rms_dbfs = FLOOR_DBFS
        self.peak_dbfs = FLOOR_DBFS

    def push(self, samples: np.ndarray, rate_hz: int) -> None:
        """Account for float32 samples of any shape."""
        if samples.size == 0:
            return
        flat = samples.reshape(-1)
        fall = _RELEASE_DB_PER_S * len(samples) / rate_hz
        power = float(np.dot(flat, flat)) / flat.size
        peak = max(float(flat.max()), -float(flat.min()))
        self.rms_dbfs = max(_dbfs(math.sqrt(power)), self.rms_dbfs - fall, FLOOR_DBFS)
        self.peak_dbfs = max(_dbfs(peak), self.peak_dbfs - fall, FLOOR_DBFS)


def _dbfs(amplitude: float) -> float:
    return 20 * math.log10(amplitude) if amplitude > 1e-6 else FLOOR_DBFS
