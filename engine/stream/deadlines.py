"""When frames are due, which of them can still be in time, and the delay that a session needs for that."""

from __future__ import annotations

import math

from engine.clock import Clock
from engine.media import SAMPLE_RATE_HZ, ChunkSpec, frame_at
from engine.stream.pace import Pace
from engine.stream.sample_clock import SampleClock
from engine.stream.swap import Scene
from engine.stream.timeline import CAPTURE_S


class Deadlines:
    """Of one session: a frame is due `delay_s` after its sound. From any thread."""

    def __init__(self, sample_clock: SampleClock, clock: Clock, delay_s: float) -> None:
        self.delay_s = delay_s
        self._sample_clock, self._clock = sample_clock, clock

    def left_s(self, frame: int, fps: int) -> float:
        """Seconds until `frame` is due; below 0, it was due so long ago."""
        return self._sample_clock.time_of_frame(frame, fps) + self.delay_s - self._clock.now()

    def first_after(self, seconds: float, fps: int) -> int:
        """The first frame that is not due before so many seconds have passed."""
        ready_s = self._clock.now() + seconds - self.delay_s
        return frame_at(max(0, self._sample_clock.sample_at(ready_s)), fps) + 1

    def pace_of(
        self, scene: Scene, next_frame: int, *, is_standby: bool, economy: int, took_s: float, at_s: float
    ) -> Pace:
        """How a chunk of `scene` went that took `took_s` until `at_s` (monotonic), and of which economy. The next one
        begins with `next_frame`, and can be made when its sound will be there."""
        spec = scene.generator.spec.chunk
        heard_s = _heard_s(spec, CAPTURE_S)
        next_s = self._sample_clock.time_of_frame(next_frame, spec.fps)
        share = scene.first_frame_s / scene.generate_s if scene.generate_s > 0 else 1.0
        return Pace(
            is_standby=is_standby,
            economy=economy,
            took_s=took_s,
            margin_s=next_s + self.delay_s - max(at_s, next_s + heard_s) - share * took_s,
            # Frames that come one by one are late by less than one of them, which nobody sees.
            in_time_s=(self.delay_s - heard_s) / share if spec.frames > 1 and share > 0 else math.inf,
            at_s=at_s,
        )


def needed_delay_s(spec: ChunkSpec, first_frame_s: float, capture_s: float) -> float:
    """Seconds from a sample to its presentation that a generator needs at least: its chunk must have been said and
    heard (`capture_s`), its look-ahead too, and its frames come at their pace; plus a margin for a busy machine."""
    return _heard_s(spec, capture_s) + first_frame_s + max(0.010, 0.25 * first_frame_s)


def _heard_s(spec: ChunkSpec, capture_s: float) -> float:
    """From the beginning of a chunk until all that it needs has been heard."""
    return spec.frames / spec.fps + spec.lookahead_samples / SAMPLE_RATE_HZ + capture_s
