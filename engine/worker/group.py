"""The ranks of one group as the engine sees them: started together, asked together, ended together."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import GeneratorError, StandinError
from engine.generators.base import FrameWriter, GeneratorSpec, Progress
from engine.media import SAMPLE_RATE_HZ, AudioChunk, Notice, Portrait
from engine.worker import faults
from engine.worker.channel import Channel, LineClosed
from engine.worker.launcher import AwaitedRanks, Launch, LocalRanks
from engine.worker.memory import PortraitMemory, SlotMemory
from engine.worker.messages import (
    WIRE_VERSION,
    Credit,
    Discard,
    Done,
    Exit,
    Fault,
    FrameReady,
    Generate,
    Hello,
    Open,
    Opened,
    Prepare,
    Refused,
    Reset,
    Working,
    fault_of,
    notices_from_data,
    portrait_data,
)

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1
_TELL_EVERY_S = 0.25
_START_S = 180.0
_SILENT_S = 40.0
"""While a stream is prepared, rank 0 speaks at least once a second, and gives up on another one after 30."""
_REASON_S = 1.0
_LEAVE_S = 3.0
_LEAST_PATIENCE_S = 4.0
_PATIENCE = 4.0
"""A frame that takes this many times the longest that one has taken will not come."""


@dataclass(frozen=True, kw_only=True)
class GroupSettings:
    """What makes a group: two streams with equal settings share one. `options` are the generator's own as JSON.

    `ranks` processes are started here on `gpus` (as in CUDA_VISIBLE_DEVICES, empty for all); or torchrun's come to
    the socket `ranks_at`. A collective may take `timeout_s`, and `load_timeout_s` while a model is loaded.
    """

    generator: str
    seed: int
    fps: int
    options: tuple[tuple[str, Any], ...]
    spec: GeneratorSpec
    ranks: int = 1
    gpus: str = ""
    ranks_at: str = ""
    timeout_s: float = 20.0
    load_timeout_s: float = 1800.0


class RankProcesses:
    """One group. Any thread may ask, also while another one waits for its answer; chunks are made one after the other.

    After a failure it is of no more use: `is_usable` is false, everything it had is given back, and the next
    preparation makes another.
    """

    def __init__(self, settings: GroupSettings) -> None:
        self.settings = settings
        self.is_usable = True
        self._launch: Launch | None = None
        self._channel: Channel | None = None
        self._memory: SlotMemory | None = None
        self._starting, self._chunk_turn = threading.Lock(), threading.Lock()
        self._guard = threading.RLock()  # of the memory, and of what is changed by more than one thread
        self._number = 0
        self._waiting: dict[int, queue.SimpleQueue[Any]] = {}
        self._unwanted: list[int] = []
        self._preparing = 0
        self._warm: set[int] = set()
        self._longest_s = 0.0
        self._heard_s = 0.0
        self._fault: Fault | None = None
        self._is_lost = threading.Event()
        self._reader: threading.Thread | None = None
        self._ending: threading.Thread | None = None

    @property
    def pids(self) -> dict[int, int]:
        """Process numbers by rank, of ranks that were started here."""
        return dict(self._launch.pids) if isinstance(self._launch, LocalRanks) else {}

    def prepare(self, stream: int, portrait: Portrait, size: tuple[int, int], progress: Progress) -> list[Notice]:
        """Start the ranks unless they run, and begin a stream in all of them. Raises what a rank raised,
        `GeneratorError`, or `Cancelled` from `progress`; all of that ends the group, unless rank 0 alone has refused
        the portrait of a further stream."""
        teller = _Teller(progress, Working(stage="ranks", done=0.0, total=float(self.settings.ranks), unit="ranks"))
        with self._ending_on_error():
            with _held(self._starting, teller.tell):
                if self._channel is None:
                    self._start(teller)
            pixels = PortraitMemory(portrait)
            self._preparing += 1
            try:
                command = Prepare(
                    number=self._next_number(),
                    stream=stream,
                    portrait=portrait_data(portrait),
                    memory=pixels.name,
                    size=size,
                )
                return self._ask(command, lambda: _SILENT_S, teller)
            finally:
                self._preparing -= 1
                pixels.close()

    def generate(self, stream: int, chunk: AudioChunk, frames: FrameWriter) -> list[Notice]:
        """One chunk: each frame goes into `frames` as it comes. Raises `GeneratorError` or what a rank raised."""
        with self._ending_on_error(), _held(self._chunk_turn, self._check_usable):
            with self._guard:
                self._check_usable()
                assert self._memory is not None
                samples = self._memory.put_samples(np.asarray(chunk.samples, np.float32))
            command = Generate(
                number=self._next_number(),
                stream=stream,
                first_frame=chunk.first_frame,
                frames=chunk.frames,
                first_sample=chunk.first_sample,
                samples=samples,
                is_discontinuous=chunk.is_discontinuous,
                economy=chunk.economy,
            )
            is_first = stream not in self._warm  # it may compile, and tells nothing about the next ones
            notices = self._ask(command, lambda: self._patience_s(is_first), None, frames, is_measured=not is_first)
            self._warm.add(stream)
            return notices

    def reset(self, stream: int) -> None:
        """The stream begins anew."""
        with self._ending_on_error(), _held(self._chunk_turn, self._check_usable):
            self._ask(Reset(number=self._next_number(), stream=stream), lambda: self._patience_s(is_first=False))

    def discard(self, stream: int) -> None:
        """The ranks need not keep this stream; they are told with the next command. Never waits."""
        with self._guard:
            self._unwanted.append(stream)

    def close(self) -> None:
        """End the ranks: at once if they are at work, else in their own order. Waits until nothing is left; safe to
        call twice and from any thread."""
        with self._guard:
            is_idle = self.is_usable and self._channel is not None and not self._waiting
        if is_idle:
            with contextlib.suppress(StandinError):
                self._send(Exit(number=self._next_number()))
                self._is_lost.wait(_LEAVE_S)
        self._end()
        self.wait_ended()

    def wait_ended(self) -> None:
        """Until nothing is left of a group that has failed or is being closed."""
        for thread in (self._reader, self._ending):
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    # ------------------------------------------------------------------------------------------------------- starting

    def _start(self, teller: _Teller) -> None:
        settings, spec = self.settings, self.settings.spec
        with self._guard:
            self._check_usable()
            launch = self._launch = self._launched()
        channel = self._line(teller, launch)
        samples = -(-SAMPLE_RATE_HZ * (spec.chunk.frames + 1) // spec.chunk.fps) + spec.chunk.lookahead_samples
        # A whole chunk, so that rank 0 never waits for the engine inside one.
        form: dict[str, Any] = {
            "width": spec.width,
            "height": spec.height,
            "slots": spec.chunk.frames,
            "samples": samples,
        }
        with self._guard:
            if not self.is_usable:
                channel.close()
            self._check_usable()
            memory = self._memory = SlotMemory(**form)
            self._channel = channel
            self._reader = threading.Thread(target=self._listen, args=(channel,), name="ranks-line", daemon=True)
            self._reader.start()
        command = Open(
            number=self._next_number(),
            generator=settings.generator,
            seed=settings.seed,
            fps=settings.fps,
            options=dict(settings.options),
            memory=memory.name,
            **form,
        )
        self._ask(command, lambda: _START_S, teller)
        memory.forget_name()

    def _launched(self) -> Launch:
        settings = self.settings
        if settings.ranks_at:
            return AwaitedRanks(settings.ranks_at)
        return LocalRanks(
            ranks=settings.ranks,
            gpus=settings.gpus,
            timeout_s=settings.timeout_s,
            load_timeout_s=settings.load_timeout_s,
        )

    def _line(self, teller: _Teller, launch: Launch) -> Channel:
        """The line to rank 0, once all ranks have found each other."""
        wait_s = self.settings.load_timeout_s if self.settings.ranks_at else _START_S
        deadline_s = time.monotonic() + wait_s
        channel: Channel | None = None
        try:
            while channel is None or not channel.poll(_LOOK_EVERY_S):
                self._check(deadline_s, wait_s)
                teller.tell()
                channel = channel or launch.wait(_LOOK_EVERY_S)
            hello = self._first_of(channel)
        except BaseException:
            if channel is not None:
                channel.close()
            raise
        logger.info("%d ranks have started", hello.ranks)
        return channel

    def _first_of(self, channel: Channel) -> Hello:
        try:
            hello = channel.receive()
        except LineClosed:
            raise self._explained(None) from None
        if isinstance(hello, Fault):
            raise self._explained(hello)
        if not isinstance(hello, Hello) or hello.version != WIRE_VERSION:
            raise GeneratorError(
                "The ranks are of another version of Standin.",
                code="worker.version",
                hint="Install the same version everywhere.",
            )
        return hello

    # ----------------------------------------------------------------------------------------------- questions, answers

    def _ask(
        self,
        command: Any,
        limit_s: Callable[[], float],
        teller: _Teller | None = None,
        frames: FrameWriter | None = None,
        *,
        is_measured: bool = False,
    ) -> list[Notice]:
        """Give rank 0 a command and take what comes until it is carried out."""
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._guard:
            self._waiting[command.number] = answers
        try:
            self._send_unwanted()
            self._send(command)
            began_s = heard_s = time.monotonic()
            while True:
                if teller is not None:
                    teller.tell()
                message = self._next_answer(answers, lambda: max(began_s, self._heard_s) + limit_s(), limit_s)
                if message is None:
                    continue
                now_s = time.monotonic()
                if is_measured and not self._preparing:
                    self._longest_s = max(self._longest_s, now_s - heard_s)
                heard_s = now_s
                if isinstance(message, Done | Opened):
                    return notices_from_data(message.notices) if isinstance(message, Done) else []
                self._take(message, frames, teller)
        finally:
            with self._guard:
                del self._waiting[command.number]

    def _next_answer(
        self, answers: queue.SimpleQueue[Any], deadline_s: Callable[[], float], limit_s: Callable[[], float]
    ) -> Any:
        """The next message, None if there is none yet. Raises what has happened to the ranks, once all that they had
        sent before has been taken: frames that were finished are shown."""
        try:
            return answers.get(timeout=_LOOK_EVERY_S)
        except queue.Empty:
            pass
        try:
            self._check(deadline_s(), limit_s())
        except StandinError:
            if answers.empty():
                raise
            return answers.get()
        return None

    def _take(self, message: Any, frames: FrameWriter | None, teller: _Teller | None) -> None:
        if isinstance(message, Refused):
            raise _Refusal(message.fault.as_error())
        if isinstance(message, Working) and teller is not None:
            teller.now = message
        elif isinstance(message, FrameReady) and frames is not None:
            image = frames.next_image()
            with self._guard:
                self._check_usable()
                assert self._memory is not None
                np.copyto(image, self._memory.picture(message.slot))
            frames.commit(message.frame)
            assert self._channel is not None
            with contextlib.suppress(LineClosed):  # what that means is found out when nothing more has come
                self._channel.send(Credit(slot=message.slot))

    def _listen(self, channel: Channel) -> None:
        """Hand out what comes; the thread that reads is the one that hangs up."""
        try:
            while self.is_usable:
                if not channel.poll(_LOOK_EVERY_S):
                    continue
                message = channel.receive()
                self._heard_s = time.monotonic()
                if isinstance(message, Fault):
                    self._fault = message
                    break
                self._hand_out(message)
        except LineClosed:
            pass
        except StandinError as error:
            self._fault = fault_of(error)
        finally:
            self._is_lost.set()
            channel.close()

    def _hand_out(self, message: Any) -> None:
        with self._guard:
            if isinstance(message, Working):
                for answers in self._waiting.values():
                    answers.put(message)
            elif message.number in self._waiting:
                self._waiting[message.number].put(message)

    def _patience_s(self, is_first: bool) -> float:
        if is_first:
            return self.settings.load_timeout_s
        usual_s = min(max(_LEAST_PATIENCE_S, _PATIENCE * self._longest_s), self.settings.timeout_s)
        return max(usual_s, _SILENT_S) if self._preparing else usual_s

    def _next_number(self) -> int:
        with self._guard:
            self._number += 1
            return self._number

    def _send_unwanted(self) -> None:
        with self._guard:
            unwanted, self._unwanted = self._unwanted, []
        for stream in unwanted:
            self._send(Discard(number=self._next_number(), stream=stream))

    def _send(self, message: Any) -> None:
        assert self._channel is not None
        try:
            self._channel.send(message)
        except LineClosed:
            raise self._explained(None) from None

    def _check_usable(self) -> None:
        if not self.is_usable:
            raise GeneratorError("The ranks have been stopped.", code="worker.stopped")

    def _check(self, deadline_s: float, limit_s: float) -> None:
        """Raises if there is nothing to wait for any more."""
        self._check_usable()
        if self._is_lost.is_set():
            raise self._explained(self._fault)
        fault = self._launch.fault() if self._launch is not None else None
        if fault is not None:
            if self._reader is not None:
                self._is_lost.wait(_REASON_S)  # until all has been read that came before the end
            raise fault.as_error()
        if time.monotonic() > deadline_s:
            raise faults.hangs(limit_s)

    def _explained(self, fault: Fault | None) -> StandinError:
        """The best explanation: a rank's own words, what its process ended with, or only that it is gone."""
        self._check_usable()
        assert self._launch is not None
        fault = fault or self._fault
        known = [fault] if fault is not None else []
        if fault is None or fault.is_consequence:
            told = self._launch.wait_fault(_REASON_S)
            known = [told, *known] if told is not None else known
        cause = faults.cause_of(known)
        if cause is None:
            return GeneratorError("The connection to the ranks was lost.", code="worker.rank_lost")
        return cause.as_error()

    # ---------------------------------------------------------------------------------------------------------- ending

    @contextlib.contextmanager
    def _ending_on_error(self) -> Iterator[None]:
        try:
            yield
        except _Refusal as refusal:
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
            self.is_usable = False
            if self._memory is not None:
                self._memory.close()
            if self._launch is not None:
                self._ending = threading.Thread(target=self._launch.end, name="ranks-end")
                self._ending.start()


class _Refusal(Exception):
    """Rank 0 has refused a portrait before the others heard of it; the group goes on."""

    def __init__(self, error: StandinError) -> None:
        super().__init__(str(error))
        self.error = error


class _Teller:
    """Repeats the latest progress: that is also how work is cancelled about which there is no news."""

    def __init__(self, progress: Progress, now: Working) -> None:
        self._progress = progress
        self._told_s = 0.0
        self.now = now

    def tell(self) -> None:
        now_s = time.monotonic()
        if now_s - self._told_s < _TELL_EVERY_S:
            return
        self._told_s = now_s
        self._progress.update(self.now.stage, self.now.done, self.now.total, self.now.unit)


@contextlib.contextmanager
def _held(lock: threading.Lock, look: Callable[[], None]) -> Iterator[None]:
    """Take `lock`, and `look` again and again while that takes time."""
    while not lock.acquire(timeout=_LOOK_EVERY_S):
        look()
    try:
        yield
    finally:
        lock.release()
