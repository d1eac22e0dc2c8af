"""How long chunks take lately, as far as it says something about the next ones: single outliers do not."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from dataclasses import dataclass

_OUTLIERS_SHARE = 8
"""One chunk in so many may be anything: another program began, a disk was slow."""

_CAP = 2.0
_USUAL_QUANTILE = 0.9

_SLOWER_WEIGHT, _FASTER_WEIGHT = 0.3, 0.05
_INTERRUPTED = 3.0


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a chunk went: made by the standby or by the wanted generator, with which economy, in how many seconds until
    `at_s` (monotonic), and by how much later the next one could begin and still be shown in time. `in_time_s` is what
    a chunk may take for that if it begins as soon as its sound has been heard."""

    is_standby: bool
    economy: int
    took_s: float
    margin_s: float
    in_time_s: float
    at_s: float


class PaceWindow:
    """Seconds that the last chunks took, each of which lasts `chunk_s`; those older than `kept_s` are forgotten."""

    def __init__(self, chunk_s: float, kept_s: float) -> None:
        self._chunk_s, self._kept_s = chunk_s, kept_s
        self._took: deque[tuple[float, float]] = deque()

    def __len__(self) -> int:
        return len(self._took)

    def add(self, now_s: float, took_s: float) -> None:
        """A chunk was finished at `now_s` (monotonic)."""
        self._took.append((now_s, took_s))
        with contextlib.suppress(IndexError):  # another thread may clear it meanwhile
            while now_s - self._took[0][0] > self._kept_s and len(self._took) > 2:
                self._took.popleft()

    def clear(self) -> None:
        """What comes is made in another way."""
        self._took.clear()

    def recent_s(self, count: int, limit_s: float) -> float:
        """Mean of the last `count` without the slowest of them (one, and one more for every eight). None counts for
        more than twice `limit_s`, so that two hiccups among many good chunks stay two hiccups."""
        took_s = sorted(min(took, _CAP * limit_s) for _, took in list(self._took)[-count:])
        kept = took_s[: len(took_s) - math.ceil(len(took_s) / _OUTLIERS_SHARE)]
        return sum(kept) / len(kept) if kept else 0.0

    def typical_s(self, count: int) -> float:
        """The median of the last `count`."""
        took_s = sorted(took for _, took in list(self._took)[-count:])
        return took_s[len(took_s) // 2] if took_s else 0.0

    def usual_s(self) -> float:
        """What nine of ten chunks stay below."""
        took_s = sorted(took for _, took in list(self._took))  # another thread adds to it
        return took_s[min(len(took_s) - 1, int(_USUAL_QUANTILE * len(took_s)))] if took_s else 0.0


class ChunkTime:
    """How long the next chunk of a generator will take, from `expected_s` on.

    Slow chunks are followed quickly and fast ones slowly: skipping should aim at what is safe. A single chunk that took
    out of all proportion was interrupted (the computer slept, the process was stopped): to skip as much again would
    freeze the picture for seconds after it."""

    def __init__(self, expected_s: float) -> None:
        self.expected_s = expected_s
        self._last_took_s = 0.0

    def took(self, took_s: float, chunk_s: float) -> None:
        """A chunk that lasts `chunk_s` took `took_s` to make."""
        likely_s = max(self._last_took_s, _INTERRUPTED * self.expected_s, chunk_s)
        self._last_took_s, took_s = took_s, min(took_s, likely_s)
        weight = _SLOWER_WEIGHT if took_s > self.expected_s else _FASTER_WEIGHT
        self.expected_s += weight * (took_s - self.expected_s)
