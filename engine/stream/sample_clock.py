"""When each timeline sample was in the air: the microphone's counter against the machine's clock."""

from __future__ import annotations

from engine.media import SAMPLE_RATE_HZ, first_sample_of

_FOLLOW_PER_S = 0.2
"""Share of a deviation that is taken over per second: jitter of single blocks (10 to 20 ms) averages out."""

_MAX_SLEW = 0.005
"""At most 5 ms a second: a hundred times what two crystals differ by, and invisible."""

_STEADY_S = 0.3
RESYNC_S = 0.04
"""A deviation that stays beyond this is no drift: sound is missing, or came twice (sound servers do that in a
stream's first seconds). Averaged over `_STEADY_S`, because single blocks come late for many reasons."""


class SampleClock:
    """Maps timeline samples to monotonic seconds. One thread (audio) observes, any thread asks.

    The map is `origin + sample / 16000`; the origin follows the microphone's clock slowly, so that everything that
    is scheduled by it runs at the microphone's speed and drifts against nothing.
    """

    def __init__(self, origin_s: float) -> None:
        self._origin_s = origin_s
        self._observed_s = origin_s
        self._deviation_s = 0.0

    def begin(self, origin_s: float) -> None:
        """Sample 0 is captured at `origin_s`; called before any thread asks."""
        self._origin_s = self._observed_s = origin_s

    def time_of(self, sample: int) -> float:
        """Monotonic time at which `sample` was captured."""
        return self._origin_s + sample / SAMPLE_RATE_HZ

    def time_of_frame(self, frame: int, fps: int) -> float:
        """Monotonic time at which the first sample of `frame` was captured."""
        return self.time_of(first_sample_of(frame, fps))

    def sample_at(self, time_s: float) -> int:
        """The sample that was captured at `time_s`."""
        return round((time_s - self._origin_s) * SAMPLE_RATE_HZ)

    def observe(self, sample: int, captured_at_s: float) -> float:
        """Take note that `sample` was captured then; returns the steady deviation in s that is left."""
        deviation_s = captured_at_s - self.time_of(sample)
        elapsed_s = max(0.0, captured_at_s - self._observed_s)
        self._observed_s = max(self._observed_s, captured_at_s)
        self._deviation_s += min(1.0, elapsed_s / _STEADY_S) * (deviation_s - self._deviation_s)
        if abs(self._deviation_s) < RESYNC_S:
            step_s = self._deviation_s * min(1.0, _FOLLOW_PER_S * elapsed_s)
            limit_s = _MAX_SLEW * elapsed_s
            self._origin_s += max(-limit_s, min(limit_s, step_s))
        return self._deviation_s

    def forget_deviation(self) -> None:
        """The sound has been placed anew: what it deviated by before says nothing any more."""
        self._deviation_s = 0.0
