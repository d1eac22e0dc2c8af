"""Presents one frame per output tick, at absolute deadlines: holds when late, drops when early, never bursts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.sinks.base import PresentedFrame
from engine.stream.frame_queue import FrameQueue
from engine.stream.sample_clock import SampleClock

_LATENCIES_KEPT = 256


class Pacer:
    """The pure part: `tick(now)` does what is due and says when to come back. Called by one thread.

    Tick n is due when timeline frame n is: `time of its first sample + delay`. It shows the newest finished frame up
    to n. None finished since: the last one again (`held`). Several finished: the older ones are lost (`dropped`).
    Woken so late that whole ticks have passed: they are skipped and counted (`late`), not made up for. While there is a
    `card`, RGB uint8 (height, width, 3), it is shown in the frames' place (any thread may set it): ticks are held then.
    """

    def __init__(
        self,
        queue: FrameQueue,
        clock: SampleClock,
        *,
        fps: int,
        delay_s: float,
        compose: Callable[[np.ndarray, Any], np.ndarray],
        present: Callable[[PresentedFrame], None],
        first_tick: int = 0,
    ) -> None:
        self._queue = queue
        self._clock = clock
        self._fps = fps
        self.delay_s = delay_s
        self._compose = compose
        self._present = present
        self._next = first_tick
        self._first = first_tick
        self._canvas: np.ndarray | None = None
        self._frame = -1
        self._latencies_s = np.zeros(_LATENCIES_KEPT)
        self.presented = self.held = self.dropped = self.late = 0
        self.held_in_a_row = 0
        self.card: np.ndarray | None = None

    @property
    def ticks(self) -> int:
        """Output ticks that have passed."""
        return self._next - self._first

    @property
    def next_tick(self) -> int:
        """Number of the next one."""
        return self._next

    def due_s(self, tick: int) -> float:
        """Monotonic time of `tick`."""
        return self._clock.time_of_frame(tick, self._fps) + self.delay_s

    def tick(self, now_s: float) -> float:
        """Present what is due at `now_s`; returns the time of the next deadline."""
        if now_s < self.due_s(self._next):
            return self.due_s(self._next)
        # Nearer to the next deadline than to this one: that one is met, or two pictures would follow at once.
        while now_s >= self.due_s(self._next + 1) - 0.5 / self._fps:
            self._next += 1
            self.late += 1
        tick, self._next = self._next, self._next + 1
        taken, card = self._queue.take_due(tick), self.card
        if card is not None:
            self._canvas = card
            self.dropped += taken[-1] + 1 if taken is not None else 0
            self.held += 1
            self.held_in_a_row += 1
        elif taken is not None:
            self._frame, image, scene, skipped = taken
            self._canvas = self._compose(image, scene)
            self.dropped += skipped
            self.held_in_a_row = 0
            self._latencies_s[self.presented % _LATENCIES_KEPT] = now_s - self._clock.time_of_frame(
                self._frame, self._fps
            )
            self.presented += 1
        elif self._canvas is not None:
            self.held += 1
            self.held_in_a_row += 1
        if self._canvas is not None:
            self._present(PresentedFrame(image=self._canvas, tick=tick, frame=self._frame, due_s=self.due_s(tick)))
        return self.due_s(self._next)

    def latency_s(self) -> float:
        """Median time from the capture of a frame's first sample to its hand-over, over the last ten seconds."""
        count = min(self.presented, _LATENCIES_KEPT)
        return float(np.median(self._latencies_s[:count])) if count else 0.0
