"""A second of the default microphone, for the doctor: whether it delivers anything, and anything but zeros."""

from __future__ import annotations

import math
import time

import numpy as np

from engine.audio.microphone import Microphone
from engine.clock import SystemClock

_LISTEN_S = 1.0
_FIRST_WITHIN_S = 1.5


def peak_dbfs() -> float | None:
    """The peak of a second, -inf for exact zeros, None if nothing came at all. Raises `DeviceError`."""
    microphone = Microphone()
    microphone.start(SystemClock())
    try:
        peak, count = 0.0, 0
        end_s = time.monotonic() + _FIRST_WITHIN_S + _LISTEN_S
        while time.monotonic() < end_s and count < _LISTEN_S * microphone.rate_hz and not microphone.has_ended:
            block = microphone.read()
            if block is None:
                time.sleep(0.02)
                continue
            count += len(block.samples)
            peak = max(peak, float(np.abs(block.samples).max()))
    finally:
        microphone.stop()
    if count == 0:
        return None
    return 20 * math.log10(peak) if peak > 0 else -math.inf
