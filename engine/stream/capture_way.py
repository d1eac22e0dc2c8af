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
_FIRST_S, _LATER_S = 2.0, 10.0
_FEWEST = 10
_LATEST = 0.9
"""Of ten blocks of the first seconds one may come later than is allowed for. Afterwards a source counts as slower only
if every single block has been late for so long: a busy computer is no slow device, and what is allowed stays."""

_STALL_S = 0.030
_ODD_S = 0.030


class CaptureWay:
    """Of the source in use. One thread (audio).

    A delay that changes is seen and heard, so a source that needs more of it than there is counts as having heard
    `extra_s` later than it has. Picture and voice then stay together, that much later, and nothing is lost.
    """

    def __init__(self) -> None:
        self.extra_s = 0.0
        self._since_s: float | None = None
        self._is_new = True
        self._ages_s: list[tuple[float, float]] = []

    @property
    def has_begun(self) -> bool:
        """Whether the source has delivered anything."""
        return self._since_s is not None

    @property
    def way_s(self) -> float:
        """Seconds from capture to arrival that there is room for now."""
        return _PLANNED_S + self.extra_s

    def note(self, block: AudioBlock, now_s: float, waited_s: float) -> bool:
        """Account for a block that was read at `now_s` (monotonic), `waited_s` after the audio thread had looked the
        time before; true if `extra_s` has changed."""
        oldest_s = now_s - block.captured_at_s
        newest_s = oldest_s - len(block.samples) / block.rate_hz
        if self._since_s is None:  # it may hold what waited for the audio thread: only its end says how late it is
            self._since_s = now_s
            return self._allow(newest_s + _BLOCK_S)
        if waited_s < _STALL_S:  # else it is this computer that is late
            self._ages_s.append((oldest_s, newest_s))
        if now_s - self._since_s < (_FIRST_S if self._is_new else _LATER_S) or len(self._ages_s) < _FEWEST:
            return False
        ages_s, self._ages_s, self._since_s = self._ages_s, [], now_s
        is_new, self._is_new = self._is_new, False
        if is_new:  # the very first block may have been an odd one
            way_s = sorted(oldest for oldest, _ in ages_s)[int(_LATEST * len(ages_s))]
            return self._allow(way_s, may_be_less=True)
        return self._allow(min(newest for _, newest in ages_s) + _BLOCK_S)

    def _allow(self, way_s: float, *, may_be_less: bool = False) -> bool:
        extra_s = max(0.0, way_s - _PLANNED_S)
        is_less = may_be_less and extra_s < self.extra_s - _ODD_S
        if way_s > MOST_S or (extra_s < self.extra_s + _LEAST_STEP_S and not is_less):
            return False
        self.extra_s = extra_s
        return True
