"""When a generator is too slow, and what is tried instead: the rules, without anything that carries them out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.stream.pace import PaceWindow

Kind = Literal["full", "economy", "smaller", "standby", "card"]

_LEAST_CHUNKS, _LEAST_S = 2, 0.4
_MOST_CHUNKS, _MOST_S = 8, 2.0
"""So much has to be seen before anything is made cheaper: the less, the sooner the pipeline's margin is used up."""

_HEADROOM_DOWN, _HEADROOM_UP = 0.95, 0.85
"""What a rung may be expected to take of the time there is, to be tried instead of a dearer or a cheaper one. Between
that and too slow lies the hysteresis."""
_HEADROOM_IN_TIME = 0.95
"""The same for the time until its frames are due: a quarter of that is kept free already when a session begins."""

_SURPLUS_S = 10.0
_SURPLUS_TO_LOAD_S = 60.0
_MOST_PATIENCE_S = 320.0
_RELAPSE_S = 60.0
_FORGIVEN_S = 600.0
"""A surplus must last before a dearer way is tried, twice as long after each time that it did not do, and no longer
than at first after ten minutes without such a relapse."""

_KEPT_S = 6.0


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A way of making the picture. `cost` is the least that it can take, as a share of the first rung's; `limit` says
    how much of a chunk's duration it may take before it is too slow. `economy` and `size` tell the generator: the
    number of its economy, and of its smaller size (0 for its own)."""

    name: str
    kind: Kind
    cost: float = 1.0
    limit: float = 1.0
    economy: int = 0
    size: int = 0


@dataclass(frozen=True, kw_only=True)
class Move:
    """From one rung to another. `took_s` is what a chunk took lately, on the one before or when it was tried."""

    before: Rung
    now: Rung
    took_s: float

    @property
    def is_down(self) -> bool:
        """Whether the picture is cheaper now."""
        return self.now.cost < self.before.cost


class Ladder:
    """One generator's rungs, best first. The pure part of the decision: `observe` takes a chunk's time and says where
    to go. Called by the generator's thread, except `may_return`, `returned` and `give_up_sizes`, for which the
    generator must not be running."""

    def __init__(self, rungs: Sequence[Rung], chunk_s: float) -> None:
        assert rungs and chunk_s > 0, (rungs, chunk_s)
        self.rungs = tuple(rungs)
        self.chunk_s = chunk_s
        self.in_time_s = math.inf
        """What a chunk may take for its frames to be in time; may change with the generator."""
        self.position = 0
        self._costs = [rung.cost for rung in rungs]
        self._least = max(_LEAST_CHUNKS, math.ceil(_LEAST_S / chunk_s))
        self._most = max(_MOST_CHUNKS, math.ceil(_MOST_S / chunk_s))
        self._window = PaceWindow(chunk_s, max(_KEPT_S, 1.25 * self._most * chunk_s))
        self._to_ignore = 0
        self._came_from: tuple[int, float] | None = None
        self._surplus_since_s: float | None = None
        self._patience = 1.0
        self._climbed_s = -math.inf
        self._relapsed_s = -math.inf

    @property
    def rung(self) -> Rung:
        """Where it stands."""
        return self.rungs[self.position]

    def observe(self, now_s: float, took_s: float, margin_s: float) -> Move | None:
        """A chunk was finished at `now_s` and took `took_s`; the next one could begin `margin_s` later than it will and
        still be in time (below 0: it is late). The move to make, if any."""
        if self._to_ignore > 0:  # what changes costs something itself
            self._to_ignore -= 1
            return None
        self._window.add(now_s, took_s)
        self._learn()
        return self._lowered(now_s, margin_s) or self._raised(now_s)

    def jump_to(self, position: int) -> None:
        """Be on another rung, whatever the reason."""
        self.position = position
        self._window.clear()
        self._to_ignore = 1 if self.chunk_s > _LEAST_S else math.ceil(0.2 / self.chunk_s)
        self._surplus_since_s = self._came_from = None

    def begin_again(self, size: int) -> None:
        """Another generator has taken over, which makes pictures of that size."""
        is_another = self.rung.kind in ("standby", "card") or self.rung.size != size
        self.jump_to(self._last_of(size) if is_another else self.position)
        self._to_ignore = 0  # it has been warmed up

    def economy_of(self, size: int) -> int:
        """In which economy a resting generator of that size is to be tried."""
        return self.rungs[self._last_of(size)].economy

    def may_return(self, took_s: float, size: int) -> bool:
        """Whether a generator of that size which rests, and has taken so long for a chunk in `economy_of` its size, may
        be used again."""
        return took_s <= self._time_up_s()

    def returned(self, now_s: float, took_s: float, size: int) -> Move:
        """It is used again."""
        return self._move(now_s, self._last_of(size), took_s)

    def give_up_sizes(self, *, rests: bool = False) -> None:
        """There are no smaller ones; the generator in its own size runs, or rests."""
        kept = [index for index, rung in enumerate(self.rungs) if rung.size == 0]
        self.rungs = tuple(self.rungs[index] for index in kept)
        self._costs = [self._costs[index] for index in kept]
        self.jump_to(len(self.rungs) - 1 if rests else self._last_of(0))

    @property
    def usual_s(self) -> float:
        """What nine of ten chunks stay below lately."""
        return self._window.usual_s()

    def _last_of(self, size: int) -> int:
        """The cheapest rung of that size on which it still runs."""
        fitting = [
            index for index, rung in enumerate(self.rungs) if rung.size == size and rung.kind not in ("standby", "card")
        ]
        return fitting[-1] if fitting else 0

    def patience_s(self, now_s: float) -> float:
        """How long a surplus must last now before the next better rung is tried."""
        if now_s - self._relapsed_s > _FORGIVEN_S:
            self._patience = 1.0
        rests = self.rung.kind in ("standby", "card")
        needs_load = not rests and self.rung.size != self.rungs[max(0, self.position - 1)].size
        return min(_MOST_PATIENCE_S, self._patience * (_SURPLUS_TO_LOAD_S if needs_load else _SURPLUS_S))

    # ------------------------------------------------------------------------------------------------- down and up

    def _lowered(self, now_s: float, margin_s: float) -> Move | None:
        limit_s = min(self.rung.limit * self.chunk_s, self.in_time_s)
        if self.position == len(self.rungs) - 1:
            return None
        took_s = self._window.recent_s(self._least, limit_s)
        excess_s = took_s - limit_s
        if len(self._window) < self._least:
            return None
        needed = self._most if excess_s <= 0 else math.floor(margin_s / excess_s)
        needed = min(self._most, max(self._least, needed))
        took_s = self._window.recent_s(needed, limit_s)
        if len(self._window) < needed or took_s <= limit_s:
            return None
        typical_s = self._window.typical_s(needed)
        return self._move(now_s, self._cheap_enough(typical_s), typical_s)

    def _cheap_enough(self, took_s: float) -> int:
        """The first rung below that is expected to do; else the last."""
        for position in range(self.position + 1, len(self.rungs) - 1):
            expected_s = took_s * self._costs[position] / self._costs[self.position]
            limit_s = min(self.rungs[position].limit * self.chunk_s, self.in_time_s)
            if expected_s <= _HEADROOM_DOWN * limit_s:
                return position
        return len(self.rungs) - 1

    def _raised(self, now_s: float) -> Move | None:
        if self.position == 0 or self.rung.kind == "standby" or len(self._window) < self._least:
            return None
        before, expected_s = self.position - 1, self._window.usual_s()
        if self.rung.kind != "card":  # for it the rung above is made already, now and then, and not shown
            expected_s *= self._costs[before] / self._costs[self.position]
        if expected_s > self._time_up_s():
            self._surplus_since_s = None
            return None
        if self._surplus_since_s is None:
            self._surplus_since_s = now_s
        if now_s - self._surplus_since_s < self.patience_s(now_s):
            return None
        return self._move(now_s, before, self._window.usual_s())

    def _time_up_s(self) -> float:
        """What a chunk may be expected to take for a dearer rung to be tried."""
        return min(_HEADROOM_UP * self.chunk_s, _HEADROOM_IN_TIME * self.in_time_s)

    def _move(self, now_s: float, position: int, took_s: float) -> Move:
        before, is_down = self.position, position > self.position
        if is_down and now_s - self._climbed_s < max(_RELAPSE_S, self.patience_s(now_s)):
            self._patience *= 2.0
            self._relapsed_s = now_s
        if not is_down:
            self._climbed_s = now_s
        self.jump_to(position)
        self._came_from = (before, took_s) if is_down else None
        return Move(before=self.rungs[before], now=self.rung, took_s=took_s)

    def _learn(self) -> None:
        """What this rung costs, compared with the one that was left for it; never less than it can, nor more than
        that one."""
        if self._came_from is None or len(self._window) < self._least:
            return
        before, took_s = self._came_from
        self._came_from = None
        if self.rung.kind in ("standby", "card") or took_s <= 0:
            return
        measured = self._costs[before] * self._window.usual_s() / took_s
        self._costs[self.position] = min(self._costs[before], max(self.rung.cost, measured))
