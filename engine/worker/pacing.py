"""When rank 0 may make a piece of a preparation: the stream that runs is to have its frames in time."""

from __future__ import annotations

import math

_SHARE = 0.1
"""Of the time that chunks take: so much may pieces take in addition where chunks leave no time between them."""
_QUIET_S = 0.25
"""If nobody has asked for a chunk for so long after it was due, nobody does."""


class Pacer:
    """Knows when the next chunk is due and how long pieces take. Times are those of one clock, in seconds. One thread.

    A piece is made if it will be over before the next chunk is due. One that has no room between two chunks is paid
    from an allowance that grows with each chunk, and is made late while that lasts: so a preparation ends some time,
    also beside chunks that follow each other without a break.
    """

    def __init__(self) -> None:
        self._due_s = self._free_s = -math.inf
        self._allowance_s = 0.0
        self._lengths_s: dict[str, float] = {}

    def chunk_made(self, *, asked_s: float, period_s: float, began_s: float, ended_s: float) -> None:
        """A chunk of `period_s` of video was asked for, begun and done."""
        self._due_s, self._free_s = asked_s + period_s, ended_s
        earned_s = _SHARE * (ended_s - began_s)
        # What is not used does not add up: a preparation that comes later must not use all of it at once.
        self._allowance_s = min(self._allowance_s + earned_s, earned_s)

    def piece_made(self, name: str, *, began_s: float, ended_s: float) -> None:
        """A piece called `name` was made."""
        self._lengths_s[name] = ended_s - began_s
        if began_s < self._quiet_s:
            self._allowance_s -= max(0.0, ended_s - max(began_s, min(self._due_s, ended_s)))

    def wait_s(self, name: str, now_s: float) -> float:
        """How long to wait for a chunk before a piece called `name` is made; 0 if it may be made now."""
        length_s = self._lengths_s.get(name, max(self._lengths_s.values(), default=0.0))
        has_room = self._free_s + length_s <= self._due_s  # if not now, then after the next chunk
        if now_s + length_s <= self._due_s or (self._allowance_s > 0 and not has_room):
            return 0.0
        return max(0.0, self._quiet_s - now_s)

    @property
    def _quiet_s(self) -> float:
        return max(self._due_s, self._free_s) + _QUIET_S
