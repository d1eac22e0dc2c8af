"""How long sound is on its way from the microphone, and what of that the session's delay was not made for."""

from __future__ import annotations

from engine.media import AudioBlock
from engine.stream.timeline import CAPTURE_S

MOST_S = 0.6
"""More than that is no device's delay, but something that is wrong."""

_PLANNED_S = CAPTURE_S - 0.010
"""What the delay leaves for device, block and poll, beside the resampler."""

_BLOCK_S = 0.010
_LEAST_STEP_S = 0.010
_SETTLE_S = 1.0
"""A sound server may hand out what it has kept at first: that is no delay of the device."""

_FIRST_S, _LATER_S = 2.0, 10.0
_FEWEST = 10
_MOST_OF_THEM = 0.9
"""Of ten blocks of a slow source one may come later than is allowed for."""

_STALL_S = 0.030


class CaptureWay:
    """Of the source in use. One thread (audio).

    A delay that changes is seen and heard, so a source that needs more of it than there is counts as having heard
    `extra_s` later than it has. Picture and voice then stay together, that much later, and nothing is lost.

    A source is slow only if every single block of a window comes late: some do on a busy computer, whatever the
    device. It is quick again only if nearly none does.
    """

    def __init__(self) -> None:
        self.extra_s = 0.0
        self._first_s: float | None = None
        self._until_s = 0.0
        self._oldest_s: list[float] = []
        self._newest_s: list[float] = []

    @property
    def has_begun(self) -> bool:
        """Whether the source has delivered anything."""
        return self._first_s is not None

    @property
    def way_s(self) -> float:
        """Seconds from capture to arrival that there is room for now."""
        return _PLANNED_S + self.extra_s

    def note(self, block: AudioBlock, now_s: float, waited_s: float) -> bool:
        """Account for a block that was read at `now_s` (monotonic), `waited_s` after the audio thread had looked the
        time before; true if `extra_s` has changed."""
        if self._first_s is None:
            self._first_s, self._until_s = now_s, now_s + _SETTLE_S + _FIRST_S
        if now_s - self._first_s < _SETTLE_S:
            return False
        if waited_s < _STALL_S:  # else it is this computer that is late
            oldest_s = now_s - block.captured_at_s
            self._oldest_s.append(oldest_s)
            self._newest_s.append(oldest_s - len(block.samples) / block.rate_hz)
        if now_s < self._until_s or len(self._oldest_s) < _FEWEST:
            return False
        least_s = min(self._newest_s) + _BLOCK_S
        most_s = sorted(self._oldest_s)[int(_MOST_OF_THEM * len(self._oldest_s))]
        self._until_s, self._oldest_s, self._newest_s = now_s + _LATER_S, [], []
        return self._judge(least_s, most_s)

    def _judge(self, least_s: float, most_s: float) -> bool:
        """Of the blocks of a window, the quickest took `least_s` and nearly all took up to `most_s`."""
        is_slower = least_s > self.way_s + _LEAST_STEP_S and most_s < MOST_S
        is_quick = self.extra_s > 0.0 and most_s < _PLANNED_S + _LEAST_STEP_S
        if is_slower or is_quick:
            self.extra_s = max(0.0, most_s - _PLANNED_S)
        return is_slower or is_quick
