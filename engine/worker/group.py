"""The ranks of one group as the engine sees them: started together, asked together, ended together."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from engine.errors import Cancelled, StandinError
from engine.generators.base import FrameWriter, Progress
from engine.media import SAMPLE_RATE_HZ, AudioChunk, Notice, Portrait
from engine.worker.dialogue import Dialogue, Refusal
from engine.worker.fate import Fate
from engine.worker.group_settings import GroupSettings
from engine.worker.launcher import LocalRanks
from engine.worker.memory import PortraitMemory, SlotMemory
from engine.worker.messages import Credit, Exit, FrameReady, Generate, Open, Prepare, Reset, Working, portrait_data
from engine.worker.starting import START_S, launched, line_to_ranks

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1
_TELL_EVERY_S = 0.25
_SILENT_S = 40.0
"""While a stream is prepared and makes its first chunk, rank 0 speaks at least once a second, and gives up on another
rank after 30."""
_LEAVE_S = 3.0
_LEAST_PATIENCE_S = 4.0
_PATIENCE, _LEAST_OF_LONGEST = 4.0, 2.0
"""A frame that takes this many times the longest that one has taken will not come. `timeout_s` may make that fewer
times, but never so few that a GPU which is only slow is given up."""


class RankProcesses:
    """One group. Any thread may ask, also while another one waits for its answer; chunks are made one after the other.

    After a failure it is of no more use: `is_usable` is false, everything it had is given back, and the next
    preparation makes another.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self.settings = settings
        self._fate = Fate()
        self._dialogue: Dialogue | None = None
        self._memory: SlotMemory | None = None
        self._starting, self._chunk_turn = threading.Lock(), threading.Lock()
        self._guard = threading.RLock()  # of the memory, and of what begins and ends
        self._preparing = 0
        self._prepared: set[int] = set()
        self._warm: set[tuple[int, int]] = set()
        self._longest_s = self._first_chunk_s = 0.0
        self._ending: threading.Thread | None = None

    @property
    def is_usable(self) -> bool:
        """Until it has failed or is closed."""
        return self._fate.is_usable

    @property
    def pids(self) -> dict[int, int]:
        """Process numbers by rank, of ranks that were started here."""
        launch = self._fate.launch
        return dict(launch.pids) if isinstance(launch, LocalRanks) else {}

    def prepare(self, stream: int, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Start the ranks unless they run, and begin a stream in all of them. Raises what a rank raised,
        `GeneratorError`, or `Cancelled` from `progress`; all of that ends the group, unless another stream is
        prepared: then this one can be refused or cancelled, and the other goes on."""
        teller = _Teller(progress, Working(stage="ranks", done=0.0, total=float(self.settings.ranks), unit="ranks"))
        with self._ending_on_error():
            with _held(self._starting, teller.tell):
                dialogue = self._dialogue or self._start(teller)
            pixels = PortraitMemory(portrait)
            self._preparing += 1
            try:
                command = Prepare(
                    number=dialogue.next_number(),
                    stream=stream,
                    portrait=portrait_data(portrait),
                    memory=pixels.name,
                    size=size,
                )
                notices = dialogue.ask(command, lambda: _SILENT_S, teller.take, tell=teller.tell)
                self._prepared.add(stream)
                return notices
            except Cancelled as cancelled:
                if not self._prepared:
                    raise
                dialogue.withdraw(stream)
                raise Refusal(cancelled) from None
            finally:
                self._preparing -= 1
                pixels.close()

    def generate(self, stream: int, chunk: AudioChunk, frames: FrameWriter) -> list[Notice]:
        """One chunk: each frame goes into `frames` as it comes. Raises `GeneratorError` or what a rank raised."""
        with self._ending_on_error(), _held(self._chunk_turn, self._fate.check_usable):
            dialogue = self._begun()
            with self._guard:
                self._fate.check_usable()
                assert self._memory is not None
                samples = self._memory.put_samples(np.asarray(chunk.samples, np.float32))
            command = Generate(
                number=dialogue.next_number(),
                stream=stream,
                first_frame=chunk.first_frame,
                frames=chunk.frames,
                first_sample=chunk.first_sample,
                samples=samples,
                is_discontinuous=chunk.is_discontinuous,
                economy=chunk.economy,
            )
            kind = (stream, chunk.economy)
            is_first = kind not in self._warm  # it may compile, and tells nothing about the next ones
            began_s = time.monotonic()
            notices = dialogue.ask(
                command,
                lambda: _SILENT_S if is_first else self._patience_s(),
                lambda message: self._take(message, frames),
                heard_after=None if is_first else self._measure,
            )
            if is_first:
                self._first_chunk_s = max(self._first_chunk_s, time.monotonic() - began_s)
            self._warm.add(kind)
            return notices

    def reset(self, stream: int) -> None:
        """The stream begins anew."""
        with self._ending_on_error(), _held(self._chunk_turn, self._fate.check_usable):
            dialogue = self._begun()
            dialogue.ask(Reset(number=dialogue.next_number(), stream=stream), self._patience_s, lambda message: None)

    def discard(self, stream: int) -> None:
        """The ranks need not keep this stream; they are told with the next command. Never waits."""
        self._prepared.discard(stream)
        if self._dialogue is not None:
            self._dialogue.discard(stream)

    def close(self) -> None:
        """End the ranks: at once if they are at work, else in their own order. Waits until nothing is left; safe to
        call twice and from any thread."""
        dialogue = self._dialogue
        with self._guard:
            is_idle = self.is_usable and dialogue is not None and dialogue.is_idle
        if is_idle and dialogue is not None:
            with contextlib.suppress(StandinError):
                dialogue.send(Exit(number=dialogue.next_number()))
                self._fate.is_lost.wait(_LEAVE_S)
        self._end()
        self.wait_ended()

    def wait_ended(self) -> None:
        """Until nothing is left of a group that has failed or is being closed."""
        if self._dialogue is not None:
            self._dialogue.join()
        if self._ending is not None and self._ending is not threading.current_thread():
            self._ending.join()

    # ------------------------------------------------------------------------------------------------------- starting

    def _start(self, teller: _Teller) -> Dialogue:
        settings, fate = self.settings, self._fate
        with self._guard:
            fate.check_usable()
            launch = fate.launch = launched(settings)
        channel = line_to_ranks(settings, launch, fate, teller.tell)
        form = _form(settings)
        with self._guard:
            if not fate.is_usable:
                channel.close()
            fate.check_usable()
            memory = self._memory = SlotMemory(**form)
            dialogue = self._dialogue = Dialogue(channel, fate)
        command = Open(
            number=dialogue.next_number(),
            generator=settings.generator,
            seed=settings.seed,
            fps=settings.fps,
            options=dict(settings.options),
            memory=memory.name,
            **form,
        )
        dialogue.ask(command, lambda: START_S, teller.take, tell=teller.tell)
        memory.forget_name()
        return dialogue

    def _begun(self) -> Dialogue:
        self._fate.check_usable()
        assert self._dialogue is not None, "prepare comes first"
        return self._dialogue

    # --------------------------------------------------------------------------------------------------------- frames

    def _take(self, message: Any, frames: FrameWriter) -> None:
        if not isinstance(message, FrameReady):
            return
        image = frames.next_image()
        with self._guard:
            self._fate.check_usable()
            assert self._memory is not None
            np.copyto(image, self._memory.picture(message.slot))
        frames.commit(message.frame)
        assert self._dialogue is not None
        self._dialogue.try_to_send(Credit(slot=message.slot))

    def _measure(self, seconds: float) -> None:
        if not self._preparing:
            self._longest_s = max(self._longest_s, seconds)

    def _patience_s(self) -> float:
        """How long a chunk, or the next frame of one, may take. Until one has been measured that compiles nothing any
        more, the first one is what is known of this computer's pace."""
        limit_s = self.settings.timeout_s
        if not self._longest_s:
            return max(limit_s, _LEAST_OF_LONGEST * self._first_chunk_s)
        limit_s = max(limit_s, _LEAST_OF_LONGEST * self._longest_s)
        usual_s = min(max(_LEAST_PATIENCE_S, _PATIENCE * self._longest_s), limit_s)
        return limit_s if self._preparing else usual_s

    # ---------------------------------------------------------------------------------------------------------- ending

    @contextlib.contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except Refusal as refusal:
            raise refusal.error from None
        except BaseException as error:
            # Whatever it was, some ranks may be in the middle of something.
            if self.is_usable:
                logger.info("the ranks are ended: %r %s", error, getattr(error, "detail", ""))
            self._end()
            raise

    def _end(self) -> None:
        """Give everything back; what takes time is done by a thread, because somebody waits for the next picture."""
        with self._guard:
            if not self.is_usable:
                return
            self._fate.is_usable = False
            if self._memory is not None:
                self._memory.close()
            if self._fate.launch is not None:
                self._ending = threading.Thread(target=self._fate.launch.end, name="ranks-end")
                self._ending.start()


def _form(settings: GroupSettings) -> dict[str, Any]:
    """Of the shared memory: a whole chunk, so that rank 0 never waits for the engine inside one."""
    spec = settings.spec
    samples = -(-SAMPLE_RATE_HZ * (spec.chunk.frames + 1) // spec.chunk.fps) + spec.chunk.lookahead_samples
    return {"width": spec.width, "height": spec.height, "slots": spec.chunk.frames, "samples": samples}


class _Teller:
    """Repeats the latest progress: that is also how work is cancelled about which there is no news."""

    def __init__(self, progress: Progress, now: Working) -> None:
        self._progress, self._now = progress, now
        self._told_s = 0.0

    def take(self, message: Any) -> None:
        """News, if it is any."""
        if isinstance(message, Working):
            self._now = message

    def tell(self) -> None:
        """Once more, if it is time."""
        now_s = time.monotonic()
        if now_s - self._told_s < _TELL_EVERY_S:
            return
        self._told_s = now_s
        self._progress.update(self._now.stage, self._now.done, self._now.total, self._now.unit)


@contextlib.contextmanager
def _held(lock: threading.Lock, look: Callable[[], None]) -> Iterator[None]:
    """Take `lock`, and `look` again and again while that takes time."""
    while not lock.acquire(timeout=_LOOK_EVERY_S):
        look()
    try:
        yield
    finally:
        lock.release()
