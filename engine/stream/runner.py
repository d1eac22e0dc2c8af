"""Feeds a generator from the timeline, chunk by chunk, and lets another take over between two chunks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.clock import Clock
from engine.errors import GeneratorError, StandinError
from engine.generators.base import Generator
from engine.media import SAMPLE_RATE_HZ, first_sample_of, frame_at
from engine.stream.frame_queue import FrameQueue
from engine.stream.sample_clock import SampleClock
from engine.stream.timeline import Timeline

logger = logging.getLogger(__name__)

_SLOWER_WEIGHT = 0.3
_FASTER_WEIGHT = 0.05


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A prepared generator, what its frames are shown on (`canvas` travels with each frame), and how many seconds it
    took per chunk while it was warmed up."""

    generator: Generator
    canvas: Any
    generate_s: float = 0.0


class GeneratorRunner:
    """The pure part is `step`; one thread calls it. `swap` may be called from any thread.

    A generator that cannot keep up does not fall further behind: sound whose frames could no longer be shown in time
    is skipped, counted in `skipped_samples`, and the next chunk is marked as discontinuous.
    """

    def __init__(
        self,
        scene: Scene,
        timeline: Timeline,
        queue: FrameQueue,
        sample_clock: SampleClock,
        clock: Clock,
        *,
        delay_s: float,
        on_failure: Callable[[StandinError], None],
    ) -> None:
        self._timeline = timeline
        self._queue = queue
        self._sample_clock = sample_clock
        self._clock = clock
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._pending: Scene | None = None
        self._swapped = threading.Event()
        self._is_discontinuous = True
        self._has_failed = False
        self.delay_s = delay_s
        self.next_frame = 0
        self.generate_s = 0.0
        self.skipped_samples = 0
        self._take_over(scene)

    @property
    def scene(self) -> Scene:
        """What runs now."""
        return self._scene

    def swap(self, scene: Scene, timeout_s: float = 5.0) -> None:
        """Let a prepared scene take over at the next chunk; the old generator is closed. Waits until it has.

        Raises `GeneratorError` if the running chunk does not end in time."""
        with self._lock:
            self._pending = scene
            self._swapped.clear()
        self._timeline.wake()
        if self._swapped.wait(timeout_s):
            return
        with self._lock:
            if self._pending is not scene:
                return  # being taken over at this moment
            self._pending = None  # the caller closes it: it must not take over later
        raise GeneratorError(
            f"The new portrait could not take over within {timeout_s:g} seconds.", code="generator.busy"
        )

    def step(self) -> bool:
        """Make the next chunk if its sound is there; true if anything was done."""
        self._swap_if_wanted()
        if self._has_failed:
            return False
        spec = self._scene.generator.spec.chunk
        self._catch_up(spec.fps, spec.frames)
        if not self._timeline.has(self.next_frame, spec):
            return False
        chunk = self._timeline.chunk(self.next_frame, spec, is_discontinuous=self._is_discontinuous)
        started_s = self._clock.now()
        try:
            self._scene.generator.generate(chunk, self._queue)
        except Exception as error:  # noqa: BLE001 - a generator may fail in any way; the session goes on
            # Some of its frames may wait already, and the same sound would fail the next generator, too.
            self._skip_to(self.next_frame + spec.frames, spec.fps)
            self._fail(error)
            return True
        self._is_discontinuous = False
        self.next_frame += spec.frames
        self._measure(self._clock.now() - started_s)
        return True

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to do."""
        if self._has_failed:
            self._timeline.wait(1 << 60, self._scene.generator.spec.chunk, timeout_s)
        else:
            self._timeline.wait(self.next_frame, self._scene.generator.spec.chunk, timeout_s)

    def close(self) -> None:
        """Close the generators; after the thread that calls `step` has ended."""
        self._scene.generator.close()
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is not None and pending.generator is not self._scene.generator:
            pending.generator.close()

    def _swap_if_wanted(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is None:
            return
        old = self._scene.generator
        self._take_over(pending)
        if old is not pending.generator:
            self._is_discontinuous = True
            self._has_failed = False
            old.close()
        self._swapped.set()

    def _take_over(self, scene: Scene) -> None:
        self._scene = scene
        self.generate_s = scene.generate_s
        spec = scene.generator.spec
        self._queue.set_size(spec.width, spec.height)
        self._queue.scene = scene.canvas

    def _catch_up(self, fps: int, frames: int) -> None:
        """Skip to the first chunk whose frames can still be shown, once we are a chunk behind."""
        lateness_s = self._clock.now() - self.delay_s - self._sample_clock.time_of_frame(self.next_frame, fps)
        if lateness_s <= max(frames, 2) / fps:
            return
        ready_s = self._clock.now() + self.generate_s - self.delay_s
        frame = max(self.next_frame + 1, frame_at(max(0, self._sample_clock.sample_at(ready_s)), fps) + 1)
        newest = self._queue.newest()
        if newest is not None:
            frame = max(frame, newest + 1)
        self._skip_to(frame, fps)

    def _skip_to(self, frame: int, fps: int) -> None:
        self.skipped_samples += first_sample_of(frame, fps) - first_sample_of(self.next_frame, fps)
        self.next_frame = frame
        self._is_discontinuous = True

    def _measure(self, took_s: float) -> None:
        """Follow slow chunks quickly and fast ones slowly: skipping should aim at what is safe."""
        weight = _SLOWER_WEIGHT if took_s > self.generate_s else _FASTER_WEIGHT
        self.generate_s += weight * (took_s - self.generate_s)

    def _fail(self, error: Exception) -> None:
        self._has_failed = True
        logger.error("the generator %s failed", self._scene.generator.spec.name, exc_info=error)
        if not isinstance(error, StandinError):
            error = GeneratorError(
                f"The {self._scene.generator.spec.name} generator stopped because of an internal error: {error}.",
                code="generator.internal",
                detail=repr(error),
            )
        self._on_failure(error)


def needed_delay_s(frames: int, fps: int, lookahead_samples: int, generate_s: float, capture_s: float) -> float:
    """Seconds from a sample to its presentation that a generator needs at least: its chunk must have been said and
    heard (`capture_s`), its look-ahead too, and the frames be made; plus a margin for a busy machine."""
    margin_s = max(0.010, 0.25 * generate_s)
    return frames / fps + lookahead_samples / SAMPLE_RATE_HZ + capture_s + generate_s + margin_s
