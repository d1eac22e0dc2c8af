"""Feeds a generator from the timeline, chunk by chunk, and lets another take over between two chunks."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from engine.clock import Clock
from engine.errors import GeneratorError, StandinError
from engine.media import Notice, first_sample_of
from engine.stream.deadlines import Deadlines
from engine.stream.frame_queue import FrameQueue
from engine.stream.pace import ChunkTime, Pace
from engine.stream.sample_clock import SampleClock
from engine.stream.swap import Handover, Outdated, Retired, Scene, Swap
from engine.stream.timeline import Timeline

logger = logging.getLogger(__name__)

_LEAD_S = 0.3
"""Frames are made at most this long before they are due. It matters to a quick generator in a session whose delay is
that of a slow one: what it has made already, another one cannot make any more."""
_TAKE_OVER_MARGIN_S = 0.1
_CHUNKS_BETWEEN_RESTS = 8
_SWAP_TIMEOUT_S = 5.0
_SWAP_TIMEOUT_CHUNKS = 3
"""A swap waits for the end of the running chunk, and some cards need seconds for one."""


class GeneratorRunner:
    """The pure part is `step`; one thread calls it. `swap` may be called from any thread.

    A generator that cannot keep up does not fall further behind: sound whose frames could no longer be shown in time
    is skipped, counted in `skipped_samples`, and the next chunk is marked as discontinuous.

    With a standby, a generator that fails is replaced at once, from the first frame that it has not made; the standby
    is not closed when another scene takes over from it. What a generator wants to be told goes to `on_notice`.

    `on_pace` is told after each chunk how long it took; from there, in the generator's own thread, `economy` may be
    changed, `rest_s` be set, and the standby be asked to `stand_in`.
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
        on_pace: Callable[[Pace], None] | None = None,
    ) -> None:
        self._timeline = timeline
        self._queue = queue
        self._clock = clock
        self._deadlines = Deadlines(sample_clock, clock, delay_s)
        self._on_failure = on_failure
        self._on_notice = on_notice
        self._on_pace = on_pace
        self._standby = standby
        self._retired = Retired()
        self._handover = Handover(timeline.wake)
        self._lock = threading.Lock()
        self._is_discontinuous = True
        self._has_failed = False
        self._begins_anew = False
        self.next_frame = 0
        self.skipped_samples = 0
        self.recoveries = 0
        self.economy = 0
        """Which of a generator's cheaper ways its next chunk is made in, where it has as many."""
        self.rest_s = 0.0
        """Where above 0, chunks are made only to see how long they take: some, and then none for so long."""
        self._rest_until_s, self._since_rest = 0.0, 0
        self._take_over(scene)

    @property
    def scene(self) -> Scene:
        """What runs now."""
        return self._scene

    @property
    def delay_s(self) -> float:
        """From a sample to its presentation."""
        return self._deadlines.delay_s

    @property
    def generate_s(self) -> float:
        """What the next chunk is expected to take."""
        return self._chunk_time.expected_s

    @property
    def is_standing_in(self) -> bool:
        """Whether it is the standby that runs."""
        return self._standby is not None and self._scene is self._standby

    @property
    def needs_another(self) -> bool:
        """Whether the wanted generator does not run: its standby does, or nothing does any more."""
        return self._has_failed or self.is_standing_in

    @property
    def has_failed(self) -> bool:
        """Whether nothing runs: the last picture is held."""
        return self._has_failed

    def swap(
        self,
        scene: Scene | None = None,
        *,
        standby: Scene | None = None,
        is_same_generator: bool = False,
        keeps_replaced: bool = False,
        timeout_s: float | None = None,
    ) -> Scene | None:
        """Let prepared scenes take over at the next chunk (see `Swap`). Waits until they have; those that they replace
        are closed just after that, or returned with `keeps_replaced`. One caller at a time.

        Raises `GeneratorError` if the running chunk does not end in time (by default, what its pace demands and five
        seconds), `Outdated`, or `Cancelled` after `end`. Nothing has changed then, and the caller closes what it
        prepared."""
        swap = Swap(scene, standby, is_same_generator=is_same_generator, keeps_replaced=keeps_replaced)
        if timeout_s is None:
            timeout_s = _SWAP_TIMEOUT_S + _SWAP_TIMEOUT_CHUNKS * self.generate_s
        self._handover.ask(swap, timeout_s)
        return swap.replaced

    def end(self) -> None:
        """`step` is not called any more: whoever waits for a swap is told."""
        self._handover.end()

    def begin_anew(self) -> None:
        """Show nothing more of what has been made, or is being made: its sound has been silenced meanwhile. From any
        thread; the first frames that can still be in time are made of the sound as it is now."""
        with self._lock:
            self._begins_anew = True
            self._queue.discard()
        self._timeline.wake()

    def step(self) -> bool:
        """Make the next chunk if its sound is there; true if anything was done."""
        self._begin_anew_if_wanted()
        self._swap_if_wanted()
        if self._has_failed or self._rests():
            return False
        spec = self._scene.generator.spec.chunk
        self._catch_up(spec.fps, spec.frames)
        if not self._timeline.has(self.next_frame, spec) or self._too_early_s() > 0:
            return False
        return self._generate()

    def _begin_anew_if_wanted(self) -> None:
        with self._lock:
            if not self._begins_anew:
                return
            self._begins_anew = False
            self._queue.accept()
        ready = self._deadlines.first_after(self.generate_s, self._scene.generator.spec.chunk.fps)
        frame = max(ready, self._queue.last_frame + 1)
        self._is_discontinuous = True
        self.next_frame = min(frame, self.next_frame)  # `_catch_up` skips, and counts, what lies ahead

    def _generate(self) -> bool:
        """Make the chunk whose sound is there; always true."""
        spec = self._scene.generator.spec.chunk
        economy = min(self.economy, len(self._scene.generator.spec.economies))
        chunk = self._timeline.chunk(self.next_frame, spec, is_discontinuous=self._is_discontinuous, economy=economy)
        started_s = self._clock.now()
        try:
            self._scene.generator.generate(chunk, self._queue)
        except Exception as error:  # noqa: BLE001 - a generator may fail in any way; the session goes on
            self._fail(self._scene, error)
            return True
        self._is_discontinuous = False
        self.next_frame += spec.frames
        now_s = self._clock.now()
        took_s = now_s - started_s
        self._chunk_time.took(took_s, spec.frames / spec.fps)
        self._since_rest += 1
        if self._since_rest >= _CHUNKS_BETWEEN_RESTS:
            self._since_rest, self._rest_until_s = 0, now_s + self.rest_s
        self._tell()
        if self._on_pace is not None:
            is_standby = self.is_standing_in
            pace = self._deadlines.pace_of(
                self._scene, self.next_frame, is_standby=is_standby, economy=economy, took_s=took_s, at_s=now_s
            )
            self._on_pace(pace)
        return True

    def _rests(self) -> bool:
        """Whether nothing is to be made now: of a generator that is too slow for its picture to be of use, only so
        much is made as shows when it will not be any more."""
        return self.rest_s > 0 and self._clock.now() < self._rest_until_s

    def _too_early_s(self) -> float:
        """Seconds until the next chunk may be begun."""
        left_s = self._deadlines.left_s(self.next_frame, self._scene.generator.spec.chunk.fps)
        return left_s - self.generate_s - _LEAD_S

    def _tell(self) -> None:
        for notice in self._scene.generator.take_notices():
            self.recoveries += 1
            if self._on_notice is not None:
                self._on_notice(notice)

    def stand_in(self) -> Scene | None:
        """Let the standby make the picture from the next chunk on, though nothing has failed. Returns the scene that is
        replaced, prepared as it is and the caller's to close; None where there is no standby that could. Called from
        `on_pace`."""
        resting, standby = self._scene, self._standby
        if standby is None or self.is_standing_in or not self._put_on(standby):
            return None
        self._is_discontinuous = True
        self.next_frame = max(self.next_frame, self._queue.last_frame + 1)
        return resting

    def wait(self, timeout_s: float) -> None:
        """Wait until there may be something to do."""
        rest_s = self._rest_until_s - self._clock.now() if self.rest_s > 0 else 0.0
        if self._has_failed or rest_s > 0:
            timeout_s = min(timeout_s, rest_s) if rest_s > 0 else timeout_s
            self._timeline.wait(1 << 60, self._scene.generator.spec.chunk, timeout_s)
        elif (early_s := self._too_early_s()) > 0:
            self._timeline.wait(1 << 60, self._scene.generator.spec.chunk, min(early_s, timeout_s))
        else:
            self._timeline.wait(self.next_frame, self._scene.generator.spec.chunk, timeout_s)

    def close(self) -> None:
        """Close the generators; after the thread that calls `step` has ended."""
        self.end()
        self._retired.add(self._scene)
        if self._standby is not None:
            self._retired.add(self._standby)
        self._standby = None
        self._retired.close()

    def _swap_if_wanted(self) -> None:
        swap = self._handover.take()
        if swap is not None:
            if swap.is_outdated(self._scene.generator):
                swap.answer(Outdated("The generator failed meanwhile."))
            else:
                self._apply(swap)
                swap.answer()
        self._retired.close_beside()

    def _apply(self, swap: Swap) -> None:
        coming = swap.scene
        if swap.standby is not None:
            if self._standby is not None:
                self._retired.add(self._standby)
            if coming is None and self._scene is self._standby:
                coming = swap.standby
            self._standby = swap.standby
        if coming is None:
            return
        if coming.generator is self._scene.generator:
            self._take_over(coming)
            return
        self._bridge(coming)
        if swap.keeps_replaced and not self.is_standing_in:
            swap.replaced = self._scene
        elif self._standby is None or self._scene is not self._standby:
            self._retired.add(self._scene)
        self._take_over(coming)
        self._is_discontinuous = True
        self._has_failed = False

    def _bridge(self, coming: Scene) -> None:
        """Let the old generator make the frames that the coming one would be too late for. One that does not keep up
        itself would only lose more."""
        while not self._has_failed and self.next_frame < self._first_in_time(coming):
            spec = self._scene.generator.spec.chunk
            if not self._timeline.has(self.next_frame, spec) or self.generate_s >= spec.frames / spec.fps:
                break
            self._generate()

    def _first_in_time(self, coming: Scene) -> int:
        """The first frame that `coming` can have ready when it is due, if it begins now."""
        seconds = coming.first_frame_s + _TAKE_OVER_MARGIN_S
        return self._deadlines.first_after(seconds, coming.generator.spec.chunk.fps)

    def _take_over(self, scene: Scene) -> None:
        self._scene = scene
        self._chunk_time = ChunkTime(scene.generate_s)
        spec = scene.generator.spec
        self._queue.set_size(spec.width, spec.height)
        self._queue.scene = scene.canvas

    def _catch_up(self, fps: int, frames: int) -> None:
        """Skip to the first chunk whose frames can still be shown, once we are a chunk behind."""
        if -self._deadlines.left_s(self.next_frame, fps) <= max(frames, 2) / fps:
            return
        frame = max(self.next_frame + 1, self._deadlines.first_after(self.generate_s, fps))
        self._skip_to(max(frame, self._queue.last_frame + 1), fps)

    def _skip_to(self, frame: int, fps: int) -> None:
        self.skipped_samples += first_sample_of(frame, fps) - first_sample_of(self.next_frame, fps)
        self.next_frame = frame
        self._is_discontinuous = True

    def _fail(self, failed: Scene, error: Exception) -> None:
        if self._handover.has_ended:
            logger.info("the generator %s ended with the session", failed.generator.spec.name, exc_info=error)
            return
        logger.error("the generator %s failed", failed.generator.spec.name, exc_info=error)
        chunk = failed.generator.spec.chunk
        self._is_discontinuous = True
        if self._standby is not None and failed is not self._standby and self._stand_in(failed, self._standby):
            # Some frames of the chunk may have been made: they wait, or have been shown already.
            self.next_frame = max(self.next_frame, self._queue.last_frame + 1)
        else:
            self._has_failed = True
            # The same sound would fail the next generator, too.
            self._skip_to(self.next_frame + chunk.frames, chunk.fps)
        self._on_failure(as_generator_error(failed.generator.spec.name, error))

    def _stand_in(self, failed: Scene, standby: Scene) -> bool:
        """The standby goes on with the first frame that has not been made; false if it cannot, either."""
        if not self._put_on(standby):
            return False
        self._retired.add(failed)
        return True

    def _put_on(self, standby: Scene) -> bool:
        try:
            standby.generator.reset()
        except Exception:
            logger.exception("the standby %s cannot stand in", standby.generator.spec.name)
            return False
        self._take_over(standby)
        return True


def as_generator_error(name: str, error: Exception) -> StandinError:
    """The error itself if a person can read it, else one that says which generator stopped."""
    if isinstance(error, StandinError):
        return error
    return GeneratorError(
        f"The {name} generator stopped because of an internal error: {error}.",
        code="generator.internal",
        detail=repr(error),
    )
