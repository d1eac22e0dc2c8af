"""Push-to-talk: what was captured while the key was held passes, the rest is silence."""

from __future__ import annotations

from collections import deque

import numpy as np

_FADE_S = 0.005
_TAIL_S = 0.150
"""People let go of the key while they say the last sound."""


class TalkKey:
    """Decides by capture time, so that a device's own delay neither cuts the first word nor lets a later one through.

    Used by the audio thread, or while it waits for the lock that the caller holds.
    """

    def __init__(self, *, is_needed: bool = False) -> None:
        self.is_needed = is_needed
        self._times: deque[tuple[float, float]] = deque()

    @property
    def is_held(self) -> bool:
        """Whether the key is down."""
        return bool(self._times) and self._times[-1][1] == float("inf")

    def press(self, now_s: float) -> None:
        """Held from `now_s` (monotonic) on; pressing a key that is held changes nothing."""
        if not self.is_held:
            self._times.append((now_s, float("inf")))

    def release(self, now_s: float) -> None:
        """Not held from `now_s` on; releasing a key that is not held changes nothing."""
        if self.is_held:
            pressed_s, _ = self._times.pop()
            self._times.append((pressed_s, now_s + _TAIL_S))

    def forget(self) -> None:
        """Not even the tail of the last time passes."""
        self._times.clear()

    def applied(self, samples: np.ndarray, captured_at_s: float, rate_hz: int) -> np.ndarray:
        """What passes of float32 (n, channels) whose first sample was captured then."""
        if not self.is_needed:
            return samples
        while self._times and self._times[0][1] < captured_at_s:
            self._times.popleft()
        times_s = captured_at_s + np.arange(len(samples)) / rate_hz
        gains = np.zeros(len(samples))
        for start_s, end_s in self._times:
            rising, falling = (times_s - start_s) / _FADE_S, (end_s - times_s) / _FADE_S
            np.maximum(gains, np.clip(np.minimum(rising, falling), 0.0, 1.0), out=gains)
        return samples * gains[:, None].astype(np.float32)
