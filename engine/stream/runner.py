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
from engine.media import SAMPLE_RATE_HZ, Notice, first_sample_of, frame_at
from engine.stream.frame_queue import FrameQueue
from engine.stream.sample_clock import SampleClock
from engine.stream.timeline import Timeline

logger = logging.getLogger(__name__)

_SLOWER_WEIGHT = 0.3
_FASTER_WEIGHT = 0.05
_LEAD_S = 0.3
"""Frames are made at most this long before they are due. It matters to a quick generator in a session whose delay is
that of a slow one: what it has made already, another one cannot make any more."""
_TAKE_OVER_MARGIN_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A prepared generator, what its frames are shown on (`canvas` travels with each frame), and how it did while it
    was warmed up: `generate_s` seconds per chunk, and `first_frame_s` seconds until its frames could be shown at their
    pace without waiting for one of them."""

    generator: Generator
    canvas: Any
    generate_s: float = 0.0
    first_frame_s: float = 0.0


class GeneratorRunner:
    """The pure part is `step`; one thread calls it. `swap` may be called from any thread.

    A generator that cannot keep up does not fall further behind: sound whose frames could no longer be shown in time
    is skipped, counted in `skipped_samples`, and the next chunk is marked as discontinuous.

    With a standby, a generator that fails is replaced at once, from the first frame that it has not made; the standby
    is not closed when another scene takes over from it. What a generator wants to be told goes to `on_notice`.
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
        on_notice: Callable[[Notice], None] | None = None,
        standby: Scene | None = None,
    ) -> None:
        self._timeline = timeline
        self._queue = queue
        self._sample_clock = sample_clock
        self._clock = clock
        self._on_failure = on_failure
        self._on_notice = on_notice
        self._standby = standby
        self._retired: list[Generator] = []
        self._lock = threading.Lock()
        self._pending: Scene | None = None
        self._swapped = threading.Event()
        self._is_discontinuous = True
        self._has_failed = False
        self.delay_s = delay_s
        self.next_frame = 0
        self.generate_s = 0.0
        self.skipped_samples = 0
        self.recoveries = 0
        self._take_over(scene)

    @property
    def scene(self) -> Scene:
        """What runs now."""
        return self._scene

    @property
    def is_standing_in(self) -> bool:
        """Whether it is the standby that runs."""
        return self._standby is not None and self._scene is self._standby

    @property
    def needs_another(self) -> bool:
        """Whether the wanted generator does not run: its standby does, or nothing does any more."""
        return self._has_failed or self.is_standing_in

    def replace_standby(self, scene: Scene) -> None:
        """Another standby, which also takes over where the old one is running."""
        with self._lock:
            old, self._standby = self._standby, scene
            if old is not None:
                self._retired.append(old.generator)
            is_running = self._scene is old
        if is_running:
            self.swap(scene)

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
        if not self._timeline.has(self.next_frame, spec) or self._too_early_s() > 0:
            return False
        return self._generate()

    def _generate(self) -> bool:
        """Make the chunk whose sound is there; always true."""
        spec = self._scene.generator.spec.chunk
        chunk = self._timeline.chunk(self.next_frame, spec, is_discontinuous=self._is_discontinuous)
        started_s = self._clock.now()
        try:
            self._scene.generator.generate(chunk, self._queue)
        except Exception as error:  # noqa: BLE001 - a generator may fail in any way; the session goes on
            self._fail(error)
            return True
        self._is_discontinuous = False
        self.next_frame += spec.frames
        self._measure(self._clock.now() - started_s)
        self._tell()
        return True

    def _too_early_s(self) -> float:
        """Seconds until the next chunk may be begun."""
        due_s = self._sample_clock.time_of_frame(self.next_frame, self._scene.generator.spec.chunk.fps) + self.delay_s
        return due_s - self.generate_s - _LEAD_S - self._clock.now()

    def _tell(self) -> None:
        for notice in self._scene.generator.take_notices():
            self.recoveries += 1
            if self._on_notice is not None:
                self._on_notice(notice)

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to do."""
        if self._has_failed:
            self._timeline.wait(1 << 60, self._scene.generator.spec.chunk, timeout_s)
        elif (early_s := self._too_early_s()) > 0:
            self._timeline.wait(1 << 60, self._scene.generator.spec.chunk, min(early_s, timeout_s))
        else:
            self._timeline.wait(self.next_frame, self._scene.generator.spec.chunk, timeout_s)

    def close(self) -> None:
        """Close the generators; after the thread that calls `step` has ended."""
        with self._lock:
            scenes = [self._scene, self._pending, self._standby]
            self._pending = self._standby = None
        for generator in {id(scene.generator): scene.generator for scene in scenes if scene is not None}.values():
            generator.close()
        self._close_retired()

    def _swap_if_wanted(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is None:
            self._close_retired()
            return
        old = self._scene.generator
        if old is not pending.generator:
            self._bridge(pending)
        self._take_over(pending)
        if old is not pending.generator:
            self._is_discontinuous = True
            self._has_failed = False
            if self._standby is None or old is not self._standby.generator:
                self._retired.append(old)
        self._swapped.set()
        self._close_retired()

    def _bridge(self, coming: Scene) -> None:
        """Let the old generator make the frames that the coming one would be too late for."""
        fps = coming.generator.spec.chunk.fps
        ready_s = self._clock.now() + coming.first_frame_s + _TAKE_OVER_MARGIN_S
        target = frame_at(max(0, self._sample_clock.sample_at(ready_s - self.delay_s)), fps) + 1
        while self.next_frame < target and not self._has_failed:
            if not self._timeline.has(self.next_frame, self._scene.generator.spec.chunk):
                break
            self._generate()

    def _close_retired(self) -> None:
        retired, self._retired = self._retired, []
        for generator in retired:
            if generator is not self._scene.generator:
                generator.close()

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
        failed = self._scene.generator
        logger.error("the generator %s failed", failed.spec.name, exc_info=error)
        if not isinstance(error, StandinError):
            error = GeneratorError(
                f"The {failed.spec.name} generator stopped because of an internal error: {error}.",
                code="generator.internal",
                detail=repr(error),
            )
        if self._standby is None or self._scene is self._standby:
            # Some of its frames may wait already, and the same sound would fail the next generator, too.
            self._skip_to(self.next_frame + failed.spec.chunk.frames, failed.spec.chunk.fps)
            self._has_failed = True
        else:
            self._stand_in(failed)
        self._on_failure(error)

    def _stand_in(self, failed: Generator) -> None:
        """The standby goes on with the first frame that has not been made."""
        assert self._standby is not None
        newest = self._queue.newest()
        if newest is not None:
            self.next_frame = max(self.next_frame, newest + 1)
        self._standby.generator.reset()
        self._take_over(self._standby)
        self._is_discontinuous = True
        self._retired.append(failed)


def needed_delay_s(frames: int, fps: int, lookahead_samples: int, first_frame_s: float, capture_s: float) -> float:
    """Seconds from a sample to its presentation that a generator needs at least: its chunk must have been said and
    heard (`capture_s`), its look-ahead too, and its frames come at their pace; plus a margin for a busy machine."""
    margin_s = max(0.010, 0.25 * first_frame_s)
    return frames / fps + lookahead_samples / SAMPLE_RATE_HZ + capture_s + first_frame_s + margin_s
